"""Kafka, as this stage meets it: connections, topics, and errors by their remedy."""

from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from passport.kafka import MAX_BYTES, Spans, admin, client_options, offsets, read, remedied
from passport.settings import Kafka

__all__ = ["admin", "offsets", "remedied"]

KafkaError = kafka_errors.KafkaError
TOPIC_EXISTS = kafka_errors.TopicAlreadyExistsError.errno


def producer(kafka: Kafka, **options: Any) -> Any:
    """An idempotent producer that waits for all replicas. NotReady or Fatal."""
    with remedied(kafka):
        return KafkaProducer(
            **client_options(kafka),
            acks="all",
            enable_idempotence=True,
            max_block_ms=5_000,
            max_request_size=MAX_BYTES,
            compression_type=None if kafka.compression == "none" else kafka.compression,
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **options,
        )


def close(client: Any, timeout_s: float = 0) -> None:
    """Close a producer; what isn't acknowledged by then is dropped."""
    with suppress(KafkaError):
        client.close(timeout=timeout_s)


def read_all(kafka: Kafka, topic: str, key: bytes | None = None) -> list[bytes]:
    """The values in a topic of one partition, oldest first; only those of `key` if given."""
    found = (one for some in read(kafka, topic, [0]) for one in some)
    return [one.value for one in found if one.value is not None and key in (None, one.key)]


def last_values(kafka: Kafka, topic: str, partition: int, most: int) -> list[bytes]:
    """The newest records' values, oldest first; none when the partition is empty."""

    def last(spans: Spans) -> Spans:
        return {number: (max(first, end - most), end) for number, (first, end) in spans.items()}

    return [
        one.value for some in read(kafka, topic, [partition], last) for one in some if one.value
    ]
