"""Kafka, as this stage meets it: connections, topics, and errors by their remedy."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from passport.errors import Fatal, NotReady, Retry, reduced
from passport.settings import Kafka

KafkaError = kafka_errors.KafkaError
MAX_BYTES = 16 * 1024 * 1024  # of one record: a row with a long text, before and after; a chunk of many keys
TOPIC_EXISTS = kafka_errors.TopicAlreadyExistsError.errno

_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.AuthorizationError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


def client_options(kafka: Kafka) -> dict[str, Any]:
    """What every Kafka client of this project is opened with."""
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap.split(","),
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": 15_000,
        "reconnect_backoff_max_ms": 2_000,
        "bootstrap_timeout_ms": 5_000,
    }
    if kafka.ssl_cafile:
        options["ssl_cafile"] = kafka.ssl_cafile
    if kafka.sasl_mechanism:
        options["sasl_mechanism"] = kafka.sasl_mechanism
        options["sasl_plain_username"] = kafka.sasl_username
        options["sasl_plain_password"] = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
    return options


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
    with remedied(kafka):
        consumer = KafkaConsumer(
            **client_options(kafka), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            consumer.assign([place])
            end = consumer.end_offsets([place])[place]
            consumer.seek_to_beginning(place)
            while consumer.position(place) < end:
                found = consumer.poll(1_000).get(place, ())
                values += [r.value for r in found if r.value is not None and key in (None, r.key)]
        finally:
            consumer.close(autocommit=False)
    return values


def last_values(kafka: Kafka, topic: str, partition: int, most: int) -> list[bytes]:
    """The newest records' values, oldest first; none when the partition is empty or not there."""
    place, values = TopicPartition(topic, partition), []
    with remedied(kafka):
        consumer = KafkaConsumer(**client_options(kafka), group_id=None, enable_auto_commit=False)
        try:
            consumer.assign([place])
            first, end = (find([place])[place] for find in (consumer.beginning_offsets, consumer.end_offsets))
            consumer.seek(place, max(first, end - most))
            while consumer.position(place) < end:
                values += [record.value for record in consumer.poll(1_000).get(place, ()) if record.value]
        finally:
            consumer.close(autocommit=False)
    return values


def offsets(kafka: Kafka, topic: str) -> dict[int, tuple[int, int]]:
    """First and next offset of each partition; empty when the topic isn't there yet."""
    with remedied(kafka):
        consumer = KafkaConsumer(**client_options(kafka), group_id=None, enable_auto_commit=False)
        try:
            places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
        finally:
            consumer.close(autocommit=False)
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


def classified(error: BaseException, kafka: Kafka) -> Exception:
    """A client's error by its remedy, without its text."""
    if isinstance(error, _REFUSED):
        return Fatal(
            f"Kafka at {kafka.bootstrap} refuses this client ({reduced(error)})",
            hint="check kafka.security_protocol, .sasl_* and the topic's ACLs, then: passport check",
        )
    if isinstance(error, _TOO_LARGE):
        return Fatal(
            f"one record is larger than topic {kafka.topic} takes ({reduced(error)})",
            hint=f"raise max.message.bytes of {kafka.topic} (up to {MAX_BYTES}); if the text is longer still, shorten"
            " it at the hospital, then: passport cdc run --hospital HOSPITAL --new-epoch",
        )
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return Retry("a topic or partition is missing in Kafka", after=1)
    return NotReady(
        f"Kafka at {kafka.bootstrap} doesn't answer ({reduced(error)})",
        hint=kafka.silent_hint,
    )
