"""A server's binlog in a test, read from a position to what the server has written since."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.binlog.stream import BinlogItem, BinlogStream, Idle
from dev.stack import MariaDB, MySQL
from openmrs.column_info import COLUMN_INFO_SQL, ColumnInfo
from openmrs.connection import end_of_binlog, server_version
from openmrs.tables import KEY_COLUMNS, ROW_COLUMNS
from passport.version import Position

PATIENCE_S = 60


class Tap:
    """One database of a server that the test has for itself."""

    def __init__(
        self,
        server: MariaDB | MySQL,
        *,
        database: str = "openmrs",
        row_columns: Mapping[str, Sequence[str]] | None = None,
        key_columns: Mapping[str, Sequence[str]] = KEY_COLUMNS,
    ) -> None:
        self.server = server
        with server.connect() as connection:
            self.version = server_version(connection)
        self.flavour = self.version.flavour
        self.database = database
        self.row_columns = row_columns or ROW_COLUMNS
        self.key_columns = key_columns
        server.execute(f"DROP DATABASE IF EXISTS {database}", f"CREATE DATABASE {database}")

    def execute(self, *statements: str) -> Any:
        """Run the statements in one session, and return the rows of the last one."""
        with (
            self.server.connect(database=self.database) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def end(self) -> Position:
        """Return where the binlog ends now."""
        with self.server.connect() as connection:
            end = end_of_binlog(connection)
        assert end is not None
        return end

    def gtid_set(self) -> str:
        """Return the GTIDs that the server has executed."""
        name = "@@gtid_binlog_pos" if self.flavour == "mariadb" else "@@global.gtid_executed"
        return str(self.server.execute(f"SELECT {name}")[0][0]).replace("\n", "")

    def columns(self) -> dict[str, list[ColumnInfo]]:
        """Return the columns of the watched tables, as they are now."""
        found: dict[str, list[ColumnInfo]] = {}
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(COLUMN_INFO_SQL, (self.database, [*self.row_columns, *self.key_columns]))
            for table, info in map(ColumnInfo.read, cursor.fetchall()):
                found.setdefault(table, []).append(info)
        return found

    def stream(
        self, start: Position | None, *, gtid_set: str | None = "", **options: Any
    ) -> BinlogStream:
        """Return a stream with a server id of its own."""
        options = {
            "connect": self.server.connect,
            "columns": self.columns(),
            "server_id": 4711,
            **options,
        }
        return BinlogStream(
            flavour=self.flavour,
            start=start,
            gtid_set=gtid_set,
            database=self.database,
            row_columns=self.row_columns,
            key_columns=self.key_columns,
            **options,
        )

    def read(
        self, start: Position | None, end: Position | None = None, **options: Any
    ) -> list[BinlogItem]:
        """Return all items from `start` to `end`, or to where the binlog ends now."""
        stream = self.stream(start, **options)
        try:
            return read_until(stream, end or self.end())
        finally:
            stream.close()

    def changes(self, *statements: str, **options: Any) -> list[BinlogItem]:
        """Return the items that these statements write, run in one session."""
        start = self.end()
        self.execute(*statements)
        return self.read(start, **options)


def read_until(stream: BinlogStream, end: Position) -> list[BinlogItem]:
    """Return the items up to `end`.

    A busy machine may take long. The wait is over when nothing more comes for PATIENCE_S.
    """
    items: list[BinlogItem] = []
    deadline = time.monotonic() + PATIENCE_S
    reached = stream.position
    while not stream.format_ts or stream.position.order < end.order or items_left(stream, items):
        found = stream.poll(1)
        items += found
        if stream.position != reached:
            deadline = time.monotonic() + PATIENCE_S
            reached = stream.position
        assert found or time.monotonic() < deadline, (
            f"nothing more behind {stream.position}, the end is {end}"
        )
    return items


def items_left(stream: BinlogStream, items: list[BinlogItem]) -> bool:
    """Append what the last event has more than one poll gives; return whether there was any."""
    found = stream.poll(0.01)
    items += found
    return any(type(item) is not Idle for item in found)


def of(kind: type, items: Sequence[BinlogItem]) -> list[Any]:
    """Return the items of one kind."""
    return [item for item in items if type(item) is kind]
