"""Walks over a hospital's tables at one snapshot and finds ranges that differ from the last run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc.polling import scan
from cdc.polling.ranges import Ranges
from cdc.polling.scan import Page, Table
from openmrs.load_budget import HASHED, SCANNED, WaitingPace
from openmrs.read import ConsistentRead
from openmrs.row_hash import Digest

# So many digests of a table are saved: of a fact table, and of one around it.
MOST_RANGES = 2_048
MOST_RANGES_AROUND = 256
FIRST_WIDTH_AROUND = 64
EVERYTHING = 2**62


@dataclass(frozen=True, slots=True)
class DifferingRange:
    """Keys in (`after`, `to`] of `table`, whose rows differ; None is open-ended.

    With `is_whole` False there are new keys, and nothing else.
    """

    table: Table
    after: int | None
    to: int | None
    is_whole: bool = True


@dataclass(slots=True)
class PolledState:
    """The state that polling keeps from run to run.

    `cursor` is the table and the key that the walk has come to, None between two rounds. `complete`
    says that it has been round once. The others are times of the source's clock in Unix ms:
    `run_ms` is when the last run began, `round_ms` when the walk set out, and `through_ms` when the
    last walk that came round had set out: every change before that is published.
    """

    tables: dict[str, Ranges] = field(default_factory=dict)
    cursor: tuple[str, int] | None = None
    complete: bool = False
    run_ms: int = 0
    round_ms: int = 0
    through_ms: int = 0

    def encode(self) -> dict[str, Any]:
        return {
            "complete": self.complete,
            "run_ms": self.run_ms,
            "round_ms": self.round_ms,
            "through_ms": self.through_ms,
            "tables": {name: ranges.encode() for name, ranges in self.tables.items()},
            "cursor": self.cursor,
        }

    @classmethod
    def decode(cls, saved: dict[str, Any]) -> "PolledState":
        """Return what `encode` gave; nothing is remembered if `saved` is empty."""
        if not saved:
            return cls()
        cursor = None
        if saved["cursor"]:
            table, key = saved["cursor"]
            cursor = (table, key)
        return cls(
            {name: Ranges.decode(ranges) for name, ranges in saved["tables"].items()},
            cursor,
            complete=saved["complete"],
            run_ms=saved["run_ms"],
            round_ms=saved["round_ms"],
            through_ms=saved["through_ms"],
        )

    @property
    def rows(self) -> int:
        return sum(ranges.rows for ranges in self.tables.values())

    def begin(self, now_ms: int) -> None:
        """Note that a run begins."""
        self.run_ms = now_ms
        if self.cursor is None:
            self.round_ms = now_ms

    def end(self) -> None:
        """Note that a run has ended, where `cursor` says."""
        if self.cursor is None:
            self.through_ms = self.round_ms


class Walk:
    """Finds the differing ranges of one snapshot.

    When `differing` has been iterated to its end, `state` is what this snapshot holds, as far as
    the budget let it look. The tables are walked in their order. Fact tables are the last ones, so
    that names are looked at before the rows that bear them.
    """

    def __init__(
        self,
        read: ConsistentRead,
        tables: Sequence[Table],
        state: PolledState,
        pace: WaitingPace,
        *,
        width: int,
    ) -> None:
        self._read = read
        self._tables = tables
        self._state = state
        self._pace = pace
        self._width = width

    def differing(self, budget: float, since: str) -> Iterator[DifferingRange]:
        """Yield the ranges that differ.

        `budget` is how many rows may be spent, as fetched ones. `since` is the wall time after
        which a stamp is recent.
        """
        state = self._state
        end = self._pace.spent + budget
        if state.complete and state.rows * HASHED > budget:
            # This run won't get round: what has probably changed comes first.
            yield from self._suspected(since)
        for table in self._from_cursor():
            yield from self._walk_table(table, end)
            if state.cursor:
                return
        state.complete = True

    def _from_cursor(self) -> Sequence[Table]:
        names = [table.name for table in self._tables]
        if self._state.cursor:
            name, _ = self._state.cursor
            if name in names:
                return self._tables[names.index(name) :]
        return self._tables

    def _walk_table(self, table: Table, end: float) -> Iterator[DifferingRange]:
        """Walk from the cursor on, until the table or the budget ends."""
        state = self._state
        ranges = self._ranges(table)
        after = -1
        if state.cursor and state.cursor[0] == table.name:
            _, after = state.cursor
        page = _page_before(after, ranges)
        while not page.last:
            page = self._next_page(table, ranges, page.to)
            yield from self._differing_of_page(table, ranges, page)
            state.cursor = None if page.last else (table.name, page.to)
            if not page.last and self._pace.spent >= end:
                return
        ranges.limit(MOST_RANGES if table.is_fact else MOST_RANGES_AROUND)

    def _ranges(self, table: Table) -> Ranges:
        width = self._width if table.is_fact else FIRST_WIDTH_AROUND
        return self._state.tables.setdefault(table.name, Ranges(width))

    def _next_page(self, table: Table, ranges: Ranges, after: int) -> Page:
        rows = self._pace.most_rows(HASHED, scan.PAGE_ROWS)
        page = scan.page(self._read, table, ranges.width, after, rows)
        self._pace.spend(page.rows * HASHED)
        return page

    def _differing_of_page(
        self, table: Table, ranges: Ranges, page: Page
    ) -> Iterator[DifferingRange]:
        if not self._state.complete:
            yield from self._first_time(table, ranges, page)
        else:
            gone = ranges.between(page.after, EVERYTHING if page.last else page.to)
            for number in sorted({*page.digests, *gone}):
                digest = page.digests.get(number, Digest())
                yield from self._compared(table, ranges, number, digest)
        ranges.top = max(ranges.top, page.top)

    def _first_time(self, table: Table, ranges: Ranges, page: Page) -> Iterator[DifferingRange]:
        """Yield all of a fact table, in ranges that leave no key out.

        Nothing is known yet, so there is nothing to compare. The tables around need no key changes:
        whoever gets the rows reads their names anyway.
        """
        if page.after < 0:
            ranges.digests.clear()
        numbers = sorted(page.digests)
        if table.is_fact:
            after = None if page.after < 0 else page.after
            bounded = numbers[:-1] if page.last else numbers
            for number in bounded:
                to = ranges.before(number + 1)
                yield DifferingRange(table, after, to)
                after = to
            if page.last:
                yield DifferingRange(table, after, None)
        for number in numbers:
            ranges.put(number, page.digests[number])

    def _compared(
        self, table: Table, ranges: Ranges, number: int, digest: Digest
    ) -> Iterator[DifferingRange]:
        """Yield range `number` if its digest is another than in the last run."""
        before = ranges.digests.get(number, Digest())
        if digest == before:
            return
        after = ranges.before(number)
        to = ranges.before(number + 1)
        ranges.put(number, digest)
        if ranges.top < to and self._digest_up_to_top(table, after, ranges.top) == before:
            # What was there is as it was, so only the keys behind it are new.
            yield DifferingRange(table, max(after, ranges.top), to, is_whole=False)
        else:
            yield DifferingRange(table, after, to)

    def _digest_up_to_top(self, table: Table, after: int, top: int) -> Digest:
        if top <= after:
            return Digest()
        digest = scan.digest(self._read, table, after, top)
        self._pace.spend(digest.rows * HASHED)
        return digest

    def _suspected(self, since: str) -> Iterator[DifferingRange]:
        """Yield the differing ranges of fact tables with new keys, or with a recent stamp."""
        for table in self._tables:
            if table.is_fact:
                yield from self._suspected_of(table, since)

    def _suspected_of(self, table: Table, since: str) -> Iterator[DifferingRange]:
        ranges = self._ranges(table)
        suspects: set[int] = set()
        rows = self._pace.most_rows(SCANNED, scan.SCAN_ROWS)
        for after in range(-1, ranges.top + 1, rows):
            suspects |= scan.recent(self._read, table, ranges.width, after, after + rows, since)
            self._pace.spend(rows * SCANNED)

        last_known = ranges.number(ranges.top)
        for number in sorted(suspects - {last_known}):
            after = ranges.before(number)
            digest = scan.digest(self._read, table, after, ranges.before(number + 1))
            self._pace.spend(digest.rows * HASHED)
            yield from self._compared(table, ranges, number, digest)

        # New keys are in the last known range, and behind it.
        page = _page_before(max(ranges.top, 0) - 1, ranges)
        while not page.last:
            page = self._next_page(table, ranges, page.to)
            yield from self._differing_of_page(table, ranges, page)


def _page_before(after: int, ranges: Ranges) -> Page:
    """Return an empty page that ends where the range of the key behind `after` begins."""
    return Page({}, after, ranges.before(ranges.number(after + 1)), -1, last=False)
