"""Applies a stretch of the topic once more, beside the running group: no offset and no progress of
its moves.

The newest version of each row wins, so that what is replayed can undo nothing. What can't be
carried was parked when it came first, and is only counted here.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from consumers import subscription
from consumers.apply import Applier
from consumers.dead_letters import Letters
from consumers.partition import Partition, parsed
from passport import sink as sinks
from passport.errors import Retry
from passport.event import ChunkEvent, RowEvent
from passport.facts import Observation
from passport.kafka import OffsetRange, Record, read_range
from passport.settings import Settings
from passport.sink import KeyRange, Outcome, Scope, Sink

ATTEMPTS = 6  # of a batch, while the hospital or the destination is away
REREAD_S = 0.01

OnProgress = Callable[[int, int], None]  # records done, of how many


@dataclass(slots=True)
class Replayed:
    """One hospital: the records from offset `first` up to, not with, `end`, and what became of
    them.

    `reread`: rows that notices had read again at the hospital. `complete`: the topic's very start,
    or a whole snapshot, is among them, so that nothing older is missing.
    """

    first: int
    end: int
    records: int = 0
    rows: int = 0
    applied: int = 0
    unchanged: int = 0
    stale: int = 0
    unmatched: int = 0
    rejected: int = 0
    reread: int = 0
    complete: bool = False

    def count(self, outcome: Outcome) -> None:
        self.applied += outcome.stored
        self.unchanged += outcome.unchanged
        self.stale += outcome.stale
        self.unmatched += outcome.unmatched
        self.rejected += len(outcome.rejected)


@dataclass(slots=True)
class _Counting:
    """A sink that counts on the way (see passport.sink.Sink); the rest is the sink's own."""

    sink: Sink
    into: Replayed

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = self.sink.write(observations)
        if observations and observations[0].origin != "stream":
            self.into.reread += len(observations)
            return outcome
        return self._counted(outcome)

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        outcome = self.sink.retain(scope, keys, version)
        return self._counted(outcome) if isinstance(scope, KeyRange) else outcome

    def _counted(self, outcome: Outcome) -> Outcome:
        self.into.count(outcome)
        return outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)


class _Parked(Letters):
    """Parks nothing: the group has."""

    def park(self, record: Record, reason: str, hospital: str) -> None: ...

    def park_row(self, event: RowEvent, reason: str, partition: int) -> None: ...


@dataclass(slots=True)
class _Snapshots:
    """Whether chunks that leave no key out have passed."""

    to: dict[str, int | None] = field(default_factory=dict)  # by epoch: how far they reach
    whole: bool = False

    def take(self, event: ChunkEvent) -> None:
        epoch = event.source.version[:10]
        if event.first is None or (epoch in self.to and self.to[epoch] == event.first):
            self.to[epoch] = event.to
            self.whole |= event.to is None


def run(
    destination: str,
    settings: Settings,
    sink: Sink,
    hospital_id: str,
    *,
    start: int | None,
    end: int | None,
    dry_run: bool,
    stop: threading.Event,
    progress: OnProgress,
) -> Replayed:
    """Replays one hospital's records. `start`, `end`: offsets, None for all there are. NotReady,
    Retry, Fatal.
    """
    number = settings.hospitals[hospital_id].partition
    first, last = subscription.partition_offsets(settings.kafka, number)
    done = Replayed(
        first if start is None else max(first, start), last if end is None else min(last, end)
    )
    replay = _Replay(
        destination, settings, sink, hospital_id, done, stop, complete=done.first == first == 0
    )
    try:
        wanted = OffsetRange(done.first, done.end)
        for records in read_range(settings.kafka, settings.kafka.topic, number, wanted):
            if stop.is_set():
                raise Retry(f"hospital {hospital_id}: stopped before offset {done.end}")
            replay.take(records, dry_run=dry_run)
            progress(done.records, done.end - done.first)
        if not dry_run:
            replay.finish()
    finally:
        replay.close()
    return done


def offset(settings: Settings, hospital_id: str, at_ms: int) -> int:
    """Of the first record that was published at or after this Unix time in ms; the end if there is
    none.
    """
    return subscription.offset_at(settings.kafka, settings.hospitals[hospital_id].partition, at_ms)


class _Replay:
    """One hospital's records through the worker's own way of applying them."""

    def __init__(
        self,
        destination: str,
        settings: Settings,
        sink: Sink,
        hospital_id: str,
        done: Replayed,
        stop: threading.Event,
        *,
        complete: bool,
    ) -> None:
        hospital = settings.hospitals[hospital_id]
        order = sinks.module(settings.destinations[destination].type).ORDER
        counting: Any = _Counting(sink, done)
        self._limit = settings.consumer.batch_records
        self._partition = Partition(
            hospital.partition, hospital_id, hospital, settings.consumer, done.first
        )
        letters = _Parked(settings.kafka, destination)
        self._applier = Applier(destination, counting, letters, newest_wins=order == "newest-wins")
        self._snapshots = _Snapshots(whole=complete)
        self._done, self._stop = done, stop

    def take(self, records: Sequence[Record], *, dry_run: bool) -> None:
        """Looks at the records and, but for a dry run, applies them."""
        for record in records:
            self._look(record)
        if not dry_run:
            self._partition.receive(records)
            self._apply()

    def finish(self) -> None:
        """What is left of the last transaction, and all that notices ask for."""
        self._apply()
        while self._partition.reenrichment.pending() and not self._stop.is_set():
            self._stop.wait(REREAD_S)
            self._patiently(partial(self._applier.reenrich, self._partition))

    def close(self) -> None:
        self._partition.close()

    def _look(self, record: Record) -> None:
        item = parsed(record, self._partition.hospital_id)
        self._done.records += 1
        if item.event is None:
            self._done.rejected += 1
        elif isinstance(item.event, ChunkEvent):
            self._snapshots.take(item.event)
        elif isinstance(item.event, RowEvent):
            self._done.rows += 1
        self._done.complete = self._snapshots.whole

    def _apply(self) -> None:
        while items := self._partition.take(self._limit):
            self._patiently(partial(self._applier.batch, self._partition, items))
            self._patiently(partial(self._applier.reenrich, self._partition))

    def _patiently(self, act: Callable[[], None]) -> None:
        attempt = 1
        while True:
            try:
                return act()
            except Retry as error:
                if attempt == ATTEMPTS or self._stop.is_set():
                    raise
                self._stop.wait(error.after * attempt)
            attempt += 1
