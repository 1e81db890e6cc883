"""Applies a part of the topic once more, beside the running consumer group.

The group's offset and the destination's progress stay where they are. Replaying never undoes a
newer change, because the newest version of each row wins, and a record of an older epoch than the
destination has seen counts as stale: the newer epoch's snapshot knew what was gone. A record that
can't be carried was parked when it came first, and is only counted here.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from consumers import subscription
from consumers.apply import Applier
from consumers.dead_letters import DeadLetters
from consumers.partition import NewerRecord, Partition, RejectedRecord, RowRecord, parse_record
from consumers.taking import taking_hospital
from passport import sink as sinks
from passport.errors import Overtaken, Retry
from passport.event import ChunkEvent, KeyChangeEvent, RowEvent
from passport.facts import Observation, Person
from passport.kafka import OffsetRange, Record, read_range
from passport.settings import Settings
from passport.sink import (
    KeyRange,
    Outcome,
    Progress,
    RetainsInSteps,
    RetainStep,
    Scope,
    Sink,
)
from passport.version import LOWEST

ATTEMPTS = 6  # of a batch, while the hospital or the destination is away
REENRICH_PAUSE_S = 0.01

OnProgress = Callable[[int, int], None]  # records done, of how many


@dataclass(slots=True)
class Replayed:
    """The result for one hospital: the records with ``first <= offset < end``, and their rows.

    `reread` counts the rows that key changes had read again at the hospital. `complete` means that
    nothing older is missing: the topic's very start, or a whole snapshot, is among the records.
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
    """A sink (see `passport.sink.Sink`) that counts what another one writes."""

    sink: Sink
    into: Replayed

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = self.sink.write(observations)
        if observations and observations[0].origin != "stream":
            self.into.reread += len(observations)
        else:
            self.into.count(outcome)
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        outcome = self.sink.retain(scope, keys, version)
        if isinstance(scope, KeyRange):
            self.into.count(outcome)
        return outcome

    def ambiguous(self, hospital: str) -> Sequence[int]:
        return self.sink.ambiguous(hospital)

    def progress(self, hospital: str) -> Progress | None:
        return self.sink.progress(hospital)

    def record(self, progress: Progress) -> None:
        self.sink.record(progress)

    def counts(self, hospital: str) -> Mapping[str, int]:
        return self.sink.counts(hospital)

    def ready(self) -> None:
        self.sink.ready()

    def close(self) -> None:
        self.sink.close()


@dataclass(slots=True)
class _CountingInSteps(_Counting):
    """The same for a sink that retains persons in steps. These rows are not counted."""

    in_steps: RetainsInSteps

    def begin_person(self, person: Person) -> int:
        return self.in_steps.begin_person(person)

    def retain_steps(
        self, person: Person, keys: Collection[int], version: str, begun: int | None
    ) -> Iterator[RetainStep]:
        return self.in_steps.retain_steps(person, keys, version, begun)


class _Parked(DeadLetters):
    """Parks nothing, since the consumer group has done so."""

    def park(self, record: Record, reason: str, hospital: str) -> None: ...

    def park_row(self, event: RowEvent, reason: str, partition: int) -> None: ...

    def park_person(self, event: KeyChangeEvent, reason: str, partition: int) -> None: ...


@dataclass(slots=True)
class _Snapshots:
    """Watches for a whole snapshot: chunks of one epoch that together leave out no key."""

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
    """Replay one hospital's records and return what became of them.

    `start` and `end` are offsets; None stands for the first and the last one that there is. Raises
    NotReady, Retry and Fatal.
    """
    number = settings.hospitals[hospital_id].partition
    first, end_of_topic = subscription.partition_offsets(settings.kafka, number)
    result = Replayed(
        first=first if start is None else max(first, start),
        end=end_of_topic if end is None else min(end_of_topic, end),
    )
    # Nothing is older than the record at offset 0.
    complete = first == 0 and result.first == 0
    replay = _Replay(destination, settings, sink, hospital_id, result, stop, complete=complete)
    try:
        if not dry_run:
            replay.begin()
        offsets = OffsetRange(result.first, result.end)
        for records in read_range(settings.kafka, settings.kafka.topic, number, offsets):
            if stop.is_set():
                raise Retry(f"hospital {hospital_id}: stopped before offset {result.end}")
            replay.take(records, dry_run=dry_run)
            progress(result.records, result.end - result.first)
        if not dry_run:
            replay.finish()
    finally:
        replay.close()
    return result


def offset(settings: Settings, hospital_id: str, at_ms: int) -> int:
    """Return the offset of the first record that was published at `at_ms` (Unix time) or later.

    Without such a record it is the end of the partition.
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
        result: Replayed,
        stop: threading.Event,
        *,
        complete: bool,
    ) -> None:
        hospital = settings.hospitals[hospital_id]
        module = sinks.module(settings.destinations[destination].type)
        counting = _Counting(sink, result)
        if isinstance(sink, RetainsInSteps):
            counting = _CountingInSteps(sink, result, sink)
        self._limit = settings.consumer.batch_records
        self._partition = Partition(
            hospital.partition, hospital_id, hospital, settings.consumer, result.first
        )
        letters = _Parked(settings.kafka, destination)
        self._applier = Applier(
            destination, counting, letters, newest_wins=module.ORDER == "newest-wins"
        )
        self._snapshots = _Snapshots(whole=complete)
        self._result = result
        self._sink = sink
        self._newest = LOWEST  # version of an event that was seen
        self._taking = taking_hospital(sink, hospital_id, stop)
        self._stop = stop

    def begin(self) -> None:
        """Take the hospital, and learn which epoch the destination has seen."""
        self._taking.take()
        progress = self._sink.progress(self._partition.hospital_id)
        if progress is not None:
            self._partition.lookups.seen(progress.version)
            self._newest = progress.version

    def take(self, records: Sequence[Record], *, dry_run: bool) -> None:
        """Count the records and, unless it is a dry run, apply them."""
        for record in records:
            self._look(record, dry_run=dry_run)
        if not dry_run:
            self._partition.receive(records)
            self._apply()

    def finish(self) -> None:
        """Apply what is left of the last transaction, and all that key changes ask for."""
        self._apply()
        while self._partition.reenrichment.pending() and not self._stop.is_set():
            self._stop.wait(REENRICH_PAUSE_S)
            self._reenrich()

    def close(self) -> None:
        self._partition.close()

    def _look(self, record: Record, *, dry_run: bool) -> None:
        item = parse_record(record, self._partition.hospital_id)
        self._result.records += 1
        if isinstance(item, RejectedRecord | NewerRecord):
            self._result.rejected += 1
            return
        version = item.event.source.version
        self._newest = max(self._newest, version)
        if isinstance(item, RowRecord):
            self._result.rows += 1
            # The destination never sees a row of an older epoch.
            self._result.stale += not dry_run and version[:10] < self._newest[:10]
        elif isinstance(item.event, ChunkEvent):
            self._snapshots.take(item.event)
        self._result.complete = self._snapshots.whole

    def _apply(self) -> None:
        while items := self._partition.take(self._limit):
            self._until_written(lambda: self._applier.batch(self._partition, items))
            self._reenrich()

    def _reenrich(self) -> None:
        self._until_written(lambda: self._applier.reenrich(self._partition))

    def _until_written(self, work: Callable[[], None]) -> None:
        """Do `work` until it is done; a hospital or a destination that is away ends that at last.

        If another writer has taken the hospital, the work begins with other knowledge of it.
        """
        attempt = 1
        while True:
            try:
                work()
                self._taking.written()
                return
            except Overtaken as error:
                self._take_again(error)
            except Retry as error:
                self._wait_after(error, attempt)
                attempt += 1

    def _take_again(self, error: Overtaken) -> None:
        """Take the hospital again. What was looked up before may be older than what is there."""
        self._taking.take_again(error)
        self._partition.lookups.clear(identities=True)

    def _wait_after(self, error: Retry, attempt: int) -> None:
        """Wait before the next attempt. Raises the error after the last one, and when stopped."""
        if attempt == ATTEMPTS or self._stop.is_set():
            raise error
        self._stop.wait(error.after * attempt)
