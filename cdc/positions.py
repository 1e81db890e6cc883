"""The positions topic, which says where each hospital's reader is: compacted, a record a save.

Which record holds is decided by what it says, not by when it was written. So a reader that stood
still, and writes late, can move nobody back.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from cdc import topics
from cdc.durability import NEVER_SEEN, SeenDurable
from cdc.kafka import close_producer, newest_values, open_producer, read_values
from openmrs.column_info import ColumnInfo
from passport.errors import KAFKA, Fatal, Origin, Reject
from passport.event import parse_event
from passport.kafka import translate_errors
from passport.settings import Kafka, Settings
from passport.version import Position, parse

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
    """The progress of a snapshot.

    `number` counts the snapshots of an epoch. Every obs_id up to `next_key` is done; None if none
    is, or if all are.
    """

    number: int = 1
    state: Literal["running", "done"] = "running"
    next_key: int | None = None

    @property
    def rank(self) -> tuple[int, bool, int]:
        """The higher rank is further."""
        next_key = -1 if self.next_key is None else self.next_key
        return self.number, self.state == "done", next_key


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
    - `run` and `state`: what the polling job keeps.
    - `ts_ms`: the hospital's clock at the position.
    - `topic_end`: the offset behind the last record that the topic had acknowledged. A topic that
      ends before it has lost some.
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

    def encode(self) -> bytes:
        """Return the record's value; `parse` is the inverse."""
        body = asdict(replace(self, columns={}))
        body["position"] = list(self.position)
        body["columns"] = {
            table: [list(column) for column in columns] for table, columns in self.columns.items()
        }
        return json.dumps({"v": 1, **body}, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, value: bytes) -> "Saved":
        """Return the position of a record. Raises ValueError if it is none.

        A field that a later release added is left out, so that going back to this release stays
        possible.
        """
        try:
            wire = json.loads(value)
            if wire["v"] != 1:
                raise ValueError("a position of another version")
            body = {name: wire[name] for name in wire if name in cls.__slots__}
            position = body["position"]
            body["position"] = Position(position[0], int(position[1]))
            body["columns"] = {
                table: [ColumnInfo(*column) for column in rows]
                for table, rows in body["columns"].items()
            }
            body["snapshot"] = Snapshot(**body["snapshot"]) if body["snapshot"] else None
            if body.get("next_row"):
                (file, pos), row = body["next_row"]
                body["next_row"] = RowPlace(Position(file, int(pos)), int(row))
            if "seen_durable" in body:
                end, ts_ms = body["seen_durable"]
                body["seen_durable"] = SeenDurable(Position(*end), ts_ms)
            return cls(**body)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"no position ({type(error).__name__})") from None


def highest(records: Iterable[Saved]) -> Saved | None:
    """Return the record that holds: the furthest one, and of equals the last one written.

    The furthest is not always the last one written. None if there is none.
    """
    return max(reversed([*records]), key=lambda saved: saved.rank, default=None)


def highest_epoch(records: Iterable[bytes]) -> int:
    """Return the highest epoch in these records of the topic of changes; 0 if there is none.

    A record that can't be read is passed over. Its consumer tells of it.
    """
    highest_epoch = 0
    for value in records:
        with suppress(Reject, ValueError):
            event = parse_event(value)
            highest_epoch = max(highest_epoch, parse(event.source.version).epoch)
    return highest_epoch


class Positions:
    """The topic `kafka.positions_topic`. Connects when it is first used. Not thread-safe.

    Each method raises NotReady and Fatal.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: Any = None

    @staticmethod
    def ensure(settings: Settings) -> None:
        """Make the topics and partitions that are missing, also those of the changes."""
        topics.ensure(settings.kafka, settings.hospitals.values())

    def load(self, hospital: str) -> Saved | None:
        """Return the furthest position that was ever saved for the hospital; None without one."""
        return highest(self._read(hospital.encode()))

    def all(self) -> dict[str, Saved]:
        """Return the furthest position of each hospital, by its id."""
        furthest: dict[str, Saved] = {}
        for saved in self._read():
            before = furthest.get(saved.hospital)
            if before is None or saved.rank > before.rank:
                furthest[saved.hospital] = saved
        return furthest

    def published_epoch(self, partition: int) -> int:
        """Return the highest epoch in the last records of a partition of changes; 0 without any.

        It is for a hospital that has no saved position left. Its next epoch must be higher,
        whatever this machine's clock says.
        """
        values = newest_values(self._kafka, self._kafka.topic, partition, LAST_RECORDS)
        return highest_epoch(values)

    def check_partition(self, hospital: str, partition: int) -> None:
        """Raise Fatal if the partition is another hospital's, or the hospital was in another one.

        Destinations know a hospital by its partition. Its records would be taken for another's.
        """
        for saved in self._read():
            if saved.hospital == hospital and saved.partition != partition:
                raise Fatal(
                    f"hospital {hospital}: it is in partition {saved.partition}, the settings say"
                    f" {partition}",
                    hint=f"set hospitals.{hospital}.partition to {saved.partition}",
                    origin=Origin.hospital(hospital),
                )
            if saved.hospital != hospital and saved.partition == partition:
                raise Fatal(
                    f"hospital {hospital}: partition {partition} is that of {saved.hospital}, and"
                    " is never reused",
                    hint=f"set hospitals.{hospital}.partition to a number that no hospital ever"
                    " had",
                    origin=Origin.hospital(hospital),
                )

    def save(self, saved: Saved) -> None:
        """Save the position. Returns when Kafka has acknowledged it."""
        with translate_errors(self._kafka):
            if self._producer is None:
                self._producer = open_producer(self._kafka)
            self._producer.send(
                self._kafka.positions_topic,
                value=saved.encode(),
                key=saved.hospital.encode(),
                partition=0,
            ).get(SAVE_S)

    def close(self) -> None:
        if self._producer is not None:
            close_producer(self._producer)
            self._producer = None

    def _read(self, key: bytes | None = None) -> list[Saved]:
        """Return the saved positions of one hospital, or of all, oldest first."""
        values = read_values(self._kafka, self._kafka.positions_topic, key)
        try:
            return [Saved.parse(value) for value in values]
        except ValueError as error:
            raise Fatal(
                f"topic {self._kafka.positions_topic} holds a record that is not a position"
                f" ({error})",
                hint="does another program, or a newer version of this one, write to it?",
                origin=KAFKA,
            ) from None
