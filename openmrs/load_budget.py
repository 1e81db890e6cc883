"""The load budget: how much a job may ask of its hospital's server, and in which hours.

Everything that reads a hospital keeps to a pace: snapshots, backfills, polling, comparing,
verifying and re-enrichment. There are two kinds of it. A job that runs beside a stream asks a
`Pace` how long it has to wait, and does other work meanwhile. A job that has nothing else to do
uses a `WaitingPace`, which waits by itself.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from passport.settings import LoadBudget

# The server's work for one row, where fetching a row is 1. Measured: a server hashes 230,000
# rows/s, and looks at two dates of 5,000,000 rows/s.
FETCHED = 1.0
HASHED = 0.15
SCANNED = 0.01

MOST_CREDIT_S = 1.0
TICK_S = 1.0


class Pace:
    """Counts what a job has read, and says how long it must wait until its next query.

    `clock` gives seconds that never go back.
    """

    def __init__(self, budget: LoadBudget, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._next_at = clock()
        self.spent = 0.0
        """All that was read so far, in fetched rows."""

    def most_rows(self, cost: float, limit: int) -> int:
        """Return how many rows of this cost one query may ask for: `limit`, or a second's work."""
        return max(1, min(limit, int(self._budget.rows_per_s / cost)))

    def begin(self) -> None:
        """Note that a query begins now.

        The time that the query takes then counts as waiting, but no time before it does. Without
        this, up to MOST_CREDIT_S seconds in which nothing was read may be caught up on.
        """
        self._next_at = max(self._next_at, self._clock())

    def count(self, rows: float, queries: int = 1) -> None:
        """Count what was read just now. `rows` are fetched ones: multiply others by their cost."""
        self.spent += rows
        cost_s = max(rows / self._budget.rows_per_s, queries / self._budget.queries_per_s)
        self._next_at = max(self._next_at + cost_s, self._clock() - MOST_CREDIT_S)

    def wait_s(self) -> float:
        """Return the seconds until the next query may be sent, 0 if it may be sent now."""
        return max(0.0, self._next_at - self._clock())


class WaitingPace(Pace):
    """The pace of a job that does nothing but read.

    `tick` is called after each query, and every second while it waits. A lease is kept that way.
    """

    def __init__(
        self, budget: LoadBudget, stop: threading.Event, tick: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(budget)
        self._stop = stop
        self._tick = tick

    def spend(self, rows: float) -> None:
        """Count what one query has read. Wait until the next one may be sent, or until `stop`."""
        self.count(rows)
        self._tick()
        while not self._stop.is_set() and (delay_s := self.wait_s()) > 0:
            self._stop.wait(min(delay_s, TICK_S))
            self._tick()


def closed_s(hours: str | None, now: datetime) -> float:
    """Return the seconds until `hours` begin, 0 if `now` is within them.

    `hours` are such as "22:00-05:00", in the wall time of `now`. Hours that begin when they end, as
    "00:00-00:00", last the whole day. None means that there is no limit.
    """
    if hours is None:
        return 0.0
    first, last = hours.split("-")
    day = timedelta(days=1)
    begin = _since_midnight(first)
    length = (_since_midnight(last) - begin) % day or day
    clock = now - now.replace(hour=0, minute=0, second=0, microsecond=0)
    is_open = (clock - begin) % day < length
    return 0.0 if is_open else ((begin - clock) % day).total_seconds()


def _since_midnight(clock: str) -> timedelta:
    hours, minutes = clock.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))
