"""Binlog events -> changed rows, key changes and commits. Pure: bytes in, items out.

Items come in commit order. Nothing is held back: the rows of a transaction come before it is known
to end, and `Commit` says where it did.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID
from zlib import crc32

from cdc.binlog import event_types as kinds
from cdc.binlog.alter_table import ColumnChange
from cdc.binlog.byte_reader import UNREADABLE
from cdc.binlog.changes import (
    BinlogItem,
    Commit,
    DamagedEvent,
    Idle,
    IncompleteRow,
    KeyChange,
    NextFile,
    RowChange,
    SkippedTransaction,
    Statement,
    keys_of,
)
from cdc.binlog.compression import LARGEST, Payload, TooLargeError, inflate
from cdc.binlog.event_types import BINLOG, HEADER_SIZE
from cdc.binlog.field_types import Flavour
from cdc.binlog.gtids import MariadbGtidSet, MysqlGtidSet
from cdc.binlog.large_event import LargeEvent
from cdc.binlog.packets import EventPart
from cdc.binlog.statements import PreparedTransactions, Statements, starts_transaction
from cdc.binlog.tagged_gtid import tagged_gtid
from cdc.binlog.watched import WatchedTable, WatchedTables
from openmrs.column_info import ColumnInfo
from passport.errors import Fatal, Gap, PassportError
from passport.version import Position

AT_ONCE = 1_000  # about so many items come in one list

_HEADER = struct.Struct("<IB4xIIH").unpack_from  # seconds, type, size, end position, flags
_MARIADB_GTID = struct.Struct("<5xI10xQIB").unpack_from  # server id, number, domain, flags
_INTACT = 0x2144DF1C  # the CRC-32 of anything that has its own CRC-32 behind it

# Flags of an event's header. An artificial event was made for this connection and is in no file.
_ARTIFICIAL = 0x20
_IGNORABLE = 0x80
_IN_USE = 0x01  # of FORMAT_DESCRIPTION: the file is being written

# Flags of MariaDB's GTID event.
_STANDALONE = 1
_GROUP_COMMIT_ID = 2
_DDL = 32
_PREPARED_XA = 64

# Further flags, in a byte behind those. They are of an ALTER that was logged in two phases.
_START_ALTER = 2
_ROLLBACK_ALTER = 8

_ROWS_V1 = HEADER_SIZE + 8  # where the body of a ROWS event of version 1 begins
_NO_MAP = (None, None)
_GTID = BINLOG.MARIADB_GTID_EVENT
_TABLE_MAP = BINLOG.TABLE_MAP_EVENT
_XID = BINLOG.XID_EVENT
_DUMMY_TABLE_ID = b"\xff\xff\xff\0\0\0"

# These make what `Position(...)`, `RowChange(...)` and `Commit(...)` make, without a call of a
# Python function. They are made for every row or transaction.
_position: Callable[[tuple[Any, ...]], Position] = partial(tuple.__new__, Position)
_row: Callable[[tuple[Any, ...]], RowChange] = partial(tuple.__new__, RowChange)
_committed: Callable[[tuple[Any, ...]], Commit] = partial(tuple.__new__, Commit)


class EventDecoder:
    """Decodes the events of one connection.

    `row_columns` is the table whose rows are carried and its columns, the first of which is its
    key. `key_columns` are the tables that are watched by their keys. `columns` are the column lists
    by table, `charsets` the character sets by collation id, `gtid_set` is what was executed before
    the first event.

    If `skip` is set, the server sends the file of `start` from its beginning, and what ends at or
    before `start` is passed over. If `ignore_case` is set, the server does not tell names of tables
    apart by case.

    `file` and `pos` are where it stands. `format_ts` and `began_ts` are the time of this and of the
    first file's FORMAT_DESCRIPTION event.
    """

    def __init__(
        self,
        *,
        flavour: Flavour,
        database: str,
        row_columns: Mapping[str, Sequence[str]],
        key_columns: Mapping[str, Sequence[str]],
        columns: Mapping[str, Sequence[ColumnInfo]],
        charsets: Mapping[int, str],
        gtid_set: str,
        start: Position | None = None,
        skip: bool = False,
        ignore_case: bool = False,
    ) -> None:
        self.file, self.pos = start or ("", 4)
        self.format_ts = self.began_ts = 0
        self._watched = WatchedTables(
            flavour, database, row_columns, key_columns, columns, charsets, ignore_case
        )
        self._executed = (
            MariadbGtidSet(gtid_set) if flavour == "mariadb" else MysqlGtidSet(gtid_set)
        )
        self._statements = Statements(database, {*row_columns, *key_columns}, flavour, charsets)
        self._skip_to = start.pos if start and skip else 0
        # By table id: the TABLE_MAP event's body, and the table if it is watched.
        self._maps: dict[bytes, tuple[bytes, WatchedTable | None]] = {}
        self._checksums = False
        self._xids = PreparedTransactions()
        self._clean = False  # the file has its end
        self._moved = False  # this is not the file that the stream began in
        self._ts = self._ordinal = 0
        self._gtid = ""
        self._uuid = (b"", "")  # of the server whose transaction was read last
        # A group is what one GTID is for: a transaction, or a statement that stands alone. `_open`
        # is a transaction that needs a commit.
        self._in_group = self._open = self._xa = self._rows_in_group = False
        # The transactions whose rows are passed over, and whether this group is one of them.
        self._skipped: frozenset[str] = frozenset()
        self._is_skipped = False
        # The statement that follows is an ALTER that changed nothing yet, or never.
        self._is_unfinished = False
        self._handlers = self._handler_table()
        self._large: LargeEvent | None = None

    # --- which method reads which event

    def _handler_table(self) -> dict[int, Callable[[bytes], Iterable[BinlogItem]]]:
        """Return the method that reads the events of each type, by the number of the type.

        It is a dictionary since every event is looked up in it. FORMAT_DESCRIPTION, ROTATE and what
        most transactions consist of (MariaDB's GTID, TABLE_MAP that is known, XID) are read by
        `read` itself.
        """
        handlers: dict[int, Callable[[bytes], Iterable[BinlogItem]]] = dict.fromkeys(
            kinds.WITHOUT_MEANING, lambda _: ()
        )
        rows_events = (
            (1, BINLOG.WRITE_ROWS_EVENT_V1, False),
            (2, BINLOG.WRITE_ROWS_EVENT_V2, False),
            (1, kinds.COMPRESSED_ROWS_V1, True),
            (2, kinds.COMPRESSED_ROWS_V2, True),
        )
        for version, inserts, compressed in rows_events:
            # The numbers of updates and deletes follow that of inserts.
            for offset, op in enumerate("cud"):
                handler = self._rows_handler(op, version, compressed=compressed)
                handlers[inserts + offset] = handler
        return handlers | {
            BINLOG.QUERY_EVENT: self._query,
            BINLOG.EXECUTE_LOAD_QUERY_EVENT: lambda event: self._query(event, 45),
            BINLOG.STOP_EVENT: self._ended,
            BINLOG.ROTATE_EVENT: self._ended,
            BINLOG.XID_EVENT: self._xid,
            BINLOG.TABLE_MAP_EVENT: self._table_map,
            BINLOG.INCIDENT_EVENT: self._incident,
            BINLOG.HEARTBEAT_LOG_EVENT: self._heartbeat,
            kinds.HEARTBEAT_V2: self._heartbeat,
            BINLOG.GTID_LOG_EVENT: self._mysql_gtid,
            BINLOG.ANONYMOUS_GTID_LOG_EVENT: lambda _: self._begin(""),
            BINLOG.PREVIOUS_GTIDS_LOG_EVENT: self._previous_gtids,
            BINLOG.XA_PREPARE_EVENT: self._xa_prepare,
            BINLOG.PARTIAL_UPDATE_ROWS_EVENT: self._partial_json,
            kinds.PAYLOAD: self._payload,
            kinds.TAGGED_GTID: self._tagged_gtid,
            BINLOG.MARIADB_GTID_GTID_LIST_EVENT: self._gtid_list,
            kinds.COMPRESSED_QUERY: self._compressed_query,
        }

    # --- events

    def read(self, events: Iterable[bytes]) -> Iterator[list[BinlogItem]]:  # noqa: C901
        """Yield the items of `events` in lists, of about `AT_ONCE` items each.

        Of commits with nothing between them only the last is given. A `Statement` is the last item
        of its list. Raises DamagedEvent, or Fatal if an event is not understood.

        This is one long function: each event goes through it, four in a transaction, and a call
        costs as much as a checksum.
        """
        handlers = self._handlers
        about_files = kinds.ABOUT_FILES
        heartbeats = kinds.HEARTBEATS
        maps = self._maps
        skipped = self._skipped
        header = _HEADER
        crc = crc32
        tail = 4 if self._checksums else 0
        items: list[BinlogItem] = []
        for event in events:
            ts, kind, size, log_pos, flags = header(event)
            if size != len(event):
                raise DamagedEvent(
                    f"binlog: an event of another size than it says behind {self.file}:{self.pos}"
                )
            if kind in about_files and (kind == kinds.FORMAT or flags & _ARTIFICIAL or not ts):
                decoded = (
                    self._format(event, ts, log_pos)
                    if kind == kinds.FORMAT
                    else self._next_file(event)
                )
                tail = 4 if self._checksums else 0
            else:
                if tail and crc(event) != _INTACT:
                    raise DamagedEvent(
                        f"binlog: wrong checksum of event type {kind} behind {self.file}:{self.pos}"
                    )
                if not flags & _ARTIFICIAL and kind not in heartbeats:
                    self.pos += (log_pos - self.pos) & 0xFFFFFFFF if log_pos else size
                    if self.pos <= self._skip_to:
                        continue
                self._ts = ts
                if (
                    kind == _TABLE_MAP
                    and maps.get(event[19:25], _NO_MAP)[0] == event[25 : size - tail]
                ):
                    continue
                if kind == _GTID:
                    server, seq, domain, more = _MARIADB_GTID(event)
                    self._gtid = f"{domain}-{server}-{seq}"
                    self._in_group = True
                    self._open = not more & _STANDALONE  # such a statement ends its group itself
                    self._xa = bool(more & _PREPARED_XA)
                    self._is_unfinished = bool(
                        more & _DDL and _is_unfinished_alter(event[: size - tail], more)
                    )
                    if skipped and self._gtid in skipped:
                        items.append(self._begin_skipped())
                    continue
                if kind == _XID:
                    if items and type(items[-1]) is Commit:
                        items.pop()
                    items.append(self._commit())
                    continue
                self._ordinal = 0
                event = event[: size - tail]  # noqa: PLW2901
                handler = handlers.get(kind)
                decoded = handler(event) if handler else self._unknown(kind, flags)
            if not decoded:
                continue
            if type(decoded) is list:  # rows
                items += decoded
                if len(items) >= AT_ONCE:
                    yield items
                    items = []
            else:
                for item in decoded:
                    if type(item) is Commit and items and type(items[-1]) is Commit:
                        items[-1] = item
                    else:
                        items.append(item)
                    if type(item) is Statement or len(items) >= AT_ONCE:
                        yield items
                        items = []
        if items:
            yield items

    # --- large events, which come in parts

    @property
    def position(self) -> Position:
        """The end of the event that was read last, to its end."""
        if self._large is not None:
            return self._large.before
        return Position(self.file, self.pos)

    @property
    def is_unverified(self) -> bool:
        """Whether rows were given of an event whose checksum has not come yet."""
        return self._large is not None and self._large.payload is not None

    @property
    def gtid(self) -> str:
        """The GTID of the transaction that is being read; "" if there is none."""
        return self._gtid

    def skip(self, gtids: frozenset[str]) -> None:
        """Give no rows of these transactions from now on. One that has begun is read on."""
        self._skipped = gtids

    def pass_over(self) -> None:
        """Decode no more of the event whose checksum has not come yet."""
        if self._large is not None:
            self._large.is_passed_over = True

    def read_part(self, part: EventPart) -> Iterator[list[BinlogItem]]:
        """Yield the items of the next part of a large event, as `read` does.

        A compressed transaction is decompressed as it comes, and its rows are given before its
        checksum, which is the end of the event, can be verified. Its commit is given after that. If
        the checksum is wrong, so may be the rows: that is a Gap, since only a snapshot mends them.

        Of another event the items come with its last part.
        """
        if part.is_first:
            self._large = self._begin_large(part.data)
        large = self._large
        if large is None:
            raise DamagedEvent(f"binlog: a part of no event behind {self.file}:{self.pos}")

        if large.gathered is not None:
            large.gathered += part.data
        content = large.take(part.data)
        if large.payload is not None:
            body = content[HEADER_SIZE:] if part.is_first else content
            yield from self._payload_part(large, large.payload, body, is_last=part.is_last)
        if part.is_last:
            self._large = None
            yield from self._end_large(large)

    def _begin_large(self, first_part: bytes) -> LargeEvent:
        """Take the event's header, and decide how to read it."""
        large = LargeEvent(first_part, Position(self.file, self.pos), has_checksum=self._checksums)
        end = self.pos + ((large.log_pos - self.pos) & 0xFFFFFFFF if large.log_pos else large.size)
        if end <= self._skip_to or not self._is_wanted(first_part):
            return large
        if large.kind == kinds.PAYLOAD:
            if self._is_skipped:
                return large
            large.payload = Payload(self._is_wanted)
            self.pos = end
            self._ordinal = 0
        elif large.size > LARGEST:
            raise self._too_large()
        else:
            large.gathered = bytearray()
        return large

    def _end_large(self, large: LargeEvent) -> Iterator[list[BinlogItem]]:
        """Verify an event of which all parts have come, and give what was kept back."""
        if large.gathered is not None:
            yield from self.read([bytes(large.gathered)])
            return
        if large.payload is None:
            if not large.is_intact:
                raise DamagedEvent(
                    f"binlog: wrong checksum of event type {large.kind} behind"
                    f" {self.file}:{self.pos}"
                )
            self.pos += (large.log_pos - self.pos) & 0xFFFFFFFF if large.log_pos else large.size
            if self._is_skipped and large.kind == kinds.PAYLOAD:
                yield [self._commit()]
            return
        if not large.is_intact:
            raise self._gap("wrong checksum of a compressed transaction")
        if large.is_passed_over:
            return
        if large.error is not None:
            raise large.error
        if large.commit is not None:
            yield [large.commit]

    def _is_wanted(self, head: bytes) -> bool:
        """Return whether an event is read, by its header and the number of its table."""
        kind = head[4]
        if self._is_skipped and kind in kinds.ROWS:
            return False
        if kind in kinds.ROWS and head[19:25] in self._maps:
            return self._maps[head[19:25]][1] is not None
        return kind not in kinds.WITHOUT_MEANING

    def _too_large(self) -> Gap:
        return self._gap(
            f"an event of more than {LARGEST >> 20} MiB, which is not read into memory"
        )

    def _unknown(self, kind: int, flags: int) -> Iterable[BinlogItem]:
        if flags & _IGNORABLE or self._is_skipped:
            return ()
        name = kinds.NAMES.get(kind, "no name here")
        raise self._fatal(
            f"event type {kind} ({name}) is not known and may carry rows",
            "upgrade openmrs-passport",
        )

    def _fatal(self, reason: str, hint: str) -> Fatal:
        return Fatal(f"binlog: {reason} (at {self.file}:{self.pos})", hint=hint)

    def _gap(self, reason: str) -> Gap:
        return Gap(
            f"binlog: {reason} (at {self.file}:{self.pos})",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
        )

    # --- files

    def _format(self, event: bytes, ts: int, log_pos: int) -> Iterable[BinlogItem]:
        version = event[HEADER_SIZE : HEADER_SIZE + 2]
        header_size = event[HEADER_SIZE + 56 : HEADER_SIZE + 57]
        if version != b"\4\0" or header_size != bytes([HEADER_SIZE]):
            raise DamagedEvent(
                f"binlog: no FORMAT_DESCRIPTION event behind {self.file}:{self.pos}, "
                "though it says so"
            )
        self._checksums = event[-5] == 1
        cleared = bytearray(event)
        cleared[17] &= ~_IN_USE  # the server sets it in the file later, without a new checksum
        if self._checksums and crc32(cleared) != _INTACT:
            raise DamagedEvent(
                f"binlog: wrong checksum of the FORMAT_DESCRIPTION event of {self.file}"
            )
        self.format_ts = ts
        self.began_ts = self.began_ts or ts
        self.pos = max(self.pos, log_pos)
        return ()

    def _next_file(self, event: bytes) -> Iterable[BinlogItem]:
        """Read an artificial ROTATE event: what follows is of the file that it names."""
        if crc32(event) == _INTACT:  # whether it has a checksum, only the next event says
            event = event[:-4]
        left = Position(self.file, self.pos)
        self.file = event[HEADER_SIZE + 8 :].decode()
        self.pos = int.from_bytes(event[HEADER_SIZE : HEADER_SIZE + 8], "little")
        if left.file in ("", self.file):
            return ()
        self._maps.clear()  # a restarted server numbers its tables anew
        next_file = NextFile(Position(self.file, self.pos), self._clean, left)
        self._clean = False
        self._moved = True
        self._skip_to = 0
        # No transaction goes on in the next file: one that is open was lost in a crash.
        rows_are_void = self._rows_in_group
        self._end_group()
        if rows_are_void:
            return (self._statement("rollback", "*"), next_file)
        return (next_file,)

    def _ended(self, _: bytes) -> Iterable[BinlogItem]:
        self._clean = True
        return ()

    def _heartbeat(self, event: bytes) -> Iterable[BinlogItem]:
        """Go on to where the server is. It left out transactions that the GTID set has already."""
        if self._in_group:
            return ()
        ahead = (_HEADER(event)[3] - self.pos) & 0xFFFFFFFF  # a header has 32 bits of the position
        if not ahead >> 31:  # else the server is behind
            self.pos += ahead
        return (Idle(Position(self.file, self.pos)),)

    def _incident(self, _: bytes) -> Iterable[BinlogItem]:
        raise self._gap("the server lost changes (INCIDENT event)")

    # --- transactions

    def _mysql_gtid(self, event: bytes) -> Iterable[BinlogItem]:
        raw = event[20:36]
        if raw != self._uuid[0]:
            self._uuid = (raw, str(UUID(bytes=raw)))
        return self._begin(f"{self._uuid[1]}:{int.from_bytes(event[36:44], 'little')}")

    def _tagged_gtid(self, event: bytes) -> Iterable[BinlogItem]:
        try:
            return self._begin(tagged_gtid(event[HEADER_SIZE:]))
        except UNREADABLE as error:
            raise self._fatal(
                "a tagged GTID is not understood", "upgrade openmrs-passport"
            ) from error

    def _begin(self, gtid: str) -> Iterable[BinlogItem]:
        self._gtid = gtid
        self._in_group = True
        if gtid in self._skipped:
            return (self._begin_skipped(),)
        return ()

    def _begin_skipped(self) -> SkippedTransaction:
        self._is_skipped = True
        return SkippedTransaction(self._gtid, Position(self.file, self.pos), self._ts)

    def _previous_gtids(self, event: bytes) -> Iterable[BinlogItem]:
        return self._executed_before_file(MysqlGtidSet.unpack(event[HEADER_SIZE:]))

    def _executed_before_file(
        self, executed: MariadbGtidSet | MysqlGtidSet
    ) -> Iterable[BinlogItem]:
        """Take the GTID set that a file begins with: all that was executed before it.

        In the file in which this stream began, that is less than the stream's own set.
        """
        if self._moved or not str(self._executed):
            self._executed = executed
        return ()

    def _gtid_list(self, event: bytes) -> Iterable[BinlogItem]:
        return self._executed_before_file(MariadbGtidSet.unpack(event[HEADER_SIZE:]))

    def _xid(self, _: bytes) -> Iterable[BinlogItem]:
        return (self._commit(),)

    def _xa_prepare(self, event: bytes) -> Iterable[BinlogItem]:
        """Read the end of what an XA transaction logs before its commit: a place to resume at.

        After XA COMMIT ... ONE PHASE nothing more follows, and its rows are visible.
        """
        is_one_phase = event[HEADER_SIZE]
        if not is_one_phase:
            return (self._commit(),)
        self._xids.committed_in_one_phase()
        if self._rows_in_group:
            return (self._statement("xa", "*"), self._commit())
        return (self._commit(),)

    def _commit(self) -> Commit:
        gtid = self._gtid
        executed = self._executed.advance(gtid) if gtid else str(self._executed)
        self._end_group()
        return _committed((_position((self.file, self.pos)), gtid, self._ts, executed))

    def _end_group(self) -> None:
        self._gtid = ""
        self._in_group = self._open = self._xa = self._rows_in_group = self._is_skipped = False

    # --- statements

    def _query(self, event: bytes, fixed: int = 32) -> Iterable[BinlogItem]:
        """Read a statement.

        Its text stands behind `fixed` bytes, the status variables and the name of the database.
        """
        start = fixed + int.from_bytes(event[30:32], "little")
        end = start + event[27]
        return self._read_statement(event[start:end], event[end + 1 :], event[fixed:start])

    def _compressed_query(self, event: bytes) -> Iterable[BinlogItem]:
        text_at = 33 + int.from_bytes(event[30:32], "little") + event[27]
        return self._query(event[:text_at] + self._inflate(event[text_at:]))

    def _inflate(self, data: bytes) -> bytes:
        try:
            return inflate(data)
        except TooLargeError:
            raise self._too_large() from None
        except UNREADABLE as error:
            raise self._fatal(
                "a compressed event is not understood", "SET GLOBAL log_bin_compress = OFF"
            ) from error

    def _read_statement(self, database: bytes, text: bytes, status: bytes) -> Iterable[BinlogItem]:
        if text == b"BEGIN":
            self._in_group = self._open = True
            return ()
        if self._is_unfinished:
            return (self._commit(),)
        statement = self._statements.classify(database, text, status)
        kind = statement.kind
        items: list[BinlogItem] = [
            self._statement(kind, table, statement.columns) for table in statement.tables
        ]
        if kind in ("rollback", "rollback_to") and self._rows_in_group:
            items.append(self._statement("rollback", "*"))
        is_xa = kind in ("xa", "xa_done")
        if is_xa and self._xids.made_visible(text, has_rows=self._rows_in_group):
            items.append(self._statement("xa", "*"))
        if kind in ("begin", "xa") or starts_transaction(text):
            self._in_group = self._open = True
            self._xa = self._xa or kind == "xa"
        elif not self._open or kind in ("commit", "rollback", "xa_done"):
            items.append(self._commit())
        return tuple(items)

    def _statement(
        self, kind: str, table: str, columns: tuple[ColumnChange, ...] = ()
    ) -> Statement:
        return Statement(kind, table, Position(self.file, self.pos), self._ts, columns)

    # --- rows

    def _table_map(self, event: bytes) -> Iterable[BinlogItem]:
        if not self._in_group:
            raise self._gap("it was begun inside a transaction")
        if self._is_skipped:
            return ()
        self._maps[event[19:25]] = (
            event[25:],
            self._watched.find(event, Position(self.file, self.pos)),
        )
        return ()

    def set_columns(
        self, columns: Mapping[str, Sequence[ColumnInfo]], valid_from: Mapping[str, Position]
    ) -> None:
        """Take new column lists, after a DDL statement, as `WatchedTables.set_columns` does."""
        self._watched.set_columns(columns, valid_from)
        self._maps.clear()

    def _rows_handler(
        self, op: str, version: int, *, compressed: bool
    ) -> Callable[[bytes], Iterable[BinlogItem]]:
        maps = self._maps

        def handle(event: bytes) -> Iterable[BinlogItem]:
            if self._is_skipped:
                return ()
            watched = maps.get(event[19:25], _NO_MAP)[1]
            if watched is None:
                return () if event[19:25] in maps else self._unmapped(event)
            at = _ROWS_V1 if version == 1 else _ROWS_V1 + event[27] + (event[28] << 8)
            if compressed:
                event = self._decompressed_rows(op, event, at)
            return self._changes(watched, op, event, at)

        return handle

    def _unmapped(self, event: bytes) -> Iterable[BinlogItem]:
        if event[19:25] == _DUMMY_TABLE_ID:  # ends a statement that changed nothing
            return ()
        raise self._gap("rows without their TABLE_MAP")

    def _decompressed_rows(self, op: str, event: bytes, at: int) -> bytes:
        bitmaps = 2 if op == "u" else 1
        data_at = at + 1 + bitmaps * ((event[at] + 7) // 8)
        return event[:data_at] + self._inflate(event[data_at:])

    def _changes(self, watched: WatchedTable, op: str, event: bytes, at: int) -> list[BinlogItem]:
        self._rows_in_group = True
        if self._xa:
            return []  # nobody sees them yet: the table is read once they are committed
        try:
            pairs, is_incomplete = watched.decoder.rows(op, event, at)
        except TooLargeError:
            raise self._too_large() from None
        except UNREADABLE as error:
            raise self._fatal(
                f"rows of {watched.table} are not understood", "report the table's definition"
            ) from error
        place, ts, gtid, number = (
            _position((self.file, self.pos)),
            self._ts,
            self._gtid,
            self._ordinal,
        )
        items: list[BinlogItem] = []
        if watched.is_row and not is_incomplete:
            for before, after in pairs:
                number += 1
                items.append(_row((op, before, after, place, number, ts, gtid)))
        elif is_incomplete:
            for before, after in pairs:
                number += 1
                items.append(IncompleteRow(op, keys_of(before, after), place, number, ts, gtid))
        else:
            for before, after in pairs:
                number += 1
                keys = keys_of(before, after)
                items.append(KeyChange(watched.table, op, keys, place, number, ts, gtid))
        self._ordinal += len(items)
        return items

    def _partial_json(self, event: bytes) -> Iterable[BinlogItem]:
        if self._is_skipped or self._maps.get(event[19:25], (b"", None))[1] is None:
            return ()
        raise self._fatal(
            "rows with partial JSON", "SET GLOBAL binlog_row_value_options = '' at the source"
        )

    def _payload(self, event: bytes) -> Iterator[BinlogItem]:
        """Read a compressed transaction: one outer event, whose rows are numbered through."""
        if self._is_skipped:
            yield self._commit()
            return
        payload = Payload(self._is_wanted)
        yield from self._payload_items(payload, event[HEADER_SIZE:], is_last=True)

    def _payload_items(
        self, payload: Payload, body: bytes, *, is_last: bool
    ) -> Iterator[BinlogItem]:
        """Yield the items of a part of a compressed transaction's body."""
        try:
            for inner in payload.events(body):
                self._ts, kind, _, _, flags = _HEADER(inner)
                handler = self._handlers.get(kind)
                yield from handler(inner) if handler else self._unknown(kind, flags)
            if is_last:
                payload.end()
        except TooLargeError:
            raise self._too_large() from None
        except UNREADABLE as error:
            raise self._fatal(
                "a compressed transaction is not understood", "report the server's version"
            ) from error

    def _payload_part(
        self, large: LargeEvent, payload: Payload, body: bytes, *, is_last: bool
    ) -> Iterator[list[BinlogItem]]:
        """Yield the items of a part of a large compressed transaction, but keep its commit."""
        if large.error is not None or large.is_passed_over:
            return
        items: list[BinlogItem] = []
        try:
            for item in self._payload_items(payload, body, is_last=is_last):
                if type(item) is Commit:
                    large.commit = item
                    continue
                items.append(item)
                if type(item) is Statement or len(items) >= AT_ONCE:
                    yield items
                    items = []
        except PassportError as error:
            large.error = error
        if items:
            yield items


def _is_unfinished_alter(event: bytes, flags: int) -> bool:
    """Return whether a GTID event of MariaDB begins an ALTER, or says that one failed.

    With binlog_alter_two_phase the statement stands in the binlog twice: when it begins, and when
    it has ended.
    """
    further_at = HEADER_SIZE + (21 if flags & _GROUP_COMMIT_ID else 13)
    further = event[further_at : further_at + 1]
    return bool(further) and bool(further[0] & (_START_ALTER | _ROLLBACK_ALTER))
