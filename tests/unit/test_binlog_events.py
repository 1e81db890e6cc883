"""Events -> items, with events built here: what no real server can be made to send at will."""

import json
import struct
import tracemalloc
import zlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cdc.binlog.changes import Commit, Idle, NextFile, RowChange, SkippedTransaction
from cdc.binlog.compression import LARGEST, Payload, TooLargeError, inflate
from cdc.binlog.decoder import EventDecoder
from cdc.binlog.gtids import MariadbGtidSet, MysqlGtidSet
from cdc.binlog.jsonb import json_text
from cdc.binlog.packets import LARGE, EventPart, Framing
from cdc.binlog.statements import PreparedTransactions
from cdc.binlog.table_map import ColumnsChangedError
from openmrs.column_info import ColumnInfo
from passport.errors import Fatal, Gap, Retry
from passport.version import Position

FILE = "binlog.000007"
SERVER = 3
FORMAT, ROTATE, STOP, XID, TABLE_MAP, WRITE, GTID, HEARTBEAT, INCIDENT = (
    15,
    4,
    3,
    16,
    19,
    23,
    162,
    27,
    26,
)
TABLE = bytes(5) + b"\x01\1\0\7openmrs\0\3obs\0" + b"\1\3" + b"\0" + b"\0" + b"\4\7\6obs_id"


class Server:
    """Writes events as a server would."""

    def __init__(self, pos: int = 4, *, checksums: bool = True) -> None:
        self.pos = pos
        self.checksums = checksums
        self.seq = 0

    def event(
        self,
        kind: int,
        body: bytes = b"",
        *,
        log_pos: int | None = None,
        ts: int = 1000,
        flags: int = 0,
    ) -> bytes:
        size = 19 + len(body) + 4 * self.checksums
        if log_pos is None:
            self.pos += size
            log_pos = self.pos & 0xFFFFFFFF
        event = struct.pack("<IBIIIH", ts, kind, SERVER, size, log_pos, flags) + body
        return event + struct.pack("<I", zlib.crc32(event)) if self.checksums else event

    def file(self, name: str = FILE) -> list[bytes]:
        rotate = self.event(
            ROTATE, struct.pack("<Q", self.pos) + name.encode(), log_pos=0, ts=0, flags=0x20
        )
        algorithm = bytes([self.checksums]) + bytes(0 if self.checksums else 4)
        return [
            rotate,
            self.event(
                FORMAT, b"\4\0" + bytes(54) + b"\x13" + bytes(40) + algorithm, log_pos=0, ts=77
            ),
        ]

    def transaction(self, *numbers: int, **options: Any) -> list[bytes]:
        self.seq += 1
        rows = b"\1\1" + b"".join(b"\0" + struct.pack("<i", number) for number in numbers)
        return [
            self.event(GTID, struct.pack("<QIB", self.seq, 0, 0) + bytes(6), **options),
            self.event(TABLE_MAP, TABLE, **options),
            self.event(WRITE, TABLE[:6] + b"\1\0" + rows, **options),
            self.event(XID, bytes(8), **options),
        ]


def decoder(**options: Any) -> EventDecoder:
    defaults: dict[str, Any] = {
        "flavour": "mariadb",
        "database": "openmrs",
        "row_columns": {"obs": ("obs_id",)},
        "gtid_set": "",
    }
    return EventDecoder(**{**defaults, "key_columns": {}, "columns": {}, "charsets": {}, **options})


def items(read: EventDecoder, events: Iterable[bytes]) -> list[Any]:
    return [item for found in read.read(events) for item in found]


def test_a_skipped_transaction_gives_no_row_whatever_is_wrong_with_it() -> None:
    server = Server()
    file = server.file()
    first = server.transaction(1)
    begin = server.event(GTID, struct.pack("<QIB", 2, 0, 0) + bytes(6))
    begun_at = Position(FILE, server.pos)
    unreadable = [
        server.event(TABLE_MAP, TABLE.replace(b"\1\3\0", b"\1\xff\0")),
        server.event(99),
        server.event(WRITE, TABLE[:6] + b"\1\0\1\1\0"),
        server.event(39, TABLE[:6]),
    ]
    commit = server.event(XID, bytes(8))
    server.seq = 2
    last = server.transaction(3)

    for event in unreadable:
        with pytest.raises(Fatal):
            items(decoder(), [*file, *first, begin, event])
    read = decoder()
    read.skip(frozenset({"0-3-2", "0-3-7"}))
    row_1, _, skipped, commit_2, row_3, _ = items(
        read, [*file, *first, begin, *unreadable, commit, *last]
    )
    assert (row_1.after, row_3.after) == ('{"obs_id":1}', '{"obs_id":3}')
    assert skipped == SkippedTransaction("0-3-2", begun_at, 1000)
    assert (commit_2.gtid, commit_2.gtid_set) == ("0-3-2", "0-3-2")


@pytest.mark.parametrize("checksums", [True, False])
def test_a_transaction(checksums: bool) -> None:
    server = Server(checksums=checksums)
    row_a, row_b, commit = items(decoder(), [*server.file(), *server.transaction(1, 2)])
    assert row_a == RowChange("c", None, '{"obs_id":1}', row_a.at, 1, 1000, "0-3-1")
    assert row_b == RowChange("c", None, '{"obs_id":2}', row_a.at, 2, 1000, "0-3-1")
    assert commit == Commit(Position(FILE, server.pos), "0-3-1", 1000, "0-3-1")


def test_positions_go_on_past_4_gib() -> None:
    start = (1 << 32) - 100
    server = Server(start)
    read = decoder()
    found = items(read, [*server.file(), *server.transaction(1), *server.transaction(2)])
    assert server.pos > 1 << 32
    assert found[-1].at == Position(FILE, server.pos)
    assert [row.at.pos > 1 << 32 for row in found if type(row) is RowChange] == [True, True]


def test_events_without_a_position_are_counted() -> None:
    server = Server()
    events = server.file()
    server.seq = 1
    body = [
        server.event(kind, data)
        for kind, data in ((GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6)), (XID, bytes(8)))
    ]
    bare = [event[:13] + bytes(4) + event[17:-4] for event in body]
    assert items(
        decoder(), [*events, *(event + struct.pack("<I", zlib.crc32(event)) for event in bare)]
    ) == [Commit(Position(FILE, server.pos), "0-3-1", 1000, "0-3-1")]


def test_a_start_past_4_gib_passes_over_what_is_known() -> None:
    server = Server()
    events = [*server.file(), *server.transaction(1)]
    known = Position(FILE, server.pos)
    events += server.transaction(2)
    found = items(decoder(start=known, skip=True), events)
    assert [row.after for row in found if type(row) is RowChange] == ['{"obs_id":2}']


def test_a_start_inside_a_transaction_stops() -> None:
    server = Server()
    gtid, *rest = server.transaction(1)
    with pytest.raises(Gap, match="begun inside a transaction"):
        items(decoder(), [*server.file(), *rest])
    assert len(items(decoder(), [*Server().file(), gtid, *rest])) == 2


def test_names_are_folded_where_the_server_folds_them() -> None:
    for fold, rows in ((True, 1), (False, 0)):
        server = Server()
        found = items(
            decoder(database="OpenMRS", ignore_case=fold), [*server.file(), *server.transaction(1)]
        )
        assert len([item for item in found if type(item) is RowChange]) == rows


LISTED = {"obs": [ColumnInfo("obs_id", "int", "int(11)")]}
NAMELESS = TABLE.partition(b"\4\7\6obs_id")[0]


def test_rows_without_names_before_the_list_was_read_are_not_guessed() -> None:
    server = Server()
    read = decoder(columns=LISTED)
    items(read, server.file())
    gtid = server.event(GTID, struct.pack("<QIB", 1, 0, 0) + bytes(6))
    assert items(read, [gtid, server.event(TABLE_MAP, NAMELESS)]) == []
    later = Position(FILE, server.pos + 10_000)
    read.set_columns(LISTED, {"obs": later})
    with pytest.raises(ColumnsChangedError, match="another DDL"):
        items(read, [server.event(TABLE_MAP, NAMELESS)])
    assert items(read, [server.event(TABLE_MAP, TABLE)]) == []
    server.pos = later.pos
    assert items(read, [server.event(TABLE_MAP, NAMELESS)]) == []


def test_an_xa_commit_of_rows_or_of_what_was_not_seen_asks_for_a_snapshot() -> None:
    prepared = PreparedTransactions()
    for text, has_rows, visible in (
        (b"XA START X'61',X'',1", False, False),
        (b"XA END X'61',X'',1", False, False),
        (b"XA COMMIT X'61',X'',1", False, False),
        (b"XA END X'61',X'',1", True, False),
        (b"XA COMMIT X'61',X'',1", False, True),
        (b"XA END X'61',X'',1", True, False),
        (b"XA ROLLBACK X'61',X'',1", False, False),
        (b"XA COMMIT X'62',X'',1", False, True),
        (b"XA ROLLBACK X'62',X'',1", False, False),
    ):
        assert prepared.made_visible(text, has_rows=has_rows) == visible


def test_table_ids_are_forgotten_with_their_file() -> None:
    server = Server()
    read = decoder()
    items(read, [*server.file(), *server.transaction(1), server.event(STOP)])
    end = Position(FILE, server.pos)
    server.pos = 4
    assert items(read, server.file("binlog.000008")) == [
        NextFile(Position("binlog.000008", 4), clean=True, left=end)
    ]
    rows_only = server.transaction(2)
    del rows_only[1]
    with pytest.raises(Gap, match="without their TABLE_MAP"):
        items(read, rows_only)


def test_a_file_without_an_end_is_a_crash_and_its_open_transaction_void() -> None:
    server = Server()
    read = decoder()
    items(read, [*server.file(), *server.transaction(1)[:-1]])
    rollback, rotated = items(read, server.file("binlog.000008"))
    assert (rollback.kind, rollback.table) == ("rollback", "*")
    assert not rotated.clean


def test_alive_only_between_transactions() -> None:
    server = Server()
    read = decoder()
    heartbeat = server.event(HEARTBEAT, FILE.encode(), log_pos=5, ts=0)
    assert items(read, [*server.file(), heartbeat]) == [Idle(Position(FILE, 5))], (
        "past what it left out"
    )
    first, *others = server.transaction(1)
    assert items(read, [first, heartbeat]) == []
    assert type(items(read, others)[-1]) is Commit
    assert items(read, [heartbeat]) == [Idle(Position(FILE, server.pos))]


@pytest.mark.parametrize("which", range(4))
def test_no_other_type_of_event_hides_a_damaged_one(which: int) -> None:
    server = Server()
    events = [*server.file(), *server.transaction(1)]
    right = events[2 + which]
    for kind in set(range(256)) - {
        right[4]
    }:  # FORMAT_DESCRIPTION could turn checksums off, ROTATE has none for sure
        events[2 + which] = right[:4] + bytes([kind]) + right[5:]
        with pytest.raises((Retry, Fatal)):
            items(decoder(), events)


@given(st.integers(0, 3), st.data())
def test_any_damaged_byte_is_noticed(which: int, data: st.DataObject) -> None:
    server = Server()
    events = [*server.file(), *server.transaction(1)]
    at = data.draw(st.integers(0, len(events[2 + which]) - 1))
    bad = bytearray(events[2 + which])
    bad[at] ^= data.draw(st.integers(1, 255))
    events[2 + which] = bytes(bad)
    with pytest.raises((Retry, Fatal)):
        items(decoder(), events)


NAMED = {1: "START_EVENT_V3", 6: "LOAD_EVENT"}


@pytest.mark.parametrize("kind", [0, 1, 6, 8, 12, 20, 21, 22, 43, 172, 255])
def test_an_unknown_event_stops_unless_it_says_that_it_may_be_ignored(kind: int) -> None:
    server = Server()
    with pytest.raises(
        Fatal, match=rf"event type {kind} .*{NAMED.get(kind, '')}.*is not known.*{FILE}:\d+"
    ):
        items(decoder(), [*server.file(), server.event(kind, bytes(20))])
    assert items(decoder(), [*server.file(), server.event(kind, bytes(20), flags=0x80)]) == []


def test_an_incident_is_a_gap() -> None:
    server = Server()
    with pytest.raises(Gap, match="INCIDENT"):
        items(decoder(), [*server.file(), server.event(INCIDENT, b"\1\0\0")])


def read_in_parts(read: EventDecoder, event: bytes, size: int = 20_000) -> list[Any]:
    """The items of an event that comes as a large one does."""
    found: list[Any] = []
    for at in range(0, len(event), size):
        part = EventPart(event[at : at + size], at == 0, at + size >= len(event))
        for given_items in read.read_part(part):
            found += given_items
    return found


def begun(server: Server) -> EventDecoder:
    """A decoder that has read a transaction up to its rows."""
    read = decoder()
    gtid, table_map, *_ = server.transaction(1)
    assert items(read, [*server.file(), gtid, table_map]) == []
    return read


def rows_event(server: Server, numbers: range) -> bytes:
    images = b"".join(b"\0" + struct.pack("<i", number) for number in numbers)
    return server.event(WRITE, TABLE[:6] + b"\1\0" + b"\1\1" + images)


def test_a_large_event_in_parts_is_read_like_any_other() -> None:
    server = Server()
    found = read_in_parts(begun(server), rows_event(server, range(20_000)))
    assert [row.after for row in found] == [f'{{"obs_id":{n}}}' for n in range(20_000)]


@pytest.mark.parametrize("place", [30, 70_000, -1])
def test_a_large_event_that_is_damaged_is_not_read(place: int) -> None:
    server = Server()
    read = begun(server)
    before = read.position
    event = bytearray(rows_event(server, range(20_000)))
    event[place] ^= 1
    with pytest.raises(Retry, match="wrong checksum"):
        read_in_parts(read, bytes(event))
    assert read.position == before


def test_d15_an_event_that_no_record_takes_is_a_gap_before_it_is_held() -> None:
    """No test has a server write so much."""
    server = Server()
    read = begun(server)
    event = rows_event(server, range(1))
    event = event[:9] + struct.pack("<I", LARGEST + 1) + event[13:]
    with pytest.raises(Gap, match="more than 64 MiB"):
        [*read.read_part(EventPart(event, True, False))]


def test_a_dummy_rows_event_is_passed_over() -> None:
    server = Server()
    assert items(decoder(), [*server.file(), server.event(WRITE, b"\xff\xff\xff\0\0\0\1\0")]) == []


# --- framing


def packets(*events: bytes) -> bytes:
    out = b""
    for event in events:
        body = b"\0" + event
        while True:
            part, body = body[:0xFFFFFF], body[0xFFFFFF:]
            out += len(part).to_bytes(3, "little") + b"\0" + part
            if len(part) < 0xFFFFFF:
                break
    return out


def fed(framing: Framing, data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The events that come of `data`, cut there. The parts of a large one are put together."""
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found: list[bytes] = []
    large = b""
    for a, b in pairwise(edges):
        for events in framing.feed(data[a:b]):
            if not isinstance(events, EventPart):
                found += events
                continue
            assert events.is_first == (not large)
            large += events.data
            if events.is_last:
                found.append(large)
                large = b""
    return found


@given(
    st.lists(st.binary(min_size=19, max_size=60), max_size=8),
    st.lists(st.integers(0, 500), max_size=12),
)
def test_events_are_the_same_however_the_bytes_arrive(events: list[bytes], cuts: list[int]) -> None:
    assert fed(Framing(), packets(*events), cuts) == events


@pytest.mark.parametrize(
    "size", [LARGE - 1, LARGE, 0xFFFFFF - 2, 0xFFFFFF - 1, 0xFFFFFF, 2 * 0xFFFFFF - 1]
)
@pytest.mark.parametrize("cut", [5_000_000, 2 * 0xFFFFFF + 7, 0xFFFFFF + 5])
def test_an_event_in_several_packets(size: int, cut: int) -> None:
    large, small = b"x" * size, b"y" * 30
    data = packets(small, large, small)
    assert fed(Framing(), data, range(cut, len(data), cut)) == [small, large, small]


@given(st.lists(st.integers(0, 300), max_size=6))
def test_the_head_of_the_next_packet_may_come_in_pieces(cuts: list[int]) -> None:
    """The parts are the same wherever the bytes around the end of the first packet are cut."""
    event = b"x" * (0xFFFFFF + 100)
    end_of_packet = 0xFFFFFF + 4
    around = [end_of_packet - 150 + cut for cut in cuts]
    assert fed(Framing(), packets(event), around) == [event]


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (1236, "Could not find first log file name in binary log index file", Gap),
        (1236, "log event entry exceeded max_allowed_packet; Increase max_allowed_packet", Gap),
        (
            1236,
            "A replica with the same server_uuid/server_id as this replica has connected",
            Retry,
        ),
        (4052, "A slave with the same server_id", Retry),
        (1045, "Access denied for user 'x'", Fatal),
        (1053, "Server shutdown in progress", Retry),
    ],
)
def test_server_errors_are_named_without_their_text(
    code: int, text: str, expected: type[Exception]
) -> None:
    packet = b"\xff" + struct.pack("<H", code) + b"#HY000" + text.encode()
    with pytest.raises(expected) as caught:
        [*Framing().feed(len(packet).to_bytes(3, "little") + b"\0" + packet)]
    assert type(caught.value) is expected
    assert str(code) in str(caught.value)
    assert text[:20] not in str(caught.value)


def test_the_end_of_a_stream_is_a_retry() -> None:
    with pytest.raises(Retry, match="ended the stream"):
        [*Framing().feed(b"\5\0\0\0\xfe\0\0\2\0")]


# --- GTIDs


@given(st.lists(st.tuples(st.sampled_from(["", "a", "z_9"]), st.integers(1, 12)), max_size=40))
def test_a_set_has_what_was_added_and_survives_both_its_forms(added: list[tuple[str, int]]) -> None:
    uuid = "9059a689-e708-11f1-b658-02fc00000001"
    executed = MysqlGtidSet()
    for tag, number in added:
        executed.advance(f"{uuid}:{tag}:{number}" if tag else f"{uuid}:{number}")
        str(executed)
    wanted = []
    for tag in sorted({tag for tag, _ in added}):
        numbers = sorted({number for other, number in added if other == tag})
        starts = [n for n in numbers if n - 1 not in numbers]
        ends = [n for n in numbers if n + 1 not in numbers]
        ranges = [f"{a}-{b}" if b > a else f"{a}" for a, b in zip(starts, ends, strict=True)]
        wanted += [tag, *ranges] if tag else ranges
    text = ":".join([uuid, *wanted]) if added else ""
    assert str(executed) == text
    assert str(MysqlGtidSet(text.upper().replace(":", ":\n"))) == text
    assert str(MysqlGtidSet.unpack(executed.packed())) == text


def test_mariadb_keeps_the_last_of_each_domain() -> None:
    state = MariadbGtidSet("7-1-9, 0-1-5")
    assert str(state) == "0-1-5,7-1-9"
    state.advance("0-2-6")
    assert str(state) == "0-2-6,7-1-9"


# --- compression, JSON


def test_inflate() -> None:
    data = b"text" * 100
    assert inflate(b"\x82\1\x90" + zlib.compress(data)) == data
    for bad in (b"\x92\1\x90" + zlib.compress(data), b"\x82\1\x91" + zlib.compress(data)):
        with pytest.raises(ValueError, match="compress"):
            inflate(bad)


def payload_body(*events: bytes) -> bytes:
    """The body of a compressed transaction as MySQL writes it: of an unknown size, in zstd."""
    compressor = zstandard.ZstdCompressor().compressobj()
    data = b"".join(compressor.compress(event) for event in events) + compressor.flush()
    return b"\2\1\0" + b"\0" + data


def inner(kind: int, size: int) -> bytes:
    return struct.pack("<IBIIIH", 1, kind, SERVER, size, 0, 0) + TABLE[:6] + bytes(size - 25)


def test_d15_a_decompression_bomb_is_given_up() -> None:
    """No real server makes one. What it makes is never held: a piece is the most."""
    body = payload_body(inner(WRITE, LARGEST + 1), bytes(300_000_000))
    assert len(body) < 50_000
    payload = Payload(lambda _: True)
    with pytest.raises(TooLargeError):
        [*payload.events(body)]
    passed_over = Payload(lambda _: False)
    other = payload_body(inner(WRITE, 300_000_000), inner(XID, 30))
    assert [event[4] for event in passed_over.events(other)] == [XID]
    passed_over.end()


def test_d15_a_length_that_is_a_lie_is_given_up() -> None:
    bomb = zlib.compress(bytes(300_000_000))
    with pytest.raises(TooLargeError):
        inflate(b"\x84" + (300_000_000).to_bytes(4, "big") + bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match="compressed size"):
        inflate(b"\x81\x64" + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("end", [1, 20, 40])
def test_a_transaction_that_ends_in_an_event_is_none(end: int) -> None:
    payload = Payload(lambda _: True)
    [*payload.events(payload_body(inner(WRITE, 60), inner(XID, 41)[:end]))]
    with pytest.raises(ValueError, match="ends in an event"):
        payload.end()


def test_binary_json() -> None:
    # {"a": [1, "é"]} as MySQL stores it
    array = struct.pack("<HHBHBH", 2, 13, 5, 1, 12, 10) + b"\2\xc3\xa9"
    document = struct.pack("<HHHHBH", 1, 12 + len(array), 11, 1, 2, 12) + b"a" + array
    assert json.loads(json_text(b"\0" + document)) == {"a": [1, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        json_text(b"\0" + document[:9])
