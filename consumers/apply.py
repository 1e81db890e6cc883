"""Applies the records of one partition to a destination.

Rows are enriched and written. Of key ranges and whole persons, the destination is told what they
still have. What can't be carried is parked as a dead letter.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from consumers.dead_letters import DeadLetters
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
    """Applies records to one destination. Raises Retry and Fatal, whose `origin` says who failed."""

    def __init__(
        self, destination: str, sink: Sink, letters: DeadLetters, *, newest_wins: bool
    ) -> None:
        self._destination, self._sink, self._letters = destination, sink, letters
        self._newest_wins = newest_wins
        self._write_seconds = metrics.WRITE_SECONDS.labels(destination)

    def batch(self, partition: Partition, items: Sequence[Item]) -> None:
        """Apply records in order.

        After Retry and Fatal, `partition.next` is still the offset of the first of them.
        """
        for run, chunk in _segments(items):
            if run:
                self._run(partition, run)
            if chunk is not None:
                self._retain(partition, chunk)
        partition.next = items[-1].record.offset + 1

    def reenrich(self, partition: Partition, *, busy: bool = False) -> None:
        """Apply one slice of re-enrichment, if any is due. `busy`: records wait too."""
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
        rows: list[Item] = []
        late = 0
        for item in items:
            if item.event is None:
                continue
            outdated = self._note(partition, item.event)
            if not isinstance(item.event, RowEvent):
                continue
            if outdated:
                # A reader that was cut off sent it, behind the snapshot of a newer epoch, which
                # knows what is gone. The row may be gone.
                late += 1
            else:
                rows.append(item)
        self._count(partition, Outcome(stale=late))
        # The rows are looked up after the batch's key changes. What the destination then takes as
        # the newest contains these changes, and needn't be enriched again for them.
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
        """Take note of an event's version and position, and evict what it makes outdated.

        Return True if the event itself is outdated: it is of an older epoch.
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
        """Enrich and write rows. Return the obs_ids whose newest state the destination has now."""
        if not items:
            return frozenset()
        written_items = _newest(items) if self._newest_wins else items
        rows = [_to_enrich(_event(item)) for item in written_items]
        with self._step("enrich", partition, items):
            observations = partition.lookups.observations(rows, partition.latest)
        outcome = self._write(partition, observations, items)
        now = time.time()
        seconds = metrics.APPLY_SECONDS.labels(partition.hospital_id, self._destination)
        for item in items:
            source = _event(item).source
            if source.origin == "binlog":
                seconds.observe(max(0.0, now - source.ts_ms / 1000))
        if not self._newest_wins or outcome.stale > len(outcome.overtaken):
            return frozenset()  # the destination doesn't say which rows it has in an older state
        not_taken = {*outcome.overtaken, *(key for key, _ in outcome.rejected)}
        return frozenset(
            observation.obs_id for observation in observations if observation.key not in not_taken
        )

    def _retain(self, partition: Partition, event: ChunkEvent) -> None:
        self._note(partition, event)
        scope = KeyRange(partition.hospital_id, event.first, event.to, event.source.table)
        self._count(partition, self._sink.retain(scope, event.keys, event.source.version))
        partition.lookups.clear()
        partition.in_snapshot = partition.in_snapshot and event.to is not None

    def _write(
        self, partition: Partition, observations: Sequence[Observation], items: Sequence[Item] = ()
    ) -> Outcome:
        """Write, and park what the destination can't take.

        A row that came with one of `items` is parked as its record, another one as it was read.
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
        """Park a row that was read at the hospital, as the event that would have carried it."""
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


def _segments(items: Sequence[Item]) -> Iterator[tuple[list[Item], ChunkEvent | None]]:
    """Yield the runs of items between chunks, each with the chunk that ends it."""
    run: list[Item] = []
    for item in items:
        if isinstance(item.event, ChunkEvent):
            yield run, item.event
            run = []
        else:
            run.append(item)
    yield run, None


def _newest(items: Sequence[Item]) -> list[Item]:
    """Return the newest item of each row.

    So a row that the destination then calls stale was overtaken by something else than its own batch.
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
