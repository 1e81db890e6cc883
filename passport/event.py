"""The events that travel in Kafka: four kinds, as Debezium-shaped JSON without the schema wrapper.

All kinds share one topic. Each hospital has a partition of its own, and its events stand there in
commit order. `kind` in the JSON, and the header ``ce_type``, say which kind a record is:

- ``row``: a row was changed, or was read. It has all the columns that may leave the hospital.
- ``notice``: a key change. A row of a table that obs are enriched from or matched by was changed.
  It has only the key columns.
- ``chunk``: a range of keys was read. A row of this range whose key isn't listed doesn't exist.
- ``heartbeat``: the reader is alive, and everything up to this position is published.

The fields of each Struct stand in the order in which they are written.
"""

from contextlib import suppress
from json.encoder import encode_basestring as quoted
from typing import Any, ClassVar, Final, Literal

import msgspec

from passport.errors import Reject
from passport.version import LOWEST

ENVELOPE: Final = 1  # version of the JSON's form

Kind = Literal["row", "notice", "chunk", "heartbeat"]
Op = Literal["c", "u", "d", "r"]  # as Debezium has them: created, updated, deleted, read
Origin = Literal["binlog", "snapshot", "poll", "compare"]  # the last one in older topics only
Row = dict[str, Any]

KEYS_PER_EVENT = 500  # the most that polling puts into one key change
KINDS = frozenset({"row", "notice", "chunk", "heartbeat"})
KEY_COLUMNS = {"obs": "obs_id"}  # of the tables whose rows travel


class EventSource(msgspec.Struct, frozen=True):
    """The place where an event comes from.

    `table` is the table that the event is about; "" for a heartbeat. `file` and `pos` are the END
    of the outer binlog event, and `row` is the row's ordinal in it (0: read by SELECT). `gtid` is
    as the server writes it ("": it has none). `server` is the identity of the server whose
    positions these are. `ts_ms` is the source's time of the change. `version`: see
    passport.version.
    """

    hospital: str
    timezone: str
    db: str
    table: str
    file: str
    pos: int
    row: int
    gtid: str
    server: str
    ts_ms: int
    version: str
    origin: Origin


class Transaction(msgspec.Struct, frozen=True):
    """The transaction of a row. `last` marks its last row."""

    id: str | None
    last: bool


class RowEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="row"):
    """A row of `source.table` was changed (`op` c, u, d), or was read (r).

    `before` and `after` hold the columns that may leave the hospital. Each is None where there is
    no such row. A DATETIME is the hospital's wall time, in ISO form without a zone.
    """

    kind: ClassVar[Literal["row"]] = "row"

    v: Literal[1]
    op: Op
    before: Row | None
    after: Row | None
    source: EventSource
    transaction: Transaction
    ts_ms: int

    @property
    def row(self) -> Row:
        """The newest image of the row. Raises Reject if the event has none."""
        image = self.after if self.after is not None else self.before
        if image is None:
            raise Reject("malformed", "a row event without a row")
        return image

    @property
    def deleted(self) -> bool:
        return self.op == "d"


class KeyChangeEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="notice"):
    """A row was changed in a table that obs are enriched from or matched by.

    `keys` are the key columns of the row before and after the change, without doubles. Each is
    {column: int or None}. No keys at all: every row of the table may have changed. A snapshot
    follows then, unless `op` is "r": then every obs may mean something else, and is unchanged.
    """

    kind: ClassVar[Literal["notice"]] = "notice"

    v: Literal[1]
    op: Op
    keys: tuple[dict[str, Any], ...]
    source: EventSource
    ts_ms: int


class ChunkEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="chunk"):
    """A range of a table was read at this version: ``first < key <= to`` of `source.table`.

    `keys` are all the keys that were there. None as `first` or `to` means an open end.
    """

    kind: ClassVar[Literal["chunk"]] = "chunk"

    v: Literal[1]
    first: int | None
    to: int | None
    keys: tuple[int, ...]
    source: EventSource
    ts_ms: int


class HeartbeatEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="heartbeat"):
    """The reader is alive, and everything up to the position in `source` is published."""

    kind: ClassVar[Literal["heartbeat"]] = "heartbeat"

    v: Literal[1]
    source: EventSource
    ts_ms: int


Event = RowEvent | KeyChangeEvent | ChunkEvent | HeartbeatEvent

_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def parse_event(value: bytes | None) -> Event:
    """Return the event of a record's value.

    Raises Reject ``malformed`` or ``unknown_version``. Its text never quotes the value.
    """
    try:
        event = _DECODER.decode(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(value or b"", error) from None
    if len(event.source.version) != len(LOWEST):
        raise Reject("malformed", "a version of another length")
    if isinstance(event, RowEvent):
        key_column = KEY_COLUMNS.get(event.source.table, KEY_COLUMNS["obs"])
        for image in (event.before, event.after):
            if image is not None and not isinstance(image.get(key_column), int):
                raise Reject("malformed", f"a row without {key_column}")
    return event


def encode_event(event: Event) -> bytes:
    """Return the value of the record that carries `event`; `parse_event` is the inverse."""
    # msgspec would write the tag before `v`, but `v` has always been the first.
    fields = msgspec.structs.asdict(event)
    return msgspec.json.encode({"v": event.v, "kind": event.kind} | fields)


def _unreadable(value: bytes, error: Exception) -> Reject:
    with suppress(msgspec.MsgspecError, RecursionError, KeyError):
        version = msgspec.json.decode(value, type=dict[str, Any])["v"]
        if version != ENVELOPE:
            return Reject("unknown_version", f"envelope version {version!r:.20}")
    return Reject("malformed", type(error).__name__)


class RowEnvelope:
    """Writes row events from JSON text, at a tenth of the cost of `encode_event`.

    The bytes are the same. Call `at` with what the rows of one binlog event share, then call the
    object once a row.
    """

    def __init__(
        self, *, hospital: str, timezone: str, db: str, table: str, server: str, origin: Origin
    ) -> None:
        self._source = (
            f'"source":{{"hospital":{quoted(hospital)},"timezone":{quoted(timezone)},'
            f'"db":{quoted(db)},"table":{quoted(table)},"file":'
        )
        self._server = quoted(server)
        self._origin = origin
        self._middle = ""
        self._version = ""
        self._end = ""

    def at(
        self, *, file: str, pos: int, gtid: str, ts_ms: int, prefix: str, transaction: str
    ) -> None:
        """Take what the next rows share. `prefix` is the version without the row's ordinal."""
        self._middle = f'{self._source}"{file}","pos":{pos},"row":'
        self._version = (
            f',"gtid":"{gtid}","server":{self._server},"ts_ms":{ts_ms},"version":"{prefix}'
        )
        self._end = f'","origin":"{self._origin}"}},"transaction":{{"id":"{transaction}","last":'

    def __call__(
        self, op: str, before: str | None, after: str | None, row: int, last: bool, now_ms: int
    ) -> bytes:
        """Return one record's value.

        `before` and `after` are the rows as JSON text, or None. `row` is the ordinal in the binlog
        event.
        """
        return (
            f'{{"v":{ENVELOPE},"kind":"row","op":"{op}",'
            f'"before":{before or "null"},"after":{after or "null"},'
            f"{self._middle}{row}{self._version}{row:08d}{self._end}"
            f'{"true" if last else "false"}}},"ts_ms":{now_ms}}}'
        ).encode()
