"""A Kafka of two topics.

A record is sent, lands in the topic, and is acknowledged. Each of the three has a moment of its
own, and may never come.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import cdc.positions
from cdc.lease import ReaderName
from cdc.positions import HospitalRecords, Saved, highest_epoch
from cdc.signals import Signals
from passport.errors import Gap, NotReady
from passport.kafka import Record
from passport.settings import Kafka
from tests.simulation.world import BrokenPromise, World


class Broker:
    """`log` is the hospital's partition, and `saved` the positions topic.

    `late` holds what was still in the sockets of clients that are dead. It may land later.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.log: list[bytes] = []
        self.saved: list[tuple[bytes, bytes | None]] = []
        self.late: list[Callable[[], None]] = []
        self.publishers: list[Publisher] = []
        self.on_save: Callable[[Saved], None] = lambda _: None
        # A new epoch is saved, by a reader that looked at this time where to go on.
        self.on_begin: Callable[[Saved, float], None] = lambda _saved, _looked_at: None
        self.refuses = 0

    def work(self) -> None:
        """Let some of what was sent land, and acknowledge some of what landed."""
        for publisher in self.publishers:
            publisher.move(self.world.rng.randint(0, 3), self.world.rng.randint(0, 3))

    def work_all(self) -> None:
        for publisher in self.publishers:
            publisher.move(10**9, 10**9)
        self.land_late(10**9)

    def land_late(self, most: int = 1) -> None:
        for _ in range(min(most, len(self.late))):
            self.world.count("landed late")
            self.late.pop(0)()

    def cut(self, length: int) -> None:
        """Lose the records behind the first `length`, and what dead clients still had to send."""
        del self.log[length:]
        self.late.clear()

    def append(self, key: bytes, value: bytes | None) -> None:
        """Add a record to the positions topic."""
        self.saved.append((key, value))

    def compact(self) -> None:
        """Keep the last record of each key of the positions topic, and no tombstone."""
        last = dict(self.saved)
        kept = [(key, value) for key, value in last.items() if value is not None]
        if len(kept) < len(self.saved):
            self.world.count("compacted")
        self.saved = kept

    def furthest(self) -> Saved | None:
        """Return the position that holds, as the product reads it."""
        records = HospitalRecords("kigali")
        for key, value in self.saved:
            records.add(key, value)
        return records.furthest()


class Publisher:
    """Stands in for `cdc.publisher.Publisher`."""

    def __init__(self, broker: Broker, end_offset: int) -> None:
        self._broker = broker
        self._world = broker.world
        self.end_offset = end_offset
        self._queue: deque[bytes] = deque()
        self._landed: list[int] = []  # the end of the topic behind each record
        self._acked = 0
        self.sent = 0
        self._cut = False
        self._open = True
        broker.publishers.append(self)
        if self._world.process:
            self._world.process.at_death.append(self._end)

    def send(self, kind: str, value: bytes) -> int:
        self._world.call(f"produce {kind}")
        self._queue.append(value)
        self.sent += 1
        return self.sent

    def acked(self) -> int:
        self._world.call("ack")
        if self._broker.refuses and self.sent > self._acked:
            self._broker.refuses -= 1
            raise NotReady("Kafka doesn't answer", hint="wait")
        if self._cut:
            raise Gap("the topic lost its end", hint="nothing to do")
        return self._acked

    def flush(self, timeout_s: float = 8) -> None:
        deadline = self._world.now + timeout_s
        while self.acked() < self.sent:
            if self._world.now > deadline:
                raise NotReady("Kafka does not acknowledge", hint="wait")
            self._world.sleep(0.05)

    def close(self) -> None:
        self._world.call("close")
        self._end()

    def move(self, land: int, acknowledge: int) -> None:
        while self._queue and land > 0:
            self._broker.log.append(self._queue.popleft())
            self._landed.append(len(self._broker.log))
            land -= 1
        for end_offset in self._landed[self._acked : self._acked + acknowledge]:
            if end_offset <= self.end_offset:
                self._cut = True
            self.end_offset = max(self.end_offset, end_offset)
            self._acked += 1

    def _end(self) -> None:
        """End the connection. What is on its way lands now, later, or never: in order."""
        if not self._open:
            return
        self._open = False
        rng = self._world.rng
        self.move(rng.randint(0, len(self._queue)), 0)
        late_records = [self._queue.popleft() for _ in range(rng.randint(0, len(self._queue)))]
        if late_records:
            self._broker.late.append(lambda: self._broker.log.extend(late_records))
        if self._queue:
            self._world.count("never landed")
        self._broker.publishers.remove(self)


class SignalWatch:
    """Stands in for `cdc.signals.SignalWatch`: nobody signals."""

    def __init__(self, _kafka: Kafka, _hospital: str, signals: Signals, _offset: int) -> None:
        self._signals = signals

    def look(self) -> Signals:
        return self._signals

    def close(self) -> None: ...


class Positions(cdc.positions.Positions):
    """The product's own, with the played broker in place of a real one."""

    def __init__(self, broker: Broker, kafka: Kafka) -> None:
        super().__init__(kafka)
        self._saving: Saved | None = None
        self._read_values: list[bytes] = []
        # When this reader last looked where to go on, and in which epoch it goes on.
        self._looked_at = 0.0
        self._epoch = 0
        self._broker = broker
        self._world = broker.world

    def reader_name(self, hospital: str) -> ReaderName:
        self._world.call("cluster")
        return ReaderName(hospital, "played", "t")

    def ensure(self, _: Any) -> None:  # type: ignore[override]
        self._world.call("topics")

    def published_epoch(self, _: int) -> int:
        self._world.call("last record")
        newest = self._broker.log[-1000:]
        return highest_epoch(Record(0, 0, None, value, ()) for value in newest)

    def load(
        self,
        hospital: str,
        *,
        partition: int | None = None,
        keep: Callable[[], object] = lambda: None,
    ) -> Saved | None:
        looked_at = self._world.now
        saved = super().load(hospital, partition=partition, keep=keep)
        ranks = [Saved.parse(value).rank for value in self._read_values]
        if saved is not None and saved.rank != max(ranks):
            raise BrokenPromise(f"{saved.position} holds, and is not the furthest")
        if partition is not None:  # a session begins
            self._looked_at = looked_at
            self._epoch = saved.epoch if saved is not None else 0
        return saved

    def save(self, saved: Saved, *, in_full: bool = False) -> None:
        self._world.call("save")
        self._saving = saved
        super().save(saved, in_full=in_full)

    def close(self) -> None:
        self._world.call("close")

    def _batches(self) -> Generator[Sequence[Record], None, None]:
        self._world.call("load")
        self._read_values = [value for _, value in self._broker.saved if value is not None]
        for offset, (key, value) in enumerate([*self._broker.saved]):
            yield [Record(0, offset, key, value, ())]

    def _send(self, key: bytes, value: bytes | None) -> None:
        if self._saving is not None and b"/columns/" not in key:
            if self._saving.epoch == self._epoch:
                self._broker.on_save(self._saving)
            else:
                self._broker.on_begin(self._saving, self._looked_at)
                self._epoch = self._saving.epoch
            self._saving = None
        self._broker.append(key, value)
        self._world.call("saved")
