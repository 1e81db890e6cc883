"""Kafka, as this stage meets it: the group's partitions, their records and offsets, and the dead
letters' topic.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka import errors as kafka_errors

from passport import kafka as broker
from passport.errors import NotReady
from passport.kafka import Headers, Record, admin, client_options, groupless, offsets, read
from passport.settings import Kafka

_NOT_OURS_ANY_MORE = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalStateError,
)


JOIN_S = 2.0  # at most so long for the other members
_STATES = (
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.LogTruncationError,
    *_NOT_OURS_ANY_MORE,
)
remedied = partial(broker.remedied, states=_STATES)
# The group may be rearranged at any moment: then `assigned` changes, and everything starts anew.
_TAKEN_AWAY = (ValueError, KeyError, kafka_errors.IllegalStateError)


class OutOfRange(Exception):  # noqa: N818  # a state, not a failure of this program
    """The offset that comes next isn't in the topic (any more)."""

    def __init__(self, partitions: Sequence[int]) -> None:
        super().__init__(f"partitions {list(partitions)}")
        self.partitions = list(partitions)


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Counts assignments; runs in the client's own thread, so it does nothing else."""

    count = 0

    def on_partitions_revoked(self, revoked: object) -> None:
        """What is still in work is finished: versions absorb that another member has it too."""

    def on_partitions_assigned(self, assigned: object) -> None:
        self.count += 1


class Subscription:
    """A member of a consumer group on one topic. Offsets are set with `seek` and `commit` only.
    NotReady, Fatal.
    """

    def __init__(
        self, kafka: Kafka, group: str, max_records: int, *, metadata_max_age_s: float = 30
    ) -> None:
        self._kafka = kafka
        self._assignments = _Assignments()
        with remedied(kafka):
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
                metadata_max_age_ms=int(
                    metadata_max_age_s * 1000
                ),  # a new hospital's partition is noticed
                metrics_enabled=False,
            )
            if not self._consumer.partitions_for_topic(kafka.topic):
                self._consumer.close(autocommit=False)
                raise NotReady(
                    f"topic {kafka.topic} isn't there yet",
                    hint="passport cdc run --hospital ... makes it",
                )
            self._consumer.subscribe([kafka.topic], listener=self._assignments)

    def poll(self, timeout_s: float) -> dict[int, list[Record]]:
        """What came, by partition. Raises OutOfRange, NotReady, Fatal."""
        try:
            with remedied(self._kafka):
                self._remember_join()
                polled = self._consumer.poll(int(max(timeout_s, self._joining_s()) * 1000))
        except kafka_errors.NoOffsetForPartitionError:
            return {}  # just assigned: `seek` follows
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
            places = error.args[0] if error.args and isinstance(error.args[0], Mapping) else {}
            raise OutOfRange(
                [place.partition for place in places] or sorted(self.assigned()[1])
            ) from None
        return {
            place.partition: [_record(one) for one in records] for place, records in polled.items()
        }

    def assigned(self) -> tuple[int, frozenset[int]]:
        """How many assignments there were, and the partitions of the last one."""
        return self._assignments.count, frozenset(
            place.partition for place in self._consumer.assignment()
        )

    def _joining_s(self) -> float:
        """A join is taken further only while `poll` waits: a member that is always busy would never
        get through it.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001
        return JOIN_S if coordinator.rejoining or coordinator.need_rejoin() else 0.0

    def _remember_join(self) -> None:
        """kafka-python 3.0.12 forgets a join that its leader began for added partitions, if `poll`
        times out in it.

        The member would wait for ever, silently. Asked again, it takes up the join in flight.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if coordinator.rejoining and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def seek(self, partition: int, offset: int) -> None:
        with suppress(*_TAKEN_AWAY):
            self._consumer.seek(self._place(partition), offset)

    def pause(self, partition: int) -> None:
        with suppress(*_TAKEN_AWAY):
            self._consumer.pause(self._place(partition))

    def resume(self, partition: int) -> None:
        with suppress(*_TAKEN_AWAY):
            self._consumer.resume(self._place(partition))

    def committed(self, partition: int) -> int | None:
        with remedied(self._kafka):
            found = self._consumer.committed(self._place(partition), timeout_ms=10_000)
        return None if found is None else int(found)

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """First offset and the one after the last, as they are now."""
        places = [self._place(partition) for partition in partitions]
        if not places:
            return {}
        with remedied(self._kafka):
            first = self._consumer.beginning_offsets(places, timeout_ms=10_000)
            last = self._consumer.end_offsets(places, timeout_ms=10_000)
        return {place.partition: (int(first[place]), int(last[place])) for place in places}

    def high(self, partition: int) -> int | None:
        """The offset after the last, as the broker said with the last records."""
        with suppress(*_TAKEN_AWAY):
            found = self._consumer.highwater(self._place(partition))
            return None if found is None else int(found)
        return None

    def commit(self, offsets: Mapping[int, int]) -> bool:
        """False when the partitions went to another member meanwhile: it starts where the last
        commit was.
        """
        try:
            with remedied(self._kafka):
                self._consumer.commit(
                    {
                        self._place(one): OffsetAndMetadata(offset, "", -1)
                        for one, offset in offsets.items()
                    },
                    timeout_ms=10_000,
                )
        except _NOT_OURS_ANY_MORE:
            return False
        return True

    def close(self) -> None:
        self._consumer.close(autocommit=False)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._kafka.topic, partition)


def _record(one: Any) -> Record:
    return Record(one.partition, one.offset, one.key, one.value, tuple(one.headers or ()))


class Writer:
    """Writes single records and waits for each."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._producer: Any = None

    def write(self, topic: str, key: bytes, value: bytes | None, headers: Headers) -> None:
        """Returns when all replicas have it. NotReady, Fatal."""
        with remedied(self._kafka):
            if self._producer is None:
                self._producer = KafkaProducer(
                    **client_options(self._kafka),
                    max_block_ms=5_000,
                    max_request_size=32 * 1024 * 1024,
                    allow_auto_create_topics=False,
                    metrics_enabled=False,
                )
            self._producer.send(topic, key=key, value=value, headers=list(headers)).get(timeout=15)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)


def read_all(kafka: Kafka, topic: str) -> Iterator[Record]:
    """Every record of a topic up to its end as it is now. NotReady, Fatal."""
    for some in read(kafka, topic):
        yield from map(_record, some)


def cut(kafka: Kafka, topic: str, before: Mapping[int, int]) -> None:
    """Nobody can read the records before these offsets, by partition, any more. NotReady, Fatal."""
    with admin(kafka) as client:
        client.delete_records(
            {TopicPartition(topic, one): offset for one, offset in before.items()}
        )


def stretch(kafka: Kafka, partition: int, first: int, end: int) -> Iterator[list[Record]]:
    """The records of the changes' topic with ``first <= offset < end``, some at a time. NotReady,
    Fatal.
    """
    for some in read(kafka, kafka.topic, [partition], lambda _: {partition: (first, end)}):
        yield [*map(_record, some)]


def bounds(kafka: Kafka, partition: int) -> tuple[int, int]:
    """First offset of the changes' topic and the one after the last. NotReady, Fatal."""
    return offsets(kafka, kafka.topic).get(partition, (0, 0))


def offset_at(kafka: Kafka, partition: int, at_ms: int) -> int:
    """Of the first record published at this Unix time in ms or later; the end when there is none."""
    place = TopicPartition(kafka.topic, partition)
    with remedied(kafka), groupless(kafka) as consumer:
        found = consumer.offsets_for_times({place: at_ms})[place]
        return int(found.offset if found is not None else consumer.end_offsets([place])[place])
