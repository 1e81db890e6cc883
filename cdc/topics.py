"""The three topics: made when they are missing, grown when a hospital needs a partition."""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from cdc.kafka import CONFIG_ERRORS, CONFIGS_REFUSED, TOPIC_EXISTS, alter_configs, topic_configs
from passport.errors import KAFKA, Fatal
from passport.kafka import MAX_BYTES, admin_client
from passport.settings import Hospital, Kafka

# With these settings the broker compacts the positions topic within minutes. With its own defaults
# it never compacts the newest segment, which takes a week or 1 GiB, and each start reads it all.
# Each is an upper limit: a lower value is as good.
COMPACTION = {
    "segment.ms": 60_000,
    # Not less than one record may have.
    "segment.bytes": 2 * MAX_BYTES,
    "min.cleanable.dirty.ratio": 0.01,
    "max.compaction.lag.ms": 60_000,
    # Who reads the topic reads it from its start, and needs no tombstone of what is not there.
    "delete.retention.ms": 600_000,
}

log = structlog.get_logger()


def ensure(kafka: Kafka, hospitals: Iterable[Hospital]) -> None:
    """Make the topics and partitions that are missing. Nothing is ever taken away.

    Raises NotReady and Fatal.
    """
    partitions = max((hospital.partition for hospital in hospitals), default=0) + 1
    with admin_client(kafka) as admin:
        counts = partition_counts(admin)
        topics = _topics(kafka, partitions)
        missing = {name: topics[name] for name in topics if name not in counts}
        if missing:
            _create(admin, missing)
        if counts.get(kafka.topic, partitions) < partitions:
            _grow(admin, kafka.topic, partitions)
        admin.wait_for_topics([*topics])
        _compact_soon(admin, kafka)

        # The positions of all hospitals are read in one go, in the order in which they were saved.
        positions_partitions = counts.get(kafka.positions_topic, 1)
        if positions_partitions != 1:
            raise Fatal(
                f"topic {kafka.positions_topic} has {positions_partitions} partitions and must"
                " have one",
                hint="set kafka.positions_topic to another name; its content comes back by itself",
                origin=KAFKA,
            )


def cluster_id(kafka: Kafka) -> str:
    """Return the id that the cluster gave itself. Raises NotReady and Fatal."""
    with admin_client(kafka) as admin:
        return str(admin.describe_cluster()["cluster_id"] or "")


def partition_counts(admin: Any) -> dict[str, int]:
    """Return the number of partitions of each topic, by name."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def replica_counts(admin: Any) -> dict[str, int]:
    """Return how many brokers hold each topic, by name. If its partitions differ: the fewest."""
    counts = {}
    for topic in admin.describe_topics():
        replicas = [len(partition["replica_nodes"]) for partition in topic["partitions"]]
        counts[topic["name"]] = min(replicas, default=0)
    return counts


def _topics(kafka: Kafka, partitions: int) -> dict[str, dict[str, Any]]:
    """Return the three topics as the admin client wants them; `partitions` are those of changes."""
    durable = {"max.message.bytes": str(MAX_BYTES)}
    if kafka.replication_factor > 2:
        # One broker may be away, and what is acknowledged is still on two.
        durable["min.insync.replicas"] = "2"
    retained = {
        **durable,
        "cleanup.policy": "delete",
        "retention.ms": str(kafka.retention_ms),
        "retention.bytes": "-1",
    }
    compacted = {**durable, "cleanup.policy": "compact", **_as_texts(COMPACTION)}

    def topic(count: int, configs: dict[str, str]) -> dict[str, Any]:
        return {
            "num_partitions": count,
            "replication_factor": kafka.replication_factor,
            "configs": configs,
        }

    return {
        kafka.topic: topic(partitions, retained),
        kafka.dead_letters_topic: topic(1, retained),
        kafka.positions_topic: topic(1, compacted),
    }


def slow_compaction(configs: Mapping[str, str]) -> dict[str, str]:
    """Return what to set in a topic with these settings, so that it is compacted within minutes."""
    # An older broker doesn't know all of them, and can't be told.
    known = {name: most for name, most in COMPACTION.items() if name in configs}
    slow = {name: most for name, most in known.items() if float(configs[name]) > most}
    return _as_texts(slow)


def _as_texts(configs: Mapping[str, float]) -> dict[str, str]:
    return {name: str(value) for name, value in configs.items()}


def _compact_soon(admin: Any, kafka: Kafka) -> None:
    """Let the broker compact the positions topic within minutes, also one of an older release.

    That needs DescribeConfigs and AlterConfigs on the topic. Without them all works, and each start
    takes longer.
    """
    topic = kafka.positions_topic
    try:
        slow = slow_compaction(topic_configs(admin, [topic])[topic])
        is_set = not slow or alter_configs(admin, topic, slow)
    except CONFIGS_REFUSED:
        is_set = False
    if not is_set:
        log.warning(
            "the positions topic is compacted late, so that each start reads more than it needs",
            topic=topic,
            hint="passport check   # says what to set; or give this client DescribeConfigs and"
            " AlterConfigs on the topic",
        )


def _create(admin: Any, topics: dict[str, dict[str, Any]]) -> None:
    for name, topic in topics.items():
        code = _create_one(admin, name, topic)
        if code in CONFIG_ERRORS:
            # A managed broker may forbid some of them. `_compact_soon` says what that costs.
            configs = topic["configs"]
            needed = {key: configs[key] for key in configs if key not in COMPACTION}
            code = _create_one(admin, name, {**topic, "configs": needed})
        # Several readers start at once: whoever comes second finds a topic made.
        if code not in (0, TOPIC_EXISTS):
            raise Fatal(
                f"Kafka does not make topic {name} (error {code})",
                hint="check kafka.replication_factor against the number of brokers, or make"
                " the topic by hand",
                origin=KAFKA,
            )


def _create_one(admin: Any, name: str, topic: dict[str, Any]) -> int:
    """Ask the broker to make a topic. Return the code of its error, 0 without one."""
    result = admin.create_topics({name: topic}, raise_errors=False)
    return max(int(created["error_code"]) for created in result["topics"])


def _grow(admin: Any, topic: str, partitions: int) -> None:
    result = admin.create_partitions({topic: partitions}, raise_errors=False)
    codes = [answer.error_code for answer in result.results if answer.error_code]
    # Another reader may have grown it in the same moment: then it is an error, and all is well.
    if codes and partition_counts(admin).get(topic, 0) < partitions:
        raise Fatal(
            f"topic {topic} does not grow to {partitions} partitions (error {codes[0]})",
            hint=f"kafka-topics.sh --alter --topic {topic} --partitions {partitions}",
            origin=KAFKA,
        )
