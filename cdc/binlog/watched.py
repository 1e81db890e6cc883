"""TABLE_MAP events -> the decoders of the tables whose rows are carried. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc.binlog import table_map
from cdc.binlog.byte_reader import UNREADABLE
from cdc.binlog.event_types import HEADER_SIZE
from cdc.binlog.field_types import Flavour
from cdc.binlog.rows_event import RowsDecoder
from openmrs.column_info import ColumnInfo
from passport.errors import Fatal
from passport.version import Position

_TABLE_ID_SIZE = 6


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table whose rows are decoded: whole (`is_row`), or their keys alone."""

    table: str
    is_row: bool
    decoder: RowsDecoder


@dataclass(slots=True)
class WatchedTables:
    """The watched tables of one database. `EventDecoder` describes the first seven fields.

    A decoder is made once for each description of a table, and kept by the description's bytes.
    """

    flavour: Flavour
    database: str
    row_columns: Mapping[str, Sequence[str]]
    key_columns: Mapping[str, Sequence[str]]
    columns: Mapping[str, Sequence[ColumnInfo]]
    charsets: Mapping[int, str]
    ignore_case: bool
    _tables: dict[bytes, WatchedTable] = field(default_factory=dict)
    _valid_from: Mapping[str, Position] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ignore_case:
            self.database = self.database.lower()

    def set_columns(
        self, columns: Mapping[str, Sequence[ColumnInfo]], valid_from: Mapping[str, Position]
    ) -> None:
        """Take new column lists.

        `valid_from` says by table where a list begins to be true, if that is further on. Rows of
        the table up to there must name their columns.
        """
        self.columns = columns
        self._valid_from = valid_from
        self._tables.clear()

    def find(self, event: bytes, at: Position) -> WatchedTable | None:
        """Return the table of a TABLE_MAP event, None if its rows are not wanted.

        Raises Fatal if its columns are not understood.
        """
        mapped = table_map.mapped_table(event, HEADER_SIZE)
        database = mapped.database
        table = mapped.table
        if self.ignore_case:
            database = database.lower()
            table = table.lower()
        is_watched = table in self.row_columns or table in self.key_columns
        if database != self.database or not is_watched:
            return None
        description = event[HEADER_SIZE + _TABLE_ID_SIZE :]
        watched = self._tables.get(description)
        if watched is None:
            watched = self._make(event, table, mapped.columns_at, at)
            self._tables[description] = watched
        return watched

    def _make(self, event: bytes, table: str, columns_at: int, at: Position) -> WatchedTable:
        try:
            columns = table_map.read_columns(event, columns_at, self.flavour, self.charsets)
        except UNREADABLE as error:
            raise Fatal(
                f"binlog: the columns of {table} are not understood (at {at.file}:{at.pos})",
                hint="upgrade openmrs-passport",
            ) from error
        has_names = all(column.name for column in columns)
        valid_from = self._valid_from.get(table)
        is_older = valid_from is not None and at.order < valid_from.order
        if is_older and not has_names:
            raise table_map.columns_changed(
                table, "it is newer, and there may be another DDL in between"
            )
        columns = table_map.complete(columns, self.columns.get(table), table)
        if table in self.row_columns:
            carried = self.row_columns[table]
            return WatchedTable(table, True, RowsDecoder(columns, carried, "text", key=carried[0]))
        return WatchedTable(table, False, RowsDecoder(columns, self.key_columns[table], "keys"))
