"""What a run cost and how late its records were."""

import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from destinations.mongo.projection.obs import record_id
from dev import hospital as generator
from tests.e2e.stage import Hospital, Stage
from tests.eventually import eventually

TICK = os.sysconf("SC_CLK_TCK")
RATE = 100  # transactions of one obs a second
WARM_S = 5
POLL_S = 0.2
QUIET_S = 1.0
# Sections of serverStatus that would cost the measured server more than they tell.
COSTLY = (
    "wiredTiger",
    "metrics",
    "tcmalloc",
    "locks",
    "repl",
    "transactions",
    "tenantMigrations",
    "mirroredReads",
)
Database_ = Database[dict[str, Any]]


def cpu(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the seconds of CPU that each process has used."""
    used = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) / TICK
    return used


def peak_rss_mb(pid: int) -> float:
    """Return the most memory that the process ever had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return round(int(status["VmHWM"].split()[0]) / 1024, 1)


def per_100k(seconds: float, rows: int) -> float:
    """Return the cost of 100,000 rows, when `rows` of them cost so many seconds of CPU."""
    return round(seconds * 100_000 / rows, 1)


def until_still(
    stage: Stage,
    rows: int,
    deadline_s: float,
    written: Callable[[], Any],
    counted: Callable[[], int],
) -> float:
    """Wait until `counted` says `rows` and `written` does not change any more.

    Return the moment of its last change (monotonic seconds). Raises AssertionError after
    `deadline_s`.
    """
    began = time.monotonic()
    last_change = began
    before: Any = None
    while time.monotonic() - began < deadline_s:
        now_written = written()
        if now_written != before:
            last_change = time.monotonic()
            before = now_written
        elif time.monotonic() - last_change > QUIET_S and counted() >= rows:
            return last_change
        time.sleep(POLL_S)
    raise AssertionError(
        f"{counted()} of {rows} rows after {deadline_s} s:\n{stage.said()[-2000:]}"
    )


def until_shown(stage: Stage, rows: int, deadline_s: float) -> float:
    """Wait until the Passport has `rows` in its mirror and stands still; return that moment.

    Updates do not count: an idle consumer goes on with its bookkeeping in `progress`.
    """

    def mirrored() -> int:
        return stage.db["observations"].estimated_document_count()

    def written() -> tuple[int, ...]:
        records = stage.db["medicalrecords"].estimated_document_count()
        audits = stage.db["auditlogs"].estimated_document_count()
        counts = operations(stage)
        return mirrored(), records, audits, counts["insert"], counts["delete"]

    return until_still(stage, rows, deadline_s, written, mirrored)


def operations(stage: Stage) -> dict[str, int]:
    """Return MongoDB's inserts, updates and deletes so far."""
    status = stage.client.admin.command("serverStatus", **dict.fromkeys(COSTLY, 0))
    counters = status["opcounters"]
    return {kind: counters[kind] for kind in ("insert", "update", "delete")}


class Clock:
    """Times from a commit until `medicalrecords.find({patientId})` has the record.

    The change stream wakes us, and the find decides.
    """

    def __init__(self, stage: Stage, hospital: Hospital) -> None:
        self._db: Database_ = stage.db
        self._hospital = hospital
        self._committed: dict[ObjectId, float] = {}
        self._found: dict[ObjectId, float] = {}
        self._stream = self._db["medicalrecords"].watch(
            [
                {"$match": {"operationType": "insert"}},
                {"$project": {"documentKey": 1, "fullDocument.patientId": 1}},
            ],
            max_await_time_ms=1_000,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="clock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)
        self._stream.close()

    def run(self, seconds: float) -> dict[str, float]:
        """Commit RATE one-row transactions a second, in an open loop; return percentiles in ms."""
        with self._hospital.connect() as connection:
            people = [person for person, _ in generator.registrable(connection)]
            with connection.cursor() as cursor:
                cursor.execute("SELECT concept_id FROM concept_name WHERE name = 'Pulse' LIMIT 1")
                ((pulse,),) = cursor.fetchall()
                measured: list[ObjectId] = []
                began = time.monotonic()
                for number in range(round(RATE * (seconds + WARM_S))):
                    time.sleep(max(0.0, began + number / RATE - time.monotonic()))
                    key = self._insert(cursor, people[number % len(people)], pulse, number)
                    if number >= RATE * WARM_S:
                        measured.append(key)
        return self._percentiles(measured)

    def _insert(self, cursor: Any, person: int, concept: int, number: int) -> ObjectId:
        name = str(uuid.uuid4())
        cursor.execute(
            "INSERT INTO obs (person_id, concept_id, obs_datetime, value_numeric, creator,"
            " date_created, voided, uuid) VALUES (%s, %s, NOW(), %s, 1, NOW(), 0, %s)",
            (person, concept, 60 + number % 40, name),
        )
        key = record_id(self._hospital.key, name)
        self._committed[key] = time.monotonic()
        return key

    def _watch(self) -> None:
        while not self._ended.is_set():
            change = self._stream.try_next()
            if change is None:
                continue
            key = change["documentKey"]["_id"]
            patient = change["fullDocument"]["patientId"]
            if self._db["medicalrecords"].find_one({"patientId": patient, "_id": key}, {"_id": 1}):
                self._found[key] = time.monotonic()

    def _percentiles(self, keys: Sequence[ObjectId]) -> dict[str, float]:
        eventually(
            lambda: all(key in self._found for key in keys), "every committed record is found", 30
        )
        ms = [(self._found[key] - self._committed[key]) * 1000 for key in keys]
        cuts = statistics.quantiles(ms, n=100)
        picked = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(ms)}
        return {name: round(value, 1) for name, value in picked.items()}


def busy() -> float:
    """Return the CPU seconds that everything on this machine has used."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(fields[index]) for index in (0, 1, 2, 5, 6, 7)) / TICK
