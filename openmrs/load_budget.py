"""The load budget: what a job may ask of its hospital's server, and in which hours."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from passport.settings import LoadBudget

# Work of the server for one row, in rows fetched (measured: hashing 230,000 rows/s, looking at two
# dates 5,000,000).
FETCHED, HASHED, SCANNED = 1.0, 0.15, 0.01


class Pace:
    """`spend` after each query: returns when the next one may be sent, or at once when `stop` is
    set.

    `tick` is called by each `spend`, and every second while it waits.
    """

    def __init__(
        self, budget: LoadBudget, stop: threading.Event, tick: Callable[[], None] = lambda: None
    ) -> None:
        self._budget = budget
        self._stop = stop
        self._tick = tick
        self._next = time.monotonic()
        self.spent = 0.0

    def rows(self, cost: float, most: int) -> int:
        """How many rows of this cost one query may ask for: a second's work, `most` of them."""
        return max(1, min(most, int(self._budget.rows_per_s / cost)))

    def spend(self, rows: float) -> None:
        """`rows`: as fetched ones."""
        self.spent += rows
        cost = max(rows / self._budget.rows_per_s, 1 / self._budget.queries_per_s)
        # The time that the query itself took counts, a pause long ago doesn't.
        self._next = max(self._next + cost, time.monotonic() - 1)
        self._tick()
        while not self._stop.is_set() and (delay := self._next - time.monotonic()) > 0:
            self._stop.wait(min(delay, 1))
            self._tick()


def closed_s(hours: str | None, now: datetime) -> float:
    """Seconds until `hours` ("22:00-05:00", the wall time of `now`) begin; 0 within them. As long
    as a day: always.
    """
    if hours is None:
        return 0.0
    begin, end = (timedelta(hours=int(one[:2]), minutes=int(one[3:])) for one in hours.split("-"))
    day, clock = timedelta(days=1), now - now.replace(hour=0, minute=0, second=0, microsecond=0)
    open_for = (end - begin) % day or day
    return 0.0 if (clock - begin) % day < open_for else ((begin - clock) % day).total_seconds()
