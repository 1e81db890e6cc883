"""What the topic of changes holds, read and written as anybody could."""

import json
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.e2e.stage import Stage
from tests.e2e.ward import eventually

TOPIC = "openmrs.changes"


def events(stage: Stage, partition: int, first: int = 0) -> list[dict[str, Any]]:
    return [json.loads(one.value) for one in raw(stage, partition, first)]


def obs_of(event: dict[str, Any]) -> Any:
    return (event.get("after") or {}).get("obs_id")


def end_of(stage: Stage, partition: int) -> int:
    consumer = KafkaConsumer(bootstrap_servers=stage.kafka.url)
    end: int = consumer.end_offsets([TopicPartition(TOPIC, partition)])[
        TopicPartition(TOPIC, partition)
    ]
    consumer.close()
    return end


def raw(stage: Stage, partition: int, first: int = 0, topic: str = TOPIC) -> list[Any]:
    """A partition's records from offset `first`, or from where it begins if that is later."""
    consumer = KafkaConsumer(bootstrap_servers=stage.kafka.url)
    place = TopicPartition(topic, partition)
    consumer.assign([place])
    consumer.seek(place, max(first, consumer.beginning_offsets([place])[place]))
    end, found = consumer.end_offsets([place])[place], []
    while consumer.position(place) < end:
        for records in consumer.poll(1000).values():
            found += records
    consumer.close()
    return found


def send(stage: Stage, records: list[Any]) -> None:
    producer = KafkaProducer(bootstrap_servers=stage.kafka.url)
    for one in records:
        headers = list(one.headers)
        producer.send(TOPIC, value=one.value, key=one.key, headers=headers, partition=one.partition)
    producer.flush()
    producer.close()


def applied(stage: Stage, hospital: str) -> None:
    """Waits until all that the topic holds now is applied."""
    end = end_of(stage, stage.hospitals[hospital].partition)

    def there() -> bool:
        found = stage.db["progress"].find_one({"_id": hospital})
        return found is not None and found["offset"] >= end

    eventually(there, f"{hospital} is applied up to {end}")
