"""One look at a hospital's tables, at one snapshot: which ranges differ from what the last run saw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc.polling import scan
from cdc.polling.ranges import Ranges
from cdc.polling.scan import Page, Table
from openmrs.load_budget import HASHED, SCANNED, WaitingPace
from openmrs.read import ConsistentRead
from openmrs.row_hash import Digest

MOST_RANGES = 2_048
MOST_RANGES_AROUND = 256
FIRST_WIDTH_AROUND = 64
EVERYTHING = 2**62
_PLAIN = ("complete", "run_ms", "round_ms", "through_ms")


@dataclass(frozen=True, slots=True)
class Change:
    """Keys in (`after`, `to`] of `table` differ; None: open-ended. `whole` False: there are new
    keys, nothing else.
    """

    table: Table
    after: int | None
    to: int | None
    whole: bool = True


@dataclass(slots=True)
class Known:
    """What polling remembers. `cursor`: table and key up to which the walk is; `complete`: it has
    been round once.

    The source's clock in Unix ms: `run_ms` when the last run began, `round_ms` when the walk set
    out, `through_ms` when the last one that came round had: every change before that is published.
    """

    tables: dict[str, Ranges] = field(default_factory=dict)
    cursor: tuple[str, int] | None = None
    complete: bool = False
    run_ms: int = 0
    round_ms: int = 0
    through_ms: int = 0

    def encode(self) -> dict[str, Any]:
        tables = {name: ranges.encode() for name, ranges in self.tables.items()}
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "tables": tables,
            "cursor": self.cursor,
        }

    @classmethod
    def decode(cls, saved: dict[str, Any]) -> "Known":
        """Inverse of `encode`; nothing known if `saved` is empty."""
        if not saved:
            return cls()
        tables = {name: Ranges.decode(ranges) for name, ranges in saved["tables"].items()}
        cursor = (saved["cursor"][0], saved["cursor"][1]) if saved["cursor"] else None
        return cls(tables, cursor, **{name: saved[name] for name in _PLAIN})

    @property
    def rows(self) -> int:
        return sum(ranges.rows for ranges in self.tables.values())

    def begin(self, now_ms: int) -> None:
        """A run begins."""
        self.run_ms = now_ms
        if self.cursor is None:
            self.round_ms = now_ms

    def end(self) -> None:
        """It has ended; where the walk is, `cursor` tells."""
        if self.cursor is None:
            self.through_ms = self.round_ms


class Walk:
    """Iterate `changes` to its end: `known` is then what this snapshot holds, as far as the budget
    let it look.
    """

    def __init__(
        self,
        reading: ConsistentRead,
        tables: Sequence[Table],
        known: Known,
        pace: WaitingPace,
        *,
        width: int,
    ) -> None:
        self._reading = reading
        self._tables = (
            tables  # obs is the last one: names are looked at before the rows that bear them
        )
        self._known = known
        self._pace = pace
        self._width = width

    def changes(self, budget: float, since: str) -> Iterator[Change]:
        """`budget`: rows that may be spent; `since`: wall time of the last run's start, less an
        overlap.
        """
        known, end = self._known, self._pace.spent + budget
        if known.complete and known.rows * HASHED > budget:
            yield from self._suspected(since)
        for table in self._from_cursor():
            yield from self._table(table, end)
            if known.cursor:
                return
        known.complete = True

    def _from_cursor(self) -> list[Table]:
        names = [table.name for table in self._tables]
        cursor = self._known.cursor
        return list(self._tables[names.index(cursor[0]) if cursor and cursor[0] in names else 0 :])

    def _table(self, table: Table, end: float) -> Iterator[Change]:
        """From the cursor on, until the table or the budget ends."""
        known, ranges = self._known, self._ranges(table)
        after = known.cursor[1] if known.cursor and known.cursor[0] == table.name else -1
        page = Page({}, after, ranges.before(ranges.number(after + 1)), -1, last=False)
        while not page.last:
            page = self._page(table, ranges, page.to)
            yield from self._differing(table, ranges, page)
            known.cursor = None if page.last else (table.name, page.to)
            if not page.last and self._pace.spent >= end:
                return
        ranges.limit(MOST_RANGES if table.is_fact else MOST_RANGES_AROUND)

    def _ranges(self, table: Table) -> Ranges:
        width = self._width if table.is_fact else FIRST_WIDTH_AROUND
        return self._known.tables.setdefault(table.name, Ranges(width))

    def _page(self, table: Table, ranges: Ranges, after: int) -> Page:
        rows = self._pace.most_rows(HASHED, scan.PAGE_ROWS)
        page = scan.page(self._reading, table, ranges.width, after, rows)
        self._pace.spend(page.rows * HASHED)
        return page

    def _differing(self, table: Table, ranges: Ranges, page: Page) -> Iterator[Change]:
        if not self._known.complete:
            yield from self._first(table, ranges, page)
        else:
            gone = ranges.between(page.after, EVERYTHING if page.last else page.to)
            for number in sorted({*page.digests, *gone}):
                yield from self._compared(table, ranges, number, page.digests.get(number, Digest()))
        ranges.top = max(ranges.top, page.top)

    def _first(self, table: Table, ranges: Ranges, page: Page) -> Iterator[Change]:
        """Nothing is known yet: all rows of obs, in ranges that leave no key out. The tables around
        need no notice.
        """
        if page.after < 0:
            ranges.digests.clear()
        numbers = sorted(page.digests)
        if table.is_fact:
            after = None if page.after < 0 else page.after
            for number in numbers[: len(numbers) - page.last]:
                to = ranges.before(number + 1)
                yield Change(table, after, to)
                after = to
            if page.last:
                yield Change(table, after, None)
        for number in numbers:
            ranges.put(number, page.digests[number])

    def _compared(self, table: Table, ranges: Ranges, number: int, now: Digest) -> Iterator[Change]:
        old = ranges.digests.get(number, Digest())
        if now == old:
            return
        after, to = ranges.before(number), ranges.before(number + 1)
        ranges.put(number, now)
        if ranges.top < to and self._prefix(table, after, ranges.top) == old:
            yield Change(table, max(after, ranges.top), to, whole=False)
        else:
            yield Change(table, after, to)

    def _prefix(self, table: Table, after: int, top: int) -> Digest:
        if top <= after:
            return Digest()
        digest = scan.digest(self._reading, table, after, top)
        self._pace.spend(digest.rows * HASHED)
        return digest

    def _suspected(self, since: str) -> Iterator[Change]:
        """Ranges of obs to look at first: those with new keys, and those with a row that says it
        changed lately.
        """
        table = self._tables[-1]
        ranges = self._ranges(table)
        suspects: set[int] = set()
        rows = self._pace.most_rows(SCANNED, scan.SCAN_ROWS)
        for after in range(-1, ranges.top + 1, rows):
            suspects |= scan.recent(self._reading, table, ranges.width, after, after + rows, since)
            self._pace.spend(rows * SCANNED)
        for number in sorted(suspects - {ranges.number(ranges.top)}):
            digest = scan.digest(
                self._reading, table, ranges.before(number), ranges.before(number + 1)
            )
            self._pace.spend(digest.rows * HASHED)
            yield from self._compared(table, ranges, number, digest)
        page = Page({}, -1, ranges.before(ranges.number(max(ranges.top, 0))), -1, last=False)
        while not page.last:
            page = self._page(table, ranges, page.to)
            yield from self._differing(table, ranges, page)
