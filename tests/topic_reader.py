"""Read a topic as anybody could, without the product's own reader."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition


def read_topic(bootstrap: str, topic: str, partition: int = 0, *, first: int = 0) -> Iterator[Any]:
    """Yield a partition's records from offset `first` up to the end that it has now.

    If the partition begins later than `first`, the records begin there. What a record holds is
    what the client gives: key, value and headers are bytes.
    """
    place = TopicPartition(topic, partition)
    with closing(KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)) as consumer:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek(place, max(first, consumer.beginning_offsets([place])[place]))
        while consumer.position(place) < end:
            yield from consumer.poll(1_000).get(place, ())


def end_of_topic(bootstrap: str, topic: str, partition: int = 0) -> int:
    """Return the offset that a partition's next record will have."""
    place = TopicPartition(topic, partition)
    with closing(KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)) as consumer:
        end: int = consumer.end_offsets([place])[place]
    return end
