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


def next_rows(
    read: ConsistentRead,
    table: FactTable,
    after: int | None,
    limit: int,
    *,
    to: int | None = None,
) -> RowsOfRange:
    """Return the next `limit` rows with ``after < key <= to``; None is open-ended.

    Fewer rows than `limit` are the last ones, so that their range ends with `to`.
    """
    where, keys = within(table.key, after, to)
    rows = read.facts(table, f"{where} ORDER BY {table.key} LIMIT %s", (*keys, limit))
    is_last = len(rows) < limit
    return RowsOfRange(after, to if is_last else rows[-1][table.key], rows)


def within(key: str, after: int | None, to: int | None) -> tuple[str, tuple[int, ...]]:
    """Return the SQL condition ``after < key <= to``, and its arguments; None is open-ended."""
    if after is not None and to is not None:
        return f"{key} > %s AND {key} <= %s", (after, to)
    if after is not None:
        return f"{key} > %s", (after,)
    if to is not None:
        return f"{key} <= %s", (to,)
    return "1 = 1", ()


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


def next_keys_of_person(
    read: ConsistentRead, table: FactTable, person_id: int, after: int, limit: int
) -> list[int]:
    """Return the next `limit` keys of a person's rows, in their order: those above `after`."""
    # The index of persons has the keys in their order, too. MySQL may prefer the primary key, and
    # then it goes through everybody's rows to find a person's.
    rows = read.rows(
        f"SELECT {table.key} AS found FROM {table.name} IGNORE INDEX (PRIMARY)"  # noqa: S608
        f" WHERE {table.person} = %s AND {table.key} > %s ORDER BY {table.key} LIMIT %s",
        (person_id, after, limit),
    )
    return [row["found"] for row in rows]


def key_ends(read: ConsistentRead, table: FactTable) -> tuple[int, int] | None:
    """Return the lowest and the highest key of the table, None if it is empty."""
    (ends,) = read.rows(
        f"SELECT MIN({table.key}) AS lowest, MAX({table.key}) AS highest FROM {table.name}"  # noqa: S608
    )
    if ends["lowest"] is None:
        return None
    return int(ends["lowest"]), int(ends["highest"])
