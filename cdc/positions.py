"""Where a hospital's reader is, kept in Kafka: one compacted topic of one partition, a record a
save.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cdc import topics
from cdc.kafka import close_producer, newest_values, open_producer, read_values
from openmrs.values import ColumnInfo
from passport.errors import Fatal, Reject
from passport.event import parse_event
from passport.kafka import translate_errors
from passport.settings import Kafka, Settings
from passport.version import Position, parse

BY_GTID = 0  # a byte offset where no binlog has one: `gtid_set` alone says where to go on
# records that are looked through for the newest epoch: a dead reader's last ones may be among them
LAST = 1_000
SAVE_S = 10.0  # how long one save may wait for its acknowledgement

Columns = Mapping[str, list[ColumnInfo]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`number` counts the snapshots of an epoch; every obs_id up to `next_key` is done (None: none
    yet).
    """

    number: int = 1
    state: Literal["running", "done"] = "running"
    next_key: int | None = None

    @property
    def rank(self) -> tuple[int, bool, int]:
        return self.number, self.state == "done", -1 if self.next_key is None else self.next_key


@dataclass(frozen=True, slots=True)
class Saved:
    """All that a reader needs to go on.

    `server`: identity (openmrs.connection.identity), `format_ts`: Unix seconds at which the server
    made the binlog file of `position`; `position`: end of a transaction, everything before it
    acknowledged; `columns`: every column of the watched tables as they are at `position`, in the
    table's order. `run` and `state` are the polling job's. After a failover `position` is the
    server's oldest file at BY_GTID, until a transaction's end is known there. `topic_end`: the
    offset behind the last record that the topic had acknowledged: a topic that ends before it has
    lost some.
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

    @property
    def rank(self) -> tuple[Any, ...]:
        """The higher one holds."""
        return (
            self.epoch,
            self.position.order,
            self.run,
            self.snapshot.rank if self.snapshot else (0, False, -1),
        )

    @property
    def by_gtid(self) -> bool:
        return self.position.pos == BY_GTID

    def encode(self) -> bytes:
        body = asdict(replace(self, columns={}))
        body["position"] = list(self.position)
        body["columns"] = {
            table: [list(column) for column in columns] for table, columns in self.columns.items()
        }
        return json.dumps({"v": 1, **body}, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, value: bytes) -> "Saved":
        """ValueError when it is none. What a later release added is left out: going back to this
        one stays possible.
        """
        try:
            body = {
                key: one for key, one in json.loads(value).items() if key in (*cls.__slots__, "v")
            }
            if body.pop("v") != 1:
                raise ValueError("a position of another version")
            body["position"] = Position(body["position"][0], int(body["position"][1]))
            body["columns"] = {
                table: [ColumnInfo(*column) for column in rows]
                for table, rows in body["columns"].items()
            }
            body["snapshot"] = Snapshot(**body["snapshot"]) if body["snapshot"] else None
            return cls(**body)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"no position ({type(error).__name__})") from None


def highest(records: Iterable[Saved]) -> Saved | None:
    """The furthest of all records, which is not always the last one written; of equals the last."""
    return max(reversed([*records]), key=lambda saved: saved.rank, default=None)


def highest_epoch(records: Iterable[bytes]) -> int:
    """Of records of the topic of changes; 0 without."""
    epochs = [0]
    for value in records:
        with suppress(Reject, ValueError):
            epochs.append(parse(parse_event(value).source.version).epoch)
    return max(epochs)


class Positions:
    """The topic `kafka.positions_topic`. Connects when first used; not thread-safe."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: Any = None

    @staticmethod
    def ensure(settings: Settings) -> None:
        """Make the topics and partitions that are missing."""
        topics.ensure(settings.kafka, settings.hospitals.values())

    def load(self, hospital: str) -> Saved | None:
        """The highest (epoch, position) ever saved for the hospital. NotReady, Fatal."""
        return highest(self._all(hospital.encode()))

    def all(self) -> dict[str, Saved]:
        """The highest of each hospital. NotReady, Fatal."""
        found: dict[str, Saved] = {}
        for saved in self._all():
            found[saved.hospital] = max(
                found.get(saved.hospital, saved), saved, key=lambda one: one.rank
            )
        return found

    def published_epoch(self, partition: int) -> int:
        """The highest epoch among the last records of a partition of the topic of changes; 0
        without. NotReady, Fatal.

        For a hospital of which no position is left: its next epoch must be higher, whatever this
        machine's clock says.
        """
        return highest_epoch(newest_values(self._kafka, self._kafka.topic, partition, LAST))

    def check_partition(self, hospital: str, partition: int) -> None:
        """Fatal if the partition is another hospital's, or the hospital was in another one."""
        for saved in self._all():
            if saved.hospital == hospital and saved.partition != partition:
                raise Fatal(
                    f"hospital {hospital}: it is in partition {saved.partition}, the settings say {partition}",
                    hint=f"set hospitals.{hospital}.partition to {saved.partition}",
                )
            if saved.hospital != hospital and saved.partition == partition:
                raise Fatal(
                    f"hospital {hospital}: partition {partition} is that of {saved.hospital}, and is never reused",
                    hint=f"set hospitals.{hospital}.partition to a number that no hospital ever had",
                )

    def save(self, saved: Saved) -> None:
        """Returns when Kafka has it. NotReady, Fatal."""
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

    def _all(self, key: bytes | None = None) -> list[Saved]:
        try:
            return [
                Saved.parse(value)
                for value in read_values(self._kafka, self._kafka.positions_topic, key)
            ]
        except ValueError as error:
            raise Fatal(
                f"topic {self._kafka.positions_topic} holds a record that is not a position ({error})",
                hint="does another program, or a newer version of this one, write to it?",
            ) from None
