"""The operators' numbers: asked for again and again, the last hour kept for the charts."""

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
    """What one hospital had reached at `at` (Unix seconds)."""

    at: float
    applied: int
    lag: int


class Board:
    """`collect` gives what `passport status --json` prints. `rows`: the last ones; `problem`: why
    none are newer.
    """

    def __init__(self, collect: Collect, every_s: float) -> None:
        self._collect, self._every_s = collect, every_s
        kept = max(2, int(KEPT_S / every_s))
        self._samples: dict[str, deque[Sample]] = defaultdict(lambda: deque(maxlen=kept))
        self._stop = threading.Event()
        self.rows: Sequence[Row] = ()
        self.at: float | None = None
        self.problem = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name="board", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except PassportError as error:
                self.problem = str(error)
                log.warning("the operators' numbers can't be had now", reason=type(error).__name__)
            self._stop.wait(self._every_s)

    def look(self) -> None:
        """Once. PassportError."""
        rows, now = self._collect(), time.time()
        for row in rows:
            self._samples[row["hospital"]].append(
                Sample(now, row["applied_offset"] or 0, row["lag_records"])
            )
        self.rows, self.at, self.problem = rows, now, ""

    def charts(self, hospital: str) -> dict[str, Any]:
        """`lag` and `rate` (records a second) as polylines, with their newest and highest numbers."""
        samples = list(self._samples[hospital])
        lags = [float(one.lag) for one in samples]
        return {"lag": _drawn(lags), "rate": _drawn(rates(samples))}


def rates(samples: Sequence[Sample]) -> list[float]:
    """Records applied a second between each two samples."""
    pairs = pairwise(samples)
    return [
        max(0.0, (after.applied - before.applied) / (after.at - before.at))
        for before, after in pairs
    ]


def _drawn(values: Sequence[float]) -> Row | None:
    if len(values) < 2:
        return None
    return {"line": line(values), "now": values[-1], "most": max(values)}
