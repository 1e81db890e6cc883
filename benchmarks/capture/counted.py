"""What a reader's process counts, and how the process that started it sees it end."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

END = "end of the workload"  # comment of the row behind a workload


class Counter:
    """Counts rows as they are delivered.

    The first row starts the clock, and the last third is the warm part. The row behind the last
    one must be the one that ends the workload: then `whole` is True, and all is over.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.count = 0
        self.bytes = 0
        self.whole: bool | None = None
        self._marks: list[tuple[int, float, float]] = []
        self._due = rows * 2 // 3

    def add(self, value: bytes) -> None:
        """Count one row more."""
        if self.count == 0:
            self.mark()
        self.count += 1
        self.bytes += len(value)
        if self.count < self._due:
            return
        if self.count > self.rows:
            if self.whole is None:
                self.whole = END.encode() in value
            return
        self.mark()
        self._due = self.rows if self.count < self.rows else self.rows + 1

    def reached(self, count: int) -> bool:
        """Note that so many rows are done, without a look at them; tell whether that is all."""
        self.count = count
        while self.count >= self._due and self._due <= self.rows:
            self.mark()
            self._due = self.rows if self._due < self.rows else self.rows + 1
        return count >= self.rows

    def mark(self) -> None:
        """Note the rows so far, the time, and the CPU seconds of this process."""
        self._marks.append((self.count, time.monotonic(), time.process_time()))

    def tell(self, **more: Any) -> None:
        """Print what was counted, for the process that started this one."""
        counted = {"marks": self._marks, "whole": self.whole, "bytes": self.bytes, **more}
        print(json.dumps(counted), flush=True)


class Run(NamedTuple):
    """What one reader took for one workload.

    CPU is in user and system seconds per 100,000 rows: `cpu` of the whole process from its start
    to its end, `cpu_reading` from the first row to the last.
    """

    rows_per_s: float
    warm_rows_per_s: float
    cpu: float
    cpu_reading: float
    warm_cpu: float
    rss_mb: float
    bytes_per_row: float
    more: dict[str, Any]


def run(command: Sequence[str], rows: int) -> Run:
    """Run a reader and measure it. Raises SystemExit when it did not deliver exactly its rows."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
        counted = json.loads(lines[-1]) if lines else {}
        if child.returncode or not counted.get("whole"):
            err.seek(0)
            log = err.read()[-3000:]
            raise SystemExit(f"{' '.join(command)}\n{log}\nnot exactly {rows} rows: {counted}")
    (first, began, cpu_0), (two_thirds, warm, cpu_1), (last, ended, cpu_2) = counted.pop("marks")
    per = 100_000 / last
    return Run(
        rows_per_s=(last - first) / (ended - began),
        warm_rows_per_s=(last - two_thirds) / (ended - warm),
        cpu=(used.ru_utime + used.ru_stime) * per,
        cpu_reading=(cpu_2 - cpu_0) * per,
        warm_cpu=(cpu_2 - cpu_1) * 100_000 / (last - two_thirds),
        rss_mb=used.ru_maxrss / 1024,
        bytes_per_row=counted.pop("bytes") / last,
        more=counted,
    )
