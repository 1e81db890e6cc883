"""What both stages know of Kafka: how a client is opened, and its errors by their remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from passport.errors import Fatal, NotReady, PassportError, Retry, reduced
from passport.settings import Kafka

MAX_BYTES = 16 * 1024 * 1024  # of one record: a row with a long text, before and after; a chunk of many keys

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


@contextmanager
def groupless(kafka: Kafka) -> Iterator[Any]:
    """A consumer that is assigned its partitions and commits nothing."""
    options = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    consumer = KafkaConsumer(**client_options(kafka), group_id=None, **options)
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False)


def classified(error: BaseException, kafka: Kafka) -> PassportError:
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
