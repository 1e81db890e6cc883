"""Kafka, as this stage meets it: connections, topics, and errors by their remedy."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from passport.broker import MAX_BYTES, classified, client_options, groupless
from passport.errors import NotReady, reduced
from passport.settings import Kafka

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


@contextmanager
def admin(kafka: Kafka) -> Iterator[Any]:
    with remedied(kafka):
        client = KafkaAdminClient(**client_options(kafka))
        try:
            yield client
        finally:
            client.close()


def read_all(kafka: Kafka, topic: str, key: bytes | None = None) -> list[bytes]:
    """The values in a topic of one partition, oldest first; only those of `key` if given."""
    place = TopicPartition(topic, 0)
    values: list[bytes] = []
    with remedied(kafka), groupless(kafka) as consumer:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek_to_beginning(place)
        while consumer.position(place) < end:
            found = consumer.poll(1_000).get(place, ())
            values += [r.value for r in found if r.value is not None and key in (None, r.key)]
    return values


def last_values(kafka: Kafka, topic: str, partition: int, most: int) -> list[bytes]:
    """The newest records' values, oldest first; none when the partition is empty or not there."""
    place, values = TopicPartition(topic, partition), []
    with remedied(kafka), groupless(kafka) as consumer:
        consumer.assign([place])
        first, end = (find([place])[place] for find in (consumer.beginning_offsets, consumer.end_offsets))
        consumer.seek(place, max(first, end - most))
        while consumer.position(place) < end:
            values += [record.value for record in consumer.poll(1_000).get(place, ()) if record.value]
    return values


def offsets(kafka: Kafka, topic: str) -> dict[int, tuple[int, int]]:
    """First and next offset of each partition; empty when the topic isn't there yet."""
    with remedied(kafka), groupless(kafka) as consumer:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
    return {place.partition: (first[place], end[place]) for place in places}


@contextmanager
def remedied(kafka: Kafka) -> Iterator[None]:
    """Raise a client's error as NotReady or Fatal."""
    try:
        yield
    except KafkaError as error:
        raise classified(error, kafka) from None
    except (OSError, ValueError) as error:
        raise NotReady(
            f"Kafka at {kafka.bootstrap} can't be used ({reduced(error)})",
            hint="check kafka.bootstrap and the TLS files, then: passport check",
        ) from None
