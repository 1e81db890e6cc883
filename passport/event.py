"""ChangeEvent: what travels in Kafka, as Debezium-shaped JSON without the schema wrapper.

Four kinds share one topic, each in its hospital's partition, in commit order (header ``ce_type``
repeats the kind):

- ``row``: a row of obs changed (`op` c, u, d) or was read (r). DATETIMEs stay the hospital's wall
  time, zone-less ISO.
- ``notice``: a row changed in a table that obs are enriched from or matched by: keys.
- ``chunk``: every obs row in `range` was read at this version and these `keys` were there: others
  are gone.
- ``heartbeat``: the reader is alive and has read up to this position.
"""

from collections.abc import Callable
from contextlib import suppress
from json.encoder import encode_basestring as quoted
from typing import Any, Literal

import msgspec

from passport.errors import Reject
from passport.version import LOWEST

ENVELOPE = 1

Kind = Literal["row", "notice", "chunk", "heartbeat"]
Op = Literal["c", "u", "d", "r"]
Origin = Literal["binlog", "snapshot", "poll", "compare"]  # the last one in older topics only
Row = dict[str, Any]

KEYS_OF_A_NOTICE = 500  # at most; of the polling and comparing that find many at once
KINDS = frozenset({"row", "notice", "chunk", "heartbeat"})


class EventSource(msgspec.Struct, frozen=True):
    """Where an event comes from.

    `file`, `pos` (END of the outer binlog event), `row` (ordinal in it, 0 = read by SELECT); `gtid`
    as the server writes it, "" without; `server`: identity of the server whose positions these are;
    `ts_ms`: the source's time of the change; `version`: see passport.version.
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


class ChangeEvent(msgspec.Struct, frozen=True):
    """One record of the topic.

    row: `op`, `before`, `after` (allow-listed columns; None where there is none) and `last` of its
    `transaction`. notice: `op`, `keys` = the key columns of the row before and after, each {column:
    int or None}, no doubles. chunk: `first` < obs_id <= `to` (None: open-ended), `keys` = the
    obs_ids present.
    """

    kind: Kind
    source: EventSource
    ts_ms: int
    op: Op | None = None
    before: Row | None = None
    after: Row | None = None
    transaction: str | None = None
    last: bool = True
    keys: tuple[Any, ...] = ()
    first: int | None = None
    to: int | None = None

    @property
    def row(self) -> Row:
        """The newest row image of a row event."""
        image = self.after if self.after is not None else self.before
        if image is None:
            raise Reject("malformed", "a row event without a row")
        return image

    def encode(self) -> bytes:
        """The record's value; `parse` is its inverse."""
        body: dict[str, Any] = {"v": ENVELOPE, "kind": self.kind}
        if self.kind == "row":
            body |= {"op": self.op, "before": self.before, "after": self.after}
        elif self.kind == "notice":
            body |= {"op": self.op, "keys": self.keys}
        elif self.kind == "chunk":
            body |= {"first": self.first, "to": self.to, "keys": self.keys}
        body["source"] = self.source
        if self.kind == "row":
            body["transaction"] = {"id": self.transaction, "last": self.last}
        body["ts_ms"] = self.ts_ms
        return msgspec.json.encode(body)

    @classmethod
    def parse(cls, value: bytes | None) -> "ChangeEvent":
        """Reject ``malformed`` or ``unknown_version``, without quoting the value."""
        try:
            wire = _PARSE(value or b"")
            if len(wire.source.version) != len(LOWEST):
                raise ValueError
            return wire.event()
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            raise _unreadable(value or b"", error) from None


class _Wire(msgspec.Struct, tag_field="kind"):
    """A record's value as it stands: each kind with what it must have."""

    v: Literal[1]
    source: EventSource
    ts_ms: int


class _Transaction(msgspec.Struct):
    id: str | None
    last: bool


class _Row(_Wire, tag="row"):
    op: Op
    before: Row | None
    after: Row | None
    transaction: _Transaction

    def event(self) -> ChangeEvent:
        for row in (self.before, self.after):
            if row is not None and not isinstance(row.get("obs_id"), int):
                raise TypeError
        of = self.transaction
        return ChangeEvent(
            "row", self.source, self.ts_ms, self.op, self.before, self.after, of.id, of.last
        )


class _Notice(_Wire, tag="notice"):
    op: Op
    keys: tuple[dict[str, Any], ...]

    def event(self) -> ChangeEvent:
        return ChangeEvent("notice", self.source, self.ts_ms, self.op, keys=self.keys)


class _Chunk(_Wire, tag="chunk"):
    first: int | None
    to: int | None
    keys: tuple[int, ...]

    def event(self) -> ChangeEvent:
        return ChangeEvent(
            "chunk", self.source, self.ts_ms, keys=self.keys, first=self.first, to=self.to
        )


class _Heartbeat(_Wire, tag="heartbeat"):
    def event(self) -> ChangeEvent:
        return ChangeEvent("heartbeat", self.source, self.ts_ms)


_PARSE: Callable[[bytes], _Row | _Notice | _Chunk | _Heartbeat]
_PARSE = msgspec.json.Decoder(_Row | _Notice | _Chunk | _Heartbeat).decode


def _unreadable(value: bytes, error: Exception) -> Reject:
    with suppress(msgspec.MsgspecError, RecursionError, KeyError):
        if (version := msgspec.json.decode(value, type=dict[str, Any])["v"]) != ENVELOPE:
            return Reject("unknown_version", f"envelope version {version!r:.20}")
    return Reject("malformed", type(error).__name__)


class RowEnvelope:
    """Writes row events from JSON text: byte for byte what `ChangeEvent.encode` gives, at a tenth
    of its cost.

    `at` says what the rows of one binlog event share, then a call a row.
    """

    def __init__(
        self, *, hospital: str, timezone: str, db: str, table: str, server: str, origin: Origin
    ) -> None:
        self._source = (
            f'"source":{{"hospital":{quoted(hospital)},"timezone":{quoted(timezone)},"db":{quoted(db)},'
            f'"table":{quoted(table)},"file":'
        )
        self._server = quoted(server)
        self._origin = origin
        self._middle = self._version = self._end = ""

    def at(
        self, *, file: str, pos: int, gtid: str, ts_ms: int, prefix: str, transaction: str
    ) -> None:
        """`prefix`: the version without the row's ordinal."""
        self._middle = f'{self._source}"{file}","pos":{pos},"row":'
        self._version = (
            f',"gtid":"{gtid}","server":{self._server},"ts_ms":{ts_ms},"version":"{prefix}'
        )
        self._end = f'","origin":"{self._origin}"}},"transaction":{{"id":"{transaction}","last":'

    def __call__(
        self, op: str, before: str | None, after: str | None, row: int, last: bool, now_ms: int
    ) -> bytes:
        """`before` and `after` are JSON texts of rows, or None; `row`: ordinal in the binlog event."""
        return (
            f'{{"v":{ENVELOPE},"kind":"row","op":"{op}","before":{before or "null"},"after":{after or "null"},'
            f'{self._middle}{row}{self._version}{row:08d}{self._end}{"true" if last else "false"}}},"ts_ms":{now_ms}}}'
        ).encode()
