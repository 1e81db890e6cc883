"""One partition that this process serves, and what is known of it since it was assigned.

It has a hospital, the records that have come and aren't applied yet, the hospital's lookups and
re-enrichment, and the time until which it waits after a failure.
"""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from consumers.dead_letters import FUTURE_EPOCH
from consumers.lookups import Lookups
from consumers.reenrich import ReenrichmentQueue
from consumers.waiting import enriched_as
from openmrs.read import Source, SourcePosition
from passport.errors import Fatal, Origin, Overtaken, PassportError, Reject, Retry
from passport.event import (
    ENVELOPE,
    ChunkEvent,
    HeartbeatEvent,
    KeyChangeEvent,
    NewerEnvelope,
    RowEvent,
    parse_checked_event,
)
from passport.kafka import Record
from passport.settings import Consumer, Hospital, MySQL
from passport.version import LOWEST, is_of_the_future

PROBE_S = 2.0  # a probe's connect and read timeout
CONNECT_S = 1.0  # the loop's first timeouts: while it waits, the other hospitals wait too
READ_S = 3.0
REFUSED_S = 60.0  # after a Fatal: try again this seldom
LEFT_ALONE_S = 60.0  # without another writer: then the next one is the first again


class RowRecord(NamedTuple):
    """A record with a row that can be applied."""

    record: Record
    event: RowEvent

    @property
    def published_ms(self) -> int:
        return self.event.ts_ms


class EventRecord(NamedTuple):
    """A record with any other event."""

    record: Record
    event: KeyChangeEvent | ChunkEvent | HeartbeatEvent

    @property
    def published_ms(self) -> int:
        return self.event.ts_ms


class RejectedRecord(NamedTuple):
    """A record that can't be carried, and why. It becomes a dead letter."""

    record: Record
    reject: Reject

    @property
    def published_ms(self) -> None:
        """Nobody knows when it was published."""
        return None


class NewerRecord(NamedTuple):
    """A record of a later release, in a version of the envelope that isn't understood here."""

    record: Record
    version: int


Item = RowRecord | EventRecord | RejectedRecord


def parse_record(record: Record, hospital_id: str) -> Item | NewerRecord:
    """Parse a record of a partition that is the hospital's.

    Everything is checked here that can be checked without the hospital.
    """
    try:
        event = parse_checked_event(record.value)
        if event.source.hospital != hospital_id:
            raise Reject("unknown_hospital", "the partition is another one's")
        if isinstance(event, RowEvent):
            return RowRecord(record, event)
        return EventRecord(record, event)
    except NewerEnvelope as newer:
        return NewerRecord(record, newer.version)
    except Reject as reject:
        return RejectedRecord(record, reject)


class Probe(threading.Thread):
    """Asks a hospital's server, outside the loop, whether `position` can be read again.

    `done` is set when it can, or when the server refuses us.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, position: SourcePosition, after_s: float
    ) -> None:
        super().__init__(name=f"probe {hospital_id}", daemon=True)
        short = {"connect_timeout_s": PROBE_S, "read_timeout_s": PROBE_S}
        self._source = Source(hospital_id, hospital.mysql.model_copy(update=short))
        self._position = position
        self._after_s = after_s
        self._stopped = threading.Event()
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(self._after_s):
            try:
                with self._source.read_at(self._position, patience_s=PROBE_S):
                    break
            except Retry:
                continue
            except PassportError:
                break
        self._source.close()
        self.done.set()

    def stop(self) -> None:
        """Let the thread end. It isn't waited for: a connect may take until its timeout."""
        self._stopped.set()


def _with_short_timeouts(hospital: Hospital, failures: int) -> MySQL:
    """Return the hospital's server with shorter timeouts, since the other hospitals wait too.

    They grow with each failure, up to those of the settings.
    """
    mysql = hospital.mysql
    factor = 2.0 ** min(failures, 10)
    update = {
        "connect_timeout_s": min(mysql.connect_timeout_s, CONNECT_S * factor),
        "read_timeout_s": min(mysql.read_timeout_s, READ_S * factor),
    }
    return mysql.model_copy(update=update)


class Partition:
    """The state of one partition of the topic, from when the group gives it to this process.

    `next` is the first offset that isn't applied yet. `at_ms` is the source's time of the newest
    event, as Unix time.
    """

    def __init__(
        self,
        number: int,
        hospital_id: str,
        hospital: Hospital,
        settings: Consumer,
        start: int,
        *,
        rules: str = "",
    ) -> None:
        self.number = number
        self.hospital_id = hospital_id
        self.hospital = hospital
        source = Source(hospital_id, _with_short_timeouts(hospital, 0))
        self.lookups = Lookups(
            hospital_id,
            hospital,
            source,
            entries=settings.cache_entries,
            ttl_s=settings.cache_ttl_s,
        )
        self.reenrichment = ReenrichmentQueue(self.lookups, hospital.load_budget)
        # How rows are enriched and by which rules of the destination records are made of them, as
        # it is stored with the progress.
        self.enriched_as = enriched_as(hospital.locales, hospital.kept_locales, rules)
        self.next = start
        self.at_ms = 0
        # Of the newest event; None before there is one, and for one that was polled.
        self.latest: SourcePosition | None = None
        # The person_ids that the destination had as ambiguous when this partition was assigned.
        # They are still to be read whole.
        self.ambiguous: list[int] = []
        # Persons who were parked, so that they are not read again because the destination asks.
        self.parked_persons: set[int] = set()
        # What was last stored as progress: offset, version, and the re-enrichment that is left.
        self.recorded: tuple[int, str, list[dict[str, Any]]] = (-1, LOWEST, [])
        self.in_snapshot = False
        self.ask_at = 0.0  # when to ask the destination next, and when to store progress next
        self.store_at = 0.0
        self.failures = 0  # one after the other; 0 when the partition works
        self.paused = False
        self.overtaken = False  # another writer has taken the hospital: it is to be started anew
        self.overtaken_times = 0  # one soon after the other, the last one at `overtaken_at`
        self.overtaken_at = 0.0
        self._buffer: list[Item] = []
        # The envelope's version of the record behind the buffer, if it is that of a later release.
        self._newer_version: int | None = None
        self._newest_epoch = LOWEST[:10]  # of the records that came
        self._has_grown = False  # since the last `take`
        self._pause_ends_at = 0.0
        self._probe: Probe | None = None
        self._retry_max_s = settings.retry_max_s

    def receive(self, records: Sequence[Record]) -> None:
        """Take records that came, in the order of their offsets.

        One of a later release and all that follow it are left in Kafka.
        """
        self._has_grown = True
        self._newest_epoch = max(self._newest_epoch, self.lookups.newest[:10])
        for record in records:
            if self._newer_version is not None:
                return
            item = parse_record(record, self.hospital_id)
            if isinstance(item, NewerRecord):
                self._newer_version = item.version
            elif not isinstance(item, RejectedRecord) and self._is_of_the_future(item):
                self._buffer.append(RejectedRecord(record, Reject(FUTURE_EPOCH)))
            else:
                self._buffer.append(item)

    def take(self, limit: int) -> list[Item]:
        """Return the next batch, which consists of whole transactions.

        Only a transaction larger than `limit`, or one whose rest doesn't come, is taken in pieces.
        Raises Fatal if the next record is of a later release.
        """
        if self._newer_version is not None and not self._buffer:
            raise Fatal(
                f"hospital {self.hospital_id}: its reader is of a later release than this consumer"
                f" (envelope version {self._newer_version}, understood up to {ENVELOPE})",
                hint="upgrade the consumers to the release of the reader, then: passport consume",
                origin=Origin.hospital(self.hospital_id),
            )
        has_grown = self._has_grown
        self._has_grown = False
        end = min(limit, len(self._buffer))
        while end > 0 and not _ends_transaction(self._buffer[end - 1]):
            end -= 1
        if end == 0:
            end = min(limit, len(self._buffer))
            if has_grown and end < limit:
                return []  # its rest may come with the next records
        batch = self._buffer[:end]
        self._buffer = self._buffer[end:]
        return batch

    @property
    def buffered(self) -> int:
        """The number of records that came and were not taken yet."""
        return len(self._buffer)

    @property
    def offset(self) -> int:
        """The offset to be stored: everything before it is applied, its re-enrichment too."""
        held_offset = self.reenrichment.held_offset()
        if held_offset is None:
            return self.next
        return min(held_offset, self.next)

    def is_own_failure(self, error: Retry | Fatal) -> bool:
        """Return whether the hospital of this partition failed, not the destination or Kafka."""
        return error.origin == Origin.hospital(self.hospital_id)

    def wait(self, error: Retry | Fatal) -> float:
        """Begin to wait, and return for how many seconds. What was buffered is dropped.

        If the hospital is away, the wait lasts until its server answers.
        """
        self._buffer = []
        self._newer_version = None
        self.paused = True
        self.failures += 1
        if isinstance(error, Fatal):
            seconds = REFUSED_S
        else:
            backoff = error.after * 2.0 ** min(self.failures - 1, 10)
            seconds = min(self._retry_max_s, backoff)
        # Many partitions may fail at the same moment, and should not all come back at once.
        seconds *= random.uniform(0.5, 1)
        self._pause_ends_at = time.monotonic() + seconds
        if isinstance(error, Retry) and self.is_own_failure(error):
            self.lookups.close()
            self.lookups.source.settings = _with_short_timeouts(self.hospital, self.failures)
            position = self.lookups.end()
            self._probe = Probe(self.hospital_id, self.hospital, position, seconds)
        return seconds

    def wait_overtaken(self, error: Overtaken) -> float:
        """Begin to wait after another writer took the hospital. Return for how many seconds.

        It is longer each time, until the hospital is left alone for a while. What is stored in
        between doesn't make it shorter: a command that takes long would never come to its end.
        """
        now = time.monotonic()
        if now - self.overtaken_at > LEFT_ALONE_S:
            self.overtaken_times = 0
        self.failures = self.overtaken_times
        self.overtaken = True
        self.overtaken_times += 1
        self.overtaken_at = now
        return self.wait(error)

    def waiting(self) -> bool:
        """Return whether the pause that `wait` began still lasts."""
        if self._probe is not None:
            if not self._probe.done.is_set():
                return True
            self._probe = None
        return time.monotonic() < self._pause_ends_at

    def close(self) -> None:
        if self._probe is not None:
            self._probe.stop()
        self.lookups.close()

    def _is_of_the_future(self, item: RowRecord | EventRecord) -> bool:
        """Return whether the item's epoch can't have begun yet. Take note of it if it can.

        Such an epoch would make all that follows outdated.
        """
        epoch = item.event.source.version[:10]
        if epoch <= self._newest_epoch:
            return False
        # The epoch before counts, too: it is from a clock that was wrong if it is a high one.
        published_s = time.time() if item.record.at_ms is None else item.record.at_ms / 1000
        if is_of_the_future(int(epoch), max(int(self._newest_epoch), published_s)):
            return True
        self._newest_epoch = epoch
        return False


def _ends_transaction(item: Item) -> bool:
    return not isinstance(item, RowRecord) or item.event.transaction.last
