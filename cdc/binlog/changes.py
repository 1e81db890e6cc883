"""What the binlog says, decoded: rows, notices, transaction ends, and what a reader must know
besides.
"""

from typing import NamedTuple

from passport.errors import Retry
from passport.version import Position

Key = dict[str, int | None]


class RowChange(NamedTuple):
    """A row of the wanted table: `op` c, u or d; JSON texts, None where there is no image.

    `at`: END of the outer event; `ordinal`: from 1 in it; `ts`: seconds; `gtid`: of its
    transaction, "" without.
    """

    op: str
    before: str | None
    after: str | None
    at: Position
    ordinal: int
    ts: int
    gtid: str


class KeyChange(NamedTuple):
    """A row of a watched key table changed: its key columns before and after, no doubles. A column
    that the image of the row does not carry (binlog_row_image=MINIMAL) is left out."""

    table: str
    op: str
    keys: tuple[Key, ...]
    at: Position
    ordinal: int
    ts: int
    gtid: str


class IncompleteRow(NamedTuple):
    """A row of the wanted table whose images lack wanted columns (binlog_row_image is not FULL):
    read it again.
    """

    op: str
    keys: tuple[Key, ...]
    at: Position
    ordinal: int
    ts: int
    gtid: str


class Commit(NamedTuple):
    """A transaction ended: safe to resume at `at`. `gtid_set`: all that was executed up to here."""

    at: Position
    gtid: str
    ts: int
    gtid_set: str


class Statement(NamedTuple):
    """What rows do not show: `kind` ddl, truncate, statement_dml, or rollback (rows since the last
    commit are void).

    `table` "*": every watched one.
    """

    kind: str
    table: str
    at: Position
    ts: int


class Idle(NamedTuple):
    """The server has nothing new; no transaction is open, so it is safe to resume at `at`."""

    at: Position


class NextFile(NamedTuple):
    """The next file begins at `at`; `clean`: the one before ended by STOP or ROTATE, else the
    server crashed.
    """

    at: Position
    clean: bool


BinlogItem = RowChange | KeyChange | IncompleteRow | Commit | Statement | Idle | NextFile


def keys_of(before: Key | None, after: Key | None) -> tuple[Key, ...]:
    """Both, without doubles."""
    if before == after:
        after = None
    return tuple(key for key in (before, after) if key)


class DamagedEvent(Retry):
    """An event is not what the server wrote; when it is the same one again, its file is damaged."""
