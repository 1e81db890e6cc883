"""The decoded content of the binlog: changed rows, key changes, commits and statements."""

from typing import NamedTuple

from cdc.binlog.alter_table import ColumnChange
from passport.errors import Retry
from passport.version import Position

Key = dict[str, int | None]
"""The key columns of one row image, by name."""


class RowChange(NamedTuple):
    """A row of the table whose rows are carried was inserted (c), updated (u) or deleted (d).

    `before` and `after` are JSON texts, None where the event has no such image. `at` is the end of
    the binlog event, `ordinal` the row's number in it, from 1. `ts` is the event's time in seconds,
    `gtid` that of the transaction, "" if it has none.
    """

    op: str
    before: str | None
    after: str | None
    at: Position
    ordinal: int
    ts: int
    gtid: str


class KeyChange(NamedTuple):
    """A row of a table that is watched by its keys changed.

    `keys` are the key columns before and after, without doubles. A column that the row image does
    not carry (binlog_row_image=MINIMAL) is left out. The other fields are those of `RowChange`.
    """

    table: str
    op: str
    keys: tuple[Key, ...]
    at: Position
    ordinal: int
    ts: int
    gtid: str


class IncompleteRow(NamedTuple):
    """A row changed whose images lack carried columns (binlog_row_image is not FULL).

    Only its key is known, so the row must be read from its table. The fields are those of
    `KeyChange`.
    """

    op: str
    keys: tuple[Key, ...]
    at: Position
    ordinal: int
    ts: int
    gtid: str


class Commit(NamedTuple):
    """A transaction ended, and it is safe to resume at `at`.

    `gtid_set` is all that the server had executed by then.
    """

    at: Position
    gtid: str
    ts: int
    gtid_set: str


class Statement(NamedTuple):
    """A statement may have changed rows that no row event shows.

    `kind` is alter (it changes no values but those of `columns`), ddl, truncate, statement_dml (a
    change that was logged as its SQL), xa, or rollback: the rows since the last commit are void.
    `table` is "*" if it may concern every watched table.
    """

    kind: str
    table: str
    at: Position
    ts: int
    columns: tuple[ColumnChange, ...] = ()


class SkippedTransaction(NamedTuple):
    """A transaction begins of which no row is given, because an operator has named it.

    Its statements and its `Commit` come as those of any other. `at` is the end of its first event.
    """

    gtid: str
    at: Position
    ts: int


class Idle(NamedTuple):
    """The server has nothing new and no transaction is open, so it is safe to resume at `at`."""

    at: Position


class NextFile(NamedTuple):
    """The next binlog file begins at `at`, and the one before ended at `left`.

    `clean` is whether the file before ended with a STOP or ROTATE event. Else the server crashed.
    """

    at: Position
    clean: bool
    left: Position


BinlogItem = (
    RowChange
    | KeyChange
    | IncompleteRow
    | Commit
    | Statement
    | SkippedTransaction
    | Idle
    | NextFile
)


def keys_of(before: Key | None, after: Key | None) -> tuple[Key, ...]:
    """Return the keys before and after a change, without doubles."""
    if before == after:
        after = None
    return tuple(key for key in (before, after) if key)


class DamagedEvent(Retry):
    """An event is not what the server wrote.

    It may have been damaged on its way. If the same event comes damaged again, its file is.
    """
