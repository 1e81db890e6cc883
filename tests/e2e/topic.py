"""The topic of changes, read and written as anybody could."""

import json
from typing import Any

from kafka import KafkaProducer

from tests.e2e.stage import Stage
from tests.e2e.ward import eventually
from tests.topic_reader import end_of_topic, read_topic

TOPIC = "openmrs.changes"


def events(stage: Stage, partition: int, first: int = 0) -> list[dict[str, Any]]:
    """Return a partition's records as JSON, from offset `first`."""
    return [json.loads(record.value) for record in raw(stage, partition, first)]


def obs_of(event: dict[str, Any]) -> Any:
    """Return the obs_id of the row that the event has, or None."""
    return (event.get("after") or {}).get("obs_id")


def end_of(stage: Stage, partition: int) -> int:
    """Return the offset that the partition's next record will have."""
    return end_of_topic(stage.kafka.url, TOPIC, partition)


def raw(stage: Stage, partition: int, first: int = 0, topic: str = TOPIC) -> list[Any]:
    """Return a partition's records from offset `first`, or from its beginning if that is later."""
    return list(read_topic(stage.kafka.url, topic, partition, first=first))


def send(stage: Stage, records: list[Any]) -> None:
    """Send these records once more, to the partitions that they came from."""
    producer = KafkaProducer(bootstrap_servers=stage.kafka.url)
    for record in records:
        producer.send(
            TOPIC,
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            partition=record.partition,
        )
    producer.flush()
    producer.close()


def applied(stage: Stage, hospital: str) -> None:
    """Wait until all that the topic holds now is applied."""
    end = end_of(stage, stage.hospitals[hospital].partition)

    def is_applied() -> bool:
        progress = stage.db["progress"].find_one({"_id": hospital})
        return progress is not None and progress["offset"] >= end

    eventually(is_applied, f"{hospital} is applied up to {end}")
