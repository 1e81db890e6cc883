"""The three topics: made when they are missing, grown when a hospital needs a partition."""

from collections.abc import Iterable
from typing import Any

from cdc.kafka import TOPIC_EXISTS
from passport.errors import Fatal
from passport.kafka import MAX_BYTES, admin_client
from passport.settings import Hospital, Kafka


def ensure(kafka: Kafka, hospitals: Iterable[Hospital]) -> None:
    """Make what is missing. NotReady, Fatal. Never takes anything away."""
    partitions = max((hospital.partition for hospital in hospitals), default=0) + 1
    with admin_client(kafka) as admin:
        there = counts(admin)
        wanted = {
            name: topic for name, topic in _wanted(kafka, partitions).items() if name not in there
        }
        if wanted:
            _create(admin, wanted)
        if there.get(kafka.topic, partitions) < partitions:
            _grow(admin, kafka.topic, partitions)
        admin.wait_for_topics([kafka.topic, kafka.positions_topic, kafka.dead_letters_topic])
        if there.get(kafka.positions_topic, 1) != 1:
            raise Fatal(
                f"topic {kafka.positions_topic} has {there[kafka.positions_topic]} partitions and must have one",
                hint="set kafka.positions_topic to another name; its content comes back by itself",
            )


def counts(admin: Any) -> dict[str, int]:
    """Number of partitions of each topic."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def copies(admin: Any) -> dict[str, int]:
    """How many brokers hold each topic; of partitions that differ, the fewest."""
    found = {topic["name"]: topic["partitions"] for topic in admin.describe_topics()}
    return {
        name: min((len(one["replica_nodes"]) for one in some), default=0)
        for name, some in found.items()
    }


def _wanted(kafka: Kafka, partitions: int) -> dict[str, dict[str, Any]]:
    replicated = {"replication_factor": kafka.replication_factor}
    durable = {"min.insync.replicas": "2"} if kafka.replication_factor > 2 else {}
    keep = {
        "cleanup.policy": "delete",
        "retention.ms": str(kafka.retention_ms),
        "retention.bytes": "-1",
    }
    large = {"max.message.bytes": str(MAX_BYTES)}
    return {
        kafka.topic: {
            **replicated,
            "num_partitions": partitions,
            "configs": {**durable, **keep, **large},
        },
        kafka.dead_letters_topic: {
            **replicated,
            "num_partitions": 1,
            "configs": {**durable, **keep, **large},
        },
        kafka.positions_topic: {
            **replicated,
            "num_partitions": 1,
            "configs": {
                **durable,
                "cleanup.policy": "compact",
                "max.message.bytes": str(MAX_BYTES),
            },
        },
    }


def _create(admin: Any, topics: dict[str, dict[str, Any]]) -> None:
    # Several readers start at once: whoever comes second finds it made.
    for name, topic in topics.items():
        result = admin.create_topics({name: topic}, raise_errors=False)
        for created in result["topics"]:
            if created["error_code"] not in (0, TOPIC_EXISTS):
                raise Fatal(
                    f"Kafka does not make topic {name} (error {created['error_code']})",
                    hint="check kafka.replication_factor against the number of brokers, or make the topic by hand",
                )


def _grow(admin: Any, topic: str, partitions: int) -> None:
    result = admin.create_partitions({topic: partitions}, raise_errors=False)
    errors = [found.error_code for found in result.results if found.error_code]
    if errors and counts(admin).get(topic, 0) < partitions:
        raise Fatal(
            f"topic {topic} does not grow to {partitions} partitions (error {errors[0]})",
            hint=f"kafka-topics.sh --alter --topic {topic} --partitions {partitions}",
        )
