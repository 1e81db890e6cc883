"""The way through to acknowledged records of a real broker.

It is measured in rows/s and CPU, and in how long a commit takes to be acknowledged.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from benchmarks.capture.counted import Run, run
from benchmarks.capture.workload import Workload, end_of_workload
from dev.stack import Kafka, MariaDB

PER_SECOND = 50  # commits
SECONDS = 20
WARM_UP = 5  # seconds that are not measured
_JVM = ("-Xmx1g",)  # the whole compiler, as in production
_CHILD = [sys.executable, "-m", "benchmarks.capture.to_kafka"]
_ROW = (
    "INSERT INTO obs"
    " (person_id, concept_id, obs_datetime, date_created, value_numeric, uuid, comments)"
    " VALUES (1, 5089, '2024-01-01', '2024-01-01', 61.5, uuid(), %s)"
)


def throughput(
    server: MariaDB, workloads: Sequence[Workload], rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Return medians by "workload client".

    CPU is that of the reader's process, with its client's threads.
    """
    clients = ["kafka-python"]
    if importlib.util.find_spec("confluent_kafka"):
        clients.append("confluent")
    runs: dict[str, list[Run]] = defaultdict(list)
    for _ in range(rounds):
        for workload in workloads:
            for client in clients:
                with tempfile.TemporaryDirectory() as folder, Kafka(folder, jvm=_JVM) as broker:
                    place = [str(workload.rows), workload.file, str(workload.pos)]
                    command = [*_CHILD, "throughput", client, str(server.port), broker.url, *place]
                    last = run(command, workload.rows)
                name = f"{workload.name} {client}"
                say(f"acknowledged {name}: {last.rows_per_s:.0f} rows/s, CPU {last.cpu:.2f}")
                runs[name].append(last)
    return {name: _medians(rounds) for name, rounds in runs.items()}


def _medians(rounds: Sequence[Run]) -> dict[str, float]:
    medians = {
        "rows_per_s": statistics.median(run.rows_per_s for run in rounds),
        "warm_rows_per_s": statistics.median(run.warm_rows_per_s for run in rounds),
        "cpu": statistics.median(run.cpu for run in rounds),
        "cpu_reading": statistics.median(run.cpu_reading for run in rounds),
        "rss_mb": statistics.median(run.rss_mb for run in rounds),
    }
    return {name: round(value, 2) for name, value in medians.items()}


def latency(server: MariaDB) -> dict[str, float]:
    """Return milliseconds from COMMIT's return to the acknowledgement, at 50 commits a second."""
    with tempfile.TemporaryDirectory() as folder, Kafka(folder, jvm=_JVM) as broker:
        command = [*_CHILD, "latency", "kafka-python", str(server.port), broker.url]
        with tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
            committed = _commits(server)
            out, _ = child.communicate(timeout=60)
            err.seek(0)
            if child.returncode or not out:
                raise SystemExit(f"latency: {err.read()[-3000:]}")
    times = json.loads(out.splitlines()[-1])
    sent = {int(number): at for number, at in times["sent"].items()}
    acked = {int(number): at for number, at in times["acked"].items()}
    first = PER_SECOND * WARM_UP
    measured = [number for number in committed if number >= first]
    missing = [number for number in measured if number not in acked]
    if missing:
        raise SystemExit(f"latency: {len(missing)} rows were not acknowledged")
    whole = sorted((acked[n] - committed[n]) * 1000 for n in measured)
    to_kafka = sorted((acked[n] - sent[n]) * 1000 for n in measured)
    return {
        "p50": _at(whole, 0.5),
        "p95": _at(whole, 0.95),
        "p99": _at(whole, 0.99),
        "max": _at(whole, 1),
        "kafka_p50": _at(to_kafka, 0.5),
        "kafka_p99": _at(to_kafka, 0.99),
    }


def _commits(server: MariaDB) -> dict[int, float]:
    """Commit rows with the numbers 0, 1, 2 ..., and return when each commit returned."""
    returned: dict[int, float] = {}
    with server.connect(database="openmrs") as connection, connection.cursor() as cursor:
        time.sleep(6)  # the reader starts at the binlog's end, which nobody moves meanwhile
        began = time.monotonic()
        for number in range(PER_SECOND * (WARM_UP + SECONDS)):
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            cursor.execute(_ROW, (str(number),))
            returned[number] = time.monotonic()
        end_of_workload(cursor)
    return returned


def _at(ordered: Sequence[float], share: float) -> float:
    index = min(len(ordered) - 1, int(len(ordered) * share))
    return round(ordered[index], 2)
