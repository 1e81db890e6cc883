"""The binlog of one server: dump connection and stream. The one file of this stage that meets
MySQL's protocol.
"""

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pymysql
from pymysql.constants.COMMAND import COM_BINLOG_DUMP
from pymysql.cursors import Cursor

from cdc.binlog.changes import (
    BinlogItem,
    Commit,
    Idle,
    IncompleteRow,
    KeyChange,
    NextFile,
    RowChange,
    Statement,
)
from cdc.binlog.decoder import EventDecoder
from cdc.binlog.field_types import Flavour
from cdc.binlog.gtids import MysqlGtidSet
from cdc.binlog.packets import Framing, error_of
from openmrs.values import ColumnInfo
from passport.errors import Fatal, PassportError, Retry, without_text
from passport.version import Position

__all__ = [
    "BinlogItem",
    "BinlogStream",
    "Commit",
    "Idle",
    "IncompleteRow",
    "KeyChange",
    "NextFile",
    "RowChange",
    "Statement",
]

_COM_BINLOG_DUMP_GTID = 0x1E
_BY_GTID = 0x04
_CHUNK = 65_536  # bytes a recv: with what is made of them they stay in the cache of a core
_FIRST, _PAST_32_BITS = 4, 1 << 32


class BinlogStream:
    """Decoded changes of one database, from a position or a GTID set on.

    `start`: a transaction's end; without it `gtid_set` (as the server writes it) says what is known
    already. `columns`: column lists by table, from information_schema at that position. Connects at
    once. After any error it is closed: make a new one from the last saved position.
    """

    def __init__(
        self,
        connect: Callable[[], "pymysql.Connection[Any]"],
        *,
        flavour: Flavour,
        server_id: int,
        start: Position | None,
        gtid_set: str | None,
        database: str,
        columns: Mapping[str, Sequence[ColumnInfo]],
        row_columns: Mapping[str, Sequence[str]],
        key_columns: Mapping[str, Sequence[str]],
        heartbeat_s: float = 5,
        read_timeout_s: float = 20,
    ) -> None:
        self._connection = _opened(connect)
        try:
            charsets = _charsets(self._connection, flavour)
            ((case,),) = _query(self._connection, "SELECT @@lower_case_table_names")
            _dump(self._connection, flavour, server_id, start, gtid_set, heartbeat_s)
        except (pymysql.Error, OSError) as error:
            self.close()
            raise _named(error) from None
        self._decoder = EventDecoder(
            flavour=flavour,
            database=database,
            row_columns=row_columns,
            key_columns=key_columns,
            columns=columns,
            charsets=charsets,
            gtid_set=gtid_set or "",
            start=start,
            skip=start is not None and start.pos >= _PAST_32_BITS,
            ignore_case=bool(case),
        )
        self._wire = EventSocket(self._connection, read_timeout_s)
        self._deadline = 0.0
        self._flow = self._items()

    @property
    def format_ts(self) -> int:
        """Header timestamp of the current file's FORMAT_DESCRIPTION event, seconds; 0 before it
        came.
        """
        return self._decoder.format_ts

    @property
    def began_ts(self) -> int:
        """`format_ts` of the file that this stream began in; 0 before it came."""
        return self._decoder.began_ts

    @property
    def position(self) -> Position:
        """End of the event read last."""
        return Position(self._decoder.file, self._decoder.pos)

    def poll(self, timeout_s: float) -> list[BinlogItem]:
        """What came, 1,000 items at most and those of one event; [] when nothing did within
        `timeout_s`.

        Of commits with nothing between them only the last is given. A `Statement` is the last item
        of its list, so that `set_columns` comes before what follows it. Retry: the connection was lost;
        Gap: the position is gone; Fatal.
        """
        self._deadline = time.monotonic() + timeout_s
        try:
            for items in self._flow:
                if items or time.monotonic() >= self._deadline:
                    return items
        except PassportError:
            self.close()
            raise
        raise Retry("binlog: the stream is closed")

    def _items(self) -> Iterator[list[BinlogItem]]:
        """Empty: nothing more has arrived for now."""
        while True:
            yield from self._decoder.read(
                self._wire.events(max(0.0, self._deadline - time.monotonic()))
            )
            yield []

    def set_columns(
        self, columns: Mapping[str, Sequence[ColumnInfo]], as_of: Position | None = None
    ) -> None:
        """Column lists read after a DDL `Statement`, when the binlog ended at `as_of`."""
        self._decoder.set_columns(columns, as_of)

    def close(self) -> None:
        """Ends the connection. Safe to call twice."""
        try:
            self._connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001  # QUIT would wait for the dump
        except OSError:
            return


# --- what goes to the server


def _opened(connect: Callable[[], "pymysql.Connection[Any]"]) -> "pymysql.Connection[Any]":
    try:
        return connect()
    except (pymysql.Error, OSError) as error:
        raise _named(error) from None


def _charsets(connection: "pymysql.Connection[Any]", flavour: Flavour) -> dict[int, str]:
    """Character sets by collation id. MariaDB lists the ids of its newer collations in a second
    table.
    """
    sql = "SELECT id, character_set_name FROM information_schema."
    found = _query(
        connection, f"{sql}collations WHERE id IS NOT NULL AND character_set_name IS NOT NULL"
    )
    if flavour == "mariadb":
        try:
            found += _query(connection, f"{sql}collation_character_set_applicability")
        except pymysql.Error as error:
            if error.args[0] != 1054:  # before 10.10 that table has no ids
                raise
    return {int(number): str(charset) for number, charset in found}


def _query(connection: "pymysql.Connection[Any]", sql: str, *args: str) -> list[tuple[Any, ...]]:
    with connection.cursor(Cursor) as cursor:
        cursor.execute(sql, args or None)
        return list(cursor.fetchall())


def _dump(
    connection: "pymysql.Connection[Any]",
    flavour: Flavour,
    server_id: int,
    start: Position | None,
    gtid_set: str | None,
    heartbeat_s: float,
) -> None:
    """Ask for the events; from here on the server only sends."""
    period = int(heartbeat_s * 1e9)  # nanoseconds
    # Capability 4: GTID events are understood. The other server just sees variables that it does
    # not use.
    sql = (
        "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32', @mariadb_slave_capability = 4,"
        f" @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"
    )
    _query(connection, sql)
    if start is not None:
        pos = (
            start.pos if start.pos < _PAST_32_BITS else _FIRST
        )  # the command has 32 bits: skipped up to it later
        command, body = (
            COM_BINLOG_DUMP,
            struct.pack("<IHI", pos, 0, server_id) + start.file.encode(),
        )
    elif gtid_set is None:
        raise Fatal(
            "binlog: neither a position nor a GTID set to start at",
            hint="passport cdc run --hospital HOSPITAL --new-epoch",
        )
    elif flavour == "mariadb":
        sql = "SET @slave_connect_state = %s, @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
        _query(connection, sql, gtid_set)
        command, body = COM_BINLOG_DUMP, struct.pack("<IHI", _FIRST, 0, server_id)
    else:
        packed = MysqlGtidSet(gtid_set).packed()
        command = _COM_BINLOG_DUMP_GTID
        body = struct.pack("<HIIQI", _BY_GTID, server_id, 0, _FIRST, len(packed)) + packed
    connection._execute_command(command, body)  # type: ignore[attr-defined]  # noqa: SLF001


# --- what comes from it


class EventSocket:
    """The socket of a dump connection: packets -> events.

    PyMySQL reads a packet at a time, in two reads; this reads what is there and splits it.
    """

    def __init__(self, connection: "pymysql.Connection[Any]", read_timeout_s: float) -> None:
        self._socket = connection._sock  # type: ignore[attr-defined]  # noqa: SLF001
        self._timeout_s = read_timeout_s
        self._silent_s = 0.0
        self._framing = Framing()

    def events(self, timeout_s: float) -> list[bytes]:
        """Whole events that came within `timeout_s`, [] when none did. Retry when the server is
        silent for too long.
        """
        wait = max(0.001, min(timeout_s, self._timeout_s))
        began = time.monotonic()
        try:
            self._socket.settimeout(wait)
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            self._silent_s += time.monotonic() - began
            if self._silent_s >= self._timeout_s:
                raise Retry(f"binlog: the server sent nothing for {self._silent_s:.0f} s") from None
            return []
        except OSError as error:
            raise Retry(f"binlog: connection lost: {without_text(error)}") from None
        if not data:
            raise Retry("binlog: the server closed the connection")
        self._silent_s = 0.0
        return self._framing.feed(data)


def _named(error: Exception) -> PassportError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return error_of(code, str(error.args[1]) if len(error.args) > 1 else "")
