"""The one place that knows Kafka's client: its options, reading a topic, and its errors.

`cdc/kafka.py` adds what only the readers need (a producer), and `consumers/subscription.py` what
only the consumers need (a consumer group). Both stand on this module, so that a setting, a time-out
or an error means the same in every stage.
"""

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from passport.errors import (
    KAFKA,
    Fatal,
    NotReady,
    PassportError,
    RecordTooLarge,
    Retry,
    without_text,
)
from passport.settings import Kafka

Headers = Sequence[tuple[str, bytes]]

# The largest record, in bytes. A row with a long text is in it twice (before and after), and a
# chunk of a snapshot lists many keys.
MAX_BYTES = 16 * 1024 * 1024
# A read is given up when nothing has come for so long. The client itself would wait for ever.
READ_S = 30.0

_REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.AuthorizationError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


# How long a refusal explains that no broker can be used: a client looks for one for 5 s.
_REFUSAL_S = 10.0


class Refusals(logging.Filter):
    """Notes from the client's log that a broker has refused this process.

    The client tries again while it looks for a first broker, whatever the reason is, and then
    raises a KafkaTimeoutError that doesn't say it. Only its log has the reason of each try.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Begin anew, as if no broker had refused anything."""
        self._last: BaseException | None = None
        self._at_s = -_REFUSAL_S

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        for argument in arguments:
            if isinstance(argument, _REFUSED):
                self._last = argument
                self._at_s = time.monotonic()
        return True

    def behind(self, error: BaseException) -> BaseException | None:
        """Return the refusal that an error is or that has led to it; None if there is none."""
        if isinstance(error, _REFUSED):
            refused: BaseException = error
            return refused
        is_recent = time.monotonic() - self._at_s < _REFUSAL_S
        if isinstance(error, kafka_errors.KafkaTimeoutError) and is_recent:
            return self._last
        return None


# Once a process, as the log that it is attached to.
refusals = Refusals()
logging.getLogger("kafka.net.connection").addFilter(refusals)


class OffsetRange(NamedTuple):
    """The offsets of one partition: the first that is there, and the one after the last."""

    first: int
    end: int


class Record(NamedTuple):
    """A record as Kafka has it, with the partition and offset that it was read from.

    `at_ms` is when it was published, in Unix ms by the publisher's clock (the broker's, if the
    topic is set so); None if Kafka doesn't say.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    at_ms: int | None = None


def client_options(kafka: Kafka) -> dict[str, Any]:
    """Return the options that every Kafka client of this project is opened with."""
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
        password = kafka.sasl_password
        options["sasl_plain_password"] = password.get_secret_value() if password else None
    return options


@contextmanager
def consumer_without_group(kafka: Kafka) -> Iterator[Any]:
    """Open a consumer that is assigned its partitions by hand and commits nothing."""
    consumer = KafkaConsumer(
        **client_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False)


@contextmanager
def admin_client(kafka: Kafka) -> Iterator[Any]:
    """Open an admin client. Errors of what is done with it are translated too: NotReady, Fatal."""
    with translate_errors(kafka):
        client = KafkaAdminClient(**client_options(kafka))
        try:
            yield client
        finally:
            client.close()


def topic_offsets(kafka: Kafka, topic: str) -> dict[int, OffsetRange]:
    """Return the offsets of each partition of a topic, as they are now.

    The result is empty when the topic isn't there yet. Raises NotReady and Fatal.
    """
    with translate_errors(kafka), consumer_without_group(kafka) as consumer:
        return _offsets(consumer, topic, consumer.partitions_for_topic(topic) or ())


def read_topic(
    kafka: Kafka,
    topic: str,
    *,
    partition: int | None = None,
    newest: int | None = None,
) -> Generator[list[Record], None, None]:
    """Yield the records of a topic, a batch at a time, up to its end as it is at the start.

    A batch is empty when nothing has come for a second. With `partition` only that one is read.
    With `newest` only the last so many offsets of each partition are read. Raises NotReady and
    Fatal.
    """
    with translate_errors(kafka), consumer_without_group(kafka) as consumer:
        partitions = consumer.partitions_for_topic(topic) or ()
        if partition is not None:
            partitions = [partition]
        ranges = _offsets(consumer, topic, sorted(partitions))
        if newest is not None:
            ranges = {
                number: OffsetRange(max(first, end - newest), end)
                for number, (first, end) in ranges.items()
            }
        yield from _read(kafka, consumer, topic, ranges)


def read_range(
    kafka: Kafka, topic: str, partition: int, offsets: OffsetRange
) -> Iterator[list[Record]]:
    """Yield the records of a partition with ``first <= offset < end``, a batch at a time.

    Raises NotReady and Fatal.
    """
    with translate_errors(kafka), consumer_without_group(kafka) as consumer:
        yield from _read(kafka, consumer, topic, {partition: offsets})


def _is_read(consumer: Any, place: TopicPartition, end: int) -> bool:
    # It has no position while the broker doesn't say where the partition begins.
    position = consumer.position(place, 1_000)
    return position is not None and position >= end


def _read(
    kafka: Kafka, consumer: Any, topic: str, ranges: dict[int, OffsetRange]
) -> Iterator[list[Record]]:
    ends = {TopicPartition(topic, number): end for number, (_, end) in ranges.items()}
    consumer.assign(list(ends))
    for place in ends:
        consumer.seek(place, ranges[place.partition].first)
    # The position is asked for, not the last record: a compacted topic has no record at some
    # offsets, and the last one may be among them.
    came_at = time.monotonic()
    while not all(_is_read(consumer, place, end) for place, end in ends.items()):
        batches = consumer.poll(1_000)
        for place, records in batches.items():
            yield [own_record(record) for record in records if record.offset < ends[place]]
        if batches:
            came_at = time.monotonic()
            continue
        if time.monotonic() - came_at > READ_S:
            raise NotReady(
                f"Kafka at {kafka.bootstrap} gives nothing of topic {topic} for {READ_S:.0f} s",
                hint=kafka.silent_hint,
                origin=KAFKA,
            )
        # Whoever reads may have something else to do meanwhile, such as to keep a lease.
        yield []


def own_record(record: Any) -> Record:
    """Return a record of the client as one of ours. A header without a value is an empty one."""
    return Record(
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple((name, content or b"") for name, content in record.headers or ()),
        record.timestamp if record.timestamp >= 0 else None,
    )


def _offsets(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, OffsetRange]:
    places = [TopicPartition(topic, number) for number in partitions]
    if not places:
        return {}
    first = consumer.beginning_offsets(places)
    end = consumer.end_offsets(places)
    return {place.partition: OffsetRange(int(first[place]), int(end[place])) for place in places}


@contextmanager
def translate_errors(kafka: Kafka, *, leave: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise an error of the client as NotReady, Retry or Fatal, without its text.

    Errors of the types in `leave` pass as they are: a consumer group reports some of its states as
    errors, and its caller handles them.
    """
    try:
        yield
    except leave:
        raise
    except kafka_errors.KafkaError as error:
        raise translate_error(error, kafka) from None
    except (OSError, ValueError) as error:
        # The client raises these for an address or a TLS file that it can't use.
        raise NotReady(
            f"Kafka at {kafka.bootstrap} can't be used ({without_text(error)})",
            hint="check kafka.bootstrap and the TLS files, then: passport check",
            origin=KAFKA,
        ) from None


def translate_error(error: BaseException, kafka: Kafka) -> PassportError:
    """Return an error of the client as NotReady, Retry or Fatal, without its text."""
    refusal = refusals.behind(error)
    if refusal is not None:
        return Fatal(
            f"Kafka at {kafka.bootstrap} refuses this client ({without_text(refusal)})",
            hint="check kafka.security_protocol, .sasl_* and the topic's ACLs,"
            " then: passport check",
            origin=KAFKA,
        )
    if isinstance(error, _TOO_LARGE):
        return RecordTooLarge(
            f"one record is larger than topic {kafka.topic} takes ({without_text(error)})",
            hint=f"raise max.message.bytes of {kafka.topic} (up to {MAX_BYTES}); if the text is"
            " longer still, shorten it at the hospital",
            origin=KAFKA,
        )
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return Retry("a topic or partition is missing in Kafka", after=1, origin=KAFKA)
    return NotReady(
        f"Kafka at {kafka.bootstrap} doesn't answer ({without_text(error)})",
        hint=kafka.silent_hint,
        origin=KAFKA,
    )
