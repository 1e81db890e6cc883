"""Walks over a hospital's tables and finds the ranges that differ from what was published last."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc.polling.ranges import Ranges
from cdc.polling.scan import EVERYTHING, Digests, Page, Scan, Table
from openmrs.load_budget import HASHED
from openmrs.row_hash import Digest

# So many digests of a table are saved: of a fact table, and of one around it.
MOST_RANGES = 2_048
MOST_RANGES_AROUND = 256
FIRST_WIDTH_AROUND = 64
NOTHING = Digest()


@dataclass(frozen=True, slots=True)
class DifferingRange:
    """Keys in (`after`, `to`] of `table`, whose rows differ; None is open-ended.

    `number` is the number of the range, None if these are many ranges, which nobody compared.
    With `is_whole` False there are new keys, and nothing else: `unchanged` is then the digest of
    the other rows of the range.
    """

    table: Table
    after: int | None
    to: int | None
    number: int | None = None
    is_whole: bool = True
    unchanged: Digest = NOTHING


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
        if self.cursor is None:
            self.round_ms = now_ms

    def end(self, began_ms: int) -> None:
        """Note that the run that began then has ended, where `cursor` says."""
        self.run_ms = began_ms
        if self.cursor is None:
            self.through_ms = self.round_ms

    def doubt(self, differing: DifferingRange) -> None:
        """Note that the rows of a range, or of many, are being published."""
        for number in self._known_numbers(differing):
            self.tables[differing.table.name].doubt(number)

    def published(self, differing: DifferingRange, digests: Digests, top: int) -> None:
        """Note what was published of a range: the digests of the rows sent, and the highest key."""
        ranges = self.tables[differing.table.name]
        ranges.top = max(ranges.top, top)
        if differing.number is not None:
            digest = digests.pop(differing.number, NOTHING)
            ranges.put(differing.number, digest | differing.unchanged)
        else:
            for number in self._known_numbers(differing):
                ranges.put(number, NOTHING)
        for number, digest in digests.items():
            ranges.put(number, digest)

    def _known_numbers(self, differing: DifferingRange) -> list[int]:
        if differing.number is not None:
            return [differing.number]
        after = -1 if differing.after is None else differing.after
        to = EVERYTHING if differing.to is None else differing.to
        return list(self.tables[differing.table.name].between(after, to))


class Walk:
    """Finds the differing ranges, page by page.

    Whoever iterates publishes the ranges of a page, and gives their digests to `state`, before the
    next page. When `differing` has been iterated to its end, `state` is what was published of the
    hospital, as far as the budget let it look. The tables are walked in their order. Fact tables
    are the last ones, so that names are looked at before the rows that bear them.

    With `is_snapshot` all ranges of fact tables are taken for differing ones.
    """

    def __init__(
        self,
        scan: Scan,
        tables: Sequence[Table],
        state: PolledState,
        *,
        width: int,
        is_snapshot: bool,
    ) -> None:
        self._is_snapshot = is_snapshot
        self._scan = scan
        self._tables = tables
        self._state = state
        self._width = width

    def differing(self, budget: float, since: str) -> Iterator[list[DifferingRange]]:
        """Yield the ranges that differ, those of a page together.

        `budget` is how many rows may be spent, as fetched ones. `since` is the wall time after
        which a stamp is recent.
        """
        state = self._state
        end = self._scan.spent + budget
        if state.complete and state.rows * HASHED > budget:
            # This run won't get round: what has probably changed comes first.
            for table in self._tables:
                if table.is_fact:
                    yield from self._suspected(table, since)
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

    def _walk_table(self, table: Table, end: float) -> Iterator[list[DifferingRange]]:
        """Walk from the cursor on, until the table or the budget ends."""
        state = self._state
        ranges = self._ranges(table)
        after = -1
        if state.cursor and state.cursor[0] == table.name:
            _, after = state.cursor
        after = ranges.before(ranges.number(after + 1))
        is_last = False
        while not is_last:
            if table.is_fact and (self._is_snapshot or not state.complete):
                page = self._scan.keys_of_page(table, ranges.width, after)
                yield [_whole_page(table, after, page)]
            elif state.complete:
                page = self._scan.page(table, ranges.width, after)
                yield self._differing_of_page(table, ranges, page)
            else:
                # Nothing is known yet, so there is nothing to compare. There need be no key changes
                # either: whoever gets the rows reads their names anyway.
                page = self._scan.page(table, ranges.width, after)
                self._remember(ranges, page)
            after = page.to
            is_last = page.last
            state.cursor = None if is_last else (table.name, after)
            if not is_last and self._scan.spent >= end:
                return
        ranges.limit(MOST_RANGES if table.is_fact else MOST_RANGES_AROUND)

    def _ranges(self, table: Table) -> Ranges:
        width = self._width if table.is_fact else FIRST_WIDTH_AROUND
        return self._state.tables.setdefault(table.name, Ranges(width))

    def _remember(self, ranges: Ranges, page: Page) -> None:
        for number, digest in page.digests.items():
            ranges.put(number, digest)
        ranges.top = max(ranges.top, page.top)

    def _differing_of_page(self, table: Table, ranges: Ranges, page: Page) -> list[DifferingRange]:
        gone = ranges.between(page.after, EVERYTHING if page.last else page.to)
        differing = []
        for number in sorted({*page.digests, *gone}):
            digest = page.digests.get(number, NOTHING)
            differing += self._compared(table, ranges, number, digest)
        ranges.top = max(ranges.top, page.top)
        return differing

    def _compared(
        self, table: Table, ranges: Ranges, number: int, digest: Digest
    ) -> list[DifferingRange]:
        """Return range `number` if its digest is another than what was published; [] if not."""
        before = ranges.digests.get(number, NOTHING)
        if digest == before:
            return []
        after = ranges.before(number)
        to = ranges.before(number + 1)
        if ranges.top < to and self._digest_up_to_top(table, after, ranges.top) == before:
            # What was there is as it was, so only the keys behind it are new.
            new_after = max(after, ranges.top)
            return [DifferingRange(table, new_after, to, number, is_whole=False, unchanged=before)]
        return [DifferingRange(table, after, to, number)]

    def _digest_up_to_top(self, table: Table, after: int, top: int) -> Digest:
        if top <= after:
            return NOTHING
        return self._scan.digest(table, after, top)

    def _suspected(self, table: Table, since: str) -> Iterator[list[DifferingRange]]:
        """Yield the differing ranges of a fact table with new keys, or with a recent stamp."""
        ranges = self._ranges(table)
        suspects = self._scan.recent(table, ranges.width, ranges.top, since)
        last_known = ranges.number(ranges.top)
        for number in sorted(suspects - {last_known}):
            digest = self._scan.digest(table, ranges.before(number), ranges.before(number + 1))
            yield self._compared(table, ranges, number, digest)

        # New keys are in the last known range, and behind it.
        after = ranges.before(ranges.number(max(ranges.top, 0)))
        is_last = False
        while not is_last:
            page = self._scan.page(table, ranges.width, after)
            yield self._differing_of_page(table, ranges, page)
            after = page.to
            is_last = page.last


def _whole_page(table: Table, after: int, page: Page) -> DifferingRange:
    """Return a page of a fact table, so that the ranges of all pages leave no key out."""
    return DifferingRange(table, None if after < 0 else after, None if page.last else page.to)
