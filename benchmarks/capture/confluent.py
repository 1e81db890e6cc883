"""The same publisher with Confluent's client (librdkafka): idempotent, all replicas, in order."""

import time

from confluent_kafka import KafkaException, Message, Producer

from passport.errors import NotReady
from passport.settings import Kafka

PENDING = 20_000


class Publisher:
    """A publisher with the methods of `cdc.publisher.Publisher`."""

    def __init__(self, kafka: Kafka, hospital: str, partition: int, end: int = 0) -> None:
        self._topic = kafka.topic
        self._partition = partition
        self._key = hospital.encode()
        self._acked = 0
        self.sent = 0
        self.end = end
        self._failed: KafkaException | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "batch.size": 256 * 1024,
                "queue.buffering.max.messages": 2 * PENDING,
                "message.max.bytes": 16 * 1024 * 1024,
                "compression.type": kafka.compression,
            }
        )

    def send(self, kind: str, value: bytes) -> int:
        if self.sent - self._acked >= PENDING:
            self.flush(8)
        headers = [("ce_type", kind.encode())]
        self._producer.produce(
            self._topic, value, self._key, self._partition, self._done, headers=headers
        )
        self.sent += 1
        return self.sent

    def acked(self) -> int:
        self._producer.poll(0)
        if self._failed is not None:
            raise NotReady("Kafka", hint="") from self._failed
        return self._acked

    def flush(self, timeout_s: float = 8) -> None:
        deadline = time.monotonic() + timeout_s
        while self.acked() < self.sent - PENDING // 2 and time.monotonic() < deadline:
            self._producer.poll(0.01)

    def close(self) -> None:
        self._producer.purge()

    def _done(self, error: KafkaException | None, _: Message) -> None:
        if error is not None:
            self._failed = error
        self._acked += 1
