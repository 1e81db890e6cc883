"""TABLE_MAP events -> the decoders of the tables whose rows are carried. Pure."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cdc import table_map
from cdc.rows import Table
from passport.errors import Fatal
from passport.values import ColumnInfo
from passport.version import Position

Flavour = Literal["mariadb", "mysql"]

_BODY = 19  # where the part behind the header begins
_AFTER_ID = _BODY + 6


@dataclass(frozen=True, slots=True)
class Watch:
    """A table whose rows are decoded; `is_row`: as rows, else as notices."""

    table: str
    is_row: bool
    decoder: Table


class Watched:
    """Of one database. `rows`, `notices`, `listed`, `charsets`, `fold`: as EventDecoder has them."""

    def __init__(
        self,
        flavour: Flavour,
        database: str,
        rows: Mapping[str, Sequence[str]],
        notices: Mapping[str, Sequence[str]],
        listed: Mapping[str, Sequence[ColumnInfo]],
        charsets: Mapping[int, str],
        *,
        fold: bool,
    ) -> None:
        self._flavour: Flavour = flavour
        self._database = database.lower() if fold else database
        self._fold = fold
        self._rows = rows
        self._notices = notices
        self._charsets = charsets
        self._known: dict[bytes, Watch] = {}
        self._listed = listed
        self._as_of: Position | None = None

    def relist(self, listed: Mapping[str, Sequence[ColumnInfo]], as_of: Position | None) -> None:
        """New column lists, true from `as_of` on: rows up to there must name their columns."""
        self._listed, self._as_of = listed, as_of
        self._known.clear()

    def watch(self, event: bytes, at: Position) -> Watch | None:
        """None when its rows are not wanted. Fatal when its columns are not understood."""
        database, table, columns_at = table_map.named(event, _BODY)
        if self._fold:
            database, table = database.lower(), table.lower()
        if database != self._database or not (table in self._rows or table in self._notices):
            return None
        body = event[_AFTER_ID:]
        watch = self._known.get(body)
        if watch is None:
            watch = self._known[body] = self._compiled(event, table, columns_at, at)
        return watch

    def _compiled(self, event: bytes, table: str, columns_at: int, at: Position) -> Watch:
        try:
            found = table_map.columns(event, columns_at, self._flavour, self._charsets)
        except (ValueError, IndexError, KeyError, struct.error) as error:
            why = f"binlog: the columns of {table} are not understood (at {at.file}:{at.pos})"
            raise Fatal(why, hint="upgrade openmrs-passport") from error
        behind = self._as_of is not None and at.order < self._as_of.order
        if behind and not all(column.name for column in found):
            raise table_map.changed(table, "it is newer, and there may be another DDL in between")
        columns = table_map.completed(found, self._listed.get(table), table)
        if table in self._rows:
            wanted = self._rows[table]
            return Watch(table, True, Table(columns, wanted, "text", wanted[0]))
        return Watch(table, False, Table(columns, self._notices[table], "keys"))
