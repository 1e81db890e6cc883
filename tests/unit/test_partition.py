"""Batches end where transactions do, and what isn't the hospital's never gets further."""

from typing import Any

import pytest

from consumers.partition import Partition, RejectedRecord, parse_record
from openmrs.tables import OBS
from passport.event import (
    ENVELOPE,
    EventSource,
    RowEvent,
    Transaction,
    encode_event,
)
from passport.kafka import Record
from passport.settings import Consumer, Hospital
from passport.version import LOWEST

HOSPITAL = Hospital.model_validate(
    {
        "name": "Kigali",
        "partition": 0,
        "timezone": "Africa/Kigali",
        "national_id_type": "t",
        "mysql": {"host": "localhost", "user": "nobody"},
    }
)


def a_record(offset: int, *, last: bool = True, hospital: str = "kigali", **columns: Any) -> Record:
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
        hospital, "UTC", "openmrs", "obs", "b.000001", 4, 1, "", "s", 1, LOWEST, "binlog"
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
