"""The positions topic, which says where each hospital's reader is: compacted, a record a save.

Which record holds is decided by what it says, not by when it was written. So a reader that stood
still, and writes late, can move nobody back. Compaction keeps the last record of a key, though, and
that may be a late one. So each epoch, and each run of a polled hospital, has a key of its own. It
is deleted only when a later one's record is acknowledged:

- ``HOSPITAL/position/EPOCH/RUN``: where the reader is, a few hundred bytes.
- ``HOSPITAL/columns/EPOCH/ID``: the column lists that positions of the epoch refer to by their id.
- ``HOSPITAL/signal/MS/ID``: what an operator asked for, see `cdc.signals`.
- ``HOSPITAL``: a position with its columns, as releases before these keys wrote and read it. It is
  written when an epoch or a run begins, when the columns have changed and when a reader ends in
  order. It is never deleted: it also says which partition is whose.

Those releases read every record of the topic as a position. So every record here has the fields of
one. A record that is no position has the epoch 0, which is never the furthest.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from cdc import topics
from cdc.durability import NEVER_SEEN, SeenDurable
from cdc.kafka import close_producer, newest_records, open_producer
from cdc.lease import ReaderName
from cdc.signals import Signal, Signals, new_key, translate_strange_records
from openmrs.column_info import ColumnInfo
from passport.errors import Fatal, Origin, Reject
from passport.event import parse_event
from passport.kafka import Record, read_topic, translate_errors
from passport.settings import Kafka, Settings
from passport.version import Position, is_of_the_future, parse

# A byte offset that no binlog has: `gtid_set` alone says where to go on.
BY_GTID = 0
# How many of a partition's last records are searched for the newest epoch. Those of a reader that
# died, and were late, may be among them.
LAST_RECORDS = 1_000
# How long one save may wait for its acknowledgement.
SAVE_S = 10.0

Columns = Mapping[str, list[ColumnInfo]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a snapshot. It is `stopped` when an operator has asked for that.

    `number` counts the snapshots of an epoch. Every obs_id up to `next_key` is done; None if none
    is, or if all are.
    """

    number: int = 1
    state: Literal["running", "done", "stopped"] = "running"
    next_key: int | None = None

    @property
    def rank(self) -> tuple[int, bool, int]:
        """The higher rank is further."""
        next_key = -1 if self.next_key is None else self.next_key
        return self.number, self.state != "running", next_key


class RowPlace(NamedTuple):
    """The place of a row in the binlog: the end of its event, and its number there, from 1."""

    at: Position
    row: int

    @property
    def order(self) -> tuple[int, int, int]:
        return *self.at.order, self.row


@dataclass(frozen=True, slots=True)
class Saved:
    """Everything that a reader needs to go on.

    - `server`: the server's identity, see `openmrs.connection.identity`.
    - `format_ts`: when the server made the binlog file of `position`, in Unix seconds.
    - `position`: the end of a transaction, with everything before it acknowledged. After a failover
      it is the server's oldest file at BY_GTID, until a transaction's end is known there.
    - `next_row`: the first row behind `position` that is not acknowledged. It is only known within
      a large transaction; else None.
    - `seen_durable`: when the server's settings were last seen to make a crash harmless.
    - `gtid_set`: what was executed up to there, as the server writes it; "" without GTIDs.
    - `columns`: every column of the watched tables as they are at `position`, in the table's order.
    - `run` and `state`: what the polling job keeps. `run` is the highest number of a snapshot that
      may have been published; its `position` only counts the runs.
    - `ts_ms`: the hospital's clock at the position.
    - `topic_end`: the offset behind the last record that the topic had acknowledged. A topic that
      ends before it has lost some.
    - `gap`: the reason why the server's binlog lacks changes after `position`; "" if it does not.
      Once that reason is away the changes are still missing, so a new epoch begins.
    """

    hospital: str
    partition: int
    server: str
    format_ts: int
    epoch: int
    position: Position
    gtid_set: str = ""
    columns: Columns = field(default_factory=dict)
    snapshot: Snapshot | None = None
    capture: Literal["binlog", "polling"] = "binlog"
    run: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    ts_ms: int = 0
    topic_end: int = 0
    next_row: RowPlace | None = None
    seen_durable: SeenDurable = NEVER_SEEN
    gap: str = ""

    @property
    def rank(self) -> tuple[Any, ...]:
        """The position with the highest rank holds."""
        snapshot = self.snapshot or Snapshot(number=0)
        next_row = self.next_row.order if self.next_row else (0, 0, 0)
        return self.epoch, self.position.order, self.run, snapshot.rank, next_row

    @property
    def by_gtid(self) -> bool:
        """Return whether the reader goes on by `gtid_set`, and not at `position`."""
        return self.position.pos == BY_GTID

    def encode(self, columns_id: str = "") -> bytes:
        """Return the record's value; `parse` is the inverse.

        With `columns_id` the columns are left out: they are in the record of that id.
        """
        body = asdict(replace(self, columns={}))
        if columns_id:
            body["columns_id"] = columns_id
        else:
            body["columns"] = self.columns
        return json.dumps({"v": 1, **body}, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, value: bytes) -> "Saved":
        """Return the position of a record, as it stands there. Raises ValueError if it is none.

        A field that a later release added is left out, so that going back to this release stays
        possible.
        """
        _parse_head(value)
        try:
            return _SAVED.decode(value)
        except msgspec.MsgspecError as error:
            raise ValueError(f"no position ({type(error).__name__})") from None


class _Head(msgspec.Struct):
    """The fields that say how a record is to be read."""

    v: int
    hospital: str
    partition: int
    columns_id: str = ""


_HEAD = msgspec.json.Decoder(_Head)
_SAVED = msgspec.json.Decoder(Saved)


def _parse_head(value: bytes) -> _Head:
    """Return the head of a record's value. Raises ValueError if it has none."""
    try:
        head = _HEAD.decode(value)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no position ({type(error).__name__})") from None
    if head.v != 1:
        raise ValueError("a position of another version")
    return head


class _Key(NamedTuple):
    """The key of a record: HOSPITAL/position/EPOCH/RUN or HOSPITAL/columns/EPOCH/ID."""

    hospital: str
    kind: str
    epoch: int
    name: str

    def encode(self) -> bytes:
        return f"{self.hospital}/{self.kind}/{self.epoch}/{self.name}".encode()

    @classmethod
    def parse(cls, key: bytes) -> "_Key | None":
        """Return the parts of a key; None if it is one of another kind."""
        parts = key.decode(errors="replace").rsplit("/", 3)
        if len(parts) != 4 or parts[1] not in (_POSITION, _COLUMNS) or not parts[2].isdecimal():
            return None
        hospital, kind, epoch, name = parts
        return cls(hospital, kind, int(epoch), name)


_POSITION = "position"
_COLUMNS = "columns"


class HospitalRecords:
    """What the topic holds of one hospital.

    `add` takes the records, oldest first, and `furthest` says which position holds. `write` says
    which records a save consists of. `partitions` are those of the changes that they name: one.
    """

    def __init__(self, hospital: str) -> None:
        self.hospital = hospital
        self.partitions: set[int] = set()
        self.signals = Signals()
        self._furthest: Saved | None = None
        self._columns_of_furthest: _Key | None = None
        self._column_records: dict[_Key, bytes] = {}
        # The keys that have a record in the topic, as far as it is known.
        self._keys: set[_Key] = set()
        # The column lists that were written last, and their id.
        self._columns: Columns = {}
        self._columns_id = ""
        self._written_in_full: tuple[Any, ...] = ()

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take a record; without a value it is a tombstone. Raises ValueError if it can't be read.

        A record of a kind that a later release added is passed over.
        """
        parts = _Key.parse(key)
        self.signals.take(self.hospital, key, value)
        if parts is None:
            if value is not None and key == self.hospital.encode():
                self._add_position(value)
        elif value is None:
            # It was sent when a further position was acknowledged. So it takes nothing away.
            self._keys.discard(parts)
        else:
            self._keys.add(parts)
            if parts.kind == _COLUMNS:
                self._column_records[parts] = value
            else:
                self._add_position(value)

    def _add_position(self, value: bytes) -> None:
        saved = Saved.parse(value)
        # Of equals the last one written holds.
        if self._furthest is None or saved.rank >= self._furthest.rank:
            self._furthest = saved
            self._columns_of_furthest = _columns_key(saved, _parse_head(value).columns_id)

    def furthest(self) -> Saved | None:
        """Return the position that holds: the furthest one, with its columns. None without any.

        The columns are empty if their record is gone. Raises ValueError if it can't be read.
        """
        saved = self._furthest
        if saved is None or self._columns_of_furthest is None:
            return saved
        value = self._column_records.get(self._columns_of_furthest)
        if value is None:
            return saved
        return replace(saved, columns=Saved.parse(value).columns)

    def write(self, saved: Saved, *, in_full: bool) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the records of a save, key and value. Go on only when each is acknowledged."""
        columns_id = self._id_of(saved.columns)
        columns_key = _columns_key(saved, columns_id)
        if columns_key is not None and columns_key not in self._keys:
            yield columns_key.encode(), _encode_columns(saved)
            self._keys.add(columns_key)

        position_key = _Key(saved.hospital, _POSITION, saved.epoch, str(saved.run))
        yield position_key.encode(), saved.encode(columns_id)
        self._keys.add(position_key)

        content = (saved.epoch, saved.run, saved.format_ts > 0, columns_id)
        if in_full or content != self._written_in_full:
            yield saved.hospital.encode(), saved.encode()
            self._written_in_full = content

        for key in sorted(self._keys):
            if _is_superseded(key, saved):
                yield key.encode(), None
                self._keys.discard(key)

    def _id_of(self, columns: Columns) -> str:
        """Return the id of these column lists, the same for the same content; "" without any."""
        if columns != self._columns:
            self._columns = columns
            encoded = json.dumps(columns, sort_keys=True).encode()
            self._columns_id = sha256(encoded).hexdigest()[:16] if columns else ""
        return self._columns_id


def _columns_key(saved: Saved, columns_id: str) -> _Key | None:
    """Return the key of the record that has the columns; None if the position has them itself."""
    if not columns_id:
        return None
    return _Key(saved.hospital, _COLUMNS, saved.epoch, columns_id)


def _is_superseded(key: _Key, saved: Saved) -> bool:
    """Return whether nobody needs this key's record, once `saved` is acknowledged."""
    if key.kind == _COLUMNS:
        # A late position of this epoch may still refer to them.
        return key.epoch < saved.epoch
    return (key.epoch, int(key.name)) < (saved.epoch, saved.run)


def _encode_columns(saved: Saved) -> bytes:
    """Return the value of a record that has the column lists of `saved`."""
    place = Position(f"{_COLUMNS}.0", 0)
    record = Saved(saved.hospital, saved.partition, "", 0, 0, place, columns=saved.columns)
    return record.encode()


def highest_epoch(records: Iterable[Record]) -> int:
    """Return the highest epoch in these records of the topic of changes; 0 if there is none.

    A record that can't be read is passed over, and one whose epoch can't have begun when it was
    published. Its consumer tells of it.
    """
    highest = 0
    for record in records:
        with suppress(Reject):
            epoch = parse(parse_event(record.value).source.version).epoch
            if record.at_ms is None or not is_of_the_future(epoch, record.at_ms / 1000):
                highest = max(highest, epoch)
    return highest


class Positions:
    """The topic `kafka.positions_topic`. Connects when it is first used. Not thread-safe.

    Each method raises NotReady and Fatal. A `keep` is called often while the topic is read, also
    while nothing comes: that is how a reader keeps its lease meanwhile. What it raises is raised.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: Any = None
        self._hospitals: dict[str, HospitalRecords] = {}
        # The offset behind the last record that was read.
        self.next_offset = 0

    def reader_name(self, hospital: str) -> ReaderName:
        """Return the name of the reader that fills this Kafka's topic with the hospital's rows."""
        return ReaderName(hospital, topics.cluster_id(self._kafka), self._kafka.topic)

    @staticmethod
    def ensure(settings: Settings) -> None:
        """Make the topics and partitions that are missing, also those of the changes."""
        topics.ensure(settings.kafka, settings.hospitals.values())

    def load(
        self,
        hospital: str,
        *,
        partition: int | None = None,
        keep: Callable[[], object] = lambda: None,
    ) -> Saved | None:
        """Return the furthest position that was ever saved for the hospital; None without one.

        With `partition`, raise Fatal if it is another hospital's, or the hospital was in another
        one: destinations know a hospital by its partition.
        """
        hospitals = self._read(keep, only=hospital)
        if partition is not None:
            _check_partition(hospital, partition, hospitals.values())
        self._hospitals[hospital] = hospitals.get(hospital, HospitalRecords(hospital))
        with translate_strange_records(self._kafka):
            return self._hospitals[hospital].furthest()

    def all(self) -> dict[str, Saved]:
        """Return the furthest position of each hospital, by its id."""
        self._hospitals = self._read(lambda: None)
        furthest: dict[str, Saved] = {}
        with translate_strange_records(self._kafka):
            for hospital, records in self._hospitals.items():
                saved = records.furthest()
                if saved is not None:
                    furthest[hospital] = saved
        return furthest

    def published_epoch(self, partition: int) -> int:
        """Return the highest epoch in the last records of a partition of changes; 0 without any.

        A position that is older than it comes from a backup. The next epoch must be higher,
        whatever this machine's clock says.
        """
        return highest_epoch(
            newest_records(self._kafka, self._kafka.topic, partition, LAST_RECORDS)
        )

    def save(self, saved: Saved, *, in_full: bool = False) -> None:
        """Save the position. Returns when Kafka has acknowledged it.

        With `in_full` an older release can go on from there, too.
        """
        records = self._hospitals.setdefault(saved.hospital, HospitalRecords(saved.hospital))
        for key, value in records.write(saved, in_full=in_full):
            self._send(key, value)

    def signals(self, hospital: str) -> Signals:
        """Return the hospital's signals, as `load` or `all` has read them."""
        records = self._hospitals.get(hospital)
        return records.signals if records is not None else Signals()

    def signal(self, hospital: str, partition: int, signal: Signal) -> None:
        """Write a signal. Returns when Kafka has acknowledged it."""
        self._send(new_key(hospital, signal.at_ms), signal.encode(hospital, partition))

    def close(self) -> None:
        if self._producer is not None:
            close_producer(self._producer)
            self._producer = None

    def _send(self, key: bytes, value: bytes | None) -> None:
        """Write a record. Returns when Kafka has acknowledged it."""
        with translate_errors(self._kafka):
            if self._producer is None:
                self._producer = open_producer(self._kafka)
            topic = self._kafka.positions_topic
            self._producer.send(topic, value=value, key=key, partition=0).get(SAVE_S)

    def _batches(self) -> Generator[Sequence[Record], None, None]:
        """Yield the topic's records, oldest first; an empty batch while nothing comes."""
        return read_topic(self._kafka, self._kafka.positions_topic, partition=0)

    def _read(
        self, keep: Callable[[], object], only: str | None = None
    ) -> dict[str, HospitalRecords]:
        """Return what the topic holds of each hospital, by its id.

        With `only`, no more than their partitions is read of the other hospitals.
        """
        hospitals: dict[str, HospitalRecords] = {}
        owners: dict[bytes | None, HospitalRecords] = {}
        with translate_strange_records(self._kafka), closing(self._batches()) as batches:
            for batch in batches:
                keep()
                for record in batch:
                    self.next_offset = record.offset + 1
                    owner = owners.get(record.key)
                    if owner is None:
                        if record.value is None:
                            continue
                        # A key is one hospital's, and a hospital's partition never changes.
                        head = _parse_head(record.value)
                        owner = hospitals.setdefault(head.hospital, HospitalRecords(head.hospital))
                        owner.partitions.add(head.partition)
                        owners[record.key] = owner
                    if only is None or only == owner.hospital:
                        owner.add(record.key or b"", record.value)
        return hospitals


def _check_partition(hospital: str, partition: int, hospitals: Iterable[HospitalRecords]) -> None:
    """Raise Fatal if the partition is another hospital's, or the hospital was in another one."""
    for records in hospitals:
        if records.hospital == hospital:
            for used in records.partitions - {partition}:
                raise Fatal(
                    f"hospital {hospital}: it is in partition {used}, the settings say {partition}",
                    hint=f"set hospitals.{hospital}.partition to {used}",
                    origin=Origin.hospital(hospital),
                )
        elif partition in records.partitions:
            raise Fatal(
                f"hospital {hospital}: partition {partition} is that of {records.hospital}, and"
                " is never reused",
                hint=f"set hospitals.{hospital}.partition to a number that no hospital ever had",
                origin=Origin.hospital(hospital),
            )
