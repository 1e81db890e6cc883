"""Sends a hospital's changes to its partition of the topic, in order.

The producer is idempotent and asynchronous: a record counts once all replicas have acknowledged it.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from cdc.kafka import KafkaError, close_producer, open_producer
from openmrs.tables import FACT_TABLES
from passport.errors import KAFKA, Gap, NotReady, PassportError, RecordTooLarge
from passport.event import KINDS
from passport.kafka import translate_error
from passport.settings import Kafka

# So many records, or bytes of them, may wait for their acknowledgement before `send` blocks.
PENDING = 20_000
PENDING_BYTES = 32 * 1024 * 1024
# If `send` is blocked for so long, Kafka is away. What waits is dropped, and published again later.
STALL_S = 8.0
# Should the broker refuse a record of so many bytes or more, the error names its row.
NAMED_BYTES = 256 * 1024

_HEADERS = {kind: [("ce_type", kind.encode())] for kind in KINDS}


class Publisher:
    """The producer of one hospital's partition.

    Records are numbered from 1; `sent` is the number of the last one. When a record fails, the
    publisher is of no use any more: make a new one. `end_offset` is the offset behind the last
    record that was ever acknowledged, as far as it is known.
    """

    def __init__(self, kafka: Kafka, hospital: str, partition: int, end_offset: int = 0) -> None:
        self._kafka = kafka
        self._partition = partition
        self._key = hospital.encode()
        # Each record's future, its size, and the row that it carries if it is a large one.
        self._waiting: deque[tuple[Any, int, str]] = deque()
        self._bytes = 0
        self._headers = _HEADERS
        self._acked = 0
        self.sent = 0
        self.end_offset = end_offset
        self._producer = open_producer(
            kafka,
            # A lone row waits it out. Under load, batches fill while others are in flight.
            linger_ms=1,
            batch_size=256 * 1024,
            # Longer than any wait here: a record that fails alone would break the order.
            delivery_timeout_ms=600_000,
        )

    def send(self, kind: str, value: bytes) -> int:
        """Send a record and return its number.

        Blocks while too much waits for its acknowledgement. Raises NotReady, Gap and Fatal.
        """
        if len(self._waiting) >= PENDING or self._bytes >= PENDING_BYTES:
            self._make_room()
        try:
            future = self._producer.send(
                self._kafka.topic,
                value=value,
                key=self._key,
                headers=self._headers[kind],
                partition=self._partition,
            )
        except (KafkaError, ValueError) as error:
            raise _with_row(translate_error(error, self._kafka), _row_of(kind, value)) from None
        size = len(value)
        self.sent += 1
        row = _row_of(kind, value) if size >= NAMED_BYTES else ""
        self._waiting.append((future, size, row))
        self._bytes += size
        return self.sent

    def set_trace_header(self, header: tuple[str, bytes] | None) -> None:
        """Send this header with each record from now on; with None no longer."""
        self._headers = _HEADERS
        if header is not None:
            self._headers = {kind: [*headers, header] for kind, headers in _HEADERS.items()}

    def when_acked(self, callback: Callable[[int | None], object]) -> None:
        """Call `callback` once Kafka has acknowledged everything sent so far.

        It gets the offset of the last record; None if Kafka did not take it. It is called in the
        client's thread.
        """
        if not self._waiting:
            callback(self.end_offset - 1)
            return
        future = self._waiting[-1][0]
        future.add_callback(lambda metadata: callback(metadata.offset))
        future.add_errback(lambda _: callback(None))

    def acked(self) -> int:
        """Return the number of the last record up to which all are acknowledged.

        Raises NotReady or Fatal if a record failed, Gap if the topic has lost what it had
        acknowledged before.
        """
        waiting = self._waiting
        future = None
        while waiting and waiting[0][0].is_done:
            future, size, row = waiting[0]
            if future.failed():
                # It stays in front: nothing behind it ever counts, however often this is called.
                raise _with_row(translate_error(future.exception, self._kafka), row)
            waiting.popleft()
            self._bytes -= size
            self._acked += 1
        if future is not None:
            self._take_offset(future.value.offset)
        return self._acked

    def flush(self, timeout_s: float = STALL_S) -> None:
        """Wait until everything sent is acknowledged.

        Raises NotReady if it takes longer, and what `acked` raises.
        """
        deadline = time.monotonic() + timeout_s
        while self.acked() < self.sent:
            self._wait(deadline)

    def close(self) -> None:
        """Close the producer. Records that aren't acknowledged are dropped."""
        close_producer(self._producer)

    def _take_offset(self, offset: int) -> None:
        """Check that the newest record is behind all that were ever acknowledged."""
        # The offset is -1 if the broker has the record from a try before, and doesn't know where.
        if 0 <= offset < self.end_offset:
            raise Gap(
                f"topic {self._kafka.topic} took a record at {offset}, and had acknowledged others"
                f" up to {self.end_offset}: its end was lost, or it was deleted and made anew",
                hint="nothing to do: a new epoch and a snapshot follow by themselves",
                origin=KAFKA,
            )
        self.end_offset = max(self.end_offset, offset + 1)

    def _make_room(self) -> None:
        """Wait until half of what may wait is acknowledged: one pause for many records."""
        deadline = time.monotonic() + STALL_S
        while self.acked() < self.sent:
            if len(self._waiting) <= PENDING // 2 and self._bytes <= PENDING_BYTES // 2:
                return
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise NotReady(
                f"Kafka at {self._kafka.bootstrap} does not acknowledge {len(self._waiting)}"
                " records",
                hint="is the broker up, and are enough replicas in sync? passport check",
                origin=KAFKA,
            )
        time.sleep(0.002)


class _Source(msgspec.Struct):
    table: str


class _Row(msgspec.Struct):
    """A row event, as far as its row's key. Whether the rest is right does not matter here."""

    source: _Source
    before: dict[str, Any] | None
    after: dict[str, Any] | None


_ROW = msgspec.json.Decoder(_Row)


def _row_of(kind: str, value: bytes) -> str:
    """Return the row that a record carries, by its table and key; "" if it carries none."""
    if kind != "row":
        return ""
    event = _ROW.decode(value)
    table = FACT_TABLES[event.source.table]
    row = event.after or event.before or {}
    return f"{table.name} {row.get(table.key)}"


def _with_row(error: PassportError, row: str) -> PassportError:
    """Return the error with the row that is too large for the topic, if it is about that."""
    if not isinstance(error, RecordTooLarge) or not row:
        return error
    return RecordTooLarge(f"{error.reason}: {row}", hint=error.hint, origin=error.origin)
