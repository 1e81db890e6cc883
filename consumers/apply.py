"""Applies the records of one partition to a destination.

Rows are enriched and written. Of key ranges and whole persons, the destination is told what they
still have. What can't be carried is parked as a dead letter.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from consumers.dead_letters import DeadLetters
from consumers.halving import UNEXPECTED, in_halves, rejection
from consumers.lookups import RowToEnrich
from consumers.partition import EventRecord, Item, Partition, RejectedRecord, RowRecord
from consumers.retaining import Retaining
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
from passport.facts import Observation, Person
from passport.kafka import Record
from passport.sink import KeyRange, Outcome, Sink


class Applier:
    """Applies the records of any partition to one destination.

    Raises Retry and Fatal. The error's `origin` says who failed: hospital or destination.
    """

    def __init__(
        self, destination: str, sink: Sink, letters: DeadLetters, *, newest_wins: bool
    ) -> None:
        self._destination = destination
        self._sink = sink
        self._retaining = Retaining(sink)
        self._letters = letters
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
                self._note(partition, chunk.event)
                try:
                    self._retain(partition, chunk.event)
                except UNEXPECTED as error:
                    reject = rejection(partition.hospital_id, error)
                    self._letters.park(chunk.record, reject.reason, partition.hospital_id)
        partition.next = items[-1].record.offset + 1

    def reenrich(self, partition: Partition, *, busy: bool = False) -> None:
        """Apply one slice of re-enrichment, if any is due. `busy`: records wait too."""
        piece = partition.reenrichment.read(busy=busy)
        if piece is None:
            return
        self._retaining.begin(piece)
        for row, reject in piece.rejected:
            self._park_row(partition, row, piece.version, reject.reason)
        in_halves(
            partition.hospital_id,
            piece.observations,
            lambda observations: self._write(partition, observations),
            lambda observation, reject: self._park_row(
                partition, observation.row, observation.version, reject.reason
            ),
        )
        is_done = True
        for person, keys in piece.persons:
            try:
                step = self._retaining.person(partition.reenrichment, piece, person, keys)
            except UNEXPECTED as error:
                self._park_person(partition, person, rejection(partition.hospital_id, error).reason)
            else:
                self._count(partition, step.outcome)
                is_done = step.is_last
        if is_done:
            partition.reenrichment.finish(piece)

    def _run(self, partition: Partition, items: Sequence[Item]) -> None:
        """Apply items that have no chunk among them."""
        lookups = partition.lookups
        rows: list[RowRecord] = []
        late = 0
        for item in items:
            if isinstance(item, RejectedRecord):
                continue
            outdated = self._note(partition, item.event)
            if not isinstance(item, RowRecord):
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
            if isinstance(item, RejectedRecord):
                self._letters.park(item.record, item.reject.reason, partition.hospital_id)
        for item in items:
            if not isinstance(item, EventRecord) or not isinstance(item.event, KeyChangeEvent):
                continue
            event = item.event
            if event.source.version[:10] == lookups.newest[:10]:
                partition.reenrichment.add_key_change(event, item.record.offset, written)
        # Not at the newest event: the ids of others may have been read behind it. An older reading
        # of these persons would change nothing then.
        partition.reenrichment.add_persons(
            lookups.affected_patients(), items[0].record.offset, None
        )

    def _note(self, partition: Partition, event: Event) -> bool:
        """Take note of an event's version and position, and evict what it makes outdated.

        Return True if the event itself is outdated: it is of an older epoch.
        """
        source = event.source
        lookups = partition.lookups
        outdated = lookups.seen(source.version, source.server)
        partition.at_ms = max(partition.at_ms, source.ts_ms)
        if not outdated and source.version >= lookups.newest:
            partition.latest = SourcePosition.of(source) if source.file else None
        if isinstance(event, KeyChangeEvent):
            lookups.evict(event)
        is_of_snapshot = source.origin == "snapshot" and isinstance(event, RowEvent)
        if is_of_snapshot and not partition.in_snapshot:
            lookups.clear(identities=True)
            partition.in_snapshot = True
        return outdated

    def _rows(self, partition: Partition, rows: Sequence[RowRecord]) -> frozenset[int]:
        """Enrich and write rows. Return the obs_ids whose newest state the destination has now."""
        if not rows:
            return frozenset()
        rows_to_write = _newest(rows) if self._newest_wins else rows
        observations: list[Observation] = []
        outcome = Outcome()
        for part, part_outcome in in_halves(
            partition.hospital_id,
            rows_to_write,
            lambda part: self._enrich_and_write(partition, part),
            lambda row, reject: self._letters.park(
                row.record, reject.reason, partition.hospital_id
            ),
        ):
            observations += part
            outcome += part_outcome
        now = time.time()
        seconds = metrics.APPLY_SECONDS.labels(partition.hospital_id, self._destination)
        for row in rows:
            source = row.event.source
            if source.origin == "binlog":
                seconds.observe(max(0.0, now - source.ts_ms / 1000))
        if not self._newest_wins or outcome.stale > len(outcome.overtaken):
            return frozenset()  # the destination doesn't say which rows it has in an older state
        not_taken = {*outcome.overtaken, *(key for key, _ in outcome.rejected)}
        return frozenset(
            observation.obs_id for observation in observations if observation.key not in not_taken
        )

    def _enrich_and_write(
        self, partition: Partition, rows: Sequence[RowRecord]
    ) -> tuple[list[Observation], Outcome]:
        to_enrich = [
            RowToEnrich(row.event.row, row.event.source.version, row.event.deleted, "stream")
            for row in rows
        ]
        with self._step("enrich", partition, rows):
            observations = partition.lookups.observations(to_enrich, partition.latest)
        return observations, self._write(partition, observations, rows)

    def _retain(self, partition: Partition, event: ChunkEvent) -> None:
        """Tell the destination which keys a range of the table has."""
        scope = KeyRange(partition.hospital_id, event.first, event.to, event.source.table)
        self._count(partition, self._sink.retain(scope, event.keys, event.source.version))
        partition.lookups.clear()
        partition.in_snapshot = partition.in_snapshot and event.to is not None

    def _write(
        self,
        partition: Partition,
        observations: Sequence[Observation],
        row_records: Sequence[RowRecord] = (),
    ) -> Outcome:
        """Write, and park what the destination can't take.

        A row that came with one of `row_records` is parked as its record, another one as it was
        read.
        """
        if not observations:
            return Outcome()
        with self._write_seconds.time(), self._step("write", partition, row_records):
            outcome = self._sink.write(observations)
        self._count(partition, outcome)
        if outcome.rejected:
            records = {
                f"{partition.hospital_id}/{row_record.event.row['obs_id']}": row_record.record
                for row_record in row_records
            }
            by_key = {observation.key: observation for observation in observations}
            for key, reason in outcome.rejected:
                if key in records:
                    self._letters.park(records[key], reason, partition.hospital_id)
                else:
                    self._park_row(partition, by_key[key].row, by_key[key].version, reason)
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
        event = RowEvent(
            v=ENVELOPE,
            op="r",
            before=None,
            after=row,
            source=_source(partition, OBS.name, version),
            transaction=Transaction(id="", last=True),
            ts_ms=int(time.time() * 1000),
        )
        self._letters.park_row(event, reason, partition.number)

    def _park_person(self, partition: Partition, person: Person, reason: str) -> None:
        """Park a person who was read whole, as the key change that would have asked for it.

        This process doesn't read them again at the destination's wish, which would never end.
        """
        event = KeyChangeEvent(
            v=ENVELOPE,
            op="r",
            keys=({"person_id": person.person_id},),
            source=_source(partition, "person", person.version),
            ts_ms=int(time.time() * 1000),
        )
        self._letters.park_person(event, reason, partition.number)
        partition.parked_persons.add(person.person_id)

    def _step(
        self, name: str, partition: Partition, items: Sequence[Item]
    ) -> AbstractContextManager[None]:
        attributes: dict[str, str | int] = {
            tracing.HOSPITAL: partition.hospital_id,
            tracing.DESTINATION: self._destination,
            tracing.COUNT: len(items),
        }
        return tracing.step(name, items, attributes)


class _Chunk(NamedTuple):
    record: Record
    event: ChunkEvent


def _source(partition: Partition, table: str, version: str) -> EventSource:
    """Return the source of an event that is made here, of what was read at the hospital."""
    return EventSource(
        hospital=partition.hospital_id,
        timezone=partition.hospital.timezone,
        db=partition.hospital.mysql.database,
        table=table,
        file="",
        pos=0,
        row=0,
        gtid="",
        server="",
        ts_ms=partition.at_ms,
        version=version,
        origin="snapshot",
    )


def _segments(items: Sequence[Item]) -> Iterator[tuple[list[Item], _Chunk | None]]:
    """Yield the runs of items between chunks, each with the chunk that ends it."""
    run: list[Item] = []
    for item in items:
        if isinstance(item, EventRecord) and isinstance(item.event, ChunkEvent):
            yield run, _Chunk(item.record, item.event)
            run = []
        else:
            run.append(item)
    yield run, None


def _newest(rows: Sequence[RowRecord]) -> list[RowRecord]:
    """Return the newest record of each row.

    So a row that the destination then calls stale was not overtaken by its own batch.
    """
    newest: dict[int, RowRecord] = {}
    for row in rows:
        obs_id = row.event.row["obs_id"]
        before = newest.get(obs_id)
        if before is None or before.event.source.version <= row.event.source.version:
            newest[obs_id] = row
    return list(newest.values())
