"""What only the consumers need of Kafka: a member of a consumer group, and the dead letters' topic.

Everything that both stages need is in `passport/kafka.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka import errors as kafka_errors

from passport.errors import KAFKA, NotReady
from passport.kafka import (
    Headers,
    OffsetRange,
    Record,
    admin_client,
    client_options,
    consumer_without_group,
    own_record,
    read_topic,
    topic_offsets,
    translate_errors,
)
from passport.settings import Kafka

JOIN_S = 2.0  # how long `poll` waits at most for the other members of the group

# The partitions went to another member, or are about to: no failure, and nothing is lost.
_NOT_OURS_ANY_MORE = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalStateError,
)
# The group's states that the client reports as errors. This module handles them all.
_GROUP_STATES = (
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.LogTruncationError,
    *_NOT_OURS_ANY_MORE,
)
# The group may be rearranged at any moment, also between two calls. Then a partition isn't assigned
# any more when the client is asked about it; `assigned` says so next time, and all starts anew.
_TAKEN_AWAY = (ValueError, KeyError, kafka_errors.IllegalStateError)


class OutOfRange(Exception):  # noqa: N818  # a state, not a failure of this program
    """The offset that comes next isn't in the topic (any more)."""

    def __init__(self, partitions: Sequence[int]) -> None:
        super().__init__(f"partitions {list(partitions)}")
        self.partitions = list(partitions)


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Counts assignments. It runs in the client's own thread, so it does nothing else."""

    count = 0

    def on_partitions_revoked(self, revoked: object) -> None:
        """Do nothing: work in progress is finished, and versions absorb that it is done twice."""

    def on_partitions_assigned(self, assigned: object) -> None:
        self.count += 1


class Subscription:
    """A member of a consumer group on the changes' topic.

    Offsets are set with `seek` and stored with `commit`, never by the client itself. Every method
    raises NotReady and Fatal.
    """

    def __init__(
        self, kafka: Kafka, group: str, max_records: int, *, metadata_max_age_s: float = 30
    ) -> None:
        self._kafka = kafka
        self._assignments = _Assignments()
        with translate_errors(kafka, leave=_GROUP_STATES):
            self._consumer = KafkaConsumer(
                **client_options(kafka),
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                max_poll_records=max_records,
                max_partition_fetch_bytes=4 * 1024 * 1024,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=2_000,
                max_poll_interval_ms=120_000,
                # so soon a partition that was added for a new hospital is noticed
                metadata_max_age_ms=int(metadata_max_age_s * 1000),
                metrics_enabled=False,
            )
            if not self._consumer.partitions_for_topic(kafka.topic):
                self._consumer.close(autocommit=False)
                raise NotReady(
                    f"topic {kafka.topic} isn't there yet",
                    hint="passport cdc run --hospital ... makes it",
                    origin=KAFKA,
                )
            self._consumer.subscribe([kafka.topic], listener=self._assignments)

    def poll(self, timeout_s: float) -> dict[int, list[Record]]:
        """Return the records that came, by partition. Raises OutOfRange, too."""
        try:
            with translate_errors(self._kafka, leave=_GROUP_STATES):
                self._resume_forgotten_join()
                polled = self._consumer.poll(int(max(timeout_s, self._joining_s()) * 1000))
        except kafka_errors.NoOffsetForPartitionError:
            return {}  # the partition was just assigned: the worker calls `seek` next
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            places = error.args[0] if error.args and isinstance(error.args[0], Mapping) else {}
            partitions = [place.partition for place in places]
            if not partitions:  # the client doesn't say which: it may be any of ours
                _, assigned = self.assigned()
                partitions = sorted(assigned)
            raise OutOfRange(partitions) from None
        return {
            place.partition: [own_record(record) for record in records]
            for place, records in polled.items()
        }

    def assigned(self) -> tuple[int, frozenset[int]]:
        """Return how many assignments there were, and the partitions of the last one."""
        places = self._consumer.assignment()
        return self._assignments.count, frozenset(place.partition for place in places)

    def _joining_s(self) -> float:
        """Return for how long `poll` must wait so that joining the group gets on.

        The client takes a join further only while `poll` waits: a member that always has records to
        work on would never get through it.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001
        return JOIN_S if coordinator.rejoining or coordinator.need_rejoin() else 0.0

    def _resume_forgotten_join(self) -> None:
        """Ask once more for a join that the client has forgotten.

        kafka-python 3.0.12 forgets a join that its leader began for added partitions if `poll`
        times out in it. The member would wait for ever, silently. Asked again, the client takes up
        the join in flight.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if coordinator.rejoining and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def seek(self, partition: int, offset: int) -> None:
        """Read a partition from this offset on."""
        with suppress(*_TAKEN_AWAY):
            self._consumer.seek(self._place(partition), offset)

    def pause(self, partition: int) -> None:
        """Let `poll` return nothing of a partition until `resume`."""
        with suppress(*_TAKEN_AWAY):
            self._consumer.pause(self._place(partition))

    def resume(self, partition: int) -> None:
        """Let `poll` return records of a partition again."""
        with suppress(*_TAKEN_AWAY):
            self._consumer.resume(self._place(partition))

    def committed(self, partition: int) -> int | None:
        """Return the offset that the group has committed, None if it has none."""
        with translate_errors(self._kafka, leave=_GROUP_STATES):
            offset = self._consumer.committed(self._place(partition), timeout_ms=10_000)
        return None if offset is None else int(offset)

    def bounds(self, partitions: Sequence[int]) -> dict[int, OffsetRange]:
        """Return the offsets of these partitions, as they are now."""
        places = [self._place(partition) for partition in partitions]
        if not places:
            return {}
        with translate_errors(self._kafka, leave=_GROUP_STATES):
            first = self._consumer.beginning_offsets(places, timeout_ms=10_000)
            end = self._consumer.end_offsets(places, timeout_ms=10_000)
        return {
            place.partition: OffsetRange(int(first[place]), int(end[place])) for place in places
        }

    def high(self, partition: int) -> int | None:
        """Return the offset after the last, as the broker said with the last records."""
        with suppress(*_TAKEN_AWAY):
            offset = self._consumer.highwater(self._place(partition))
            return None if offset is None else int(offset)
        return None

    def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit the next offset to read, by partition.

        Return False when the partitions went to another member meanwhile: that one starts where the
        last commit was.
        """
        places = {
            self._place(partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        try:
            with translate_errors(self._kafka, leave=_GROUP_STATES):
                self._consumer.commit(places, timeout_ms=10_000)
        except _NOT_OURS_ANY_MORE:
            return False
        return True

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._kafka.topic, partition)


class DeadLetterWriter:
    """Writes single records, and waits until Kafka has each. It connects with the first one."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: Any = None

    def write(self, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Write a record; return when all replicas have it. Raises NotReady and Fatal."""
        with translate_errors(self._kafka, leave=_GROUP_STATES):
            if self._producer is None:
                self._producer = KafkaProducer(
                    **client_options(self._kafka),
                    max_block_ms=5_000,
                    max_request_size=32 * 1024 * 1024,
                    allow_auto_create_topics=False,
                    metrics_enabled=False,
                )
            sent = self._producer.send(
                self._kafka.dead_letters_topic, key=key, value=value, headers=list(headers)
            )
            sent.get(timeout=15)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._producer is not None:
            self._producer.close(timeout=1)


def read_dead_letters(kafka: Kafka) -> Iterator[Record]:
    """Yield every record of the dead letters' topic, oldest first. Raises NotReady and Fatal."""
    for records in read_topic(kafka, kafka.dead_letters_topic):
        yield from records


def delete_dead_letters(kafka: Kafka, before: Mapping[int, int]) -> None:
    """Delete the records of the dead letters' topic before these offsets, by partition.

    Raises NotReady and Fatal.
    """
    offsets = {
        TopicPartition(kafka.dead_letters_topic, partition): offset
        for partition, offset in before.items()
    }
    with admin_client(kafka) as admin:
        admin.delete_records(offsets)


def partition_offsets(kafka: Kafka, partition: int) -> OffsetRange:
    """Return the offsets of a partition of the changes' topic. Raises NotReady and Fatal."""
    return topic_offsets(kafka, kafka.topic).get(partition, OffsetRange(0, 0))


def offset_at(kafka: Kafka, partition: int, at_ms: int) -> int:
    """Return the offset of the first record published at this Unix time in ms, or later.

    When there is none it is the end of the partition. Raises NotReady and Fatal.
    """
    place = TopicPartition(kafka.topic, partition)
    with translate_errors(kafka), consumer_without_group(kafka) as consumer:
        at = consumer.offsets_for_times({place: at_ms})[place]
        if at is not None:
            return int(at.offset)
        return int(consumer.end_offsets([place])[place])
