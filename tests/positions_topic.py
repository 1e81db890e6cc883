"""The positions topic as a test sees it: its records, and a broker that compacts it."""

import time
from collections.abc import Iterable
from contextlib import closing

from kafka import KafkaProducer

from cdc.positions import HospitalRecords, Saved
from passport.settings import Kafka
from passport.version import Position
from tests.topic_reader import end_of_topic, read_topic

# A broker with these settings looks ten times a second whether there is something to compact.
COMPACTING = (
    "log.cleaner.backoff.ms=100",
    "log.initial.task.delay.ms=0",
    "log.message.timestamp.after.max.ms=9223372036854775807",
)
HOUR_MS = 3_600_000


def highest(positions: Iterable[Saved]) -> Saved | None:
    """Return the position that holds when these were saved, oldest first."""
    topic = HospitalRecords("kigali")
    for saved in positions:
        topic.add(b"kigali", saved.encode())
    return topic.furthest()


def records(kafka: Kafka) -> list[tuple[bytes, bytes | None]]:
    """Return the key and the value of each record that the topic holds now, oldest first."""
    topic = read_topic(kafka.bootstrap, kafka.positions_topic)
    return [(record.key, record.value) for record in topic]


def keys(kafka: Kafka) -> list[str]:
    """Return the keys of the records that have a value."""
    return [key.decode() for key, value in records(kafka) if value is not None]


def append(
    kafka: Kafka, written: Iterable[tuple[bytes, bytes | None]], *, timestamp_ms: int | None = None
) -> None:
    """Write these records, all in one go. Each is a second later than the one before it."""
    topic = kafka.positions_topic
    with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=20)) as producer:
        for number, (key, value) in enumerate(written):
            at_ms = None if timestamp_ms is None else timestamp_ms + number * 1_000
            producer.send(topic, key=key, value=value, partition=0, timestamp_ms=at_ms)
        producer.flush()


def end_segment(kafka: Kafka) -> None:
    """Let the broker begin a new segment, so that it may compact all that is there.

    It ends one by the records' own times, and not by its clock. So this one is of an hour that is
    later each time.
    """
    hours = 1 + end_of_topic(kafka.bootstrap, kafka.positions_topic)
    later_ms = int(time.time() * 1000) + hours * HOUR_MS
    other = Saved("nobody", 999, "", 0, 0, Position("binlog.000001", 4))
    append(kafka, [(b"nobody", other.encode())], timestamp_ms=later_ms)
