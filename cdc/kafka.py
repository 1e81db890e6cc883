"""Kafka for the readers alone: a producer, the newest records of a topic, settings of topics.

Everything that both stages need is in `passport/kafka.py`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from passport.kafka import (
    MAX_BYTES,
    Record,
    client_options,
    own_record,
    read_topic,
    translate_errors,
)
from passport.settings import Kafka

# How many records one look at a topic's tail takes.
MOST_RECORDS = 10_000

KafkaError = kafka_errors.KafkaError
TOPIC_EXISTS = kafka_errors.TopicAlreadyExistsError.errno
# The codes of a broker that does not take a setting of a topic.
CONFIG_ERRORS = (
    kafka_errors.InvalidConfigurationError.errno,
    kafka_errors.PolicyViolationError.errno,
)
# What a broker answers who may not see or alter settings, and one that is too old to alter single
# ones.
CONFIGS_REFUSED = (kafka_errors.AuthorizationError, kafka_errors.IncompatibleBrokerVersion)


def open_producer(kafka: Kafka, **options: Any) -> Any:
    """Return an idempotent producer that waits for all replicas. Raises NotReady and Fatal."""
    with translate_errors(kafka):
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


def close_producer(producer: Any, timeout_s: float = 0) -> None:
    """Close a producer. Records that aren't acknowledged by then are dropped."""
    with suppress(KafkaError):
        producer.close(timeout=timeout_s)


def newest_records(kafka: Kafka, topic: str, partition: int, count: int) -> list[Record]:
    """Return the last `count` records of a partition, oldest first.

    The result is empty when the partition is. Raises NotReady and Fatal.
    """
    newest: list[Record] = []
    for records in read_topic(kafka, topic, partition=partition, newest=count):
        newest += records
    return newest


def topic_configs(admin: Any, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the settings in force of each topic, by name.

    Raises `CONFIGS_REFUSED` where the broker can't be asked, or doesn't tell.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    answer = admin.describe_configs(resources, config_filter="all").get("topic", {})
    # The client drops the broker's error, and a topic has no settings then.
    if not all(answer.values()):
        raise kafka_errors.TopicAuthorizationFailedError
    return {
        topic: {name: config["value"] for name, config in configs.items()}
        for topic, configs in answer.items()
    }


def alter_configs(admin: Any, topic: str, configs: dict[str, str]) -> bool:
    """Set these settings of a topic. Return whether the broker did.

    Raises `CONFIGS_REFUSED` where it can't be asked.
    """
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs)
    answer = admin.alter_configs([resource], raise_on_unknown=False, incremental=True)
    return bool(answer["topic"][topic] == "OK")


class TopicTail:
    """The records of a topic of one partition from an offset on, as they come. `close` it.

    It connects at once. Raises NotReady and Fatal.
    """

    def __init__(self, kafka: Kafka, topic: str, offset: int) -> None:
        self._kafka = kafka
        place = TopicPartition(topic, 0)
        with translate_errors(kafka):
            self._consumer = KafkaConsumer(
                **client_options(kafka),
                group_id=None,
                enable_auto_commit=False,
                # If the topic was made anew meanwhile, `offset` is not there.
                auto_offset_reset="earliest",
                # The broker collects half a second of records: one answer is read each time.
                fetch_min_bytes=1024 * 1024,
                fetch_max_wait_ms=500,
            )
            self._consumer.assign([place])
            self._consumer.seek(place, offset)

    def poll(self) -> list[Record]:
        """Return what has come, without waiting for more. Raises NotReady and Fatal."""
        with translate_errors(self._kafka):
            batches = self._consumer.poll(0, max_records=MOST_RECORDS)
        return [own_record(record) for records in batches.values() for record in records]

    def close(self) -> None:
        with suppress(KafkaError):
            self._consumer.close(autocommit=False)
