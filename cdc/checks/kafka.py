"""Checks of Kafka: topics that keep one hospital's changes, and a position that is its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from cdc import topics
from cdc.kafka import topic_configs
from cdc.positions import Positions
from passport.check import Check
from passport.errors import Fatal
from passport.kafka import MAX_BYTES, admin_client
from passport.settings import Hospital, Kafka

RETENTION_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Cluster:
    """A description of the brokers and the topics, as the brokers give it.

    `partitions` and `copies` are numbers by the topic's name. `configs` are the settings in force
    of the topic of changes and the positions' topic, as far as they are there.
    """

    brokers: int
    partitions: dict[str, int]
    copies: dict[str, int]
    configs: dict[str, dict[str, str]]


def describe_cluster(kafka: Kafka) -> Cluster:
    """Ask the brokers. Raises NotReady or Fatal when Kafka can't be used at all."""
    with admin_client(kafka) as admin:
        partitions = topics.partition_counts(admin)
        existing = [name for name in (kafka.topic, kafka.positions_topic) if name in partitions]
        return Cluster(
            brokers=len(admin.describe_cluster()["brokers"]),
            partitions=partitions,
            copies=topics.replica_counts(admin),
            configs=topic_configs(admin, existing),
        )


def checks(hospital_id: str, hospital: Hospital, kafka: Kafka, cluster: Cluster) -> Iterator[Check]:
    """Yield the checks of all topics. Raises NotReady or Fatal when Kafka can't be used."""
    yield Check("kafka", True, f"{kafka.bootstrap}: {cluster.brokers} brokers")

    needed = (kafka.topic, kafka.positions_topic, kafka.dead_letters_topic)
    missing = [name for name in needed if name not in cluster.partitions]
    if missing:
        detail = f"not there yet: {', '.join(missing)}"
        yield Check("topics", None, detail, _run_reader(hospital_id))
    else:
        yield Check("topics", True, "all three are there")

    if kafka.topic in cluster.partitions:
        yield _partition(hospital_id, hospital, kafka, cluster)
        yield from _topic_of_changes(kafka, cluster)
    if kafka.positions_topic in cluster.partitions:
        yield from _positions(hospital_id, hospital, kafka, cluster)
    yield _replication(kafka, cluster)
    for topic in cluster.configs:
        yield _in_sync(kafka, topic, cluster)


def _partition(hospital_id: str, hospital: Hospital, kafka: Kafka, cluster: Cluster) -> Check:
    count = cluster.partitions[kafka.topic]
    detail = f"{kafka.topic} has {count} partitions, this hospital's is number {hospital.partition}"
    if count > hospital.partition:
        return Check("partition", True, detail)
    return Check("partition", None, detail, _run_reader(hospital_id))


def _topic_of_changes(kafka: Kafka, cluster: Cluster) -> Iterator[Check]:
    config = cluster.configs[kafka.topic]
    retention_ms = int(config["retention.ms"])
    if retention_ms < 0:
        yield Check("topic retention", True, "changes are kept for ever")
    elif retention_ms >= RETENTION_MS:
        yield Check("topic retention", True, f"changes are kept for {retention_ms} ms")
    else:
        yield Check(
            "topic retention",
            None,
            f"changes are kept for {retention_ms / 3_600_000:g} hours:"
            " a destination away for longer needs a backfill",
            _alter(kafka, kafka.topic, "retention.ms=-1"),
        )

    policy = config["cleanup.policy"]
    if policy != "delete":
        yield Check(
            "topic cleanup",
            False,
            f"cleanup.policy of {kafka.topic} is {policy}: changes of a hospital share their key",
            _alter(kafka, kafka.topic, "cleanup.policy=delete"),
        )

    record_bytes = int(config["max.message.bytes"])
    if record_bytes < MAX_BYTES:
        yield Check(
            "record size",
            None,
            f"{kafka.topic} takes records of {record_bytes} bytes: a row with a long text stops it",
            _alter(kafka, kafka.topic, f"max.message.bytes={MAX_BYTES}"),
        )


def _positions(
    hospital_id: str, hospital: Hospital, kafka: Kafka, cluster: Cluster
) -> Iterator[Check]:
    """Check the positions' topic: one compacted partition, in which no two hospitals share one."""
    topic = kafka.positions_topic
    count = cluster.partitions[topic]
    if count != 1:
        yield Check(
            "positions",
            False,
            f"{topic} has {count} partitions",
            "set kafka.positions_topic to another name",
        )
        return

    policy = cluster.configs[topic]["cleanup.policy"]
    if policy != "compact":
        detail = f"cleanup.policy of {topic} is {policy}"
        yield Check("positions", False, detail, _alter(kafka, topic, "cleanup.policy=compact"))
    slow = topics.slow_compaction(cluster.configs[topic])
    if slow:
        yield Check(
            "positions compaction",
            None,
            f"{topic} is compacted late: each start reads more than it needs",
            _alter(kafka, topic, ",".join(f"{name}={value}" for name, value in slow.items())),
        )

    try:
        Positions(kafka).load(hospital_id, partition=hospital.partition)
    except Fatal as error:
        yield Check("own partition", False, error.reason, error.hint)
    else:
        yield Check("own partition", True, f"number {hospital.partition} is this hospital's alone")


def _replication(kafka: Kafka, cluster: Cluster) -> Check:
    """Check the number of copies that new topics get."""
    copies = kafka.replication_factor
    if copies > cluster.brokers:
        return Check(
            "replication",
            False,
            f"replication_factor is {copies}, and there are {cluster.brokers} brokers",
            f"set kafka.replication_factor to {cluster.brokers} or less",
        )
    if copies == 1:
        return Check(
            "replication",
            None,
            "one copy: a lost disk costs a snapshot",
            "set kafka.replication_factor to 3",
        )
    return Check("replication", True, f"{copies} copies")


def _in_sync(kafka: Kafka, topic: str, cluster: Cluster) -> Check:
    """Check how many copies each write waits for.

    A topic that waits for more copies than there are takes no write at all. A write that only one
    of several copies has is lost with its broker.
    """
    copies = cluster.copies[topic]
    in_sync = int(cluster.configs[topic]["min.insync.replicas"])
    if copies > 2:
        best = 2
    else:
        best = 1
    name = f"in sync: {topic}"
    detail = f"{topic} has {copies} copies, a write waits for {in_sync}"
    if in_sync == best or 1 < in_sync < copies:
        return Check(name, True, detail)

    hint = _alter(kafka, topic, f"min.insync.replicas={best}")
    if in_sync < copies:
        return Check(name, None, detail, hint)
    return Check(name, False, detail, hint)


def _alter(kafka: Kafka, topic: str, config: str) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter --topic {topic}"
        f" --add-config {config}"
    )


def _run_reader(hospital_id: str) -> str:
    return f"passport cdc run --hospital {hospital_id}   # makes what is missing"
