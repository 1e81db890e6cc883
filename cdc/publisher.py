"""A hospital's changes into its own partition, in order: idempotent, asynchronous, acknowledged by
all replicas.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cdc.kafka import KafkaError, close_producer, open_producer
from passport.errors import Gap, NotReady
from passport.event import KINDS
from passport.kafka import translate_error
from passport.settings import Kafka

PENDING = 20_000  # records, and
PENDING_BYTES = 32 * 1024 * 1024  # that wait for an acknowledgement before `send` blocks
STALL_S = 8.0  # blocked so long: Kafka is away; what waits is dropped and published again later

_HEADERS = {kind: [("ce_type", kind.encode())] for kind in KINDS}


class Publisher:
    """One hospital's partition. Records are numbered from 1; a failure of one ends this object
    (make a new one).

    `end`: the offset behind the last record that was ever acknowledged, as far as it is known.
    """

    def __init__(self, kafka: Kafka, hospital: str, partition: int, end: int = 0) -> None:
        self._kafka = kafka
        self._partition = partition
        self._key = hospital.encode()
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._headers = _HEADERS
        self._acked = 0
        self.sent = 0
        self.end = end
        self._producer = open_producer(
            kafka,
            # a lone row waits it out; under load batches fill while others are in flight
            linger_ms=1,
            batch_size=256 * 1024,
            # longer than any wait here: a record that fails alone would break the order
            delivery_timeout_ms=600_000,
        )

    def send(self, kind: str, value: bytes) -> int:
        """Number of the record. Blocks while too much waits for its acknowledgement. NotReady,
        Fatal.
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
            raise translate_error(error, self._kafka) from None
        self.sent += 1
        self._waiting.append((future, len(value)))
        self._bytes += len(value)
        return self.sent

    def set_trace_header(self, header: tuple[str, bytes] | None) -> None:
        """What is sent from now on has this header, too; None: no longer."""
        self._headers = (
            {kind: [*own, header] for kind, own in _HEADERS.items()} if header else _HEADERS
        )

    def when_acked(self, tell: Callable[[int | None], object]) -> None:
        """`tell` the offset of the last record sent once Kafka has it, None if it never has; in the
        client's thread.
        """
        if not self._waiting:
            tell(self.end - 1)
            return
        future, _ = self._waiting[-1]
        future.add_callback(lambda landed: tell(landed.offset)).add_errback(lambda _: tell(None))

    def acked(self) -> int:
        """Number of the last record up to which all are acknowledged. NotReady or Fatal if one
        failed, Gap if what was acknowledged before is gone.
        """
        waiting, future = self._waiting, None
        while waiting and waiting[0][0].is_done:
            future, size = waiting.popleft()
            if future.failed():
                raise translate_error(future.exception, self._kafka)
            self._bytes -= size
            self._acked += 1
        if future is not None:
            self._landed(future.value.offset)
        return self._acked

    def flush(self, timeout_s: float = STALL_S) -> None:
        """Wait until everything sent is acknowledged. NotReady when it takes longer."""
        deadline = time.monotonic() + timeout_s
        while self.acked() < self.sent:
            self._wait(deadline)

    def close(self) -> None:
        """Drops what isn't acknowledged."""
        close_producer(self._producer)

    def _landed(self, offset: int) -> None:
        if 0 <= offset < self.end:  # -1: the broker has it from before, and doesn't say where
            raise Gap(
                f"topic {self._kafka.topic} took a record at {offset}, and had acknowledged others up to {self.end}:"
                " its end was lost, or it was deleted and made anew",
                hint="nothing to do: a new epoch and a snapshot follow by themselves",
            )
        self.end = max(self.end, offset + 1)

    def _make_room(self) -> None:
        deadline = time.monotonic() + STALL_S
        while self.acked() < self.sent and (
            len(self._waiting) > PENDING // 2 or self._bytes > PENDING_BYTES // 2
        ):
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise NotReady(
                f"Kafka at {self._kafka.bootstrap} does not acknowledge {len(self._waiting)} records",
                hint="is the broker up, and are enough replicas in sync? passport check",
            )
        time.sleep(0.002)
