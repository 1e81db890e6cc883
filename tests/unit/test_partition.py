"""Batches end where transactions do, and what isn't the hospital's never gets further."""

from typing import Any

import pytest

from consumers.partition import Partition, RejectedRecord, parse_record
from openmrs.tables import OBS
from passport.errors import Fatal
from passport.event import (
    ENVELOPE,
    EventSource,
    RowEvent,
    Transaction,
    encode_event,
)
from passport.kafka import Record
from passport.settings import Consumer, Hospital
from passport.version import LOWEST, Position, read_version

HOSPITAL = Hospital.model_validate(
    {
        "name": "Kigali",
        "partition": 0,
        "timezone": "Africa/Kigali",
        "national_id_type": "t",
        "mysql": {"host": "localhost", "user": "nobody"},
    }
)


def a_record(
    offset: int,
    *,
    last: bool = True,
    hospital: str = "kigali",
    version: str = LOWEST,
    **columns: Any,
) -> Record:
    row = dict.fromkeys(OBS.columns) | {
        "obs_id": offset,
        "person_id": 7,
        "concept_id": 5,
        "creator": 3,
        "voided": 0,
    }
    row |= {
        "uuid": "u",
        "obs_datetime": "2025-11-06T10:30:00",
        "date_created": "2025-11-06T10:30:00",
        **columns,
    }
    source = EventSource(
        hospital, "UTC", "openmrs", "obs", "b.000001", 4, 1, "", "s", 1, version, "binlog"
    )
    event = RowEvent(
        v=ENVELOPE,
        op="c",
        before=None,
        after=row,
        source=source,
        transaction=Transaction(id="t", last=last),
        ts_ms=1,
    )
    return Record(0, offset, b"kigali", encode_event(event), ())


@pytest.fixture
def partition() -> Partition:
    return Partition(0, "kigali", HOSPITAL, Consumer(), 0)


def offsets(partition: Partition, limit: int = 10) -> list[int]:
    return [item.record.offset for item in partition.take(limit)]


def test_a_batch_ends_where_a_transaction_does(partition: Partition) -> None:
    partition.receive([a_record(0), a_record(1, last=False), a_record(2), a_record(3, last=False)])
    assert offsets(partition) == [0, 1, 2]
    partition.receive([a_record(4)])
    assert offsets(partition) == [3, 4]
    assert partition.buffered == 0


def test_a_transaction_whose_rest_does_not_come_is_not_waited_for(partition: Partition) -> None:
    partition.receive([a_record(0, last=False), a_record(1, last=False)])
    assert offsets(partition) == []
    assert offsets(partition) == [0, 1]


def test_a_transaction_larger_than_a_batch_goes_in_pieces(partition: Partition) -> None:
    partition.receive(
        [a_record(0), *[a_record(offset, last=False) for offset in range(1, 25)], a_record(25)]
    )
    assert [offsets(partition) for _ in range(4)] == [
        [0],
        [*range(1, 11)],
        [*range(11, 21)],
        [*range(21, 26)],
    ]


def test_heartbeats_and_rejected_records_end_a_batch(partition: Partition) -> None:
    partition.receive(
        [a_record(0, last=False), Record(0, 1, None, b"{", ()), a_record(2, last=False)]
    )
    assert offsets(partition) == [0, 1]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(0, 1, None, None, ()), "malformed"),
        (Record(0, 1, None, b"[]", ()), "malformed"),
        (Record(0, 1, None, b'{"v": 2}', ()), "unknown_version"),
        (a_record(1, hospital="butare"), "unknown_hospital"),
        (a_record(1, uuid=None), "malformed"),
        (a_record(1, person_id=True), "malformed"),
    ],
)
def test_what_cannot_be_carried(record: Record, reason: str) -> None:
    item = parse_record(record, "kigali")
    assert isinstance(item, RejectedRecord)
    assert item.reject.reason == reason


def of_a_later_release(offset: int) -> Record:
    value = a_record(offset).value or b""
    return Record(0, offset, b"kigali", value.replace(b'{"v":1,', b'{"v":2,'), ())


def test_b21_a_record_of_a_later_release_stops_behind_what_came_before(
    partition: Partition,
) -> None:
    partition.receive([a_record(0), of_a_later_release(1), a_record(2)])
    partition.receive([a_record(3)])
    assert offsets(partition) == [0]
    with pytest.raises(Fatal, match="later release") as stopped:
        partition.take(10)
    assert partition.is_own_failure(stopped.value)
    partition.wait(stopped.value)
    partition.receive([a_record(1), a_record(2)])  # its consumer was upgraded
    assert offsets(partition) == [1, 2]


@pytest.mark.parametrize(
    ("epoch", "published_s", "is_taken"),
    [
        (1_700_000_000, 1_700_000_001, True),
        (1_700_000_000, 1_699_990_000, True),  # another clock, which is a little behind
        (1_800_000_000, 1_700_000_000, False),
        (9_999_999_999, 1_700_000_000, False),
        (1_800_000_001, 1_800_000_000, True),  # the publisher's clock is years ahead
        (7, 1_700_000_000, True),
    ],
)
def test_b14_an_epoch_of_the_future_is_no_epoch(
    partition: Partition, epoch: int, published_s: int, is_taken: bool
) -> None:
    record = a_record(1, version=read_version(epoch, Position("b.000001", 0)))
    partition.receive([record._replace(at_ms=published_s * 1000)])
    (item,) = partition.take(1)
    assert isinstance(item, RejectedRecord) is not is_taken


def test_b14_an_epoch_that_follows_a_known_one_is_one_whatever_the_clock_says(
    partition: Partition,
) -> None:
    """A clock was wrong when the epoch began, and was set right."""
    partition.lookups.seen(read_version(1_900_000_000, Position("b.000001", 4)))
    record = a_record(1, version=read_version(1_900_000_001, Position("b.000001", 0)))
    partition.receive([record._replace(at_ms=1_700_000_000_000)])
    (item,) = partition.take(1)
    assert not isinstance(item, RejectedRecord)


def test_the_offset_stays_before_unfinished_work(partition: Partition) -> None:
    partition.next = 50
    assert partition.offset == 50
    partition.reenrichment.add_persons([7], 20, None)
    assert partition.offset == 20
    partition.reenrichment.add_persons([8], 10, None)
    partition.reenrichment.add_persons([7, 9], None, None)
    assert partition.offset == 10
    partition.next = 5
    assert partition.offset == 5
