"""The load budget: how much a job may ask of its hospital's server, and in which hours.

Everything that reads a hospital keeps to a pace: snapshots, backfills, polling, comparing,
verifying, re-enrichment, an erasure and a cut-over. There are two kinds of it. A job that runs
beside a stream asks a `Pace` how long it has to wait, and does other work meanwhile. A job that has
nothing else to do uses a `WaitingPace`, which waits by itself.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from openmrs.load_share import LoadShare
from passport.settings import LoadBudget

# The server's work for one row, where fetching a row is 1. Measured: a server hashes 230,000
# rows/s, and looks at two dates of 5,000,000 rows/s.
FETCHED = 1.0
HASHED = 0.15
SCANNED = 0.01

MOST_CREDIT_S = 1.0
TICK_S = 1.0
# So many seconds of the whole budget are a little. It is used without asking who else reads: a name
# that has changed is read again at once.
LITTLE_S = 0.05

# The server ends a query of a page that takes longer. A read of polling has two of them at most, so
# that it is over within a second, and with it the wait of an ALTER that came meanwhile.
LONGEST_QUERY_S = 0.4
# A page that took longer is followed by a smaller one, a page that took less by a larger one.
SLOW_S = 0.2
QUICK_S = 0.1
# Even a server that hardly answers is asked for so many rows, for as long as that takes.
LEAST_ROWS = 200


class Pace:
    """Counts what a job has read, and says how long it must wait until its next query.

    The jobs of all processes that read the hospital divide its budget: `share` says among how many.
    Without it the job has all. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        budget: LoadBudget,
        share: LoadShare | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget
        self._share = share
        self._clock = clock
        self._next_at = clock()
        self._jobs = 1
        self._unshared_s = 0.0
        self.spent = 0.0
        """All that was read so far, in fetched rows."""

    def set_budget(self, budget: LoadBudget) -> None:
        """Keep to another budget from now on."""
        self._budget = budget

    def most_rows(self, cost: float, limit: int) -> int:
        """Return how many rows of this cost one query may ask for: `limit`, or a second's work."""
        rows_per_s = self._budget.rows_per_s / self._jobs
        return max(1, min(limit, int(rows_per_s / cost)))

    def begin(self) -> None:
        """Note that a query begins now.

        The time that the query takes then counts as waiting, but no time before it does. Without
        this, up to MOST_CREDIT_S seconds in which nothing was read may be caught up on.
        """
        self._next_at = max(self._next_at, self._clock())

    def count(self, rows: float, queries: int = 1) -> None:
        """Count what was read just now. `rows` are fetched ones: multiply others by their cost.

        Raises NotReady and Fatal when the server doesn't say with how many jobs this one shares.
        """
        self.spent += rows
        cost_s = max(rows / self._budget.rows_per_s, queries / self._budget.queries_per_s)
        self._unshared_s += cost_s
        if self._share is not None and self._unshared_s > LITTLE_S:
            self._unshared_s = 0.0
            self._jobs = self._share.jobs()
        self._next_at = max(self._next_at + cost_s * self._jobs, self._clock() - MOST_CREDIT_S)

    def rest(self) -> None:
        """Leave the budget to the other jobs, until something is counted again."""
        if self._share is not None:
            self._share.leave()
            self._jobs = 1

    def wait_s(self) -> float:
        """Return the seconds until the next query may be sent, 0 if it may be sent now."""
        return max(0.0, self._next_at - self._clock())


class PageSize:
    """How many rows the next query may ask for: at most `most`. It follows the server's answers.

    It begins with `most`: should that take too long, the server ends the query. The same holds for
    persons whose rows are read; then `least` is 1.
    """

    def __init__(self, most: int, *, least: int = LEAST_ROWS) -> None:
        self._least = min(most, least)
        self._most = most
        self.rows = most

    @property
    def longest_s(self) -> float | None:
        """The seconds after which the server shall end the query.

        None for the smallest page, which is read however long it takes.
        """
        return None if self.rows == self._least else LONGEST_QUERY_S

    def answered(self, took_s: float) -> None:
        """Note how many seconds the server took for a page of this size."""
        if took_s > SLOW_S:
            self.rows = max(self._least, self.rows // 2)
        elif took_s < QUICK_S:
            self.rows = min(self._most, self.rows * 2)

    def ended(self) -> None:
        """Note that the server has ended the query, because it took too long."""
        self.rows = max(self._least, self.rows // 4)


class WaitingPace(Pace):
    """The pace of a job that does nothing but read.

    `tick` is called after each query, and every second while it waits. A lease is kept that way.
    """

    def __init__(
        self,
        budget: LoadBudget,
        stop: threading.Event,
        tick: Callable[[], None] = lambda: None,
        share: LoadShare | None = None,
    ) -> None:
        super().__init__(budget, share)
        self._stop = stop
        self._tick = tick

    def spend(self, rows: float) -> None:
        """Count what one query has read. Wait until the next one may be sent, or until `stop`."""
        self.count(rows)
        self._tick()
        while not self._stop.is_set() and (delay_s := self.wait_s()) > 0:
            self._stop.wait(min(delay_s, TICK_S))
            self._tick()


class Hours:
    """Hours of the day, on the hospital's own clock, in which a job may read.

    `hours` are such as "22:00-05:00". None means that there is no limit.
    """

    def __init__(self, hours: str | None, timezone: str) -> None:
        self._hours = hours
        self._zone = ZoneInfo(timezone)

    def closed_s(self) -> float:
        """Return the seconds until they begin, 0 within them."""
        return closed_s(self._hours, datetime.now(self._zone))


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
