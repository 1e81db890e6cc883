"""The binlog of one server: the dump connection, and the stream of decoded changes.

This is the one file of the stage that meets MySQL's protocol.
"""

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    SkippedTransaction,
    Statement,
)
from cdc.binlog.decoder import EventDecoder
from cdc.binlog.field_types import Flavour
from cdc.binlog.gtids import MysqlGtidSet
from cdc.binlog.packets import EventPart, Framing, error_of
from openmrs.column_info import ColumnInfo
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
    "SkippedTransaction",
    "Statement",
]

_COM_BINLOG_DUMP_GTID = 0x1E
_BY_GTID = 0x04
_CHUNK = 65_536  # bytes a recv: with what is made of them they stay in the cache of a core
FILE_START = 4  # a binlog file begins with four bytes that are no event
_PAST_32_BITS = 1 << 32


class BinlogStream:
    """The decoded changes of one database, from a position or a GTID set on.

    `start` is the end of a transaction. Without it `gtid_set`, as the server writes it, is what has
    been read already. `columns` are the column lists by table, from information_schema at that
    position. `row_columns` is the table whose rows are carried and its columns, `key_columns` are
    the tables that are watched by their keys.

    It connects at once. After any error it is closed: make a new one from the last saved position.
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
        self._connection = _open(connect)
        try:
            charsets = _charsets(self._connection, flavour)
            ((case,),) = _query(self._connection, "SELECT @@lower_case_table_names")
            _dump(self._connection, flavour, server_id, start, gtid_set, heartbeat_s)
        except (pymysql.Error, OSError) as error:
            self.close()
            raise _server_error(error) from None
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
        self._socket = EventSocket(self._connection, read_timeout_s)
        self._deadline = 0.0
        self._flow = self._items()

    @property
    def format_ts(self) -> int:
        """The time of the current file's FORMAT_DESCRIPTION event, in seconds; 0 before it came.

        It tells a file from another one of the same name.
        """
        return self._decoder.format_ts

    @property
    def began_ts(self) -> int:
        """The `format_ts` of the file that this stream began in; 0 before it came."""
        return self._decoder.began_ts

    @property
    def position(self) -> Position:
        """The end of the event that was read last."""
        return self._decoder.position

    @property
    def is_unverified(self) -> bool:
        """Whether the last rows are of an event whose checksum has not come yet."""
        return self._decoder.is_unverified

    @property
    def gtid(self) -> str:
        """The GTID of the transaction that is being read; "" if there is none."""
        return self._decoder.gtid

    def skip(self, gtids: frozenset[str]) -> None:
        """Give no rows of these transactions: see `SkippedTransaction`."""
        self._decoder.skip(gtids)

    def pass_over(self) -> None:
        """Give no more rows of that event: `poll` on, until it is verified."""
        self._decoder.pass_over()

    def poll(self, timeout_s: float) -> list[BinlogItem]:
        """Return what came, about 1,000 items; [] if nothing came within `timeout_s`.

        Of commits with nothing between them only the last is given. A `Statement` is the last item
        of its list, so that `set_columns` can be called before what follows it is decoded. Raises
        Retry if the connection was lost, Gap if the position is gone, or Fatal.
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
        """Yield lists of items for ever. An empty one means that nothing more has arrived yet."""
        while True:
            timeout_s = max(0.0, self._deadline - time.monotonic())
            for events in self._socket.events(timeout_s):
                if isinstance(events, EventPart):
                    yield from self._decoder.read_part(events)
                else:
                    yield from self._decoder.read(events)
            yield []

    def set_columns(
        self, columns: Mapping[str, Sequence[ColumnInfo]], valid_from: Mapping[str, Position]
    ) -> None:
        """Take the column lists that hold after a DDL `Statement`.

        `valid_from` says by table where a list begins to hold, if that is further on.
        """
        self._decoder.set_columns(columns, valid_from)

    def close(self) -> None:
        """End the connection. It is safe to call this twice."""
        try:
            # The usual close sends QUIT, which would wait for the dump to end.
            self._connection._force_close()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            return


# --- what goes to the server


def _open(connect: Callable[[], "pymysql.Connection[Any]"]) -> "pymysql.Connection[Any]":
    try:
        return connect()
    except (pymysql.Error, OSError) as error:
        raise _server_error(error) from None


def _charsets(connection: "pymysql.Connection[Any]", flavour: Flavour) -> dict[int, str]:
    """Return the character sets by collation id.

    MariaDB lists the ids of its newer collations in a second table.
    """
    sql = "SELECT id, character_set_name FROM information_schema."
    rows = _query(
        connection, f"{sql}collations WHERE id IS NOT NULL AND character_set_name IS NOT NULL"
    )
    if flavour == "mariadb":
        try:
            rows += _query(connection, f"{sql}collation_character_set_applicability")
        except pymysql.Error as error:
            if error.args[0] != 1054:  # before 10.10 that table has no ids
                raise
    return {int(number): str(charset) for number, charset in rows}


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
    """Ask for the events. From here on the server only sends."""
    period = int(heartbeat_s * 1e9)  # nanoseconds
    # Capability 4: GTID events are understood. The other server just sees variables that it does
    # not use.
    sql = (
        "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32',"
        " @mariadb_slave_capability = 4,"
        f" @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"
    )
    _query(connection, sql)
    if start is not None:
        # The command has 32 bits for the position. Past them the file is read from its beginning,
        # and the decoder skips what comes before `start`.
        pos = start.pos if start.pos < _PAST_32_BITS else FILE_START
        command = COM_BINLOG_DUMP
        body = struct.pack("<IHI", pos, 0, server_id) + start.file.encode()
    elif gtid_set is None:
        raise Fatal(
            "binlog: neither a position nor a GTID set to start at",
            hint="passport cdc run --hospital HOSPITAL --new-epoch",
        )
    elif flavour == "mariadb":
        sql = (
            "SET @slave_connect_state = %s, @slave_gtid_strict_mode = 1,"
            " @slave_gtid_ignore_duplicates = 0"
        )
        _query(connection, sql, gtid_set)
        command = COM_BINLOG_DUMP
        body = struct.pack("<IHI", FILE_START, 0, server_id)
    else:
        packed = MysqlGtidSet(gtid_set).packed()
        command = _COM_BINLOG_DUMP_GTID
        body = struct.pack("<HIIQI", _BY_GTID, server_id, 0, FILE_START, len(packed)) + packed
    connection._execute_command(command, body)  # type: ignore[attr-defined]  # noqa: SLF001


# --- what comes from it


class EventSocket:
    """The socket of a dump connection: packets -> events.

    PyMySQL reads one packet at a time, in two reads. This reads what is there, and splits it.
    """

    def __init__(self, connection: "pymysql.Connection[Any]", read_timeout_s: float) -> None:
        self._socket = connection._sock  # type: ignore[attr-defined]  # noqa: SLF001
        self._timeout_s = read_timeout_s
        self._silent_s = 0.0
        self._framing = Framing()

    def events(self, timeout_s: float) -> Iterable[list[bytes] | EventPart]:
        """Return what came within `timeout_s`: lists of events, and the parts of large ones.

        Raises Retry if the connection was lost, or if the server is silent for too long: it has
        been told to send heartbeats.
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


def _server_error(error: Exception) -> PassportError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return error_of(code, str(error.args[1]) if len(error.args) > 1 else "")
