"""Through to acknowledged records of a real broker: rows/s and CPU, and how long a commit takes to
be acknowledged.
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

from benchmarks.capture.counted import run
from benchmarks.capture.workload import Workload, end_of_workload
from dev.stack import Kafka, MariaDB

PER_SECOND, SECONDS, WARM_UP = 50, 20, 5
_JVM = ("-Xmx1g",)  # the whole compiler, as in production
_CHILD = [sys.executable, "-m", "benchmarks.capture.to_kafka"]
_ROW = (
    "INSERT INTO obs (person_id, concept_id, obs_datetime, date_created, value_numeric, uuid, comments)"
    " VALUES (1, 5089, '2024-01-01', '2024-01-01', 61.5, uuid(), %s)"
)


def throughput(
    server: MariaDB, workloads: Sequence[Workload], rounds: int, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """By workload and client: medians, CPU of the reader's process with its client's threads."""
    clients = [
        "kafka-python",
        *(["confluent"] if importlib.util.find_spec("confluent_kafka") else []),
    ]
    found = defaultdict(list)
    for _ in range(rounds):
        for workload in workloads:
            for client in clients:
                with tempfile.TemporaryDirectory() as folder, Kafka(folder, jvm=_JVM) as broker:
                    place = [str(workload.rows), workload.file, str(workload.pos)]
                    command = [*_CHILD, "throughput", client, str(server.port), broker.url, *place]
                    one = run(command, workload.rows)
                say(
                    f"acknowledged {workload.name} {client}: {one.rows_per_s:.0f} rows/s, CPU {one.cpu:.2f}"
                )
                found[f"{workload.name} {client}"].append(one)
    names = ("rows_per_s", "warm_rows_per_s", "cpu", "cpu_reading", "rss_mb")
    return {
        key: {n: round(statistics.median(getattr(r, n) for r in runs), 2) for n in names}
        for key, runs in found.items()
    }


def latency(server: MariaDB) -> dict[str, float]:
    """Milliseconds from COMMIT's return to the acknowledgement, at 50 commits a second."""
    with tempfile.TemporaryDirectory() as folder, Kafka(folder, jvm=_JVM) as broker:
        command = [*_CHILD, "latency", "kafka-python", str(server.port), broker.url]
        with tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
            committed = _commits(server)
            out, _ = child.communicate(timeout=60)
            err.seek(0)
            if child.returncode or not out:
                raise SystemExit(f"latency: {err.read()[-3000:]}")
    told = json.loads(out.splitlines()[-1])
    sent, acked = (
        {int(key): value for key, value in told[name].items()} for name in ("sent", "acked")
    )
    first = PER_SECOND * WARM_UP
    measured = [number for number in committed if number >= first]
    if missing := [number for number in measured if number not in acked]:
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
    """When each commit returned."""
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
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)
