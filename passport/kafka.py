"""What both stages know of Kafka: how a client is opened, what a topic holds, and a client's errors
by their remedy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from passport.errors import Fatal, NotReady, PassportError, Retry, without_text
from passport.settings import Kafka

Spans = dict[int, tuple[int, int]]  # by partition: first offset, and the one behind the last
Headers = Sequence[tuple[str, bytes]]
MAX_BYTES = (
    16 * 1024 * 1024
)  # of one record: a row with a long text, before and after; a chunk of many keys

_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.AuthorizationError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class Record(NamedTuple):
    """`partition` and `offset` of where it was read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


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
        options["sasl_plain_password"] = (
            kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
        )
    return options


@contextmanager
def groupless(kafka: Kafka) -> Iterator[Any]:
    """A consumer that is assigned its partitions and commits nothing."""
    options = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    consumer = KafkaConsumer(**client_options(kafka), group_id=None, **options)
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False)


@contextmanager
def admin(kafka: Kafka) -> Iterator[Any]:
    """NotReady, Fatal."""
    with remedied(kafka):
        client = KafkaAdminClient(**client_options(kafka))
        try:
            yield client
        finally:
            client.close()


def offsets(kafka: Kafka, topic: str) -> Spans:
    """First and next offset of each partition; empty when the topic isn't there yet. NotReady,
    Fatal.
    """
    with remedied(kafka), groupless(kafka) as consumer:
        return _spans(consumer, topic, consumer.partitions_for_topic(topic) or ())


def read(
    kafka: Kafka,
    topic: str,
    partitions: Iterable[int] | None = None,
    chosen: Callable[[Spans], Spans] = dict,
) -> Iterator[Sequence[Any]]:
    """The client's records of a topic, or of these partitions of it, up to its end as it is now,
    some at a time.

    `chosen`: what of the offsets that are there is wanted. NotReady, Fatal.
    """
    with remedied(kafka), groupless(kafka) as consumer:
        numbers = (
            sorted(consumer.partitions_for_topic(topic) or ()) if partitions is None else partitions
        )
        spans = chosen(_spans(consumer, topic, numbers))
        ends = {TopicPartition(topic, number): end for number, (_, end) in spans.items()}
        consumer.assign([*ends])
        for place in ends:
            consumer.seek(place, spans[place.partition][0])
        while any(consumer.position(place) < end for place, end in ends.items()):
            for place, records in consumer.poll(1_000).items():
                yield [record for record in records if record.offset < ends[place]]


def _spans(consumer: Any, topic: str, partitions: Iterable[int]) -> Spans:
    places = [TopicPartition(topic, number) for number in partitions]
    if not places:
        return {}
    first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
    return {place.partition: (int(first[place]), int(end[place])) for place in places}


@contextmanager
def remedied(kafka: Kafka, states: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raises a client's error as NotReady, Retry or Fatal, without its text; `states` as they are."""
    try:
        yield
    except states:
        raise
    except kafka_errors.KafkaError as error:
        raise classified(error, kafka) from None
    except (OSError, ValueError) as error:
        hint = "check kafka.bootstrap and the TLS files, then: passport check"
        raise NotReady(
            f"Kafka at {kafka.bootstrap} can't be used ({without_text(error)})", hint=hint
        ) from None


def classified(error: BaseException, kafka: Kafka) -> PassportError:
    """A client's error by its remedy, without its text."""
    if isinstance(error, _REFUSED):
        return Fatal(
            f"Kafka at {kafka.bootstrap} refuses this client ({without_text(error)})",
            hint="check kafka.security_protocol, .sasl_* and the topic's ACLs, then: passport check",
        )
    if isinstance(error, _TOO_LARGE):
        return Fatal(
            f"one record is larger than topic {kafka.topic} takes ({without_text(error)})",
            hint=f"raise max.message.bytes of {kafka.topic} (up to {MAX_BYTES}); if the text is longer still, shorten"
            " it at the hospital, then: passport cdc run --hospital HOSPITAL --new-epoch",
        )
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return Retry("a topic or partition is missing in Kafka", after=1)
    return NotReady(
        f"Kafka at {kafka.bootstrap} doesn't answer ({without_text(error)})",
        hint=kafka.silent_hint,
    )
