"""Applies what came for one partition: rows enriched and written, ranges and persons retained, the
rest parked.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from consumers.dead_letters import Letters
from consumers.lookups import RowToEnrich
from consumers.partition import Item, Partition
from openmrs.read import SourcePosition
from openmrs.tables import OBS
from passport import metrics, tracing
from passport.event import (
    ENVELOPE,
    ChunkEvent,
    Event,
    EventSource,
    KeyChangeEvent,
    Row,
    RowEvent,
    Transaction,
)
from passport.facts import Observation
from passport.sink import KeyRange, Outcome, Sink


class Applier:
    """`at_hospital`: whether the last failure was the hospital's, not the destination's or Kafka's."""

    def __init__(
        self, destination: str, sink: Sink, letters: Letters, *, newest_wins: bool
    ) -> None:
        self._destination, self._sink, self._letters = destination, sink, letters
        self._newest_wins = newest_wins
        self._write_seconds = metrics.WRITE_SECONDS.labels(destination)
        self.at_hospital = False

    def batch(self, partition: Partition, items: Sequence[Item]) -> None:
        """Applies records in order. Raises Retry and Fatal; then `partition.next` is still the
        first of them.
        """
        for run, chunk in _segments(items):
            if run:
                self._run(partition, run)
            if chunk is not None:
                self._retain(partition, chunk)
        partition.next = items[-1].record.offset + 1

    def reenrich(self, partition: Partition, *, busy: bool = False) -> None:
        """One slice of what notices and the destination want read again, if any is due; `busy`:
        records wait, too.
        """
        with self._asking_hospital():
            piece = partition.reenrichment.read(busy=busy)
        if piece is None:
            return
        for row, reject in piece.rejected:
            self._park_row(partition, row, piece.version, reject.reason)
        self._write(partition, piece.observations)
        for person, keys in piece.persons:
            self._count(partition, self._sink.retain(person, keys, piece.version))
        partition.reenrichment.finish(piece)

    def _run(self, partition: Partition, items: Sequence[Item]) -> None:
        lookups = partition.lookups
        noted = [
            item
            for item in items
            if item.event is not None and not self._note(partition, item.event)
        ]
        rows = [item for item in noted if isinstance(item.event, RowEvent)]
        # From a reader that was cut off, behind the snapshot that knows what is gone: perhaps of a
        # row that is.
        late = sum(isinstance(item.event, RowEvent) for item in items) - len(rows)
        self._count(partition, Outcome(stale=late))
        # These rows were looked up after the notices: what the destination took as newest needs no
        # re-reading.
        written = self._rows(partition, rows)
        for item in items:
            if item.reject is not None:
                self._letters.park(item.record, item.reject.reason, partition.hospital_id)
        for item in items:
            event = item.event
            if (
                isinstance(event, KeyChangeEvent)
                and event.source.version[:10] == lookups.newest[:10]
            ):
                partition.reenrichment.add_key_change(event, item.record.offset, written)
        partition.reenrichment.add_persons(
            lookups.affected_patients(), items[0].record.offset, partition.latest
        )

    def _note(self, partition: Partition, event: Event) -> bool:
        """The newest version and place, and what is outdated now. True if the event is of an older
        epoch.
        """
        source, lookups = event.source, partition.lookups
        outdated = lookups.seen(source.version)
        partition.at_ms = max(partition.at_ms, source.ts_ms)
        if not outdated and source.file and source.version >= lookups.newest:
            partition.latest = SourcePosition.of(source)
        if isinstance(event, KeyChangeEvent):
            lookups.evict(event)
        snapshot = source.origin == "snapshot" and isinstance(event, RowEvent)
        if snapshot and not partition.in_snapshot:
            lookups.clear(identities=True)
            partition.in_snapshot = True
        return outdated

    def _rows(self, partition: Partition, items: Sequence[Item]) -> frozenset[int]:
        """Enriches and writes rows. The obs_ids of those that are now the newest in the
        destination.
        """
        if not items:
            return frozenset()
        asked = [
            _to_enrich(_event(item)) for item in (_newest(items) if self._newest_wins else items)
        ]
        with self._asking_hospital(), self._step("enrich", partition, items):
            observations = partition.lookups.observations(asked, partition.latest)
        outcome = self._write(partition, observations, items)
        now = time.time()
        seconds = metrics.APPLY_SECONDS.labels(partition.hospital_id, self._destination)
        for item in items:
            source = _event(item).source
            if source.origin == "binlog":
                seconds.observe(max(0.0, now - source.ts_ms / 1000))
        if not self._newest_wins or outcome.stale > len(
            outcome.overtaken
        ):  # which ones, it doesn't say
            return frozenset()
        not_taken = {*outcome.overtaken, *(key for key, _ in outcome.rejected)}
        return frozenset(one.obs_id for one in observations if one.key not in not_taken)

    def _retain(self, partition: Partition, event: ChunkEvent) -> None:
        self._note(partition, event)
        scope = KeyRange(partition.hospital_id, event.first, event.to, event.source.table)
        self._count(partition, self._sink.retain(scope, event.keys, event.source.version))
        partition.lookups.clear()
        partition.in_snapshot = partition.in_snapshot and event.to is not None

    def _write(
        self, partition: Partition, observations: Sequence[Observation], items: Sequence[Item] = ()
    ) -> Outcome:
        """Writes; parks what the destination can't take: the record it came with, or the row as
        read.
        """
        if not observations:
            return Outcome()
        with self._write_seconds.time(), self._step("write", partition, items):
            outcome = self._sink.write(observations)
        self._count(partition, outcome)
        if outcome.rejected:
            records = {
                f"{partition.hospital_id}/{_event(item).row['obs_id']}": item.record
                for item in items
            }
            rows = {one.key: one for one in observations}
            for key, reason in outcome.rejected:
                if key in records:
                    self._letters.park(records[key], reason, partition.hospital_id)
                else:
                    self._park_row(partition, rows[key].row, rows[key].version, reason)
        return outcome

    def _count(self, partition: Partition, outcome: Outcome) -> None:
        counted = {
            "stored": outcome.stored,
            "unchanged": outcome.unchanged,
            "stale": outcome.stale,
            "unmatched": outcome.unmatched,
            "rejected": len(outcome.rejected),
        }
        for name, count in counted.items():
            if count:
                metrics.RECORDS.labels(partition.hospital_id, self._destination, name).inc(count)

    def _park_row(self, partition: Partition, row: Row, version: str, reason: str) -> None:
        """Parks a row read at the hospital as the event that would have carried it."""
        hospital = partition.hospital
        source = EventSource(
            hospital=partition.hospital_id,
            timezone=hospital.timezone,
            db=hospital.mysql.database,
            table=OBS.name,
            file="",
            pos=0,
            row=0,
            gtid="",
            server="",
            ts_ms=partition.at_ms,
            version=version,
            origin="snapshot",
        )
        event = RowEvent(
            v=ENVELOPE,
            op="r",
            before=None,
            after=row,
            source=source,
            transaction=Transaction(id="", last=True),
            ts_ms=int(time.time() * 1000),
        )
        self._letters.park_row(event, reason, partition.number)

    def _step(
        self, name: str, partition: Partition, items: Sequence[Item]
    ) -> AbstractContextManager[None]:
        known = {tracing.HOSPITAL: partition.hospital_id, tracing.DESTINATION: self._destination}
        return tracing.step(name, items, {**known, tracing.COUNT: len(items)})

    @contextmanager
    def _asking_hospital(self) -> Iterator[None]:
        self.at_hospital = True
        yield
        self.at_hospital = False


def _segments(items: Sequence[Item]) -> Iterator[tuple[list[Item], ChunkEvent | None]]:
    """Runs of items, each with the chunk that ends it."""
    run: list[Item] = []
    for item in items:
        if isinstance(item.event, ChunkEvent):
            yield run, item.event
            run = []
        else:
            run.append(item)
    yield run, None


def _newest(items: Sequence[Item]) -> list[Item]:
    """The newest item of each row, so that what the destination then calls stale was overtaken by
    something else.
    """
    newest: dict[int, Item] = {}
    for item in items:
        event = _event(item)
        before = newest.get(event.row["obs_id"])
        if before is None or _event(before).source.version <= event.source.version:
            newest[event.row["obs_id"]] = item
    return list(newest.values())


def _event(item: Item) -> RowEvent:
    if not isinstance(item.event, RowEvent):
        raise TypeError("only a row has an observation")
    return item.event


def _to_enrich(event: RowEvent) -> RowToEnrich:
    return RowToEnrich(event.row, event.source.version, event.deleted, "stream")
