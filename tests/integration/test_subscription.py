"""The consumer group against a real broker: assignments, lost partitions, offsets out of range."""

from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from consumers.subscription import OutOfRange, Subscription
from passport.errors import NotReady
from passport.kafka import Record
from passport.settings import Kafka
from tests.eventually import eventually

Join = Callable[..., Subscription]


@pytest.fixture
def kafka(kafka_bootstrap: str, create_topic: Callable[..., str]) -> Kafka:
    return Kafka(bootstrap=kafka_bootstrap, topic=create_topic())


@pytest.fixture
def join(kafka: Kafka) -> Iterator[Join]:
    joined: list[Subscription] = []

    def subscribe(age_s: float = 30) -> Subscription:
        joined.append(Subscription(kafka, f"group of {kafka.topic}", 100, metadata_max_age_s=age_s))
        return joined[-1]

    yield subscribe
    for one in joined:
        one.close()


def poll_until(
    subscription: Subscription, condition: Callable[[], bool], timeout_s: float = 0.01
) -> None:
    """Poll, as a worker does all the time, until the condition is true."""

    def polled() -> bool:
        if condition():
            return True
        subscription.poll(timeout_s)
        return False

    eventually(polled, "the group is as expected")


def grow(kafka: Kafka, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.create_partitions({kafka.topic: partitions})
    admin.close()


def test_partitions_that_are_added_are_assigned_however_short_the_polls(
    kafka: Kafka, join: Join
) -> None:
    member = join(age_s=0.2)
    poll_until(member, lambda: member.assigned()[1] == {0})
    for count in range(2, 12):
        grow(kafka, count)
        poll_until(member, lambda: len(member.assigned()[1]) == count, timeout_s=0.001)  # noqa: B023


def test_every_assignment_is_seen(kafka: Kafka, join: Join) -> None:
    grow(kafka, 2)
    first = join()
    poll_until(first, lambda: first.assigned()[1] == {0, 1})
    before, _ = first.assigned()
    second = join()

    def shared() -> bool:
        second.poll(0.01)
        return len(first.assigned()[1]) == len(second.assigned()[1]) == 1

    poll_until(first, shared)
    assert first.assigned()[1] | second.assigned()[1] == {0, 1}
    assert first.assigned()[0] > before


def test_a_partition_that_is_not_ours_is_left_alone(join: Join) -> None:
    member = join()
    poll_until(member, lambda: member.assigned()[1] == {0})
    member.seek(7, 1)
    member.pause(7)
    member.resume(7)
    assert member.high(7) is None


def test_offsets_are_bounded_committed_and_out_of_range(kafka: Kafka, join: Join) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for value in (b"a", b"b", b"c"):
        producer.send(kafka.topic, value=value, key=b"k", headers=[("ce_type", b"row")]).get(10)
    producer.close()
    member = join()
    poll_until(member, lambda: member.assigned()[1] == {0})
    assert member.bounds([0]) == {0: (0, 3)}
    assert member.committed(0) is None
    member.seek(0, 1)
    records: list[Record] = []
    poll_until(
        member, lambda: bool(records.extend(member.poll(0.1).get(0, ())) or len(records) == 2)
    )
    at_ms = records[0].at_ms
    assert at_ms is not None, "Kafka says when it was published"
    assert records[0] == Record(0, 1, b"k", b"b", (("ce_type", b"row"),), at_ms)
    assert member.commit({0: 2}) is True
    assert member.committed(0) == 2
    member.seek(0, 99)
    with pytest.raises(OutOfRange) as lost:
        poll_until(member, lambda: False)
    assert lost.value.partitions == [0]


def test_a_topic_that_is_not_there_is_not_ready(kafka: Kafka) -> None:
    with pytest.raises(NotReady, match="isn't there yet"):
        Subscription(kafka.model_copy(update={"topic": "no-such-topic"}), "g", 1)
    with pytest.raises(NotReady, match="doesn't answer"):
        Subscription(kafka.model_copy(update={"bootstrap": "127.0.0.1:1"}), "g", 1)
