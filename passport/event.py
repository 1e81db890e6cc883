"""The events that travel in Kafka: four kinds, as Debezium-shaped JSON without the schema wrapper.

All kinds share one topic. Each hospital has a partition of its own, and its events stand there in
commit order. `kind` in the JSON, and the header ``ce_type``, say which kind a record is:

- ``row``: a row was changed, or was read. It has all the columns that may leave the hospital.
- ``notice``: a key change. A row of a table that obs are enriched from or matched by was changed.
  It has only the key columns.
- ``chunk``: a range of keys was read. A row of this range whose key isn't listed doesn't exist.
- ``heartbeat``: the reader is alive, and everything up to this position is published.

The fields of each Struct stand in the order in which they are written. A record that has other
types, or numbers out of their bounds, is no event. The columns of a row are checked for whoever
works on them: by `parse_checked_event`, and by `check_row` if the row was read at a hospital.
"""

from contextlib import suppress
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NotRequired,
    TypedDict,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from passport.errors import Reject
from passport.version import LOWEST, file_number

ENVELOPE: Final = 1  # version of the JSON's form
NEWEST_ENVELOPE = 999  # a higher number is no version

Kind = Literal["row", "notice", "chunk", "heartbeat"]
Op = Literal["c", "u", "d", "r"]  # as Debezium has them: created, updated, deleted, read
Origin = Literal["binlog", "snapshot", "poll", "compare"]  # the last one in older topics only
Row = dict[str, Any]

KEYS_PER_EVENT = 500  # the most that polling puts into one key change
KINDS = frozenset({"row", "notice", "chunk", "heartbeat"})

# MySQL, MongoDB and JSON of other languages take no larger integers.
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
UnixMs = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]  # up to the end of the year 9999
VersionText = Annotated[
    str, Meta(pattern="^[0-9]{10}-[0-9]{10}-[0-9]{16}-[0-9]{8}$", max_length=len(LOWEST))
]


class ObsRow(TypedDict):
    """The columns of a row of obs, as `openmrs.tables.OBS` lists them.

    A column that only some versions of OpenMRS have may be absent.
    """

    obs_id: Integer
    person_id: Integer
    concept_id: Integer
    encounter_id: Integer | None
    order_id: Integer | None
    obs_datetime: str
    location_id: Integer | None
    obs_group_id: Integer | None
    value_boolean: NotRequired[Integer | None]
    value_coded: Integer | None
    value_coded_name_id: Integer | None
    value_drug: Integer | None
    value_datetime: str | None
    value_numeric: float | Integer | None
    value_modifier: str | None
    value_text: str | None
    value_complex: NotRequired[str | None]
    comments: str | None
    creator: Integer
    date_created: str
    voided: Integer
    date_voided: str | None
    uuid: str
    previous_version: NotRequired[Integer | None]
    form_namespace_and_path: NotRequired[str | None]
    status: NotRequired[str | None]
    interpretation: NotRequired[str | None]


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
    pos: Count
    row: Count
    gtid: str
    server: str
    ts_ms: UnixMs
    version: VersionText
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
    ts_ms: UnixMs

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


class CheckedRowEvent(RowEvent, frozen=True, kw_only=True, tag_field="kind", tag="row"):
    """A row event whose columns have the types of `ObsRow`. Other columns are left out."""

    before: ObsRow | None  # type: ignore[assignment]  # a dictionary of another type to mypy alone
    after: ObsRow | None  # type: ignore[assignment]


class KeyChangeEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="notice"):
    """A row was changed in a table that obs are enriched from or matched by.

    `keys` are the key columns of the row before and after the change, without doubles. Each is
    {column: int or None}. No keys at all: every row of the table may have changed. A snapshot
    follows then, unless `op` is "r": then every obs may mean something else, and is unchanged.
    """

    kind: ClassVar[Literal["notice"]] = "notice"

    v: Literal[1]
    op: Op
    keys: tuple[dict[str, Integer | None], ...]
    source: EventSource
    ts_ms: UnixMs


class ChunkEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="chunk"):
    """A range of a table was read at this version: ``first < key <= to`` of `source.table`.

    `keys` are all the keys that were there. None as `first` or `to` means an open end.
    """

    kind: ClassVar[Literal["chunk"]] = "chunk"

    v: Literal[1]
    first: Integer | None
    to: Integer | None
    keys: tuple[Integer, ...]
    source: EventSource
    ts_ms: UnixMs


class HeartbeatEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="heartbeat"):
    """The reader is alive, and everything up to the position in `source` is published."""

    kind: ClassVar[Literal["heartbeat"]] = "heartbeat"

    v: Literal[1]
    source: EventSource
    ts_ms: UnixMs


Event = RowEvent | KeyChangeEvent | ChunkEvent | HeartbeatEvent

_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_CHECKING_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(
    CheckedRowEvent | KeyChangeEvent | ChunkEvent | HeartbeatEvent
)


class NewerEnvelope(Reject):
    """The record is of a later release: whoever reads it must be upgraded first."""

    def __init__(self, version: int) -> None:
        super().__init__("unknown_version", f"envelope version {version}")
        self.version = version


class _AnnouncedSource(msgspec.Struct, frozen=True):
    hospital: str


class _Announcement(msgspec.Struct, frozen=True):
    """The part of the envelope that each later version will have, too."""

    v: Annotated[int, Meta(gt=ENVELOPE, le=NEWEST_ENVELOPE)]
    source: _AnnouncedSource


_OBS_COLUMNS = get_type_hints(ObsRow)
_ANNOUNCEMENT = msgspec.json.Decoder(_Announcement)


def parse_event(value: bytes | None) -> Event:
    """Return the event of a record's value.

    Raises Reject ``malformed``, ``unknown_table`` or ``unknown_version``, whose text never quotes
    the value. For an event of a later release that is a NewerEnvelope.
    """
    return _parsed(value, _DECODER)


def parse_checked_event(value: bytes | None) -> Event:
    """Return the event of a record's value, a row event as a CheckedRowEvent.

    Raises Reject as `parse_event` does.
    """
    return _parsed(value, _CHECKING_DECODER)


def _parsed(value: bytes | None, decoder: "msgspec.json.Decoder[Event]") -> Event:
    try:
        event = decoder.decode(value or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(value or b"", error) from None
    source = event.source
    # A version that is too high would make all that follows outdated.
    if source.file and source.version[11:] > _place(source):
        raise Reject("malformed", "a version that is ahead of its position")
    if isinstance(event, RowEvent | ChunkEvent) and source.table not in KEY_COLUMNS:
        raise Reject("unknown_table", "rows of a table that isn't carried")
    if isinstance(event, RowEvent):
        key_column = KEY_COLUMNS[source.table]
        for image in (event.before, event.after):
            if image is not None and not isinstance(image.get(key_column), int):
                raise Reject("malformed", f"a row without {key_column}")
    return event


def check_row(row: Row) -> None:
    """Raise Reject unless a row of obs has the types of `ObsRow`. It names a wrong column."""
    try:
        msgspec.convert(row, ObsRow)
    except msgspec.ValidationError:
        raise Reject("malformed", f"column {_wrong_column(row)}") from None


def _wrong_column(row: Row) -> str:
    for name, type_ in _OBS_COLUMNS.items():
        try:
            msgspec.convert(row.get(name), type_)
        except msgspec.ValidationError:
            return name
    return "absent, or a number out of range"


def _place(source: EventSource) -> str:
    """Return what the version of an event at this position ends with; "" for an impossible one."""
    try:
        return f"{_file_number(source.file):010d}-{source.pos:016d}-{source.row:08d}"
    except ValueError:
        return ""


_file_number = lru_cache(256)(file_number)


def encode_event(event: Event) -> bytes:
    """Return the value of the record that carries `event`; `parse_event` is the inverse."""
    # msgspec would write the tag before `v`, but `v` has always been the first.
    fields = msgspec.structs.asdict(event)
    return msgspec.json.encode({"v": event.v, "kind": event.kind} | fields)


def _unreadable(value: bytes, error: Exception) -> Reject:
    """Return why `value` is no event of this release."""
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return NewerEnvelope(_ANNOUNCEMENT.decode(value).v)
    with suppress(msgspec.MsgspecError, ValueError, RecursionError, KeyError):
        if msgspec.json.decode(value, type=dict[str, Any])["v"] != ENVELOPE:
            return Reject("unknown_version", "an envelope version that never was")
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
