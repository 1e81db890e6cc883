"""Asks for the operators' numbers again and again, and keeps an hour of them for the charts."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import structlog

from passport.errors import PassportError
from portal.chart import line

log = structlog.get_logger()

Row = dict[str, Any]
Collect = Callable[[], Sequence[Row]]
KEPT_S = 3_600


@dataclass(frozen=True, slots=True)
class Sample:
    """The point that one hospital had reached at `at`, in Unix seconds.

    `applied` is the offset up to which records are applied. `lag` is how many records wait.
    """

    at: float
    applied: int
    lag: int


class StatusHistory:
    """Calls `collect` in a thread of its own, every `every_s` seconds.

    `collect` returns what `passport status --json` prints: one row for each hospital. `rows` are
    the last ones, and `at` is the Unix time of them. `problem` says why there are none that are
    newer; it is empty if there are.
    """

    def __init__(self, collect: Collect, every_s: float) -> None:
        self._collect = collect
        self._every_s = every_s
        sample_count = max(2, int(KEPT_S / every_s))
        self._samples: dict[str, deque[Sample]] = defaultdict(lambda: deque(maxlen=sample_count))
        self._stop = threading.Event()
        self.rows: Sequence[Row] = ()
        self.at: float | None = None
        self.problem = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name="status history", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except PassportError as error:
                self.problem = str(error)
                log.warning(
                    "the operators' numbers can't be had now", reason=error.reason, hint=error.hint
                )
            self._stop.wait(self._every_s)

    def look(self) -> None:
        """Ask for the numbers once. Raises PassportError when they can't be had."""
        rows = self._collect()
        now = time.time()
        for row in rows:
            sample = Sample(now, row["applied_offset"] or 0, row["lag_records"])
            self._samples[row["hospital"]].append(sample)
        self.rows = rows
        self.at = now
        self.problem = ""

    def charts(self, hospital: str) -> dict[str, Any]:
        """Return the lines of `lag` and of `rate` (records a second).

        Each has its newest and its highest number, too.
        """
        samples = list(self._samples[hospital])
        lags = [float(sample.lag) for sample in samples]
        return {"lag": _drawn(lags), "rate": _drawn(rates(samples))}


def rates(samples: Sequence[Sample]) -> list[float]:
    """Return how many records were applied a second, between each two samples."""
    # An offset may go back, after a restore: that is no negative rate.
    return [
        max(0.0, (after.applied - before.applied) / (after.at - before.at))
        for before, after in pairwise(samples)
    ]


def _drawn(values: Sequence[float]) -> Row | None:
    if len(values) < 2:
        return None
    return {"line": line(values), "now": values[-1], "most": max(values)}
