"""Records that can't be carried: parked in a topic of their own, listed, shown and tried again.

A dead letter's key is its id. The same id parked again replaces it, and an empty value settles it.
Its value is the record as it came, which may hold a patient's data. Its headers say why it is here
and where it was; their names are those of KIP-1317, a draft.
"""

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from dataclasses import dataclass

from consumers.halving import UNEXPECTED, rejection
from consumers.lookups import Lookups, RowToEnrich
from consumers.reenrich import ReenrichmentQueue
from consumers.retaining import Retaining
from consumers.subscription import DeadLetterWriter, delete_dead_letters, read_dead_letters
from consumers.taking import Taking, taking_hospital
from openmrs.key_ranges import rows_with_keys
from openmrs.read import Source
from openmrs.tables import OBS
from passport import metrics, tracing
from passport.errors import Fatal, Overtaken, Reject
from passport.event import (
    Event,
    HeartbeatEvent,
    KeyChangeEvent,
    RowEvent,
    check_row,
    encode_event,
    parse_event,
)
from passport.kafka import Record
from passport.settings import Kafka, Settings
from passport.sink import KeyRange, Outcome, Sink

_ORIGINAL = "_dlq.errors.original."
_REASON = "_dlq.errors.reason"
_DISPOSITION = "_dlq.errors.disposition"
_DESTINATION = "_dlq.destination"
_HOSPITAL = "_dlq.hospital"
_PARKED = "_dlq.parked_ms"

FUTURE_EPOCH = "future_epoch"  # the reason of a record whose epoch can't have begun
LARGEST = 15 * 1024 * 1024  # bytes: the topic takes 16 MiB, headers included


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parked record.

    `hospital` is "" if the partition is no hospital's. `offset` is -1 for a row that was read at
    the hospital. `parked_ms` is Unix time. `value` is empty if it was larger than LARGEST bytes: it
    is still in the topic of changes, at `offset`.
    """

    id: str
    destination: str
    hospital: str
    partition: int
    offset: int
    reason: str
    parked_ms: int
    value: bytes

    @property
    def kind(self) -> str:
        """The kind of the event, "" if it can't be parsed."""
        try:
            return parse_event(self.value).kind
        except Reject:
            return ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A dead letter for people to look at. `value` is its text, or None if it stays hidden."""

    letter: DeadLetter
    kind: str
    size: int
    value: str | None


@dataclass(frozen=True, slots=True)
class Retried:
    """The result of one retry: applied and off the list (`settled`), or `reason` says why not."""

    id: str
    settled: bool
    reason: str = ""


class DeadLetters:
    """The dead letters of one destination, for those who park and settle them."""

    def __init__(self, kafka: Kafka, destination: str) -> None:
        self._kafka = kafka
        self._destination = destination
        self._writer = DeadLetterWriter(kafka)

    def park(self, record: Record, reason: str, hospital: str) -> None:
        """Park a record. Returns when Kafka has stored it. Raises NotReady and Fatal."""
        identity = f"{self._destination}/{record.partition}/{record.offset}"
        self._park(
            identity,
            record.value or b"",
            record.headers,
            reason,
            hospital,
            record.partition,
            record.offset,
        )

    def park_row(self, event: RowEvent, reason: str, partition: int) -> None:
        """Park a row that was read at the hospital. Raises NotReady and Fatal."""
        self._park_read(event, str(event.row["obs_id"]), reason, partition)

    def park_person(self, event: KeyChangeEvent, reason: str, partition: int) -> None:
        """Park a person who was read whole at the hospital. Raises NotReady and Fatal."""
        (key,) = event.keys
        self._park_read(event, f"person/{key['person_id']}", reason, partition)

    def settle(self, letter: DeadLetter) -> None:
        """Take a dead letter off the list. Raises NotReady and Fatal."""
        self._writer.write(letter.id.encode(), None, ())

    def close(self) -> None:
        self._writer.close()

    def _park_read(
        self, event: RowEvent | KeyChangeEvent, what: str, reason: str, partition: int
    ) -> None:
        """Park what was read at the hospital, and so has no offset. `what` tells it from others."""
        hospital = event.source.hospital
        self._park(
            f"{self._destination}/{hospital}/{what}",
            encode_event(event),
            (("ce_type", event.kind.encode()),),
            reason,
            hospital,
            partition,
            -1,
        )

    def _park(
        self,
        identity: str,
        value: bytes,
        headers: Iterable[tuple[str, bytes]],
        reason: str,
        hospital: str,
        partition: int,
        offset: int,
    ) -> None:
        own = {
            f"{_ORIGINAL}topic": self._kafka.topic,
            f"{_ORIGINAL}partition": partition,
            f"{_ORIGINAL}offset": offset,
            _DISPOSITION: "PARKED",
            _REASON: reason,
            _DESTINATION: self._destination,
            _HOSPITAL: hospital,
            _PARKED: int(time.time() * 1000),
        }
        all_headers = [
            (name, content) for name, content in headers if name in ("ce_type", tracing.TRACEPARENT)
        ]
        all_headers += [(name, str(content).encode()) for name, content in own.items()]
        if len(value) > LARGEST:
            value = b""
        self._writer.write(identity.encode(), value, all_headers)
        metrics.DEAD_LETTERS.labels(self._destination, reason).inc()


def listed(
    settings: Settings, *, destination: str | None = None, hospital: str | None = None
) -> list[DeadLetter]:
    """Return the dead letters that are not settled, oldest first. Raises NotReady and Fatal."""
    letters: dict[str, DeadLetter] = {}
    for record in read_dead_letters(settings.kafka):
        identity = (record.key or b"").decode(errors="replace")
        letters.pop(identity, None)
        if record.value is not None:
            letters[identity] = _letter(identity, record)
    return [
        letter
        for letter in letters.values()
        if destination in (None, letter.destination) and hospital in (None, letter.hospital)
    ]


def _letter(identity: str, record: Record) -> DeadLetter:
    headers = {name: content.decode(errors="replace") for name, content in record.headers}
    return DeadLetter(
        identity,
        headers.get(_DESTINATION, ""),
        headers.get(_HOSPITAL, ""),
        _number(headers.get(f"{_ORIGINAL}partition"), -1),
        _number(headers.get(f"{_ORIGINAL}offset"), -1),
        headers.get(_REASON, ""),
        _number(headers.get(_PARKED), 0),
        record.value or b"",
    )


def _number(text: str | None, default: int) -> int:
    """Return the number in a header. What anybody has written there must not stop an erasure."""
    if text is not None and re.fullmatch("-?[0-9]{1,18}", text):
        return int(text)
    return default


def erase(settings: Settings, concern: Callable[[Record], bool], *, dry_run: bool) -> int:
    """Delete the dead letters that `concern` picks, the settled ones too. Return their number.

    Kafka deletes only from the start of a topic on. So the other open ones are written again, and
    then everything that was there before is deleted. Raises NotReady and Fatal.
    """
    kafka = settings.kafka
    number = 0
    others: dict[bytes, Record] = {}
    ends: dict[int, int] = {}
    for record in read_dead_letters(kafka):
        ends[record.partition] = record.offset + 1
        others.pop(record.key or b"", None)
        if concern(record):
            number += 1
        elif record.value is not None:
            others[record.key or b""] = record
    if number and not dry_run:
        with closing(DeadLetterWriter(kafka)) as writer:
            for key, record in others.items():
                writer.write(key, record.value, record.headers)
        delete_dead_letters(kafka, ends)
    return number


def show(settings: Settings, identity: str, *, reveal: bool = False) -> Shown:
    """Return one dead letter. Raises Fatal if there is none of this id, and NotReady.

    `reveal`: with its content, which may be a patient's.
    """
    for letter in listed(settings):
        if letter.id == identity:
            text = letter.value.decode(errors="replace") if reveal else None
            return Shown(letter, letter.kind, len(letter.value), text)
    raise Fatal(f"there is no dead letter {identity!r}", hint="passport dead-letters list")


def retry(
    settings: Settings, ids: Collection[str] | None, connect: Callable[[str], Sink]
) -> list[Retried]:
    """Apply dead letters again, all of them if `ids` is None.

    `connect` opens a destination by its name. A row is not taken from the dead letter, but read
    again at its hospital, so an old dead letter never undoes a newer change. Raises NotReady and
    Fatal.
    """
    chosen = [letter for letter in listed(settings) if ids is None or letter.id in ids]
    sinks = {name: connect(name) for name in sorted({letter.destination for letter in chosen})}
    try:
        return [_retried(settings, letter, sinks[letter.destination]) for letter in chosen]
    finally:
        for sink in sinks.values():
            sink.close()


def _retried(settings: Settings, letter: DeadLetter, sink: Sink) -> Retried:
    letters = DeadLetters(settings.kafka, letter.destination)
    try:
        if letter.reason == FUTURE_EPOCH:
            raise Reject(FUTURE_EPOCH, "its version would make all that follows outdated")
        event = parse_event(letter.value)
        outcome = _apply(settings, event, sink)
        if outcome.rejected:
            return Retried(letter.id, False, outcome.rejected[0][1])
        letters.settle(letter)
        return Retried(letter.id, True)
    except Reject as reject:
        return Retried(letter.id, False, reject.reason)
    except UNEXPECTED as error:
        return Retried(letter.id, False, rejection(letter.hospital, error).reason)
    finally:
        letters.close()


def _apply(settings: Settings, event: Event, sink: Sink) -> Outcome:
    hospital_id = event.source.hospital
    if hospital_id not in settings.hospitals:
        raise Reject("unknown_hospital")
    if isinstance(event, HeartbeatEvent):
        return Outcome()
    taking = taking_hospital(sink, hospital_id, threading.Event())
    taking.take()
    with closing(_lookups(settings, event, sink)) as lookups:
        if isinstance(event, KeyChangeEvent):
            return _apply_key_change(settings, event, sink, lookups, taking)
        while True:
            try:
                if isinstance(event, RowEvent):
                    return _apply_row(event, sink, lookups)
                scope = KeyRange(hospital_id, event.first, event.to, event.source.table)
                return sink.retain(scope, event.keys, event.source.version)
            except Overtaken as error:
                taking.take_again(error)
                lookups.clear(identities=True)


def _apply_key_change(
    settings: Settings, event: KeyChangeEvent, sink: Sink, lookups: Lookups, taking: Taking
) -> Outcome:
    """Enrich again what the key change concerns, until nothing of it waits."""
    outcome = Outcome()
    queue = ReenrichmentQueue(lookups, settings.hospitals[event.source.hospital].load_budget)
    queue.add_key_change(event, 0)
    retaining = Retaining(sink)
    while queue.pending():
        piece = queue.read()
        if piece is None:
            time.sleep(0.01)
            continue
        try:
            retaining.begin(piece)
            outcome += sink.write(piece.observations)
            is_done = True
            for person, keys in piece.persons:
                step = retaining.person(queue, piece, person, keys)
                outcome += step.outcome
                is_done = step.is_last
        except Overtaken as error:
            taking.take_again(error)
            lookups.clear(identities=True)
        else:
            taking.written()
            if is_done:
                queue.finish(piece)
    return outcome


def _lookups(settings: Settings, event: Event, sink: Sink) -> Lookups:
    """Return the lookups of the event's hospital, in the newest epoch that is known here."""
    hospital_id = event.source.hospital
    hospital = settings.hospitals[hospital_id]
    lookups = Lookups(
        hospital_id,
        hospital,
        Source(hospital_id, hospital.mysql),
        entries=settings.consumer.cache_entries,
        ttl_s=settings.consumer.cache_ttl_s,
    )
    lookups.seen(event.source.version)
    progress = sink.progress(hospital_id)
    if progress is not None:
        lookups.seen(progress.version)
    return lookups


def _apply_row(event: RowEvent, sink: Sink, lookups: Lookups) -> Outcome:
    """Write the row as it is at the hospital now. If it isn't there, write that it is gone."""
    with lookups.source.read_at(lookups.end()) as reading:
        rows = rows_with_keys(reading, OBS, [event.row["obs_id"]])
        row = rows[0] if rows else event.row
        check_row(row)
        to_enrich = RowToEnrich(row, lookups.version(reading), not rows, "reread")
        observations = lookups.observations_in(reading, [to_enrich])
    return sink.write(observations)
