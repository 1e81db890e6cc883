"""The load budget: slows a job down to what its hospital's server may be asked for."""

import threading
import time
from collections.abc import Callable

from passport.settings import LoadBudget

# Work of the server for one row, in rows fetched (measured: hashing 230,000 rows/s, looking at two dates 5,000,000).
FETCHED, HASHED, SCANNED = 1.0, 0.15, 0.01


class Pace:
    """`spend` after each query: returns when the next one may be sent, or at once when `stop` is set.

    `tick` is called by each `spend`, and every second while it waits.
    """

    def __init__(self, budget: LoadBudget, stop: threading.Event, tick: Callable[[], None] = lambda: None) -> None:
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
