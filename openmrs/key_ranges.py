"""The reads of rows of a fact table: by ranges of their key, by their keys, and by person.

Snapshots, backfills, polling and comparing read a table in pieces, each in one of these ways. A
piece that was read by range is whole: a row that a destination has within the range, and the piece
has not, is gone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from openmrs.read import ConsistentRead
from openmrs.tables import FactTable
from passport.event import Row


class RowsOfRange(NamedTuple):
    """The rows of a range: all with ``first < key <= to``, in the order of their keys.

    None as `first` or `to` means an open end.
    """

    first: int | None
    to: int | None
    rows: list[Row]


def next_rows(read: ConsistentRead, table: FactTable, after: int | None, limit: int) -> RowsOfRange:
    """Return the next `limit` rows after the key `after`; None begins at the lowest key.

    Fewer rows than `limit` are the last ones, so their range has no upper end.
    """
    order = f"ORDER BY {table.key} LIMIT %s"
    if after is None:
        rows = read.facts(table, f"1 = 1 {order}", (limit,))
    else:
        rows = read.facts(table, f"{table.key} > %s {order}", (after, limit))
    is_last = len(rows) < limit
    return RowsOfRange(after, None if is_last else rows[-1][table.key], rows)


def rows_between(
    read: ConsistentRead, table: FactTable, after: int | None, to: int | None
) -> RowsOfRange:
    """Return all rows with ``after < key <= to``; None is open-ended."""
    conditions = []
    keys = []
    if after is not None:
        conditions.append(f"{table.key} > %s")
        keys.append(after)
    if to is not None:
        conditions.append(f"{table.key} <= %s")
        keys.append(to)
    where = " AND ".join(conditions) or "1 = 1"
    return RowsOfRange(after, to, read.facts(table, f"{where} ORDER BY {table.key}", keys))


def rows_with_keys(read: ConsistentRead, table: FactTable, keys: Sequence[int]) -> list[Row]:
    """Return the rows with these keys in their order; keys that the table lacks are left out."""
    if not keys:
        return []
    return read.facts(table, f"{table.key} IN %s ORDER BY {table.key}", [list(keys)])


def rows_of_persons(read: ConsistentRead, table: FactTable, person_ids: Sequence[int]) -> list[Row]:
    """Return all rows of these persons, in the order of their keys."""
    if not person_ids:
        return []
    return read.facts(table, f"{table.person} IN %s ORDER BY {table.key}", [list(person_ids)])


def key_ends(read: ConsistentRead, table: FactTable) -> tuple[int, int] | None:
    """Return the lowest and the highest key of the table, None if it is empty."""
    (ends,) = read.rows(
        f"SELECT MIN({table.key}) AS lowest, MAX({table.key}) AS highest FROM {table.name}"  # noqa: S608
    )
    if ends["lowest"] is None:
        return None
    return int(ends["lowest"]), int(ends["highest"])
