"""The SELECTs of polling: digests of a table by ranges of its key, and the rows of a range.

Each SELECT is a short read of its own, so that an ALTER at the hospital never waits for us for more
than a second. A page of many keys is read in parts, and how large a part may be follows the
server's answers. The digests of parts can be combined though they were read one after the other:
what is compared is the hash of each row, and each row is in one part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from openmrs import row_hash as hashes
from openmrs.column_info import ColumnInfo
from openmrs.key_ranges import RowsOfRange, next_rows, within
from openmrs.load_budget import FETCHED, HASHED, SCANNED, PageSize, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.row_hash import Digest
from openmrs.tables import FACT_TABLES, REFERENCE_TABLES, FactTable, ReferenceTable
from openmrs.values import supported
from passport.errors import TooSlow
from passport.settings import LoadBudget

PAGE_ROWS = 50_000  # keys of one page: a quarter of a second of a quick server's time
SCAN_ROWS = 1_000_000  # the same, looking at two dates a row
EVERYTHING = 2**62

T = TypeVar("T")
Digests = dict[int, Digest]
"""Digests by range number."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as polling looks at it.

    The ranges of `key` are walked. A key change carries `keys`. `hash` is the SQL aggregate that
    digests rows. `stamps` are the dates of a fact table that tell of a late change.
    """

    name: str
    key: str
    keys: tuple[str, ...]
    hash: str
    is_fact: bool = False
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The keys in (`after`, `to`]: their digests by range number, and the highest key (`top`).

    `last` says that the table holds nothing beyond.
    """

    digests: Digests
    after: int
    to: int
    top: int
    last: bool


@dataclass(frozen=True, slots=True)
class FactPiece:
    """Rows of a fact table in a range of its key, and their digests, of one snapshot."""

    range: RowsOfRange
    digests: Digests


@dataclass(frozen=True, slots=True)
class KeyPiece:
    """The keys that key changes carry, of the rows in a range, and its digests, of one snapshot."""

    keys: list[dict[str, Any]]
    digests: Digests


def fact_table(table: FactTable, columns: Sequence[ColumnInfo]) -> Table:
    """Return a fact table, whose `columns` are those that this OpenMRS has."""
    return Table(
        table.name,
        table.key,
        (table.key,),
        hashes.sql(columns),
        is_fact=True,
        stamps=table.stamps,
    )


def reference_tables(reading: ConsistentRead, database: str) -> list[Table]:
    """Return the reference tables that this OpenMRS has and the account may read."""
    listed = reading.list_columns(database, [*REFERENCE_TABLES])
    columns = {name.lower(): listed[name] for name in listed}
    return [_reference_table(REFERENCE_TABLES[name], columns[name]) for name in sorted(columns)]


def _reference_table(table: ReferenceTable, columns: Sequence[ColumnInfo]) -> Table:
    names = {column.name for column in columns}
    keys = tuple(key for key in table.keys if key in names)
    hashed = [
        column
        for column in columns
        if supported(column.data_type) and (not table.columns or column.name in table.columns)
    ]
    return Table(table.name, table.walked_by, keys, hashes.sql(hashed))


class Scan:
    """Runs the SELECTs of one hospital's runs, at their pace. The sizes outlive a run."""

    def __init__(self, source: Source, pace: WaitingPace, *, chunk_rows: int) -> None:
        self._source = source
        self._pace = pace
        self._chunk = PageSize(chunk_rows)
        self._hashed = PageSize(PAGE_ROWS)
        self._scanned = PageSize(SCAN_ROWS)

    def set_budget(self, budget: LoadBudget) -> None:
        """Keep to another load budget from now on."""
        self._pace.set_budget(budget)

    @property
    def spent(self) -> float:
        """All that was read so far, in fetched rows."""
        return self._pace.spent

    def page(self, table: Table, width: int, after: int) -> Page:
        """Return the next page of whole ranges after key `after`, with their digests."""
        page = self.keys_of_page(table, width, after)
        digests, top = self._digests_between(table, width, page.after, page.to)
        return Page(digests, after, page.to, top, page.last)

    def keys_of_page(self, table: Table, width: int, after: int) -> Page:
        """Return the next page after key `after`, without digests.

        It may begin behind `after`, where the next key is.
        """
        start = self._next_key(table, after)
        if start is None:
            return Page({}, after, after, -1, last=True)
        rows = self._pace.most_rows(HASHED, PAGE_ROWS)
        to = (start // width + max(1, rows // width)) * width - 1
        return Page({}, start - 1, to, -1, last=self._next_key(table, to) is None)

    def digest(self, table: Table, after: int, to: int) -> Digest:
        """Return the digest of the rows with keys in (`after`, `to`]."""
        digests, _ = self._digests_between(table, EVERYTHING, after, to)
        return digests.get(0, Digest())

    def _digests_between(
        self, table: Table, width: int, after: int, to: int
    ) -> tuple[Digests, int]:
        """Return the digests of the ranges in (`after`, `to`], and the highest key, -1 for none."""
        digests: Digests = {}
        top = -1

        def read_part(read: ConsistentRead, part_after: int, part_to: int) -> list[dict[str, Any]]:
            return _digests(read, table, width, part_after, part_to)

        for rows in self._in_parts(self._hashed, HASHED, after, to, read_part):
            self._pace.spend(sum(row["counted"] for row in rows) * HASHED)
            _add_digests(digests, rows)
            top = max([top, *(int(row["top"]) for row in rows)])
        return digests, top

    def recent(self, table: Table, width: int, top: int, since: str) -> set[int]:
        """Return the ranges of a fact table that have a row which says that it changed lately.

        Looks at the keys up to `top`, for a stamp at or after the wall time `since`.
        """
        late = " OR ".join(f"{stamp} >= %s" for stamp in table.stamps)
        sql = (
            f"SELECT DISTINCT {table.key} DIV {width} AS number FROM {table.name}"  # noqa: S608
            f" WHERE {table.key} > %s AND {table.key} <= %s AND ({late})"
        )
        stamps = [since] * len(table.stamps)

        def read_part(read: ConsistentRead, part_after: int, part_to: int) -> tuple[int, set[int]]:
            rows = read.rows_of_listed_columns(table.name, sql, (part_after, part_to, *stamps))
            return part_to - part_after, {int(row["number"]) for row in rows}

        numbers: set[int] = set()
        for keys, recent in self._in_parts(self._scanned, SCANNED, -1, top, read_part):
            self._pace.spend(keys * SCANNED)
            numbers |= recent
        return numbers

    def fact_pieces(
        self, table: Table, width: int, after: int | None, to: int | None
    ) -> Iterator[FactPiece]:
        """Yield the rows with keys in (`after`, `to`], piece by piece; None is open-ended."""
        fact = FACT_TABLES[table.name]
        is_last = False
        while not is_last:
            size = self._chunk
            limit = self._pace.most_rows(FETCHED, size.rows)
            try:
                with self._source.read_at(ANY_POSITION, longest_s=size.longest_s) as read:
                    piece = next_rows(read, fact, after, limit, to=to)
                    # Keys below zero are in no range: the walk begins at 0.
                    digested_after = -1 if piece.first is None else piece.first
                    digest_rows = _digests(read, table, width, digested_after, piece.to)
            except TooSlow:
                size.ended()
                continue
            size.answered(read.worked_s)
            digests: Digests = {}
            _add_digests(digests, digest_rows)
            self._pace.spend(len(piece.rows) * (FETCHED + HASHED))
            yield FactPiece(piece, digests)
            after = piece.to
            is_last = piece.to == to

    def key_pieces(
        self, table: Table, width: int, after: int, to: int, top: int
    ) -> Iterator[KeyPiece]:
        """Yield the keys of the rows in (`after`, `to`], and of those that may have been there.

        `top` is the highest key that was ever seen. Keys begin at 1: OpenMRS counts from there.
        """

        def read_part(
            read: ConsistentRead, part_after: int, part_to: int
        ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            digests = _digests(read, table, width, part_after, part_to)
            keys = _present(read, table, part_after, part_to)
            present = {key[table.key] for key in keys}
            for key in range(max(part_after + 1, 1), min(part_to, top) + 1):
                if key not in present:
                    keys.append({table.key: key})
            return keys, digests

        for keys, digest_rows in self._in_parts(self._hashed, FETCHED, after, to, read_part):
            self._pace.spend(len(keys) * FETCHED)
            digests: Digests = {}
            _add_digests(digests, digest_rows)
            yield KeyPiece(keys, digests)

    def _in_parts(
        self,
        size: PageSize,
        cost: float,
        after: int,
        to: int,
        read_part: Callable[[ConsistentRead, int, int], T],
    ) -> Iterator[T]:
        """Yield what `read_part` returns for each part of the keys in (`after`, `to`].

        It gets a read of its own for the part, and asks at most two queries. One that takes too
        long is asked again for fewer keys.
        """
        while after < to:
            part_to = min(to, after + self._pace.most_rows(cost, size.rows))
            try:
                with self._source.read_at(ANY_POSITION, longest_s=size.longest_s) as read:
                    part = read_part(read, after, part_to)
            except TooSlow:
                size.ended()
                continue
            size.answered(read.worked_s)
            yield part
            after = part_to

    def _next_key(self, table: Table, after: int) -> int | None:
        sql = f"SELECT MIN({table.key}) AS least FROM {table.name} WHERE {table.key} > {after}"  # noqa: S608
        with self._source.read_at(ANY_POSITION) as read:
            (row,) = read.rows_of_listed_columns(table.name, sql)
        return None if row["least"] is None else int(row["least"])


def _digests(
    read: ConsistentRead, table: Table, width: int, after: int | None, to: int | None
) -> list[dict[str, Any]]:
    """Return ``{number, counted, digest, top}`` of each range with rows; None is open-ended."""
    condition, keys = within(table.key, after, to)
    sql = (
        f"SELECT {table.key} DIV {width} AS number, COUNT(*) AS counted,"  # noqa: S608
        f" {table.hash} AS digest, MAX({table.key}) AS top"
        f" FROM {table.name} WHERE {condition} GROUP BY 1"
    )
    return read.rows_of_listed_columns(table.name, sql, keys)


def _add_digests(digests: Digests, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        number = int(row["number"])
        digest = Digest(int(row["counted"]), int(row["digest"]))
        digests[number] = digests.get(number, Digest()) | digest


def _present(read: ConsistentRead, table: Table, after: int, to: int) -> list[dict[str, Any]]:
    """Return the keys that key changes carry, of the rows in (`after`, `to`]."""
    return read.rows_of_listed_columns(
        table.name,
        f"SELECT DISTINCT {', '.join(table.keys)} FROM {table.name}"  # noqa: S608
        f" WHERE {table.key} > {after} AND {table.key} <= {to}",
    )
