"""``make bench-capture``: every reader on every workload, in turns.

It shows medians, and prints ratios as the last line. ROUNDS (3) and ROWS (400000) make it shorter;
PARTS=readers,kafka,latency leaves parts out.
"""

import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.capture import debezium, kafka
from benchmarks.capture.counted import Run, run
from benchmarks.capture.workload import FLAGS, Workload, prepare, written
from dev.stack import MariaDB

ROUNDS = int(os.environ.get("ROUNDS") or 3)
ROWS = int(os.environ.get("ROWS") or 400_000)
PARTS = (os.environ.get("PARTS") or "readers,kafka,latency").split(",")
# The library asks the server for the columns at each transaction: its speed is known long before
# the end.
LIBRARY_ROWS = 20_000
console = Console(stderr=True, width=150)
Runs = dict[tuple[str, str], list[Run]]


def main() -> None:
    """Run the parts that PARTS names, and print one line of JSON."""
    with tempfile.TemporaryDirectory() as folder, MariaDB(folder, flags=FLAGS) as server:
        console.print(
            f"writing the workloads: {ROWS} rows one by one, {ROWS} in bulk, {ROWS // 4} updates"
        )
        prepare(server)
        workloads = [
            written(server, "one_row", ROWS, "one_by_one"),
            written(server, "bulk", ROWS, "in_bulk"),
            written(server, "update", ROWS // 4, "updates"),
        ]
        result: dict[str, Any] = {"rounds": ROUNDS, "rows": ROWS, "debezium": debezium.VERSION}
        if "readers" in PARTS:
            result |= _readers(server.port, workloads)
        if "kafka" in PARTS:
            result["kafka"] = kafka.throughput(server, workloads[:2], ROUNDS, console.print)
        if "latency" in PARTS:
            result["latency_ms"] = kafka.latency(server)
    print(json.dumps(result))


def _readers(port: int, workloads: list[Workload]) -> dict[str, Any]:
    debezium.compiled()
    runs: Runs = defaultdict(list)
    for number in range(ROUNDS):
        for workload in workloads:
            for reader in ("ours", "debezium", "library"):
                with _command(reader, port, workload) as command:
                    runs[reader, workload.name].append(run(command, workload.rows))
                last = runs[reader, workload.name][-1]
                speed = f"{last.rows_per_s:.0f} rows/s, CPU {last.cpu:.2f}"
                console.print(f"round {number + 1} {workload.name} {reader}: {speed}")
    medians = {key: _median(rounds) for key, rounds in runs.items()}
    _show(medians)
    raw = {}
    for (reader, workload_name), median in medians.items():
        raw[f"{workload_name} {reader}"] = _rounded(median)
    return {"ratios": _ratios(medians), "raw": raw}


@contextmanager
def _command(reader: str, port: int, workload: Workload) -> Iterator[list[str]]:
    """Yield the command of a reader that reads the workload once."""
    place = [str(port), str(workload.rows), workload.file, str(workload.pos)]
    if reader == "debezium":
        with debezium.command(port, workload) as command:
            yield command
    elif reader == "library":
        module = ["-W", "ignore", "-m", "benchmarks.capture.library"]
        yield [sys.executable, *module, *place, str(LIBRARY_ROWS)]
    else:
        yield [sys.executable, "-m", "benchmarks.capture.ours", *place]


def _median(runs: list[Run]) -> Run:
    """Return the median of each measure; `more`, the last field, has none."""
    columns = zip(*(run[:-1] for run in runs), strict=True)
    return Run(*map(statistics.median, columns), {})


def _rounded(run: Run) -> dict[str, float]:
    return {name: round(value, 2) for name, value in run._asdict().items() if name != "more"}


def _ratios(medians: dict[tuple[str, str], Run]) -> dict[str, float]:
    """Return our measures divided by the others'."""
    ratios: dict[str, float] = {}
    for workload in ("one_row", "bulk", "update"):
        ours = medians["ours", workload]
        for other in ("debezium", "library"):
            peer = medians[other, workload]
            ratios[f"{workload}_rows_per_s_vs_{other}"] = ours.rows_per_s / peer.rows_per_s
            ratios[f"{workload}_warm_rows_per_s_vs_{other}"] = (
                ours.warm_rows_per_s / peer.warm_rows_per_s
            )
            ratios[f"{workload}_cpu_vs_{other}"] = ours.cpu / peer.cpu
            ratios[f"{workload}_cpu_reading_vs_{other}"] = ours.cpu_reading / peer.cpu_reading
            ratios[f"{workload}_rss_vs_{other}"] = ours.rss_mb / peer.rss_mb
    return {name: round(value, 3) for name, value in ratios.items()}


def _show(medians: dict[tuple[str, str], Run]) -> None:
    names = ["rows/s", "warm", "CPU s/100k", "reading", "warm", "RSS MB", "bytes/row"]
    table = Table("workload", "reader", *names, title=f"medians of {ROUNDS} rounds")
    for (reader, workload), median in sorted(medians.items(), key=lambda item: item[0][1]):
        table.add_row(workload, reader, *(f"{value:,.2f}" for value in median[:-1]))
    console.print(table)


if __name__ == "__main__":
    main()
