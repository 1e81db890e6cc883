"""The SELECTs of polling: digests of a table by ranges of its key, page by page in key order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openmrs import row_hash as hashes
from openmrs.column_info import ColumnInfo
from openmrs.read import ConsistentRead
from openmrs.row_hash import Digest
from openmrs.tables import REFERENCE_TABLES, FactTable, ReferenceTable
from openmrs.values import supported

PAGE_ROWS = 50_000  # keys of one query: a quarter of a second of the server's time
SCAN_ROWS = 1_000_000  # the same, looking at two dates a row
ONE_RANGE = "0"  # in place of a key: all rows of the table are in range 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table as polling looks at it.

    The ranges of `key` are walked. A key change carries `keys`. `hash` is the SQL aggregate that
    digests rows, and `where` an SQL condition for the rows that matter. `stamps` are the dates of a
    fact table that tell of a late change.
    """

    name: str
    key: str
    keys: tuple[str, ...]
    hash: str
    where: str = "1 = 1"
    is_fact: bool = False
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The keys in (`after`, `to`]: their digests by range number, and the highest key (`top`).

    `last` says that the table holds nothing beyond.
    """

    digests: dict[int, Digest]
    after: int
    to: int
    top: int
    last: bool

    @property
    def rows(self) -> int:
        return sum(digest.rows for digest in self.digests.values())


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
    return Table(table.name, table.walked_by or ONE_RANGE, keys, hashes.sql(hashed), table.where)


def page(reading: ConsistentRead, table: Table, width: int, after: int, rows: int) -> Page:
    """Return the next page of whole ranges after key `after`, of about `rows` keys."""
    start = _next_key(reading, table, after)
    if start is None:
        return Page({}, after, after, -1, last=True)
    to = (start // width + max(1, rows // width)) * width - 1
    rows_of_ranges = reading.rows(
        f"SELECT {table.key} DIV {width} AS number, COUNT(*) AS counted,"  # noqa: S608
        f" {table.hash} AS digest, MAX({table.key}) AS top"
        f" FROM {table.name} WHERE {table.key} > {start - 1} AND {table.key} <= {to}"
        f" AND {table.where} GROUP BY 1",
    )
    digests = {}
    top = -1
    for row in rows_of_ranges:
        digests[int(row["number"])] = Digest(int(row["counted"]), int(row["digest"]))
        top = max(top, int(row["top"]))
    return Page(digests, after, to, top, last=_next_key(reading, table, to) is None)


def _next_key(reading: ConsistentRead, table: Table, after: int) -> int | None:
    if table.key == ONE_RANGE:
        return 0 if after < 0 else None
    (row,) = reading.rows(
        f"SELECT MIN({table.key}) AS least FROM {table.name} WHERE {table.key} > {after}"  # noqa: S608
    )
    return None if row["least"] is None else int(row["least"])


def digest(reading: ConsistentRead, table: Table, after: int, to: int) -> Digest:
    """Return the digest of the rows with keys in (`after`, `to`]."""
    (row,) = reading.rows(
        f"SELECT COUNT(*) AS counted, {table.hash} AS digest FROM {table.name}"  # noqa: S608
        f" WHERE {table.key} > {after} AND {table.key} <= {to} AND {table.where}"
    )
    return Digest(int(row["counted"]), int(row["digest"]))


def recent(
    reading: ConsistentRead, table: Table, width: int, after: int, to: int, since: str
) -> set[int]:
    """Return the ranges of a fact table that have a row which says that it changed lately.

    Looks at the keys in (`after`, `to`], for a stamp at or after the wall time `since`.
    """
    late = " OR ".join(f"{stamp} >= %s" for stamp in table.stamps)
    rows = reading.rows(
        f"SELECT DISTINCT {table.key} DIV {width} AS number FROM {table.name}"  # noqa: S608
        f" WHERE {table.key} > %s AND {table.key} <= %s AND ({late})",
        (after, to, *[since] * len(table.stamps)),
    )
    return {int(row["number"]) for row in rows}


def present(reading: ConsistentRead, table: Table, after: int, to: int) -> list[dict[str, Any]]:
    """Return the keys that key changes carry, of the rows in (`after`, `to`]."""
    if not table.keys:
        return [{}]
    return reading.rows(
        f"SELECT DISTINCT {', '.join(table.keys)} FROM {table.name}"  # noqa: S608
        f" WHERE {table.key} > {after} AND {table.key} <= {to}"
    )
