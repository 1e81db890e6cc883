"""TABLE_MAP events -> the decoders of the tables whose rows are carried. Pure."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from zlib import error as zlib_error

from cdc.binlog import table_map
from cdc.binlog.rows_event import RowsDecoder
from openmrs.values import ColumnInfo
from passport.errors import Fatal
from passport.version import Position

Flavour = Literal["mariadb", "mysql"]

BODY = 19  # where the part behind the header begins
UNREADABLE = (
    ValueError,
    IndexError,
    KeyError,
    struct.error,
    zlib_error,
)  # what bytes raise that are not understood
_AFTER_ID = BODY + 6


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table whose rows are decoded; `is_row`: as rows, else as notices."""

    table: str
    is_row: bool
    decoder: RowsDecoder


@dataclass(slots=True)
class WatchedTables:
    """Of one database. The fields are as EventDecoder has them."""

    flavour: Flavour
    database: str
    row_columns: Mapping[str, Sequence[str]]
    key_columns: Mapping[str, Sequence[str]]
    columns: Mapping[str, Sequence[ColumnInfo]]
    charsets: Mapping[int, str]
    ignore_case: bool
    _known: dict[bytes, WatchedTable] = field(default_factory=dict)
    _as_of: Position | None = None

    def __post_init__(self) -> None:
        self.database = self.database.lower() if self.ignore_case else self.database

    def set_columns(
        self, columns: Mapping[str, Sequence[ColumnInfo]], as_of: Position | None
    ) -> None:
        """New column lists, true from `as_of` on: rows up to there must name their columns."""
        self.columns, self._as_of = columns, as_of
        self._known.clear()

    def watch(self, event: bytes, at: Position) -> WatchedTable | None:
        """None when its rows are not wanted. Fatal when its columns are not understood."""
        database, table, columns_at = table_map.named(event, BODY)
        if self.ignore_case:
            database, table = database.lower(), table.lower()
        if database != self.database or not (
            table in self.row_columns or table in self.key_columns
        ):
            return None
        body = event[_AFTER_ID:]
        watch = self._known.get(body)
        if watch is None:
            watch = self._known[body] = self._compiled(event, table, columns_at, at)
        return watch

    def _compiled(self, event: bytes, table: str, columns_at: int, at: Position) -> WatchedTable:
        try:
            found = table_map.columns(event, columns_at, self.flavour, self.charsets)
        except UNREADABLE as error:
            why = f"binlog: the columns of {table} are not understood (at {at.file}:{at.pos})"
            raise Fatal(why, hint="upgrade openmrs-passport") from error
        behind = self._as_of is not None and at.order < self._as_of.order
        if behind and not all(column.name for column in found):
            raise table_map.changed(table, "it is newer, and there may be another DDL in between")
        columns = table_map.completed(found, self.columns.get(table), table)
        if table in self.row_columns:
            wanted = self.row_columns[table]
            return WatchedTable(table, True, RowsDecoder(columns, wanted, "text", wanted[0]))
        return WatchedTable(table, False, RowsDecoder(columns, self.key_columns[table], "keys"))
