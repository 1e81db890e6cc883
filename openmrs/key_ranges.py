"""The reads of rows of obs: by ranges of their key, by their keys, and by person.

Snapshots, backfills, polling and comparing read the table in pieces, each in one of these ways. A
piece that was read by range is whole: a row that a destination has within the range, and the piece
has not, is gone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from openmrs.read import ConsistentRead
from passport.event import Row


class RowsOfRange(NamedTuple):
    """All rows with ``first < obs_id <= to``, in the order of their keys; None is open-ended."""

    first: int | None
    to: int | None
    rows: list[Row]


def next_rows(read: ConsistentRead, after: int | None, limit: int) -> RowsOfRange:
    """Return the next `limit` rows after the key `after`; None begins at the lowest key.

    Fewer rows than `limit` are the last ones, so their range has no upper end.
    """
    if after is None:
        rows = read.obs("1 = 1 ORDER BY obs_id LIMIT %s", (limit,))
    else:
        rows = read.obs("obs_id > %s ORDER BY obs_id LIMIT %s", (after, limit))
    is_last = len(rows) < limit
    return RowsOfRange(after, None if is_last else rows[-1]["obs_id"], rows)


def rows_between(read: ConsistentRead, after: int | None, to: int | None) -> RowsOfRange:
    """Return all rows with ``after < obs_id <= to``; None is open-ended."""
    conditions = []
    keys = []
    if after is not None:
        conditions.append("obs_id > %s")
        keys.append(after)
    if to is not None:
        conditions.append("obs_id <= %s")
        keys.append(to)
    where = " AND ".join(conditions) or "1 = 1"
    return RowsOfRange(after, to, read.obs(f"{where} ORDER BY obs_id", keys))


def rows_with_keys(read: ConsistentRead, obs_ids: Sequence[int]) -> list[Row]:
    """Return the rows with these keys; keys that the table doesn't have are left out."""
    return read.obs("obs_id IN %s ORDER BY obs_id", [list(obs_ids)]) if obs_ids else []


def rows_of_persons(read: ConsistentRead, person_ids: Sequence[int]) -> list[Row]:
    """Return all rows of these persons, in no particular order."""
    return read.obs("person_id IN %s", [list(person_ids)]) if person_ids else []


def key_ends(read: ConsistentRead) -> tuple[int, int] | None:
    """Return the lowest and the highest key of the table, None if it is empty."""
    (ends,) = read.rows("SELECT MIN(obs_id) AS lowest, MAX(obs_id) AS highest FROM obs")
    if ends["lowest"] is None:
        return None
    return int(ends["lowest"]), int(ends["highest"])
