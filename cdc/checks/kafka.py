"""What must hold in Kafka for one hospital's changes to be kept."""

from collections.abc import Iterator
from typing import Any

from cdc import topics
from cdc.kafka import topic_configs
from cdc.positions import Positions
from passport.check import Check
from passport.errors import Fatal
from passport.kafka import MAX_BYTES, admin_client
from passport.settings import Hospital, Kafka

RETENTION_MS = 7 * 24 * 3600 * 1000


def checks(hospital_id: str, hospital: Hospital, kafka: Kafka) -> Iterator[Check]:
    """NotReady or Fatal when Kafka can't be used at all."""
    with admin_client(kafka) as admin:
        there = topics.partition_counts(admin)
        nodes = len(admin.describe_cluster()["brokers"])
        copies = topics.replica_counts(admin)
        configs = topic_configs(
            admin, [name for name in (kafka.topic, kafka.positions_topic) if name in there]
        )
    yield Check("kafka", True, f"{kafka.bootstrap}: {nodes} brokers")
    missing = [
        name
        for name in (kafka.topic, kafka.positions_topic, kafka.dead_letters_topic)
        if name not in there
    ]
    detail = f"not there yet: {', '.join(missing)}" if missing else "all three are there"
    yield Check("topics", None if missing else True, detail, _run(hospital_id) if missing else "")
    if kafka.topic in there:
        yield _partitions(hospital_id, hospital, kafka, there[kafka.topic])
        yield from _kept(kafka, configs[kafka.topic])
    if kafka.positions_topic in there:
        yield from _positions(
            hospital_id,
            hospital,
            kafka,
            there[kafka.positions_topic],
            configs[kafka.positions_topic],
        )
    yield _copies(kafka, nodes)
    for name, config in configs.items():
        yield _in_sync(kafka, name, copies[name], int(config["min.insync.replicas"]))


def _in_sync(kafka: Kafka, topic: str, copies: int, least: int) -> Check:
    """Every write waits for `least` copies: more than there are stop it, fewer than two may be lost
    with a broker.
    """
    wanted = 2 if copies > 2 else 1
    detail = f"{topic} has {copies} copies, a write waits for {least}"
    if least == wanted or (least < copies and least > 1):
        return Check(f"in sync: {topic}", True, detail)
    ok = None if least < copies else False
    return Check(
        f"in sync: {topic}", ok, detail, _alter(kafka, topic, f"min.insync.replicas={wanted}")
    )


def _alter(kafka: Kafka, topic: str, config: str) -> str:
    return f"kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter --topic {topic} --add-config {config}"


def _run(hospital_id: str) -> str:
    return f"passport cdc run --hospital {hospital_id}   # makes what is missing"


def _partitions(hospital_id: str, hospital: Hospital, kafka: Kafka, count: int) -> Check:
    enough = count > hospital.partition
    detail = f"{kafka.topic} has {count} partitions, this hospital's is number {hospital.partition}"
    return Check("partition", True if enough else None, detail, "" if enough else _run(hospital_id))


def _kept(kafka: Kafka, config: dict[str, Any]) -> Iterator[Check]:
    kept = int(config["retention.ms"])
    if 0 <= kept < RETENTION_MS:
        detail = f"changes are kept for {kept / 3_600_000:g} hours: a destination away for longer needs a backfill"
        yield Check("topic retention", None, detail, _alter(kafka, kafka.topic, "retention.ms=-1"))
    else:
        yield Check(
            "topic retention", True, f"changes are kept for {f'{kept} ms' if kept >= 0 else 'ever'}"
        )
    if config["cleanup.policy"] != "delete":
        detail = f"cleanup.policy of {kafka.topic} is {config['cleanup.policy']}: changes of a hospital share their key"
        yield Check(
            "topic cleanup", False, detail, _alter(kafka, kafka.topic, "cleanup.policy=delete")
        )
    if int(config["max.message.bytes"]) < MAX_BYTES:
        detail = f"{kafka.topic} takes records of {config['max.message.bytes']} bytes: a row with a long text stops it"
        remedy = _alter(kafka, kafka.topic, f"max.message.bytes={MAX_BYTES}")
        yield Check("record size", None, detail, remedy)


def _positions(
    hospital_id: str, hospital: Hospital, kafka: Kafka, count: int, config: dict[str, Any]
) -> Iterator[Check]:
    topic = kafka.positions_topic
    if count != 1:
        yield Check(
            "positions",
            False,
            f"{topic} has {count} partitions",
            "set kafka.positions_topic to another name",
        )
        return
    if config["cleanup.policy"] != "compact":
        repair = _alter(kafka, topic, "cleanup.policy=compact")
        yield Check(
            "positions", False, f"cleanup.policy of {topic} is {config['cleanup.policy']}", repair
        )
    try:
        Positions(kafka).check_partition(hospital_id, hospital.partition)
    except Fatal as error:
        yield Check("own partition", False, error.reason, error.hint)
    else:
        yield Check("own partition", True, f"number {hospital.partition} is this hospital's alone")


def _copies(kafka: Kafka, nodes: int) -> Check:
    if kafka.replication_factor > nodes:
        detail = f"replication_factor is {kafka.replication_factor}, and there are {nodes} brokers"
        return Check(
            "replication", False, detail, f"set kafka.replication_factor to {nodes} or less"
        )
    if kafka.replication_factor == 1:
        return Check(
            "replication",
            None,
            "one copy: a lost disk costs a snapshot",
            "set kafka.replication_factor to 3",
        )
    return Check("replication", True, f"{kafka.replication_factor} copies")
