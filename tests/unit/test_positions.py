"""Saved positions: which of several holds, what goes through Kafka, and what may be saved."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.checkpoint import Checkpoint, Mark
from cdc.positions import Saved, Snapshot, highest
from openmrs.column_info import ColumnInfo
from passport.version import Position

SAVED = Saved(
    hospital="kigali",
    partition=3,
    server="mariadb-7",
    format_ts=1_700_000_000,
    epoch=1_700_000_001,
    position=Position("binlog.000009", 4_300_000_000),
    gtid_set="0-7-99",
    columns={
        "obs": [
            ColumnInfo("obs_id", "int", "int(11)"),
            ColumnInfo("value_text", "text", "text", "utf8mb4", 65535),
        ]
    },
    snapshot=Snapshot(2, "running", 4_000),
    ts_ms=1_700_000_000_123,
)


def test_a_saved_position_is_read_as_it_was_written() -> None:
    assert Saved.parse(SAVED.encode()) == SAVED
    polling = replace(
        SAVED, snapshot=None, capture="polling", run=4, state={"obs": [1, 2]}, columns={}
    )
    assert Saved.parse(polling.encode()) == polling


def test_what_a_later_release_added_to_a_position_is_left_out() -> None:
    assert Saved.parse(SAVED.encode().replace(b'{"v":1', b'{"v":1,"later":[1]')) == SAVED


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b'{"v": 2}', b'{"v": 1}', b'{"v": 1, "position": []}', b"\xff"]
)
def test_what_is_no_position_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json has its own words
        Saved.parse(value)


def test_nothing_saved() -> None:
    assert highest([]) is None


@pytest.mark.parametrize(
    "lower",
    [
        replace(SAVED, epoch=SAVED.epoch - 1, position=Position("binlog.999999", 1)),
        replace(SAVED, position=Position("binlog.000009", 4_299_999_999)),
        replace(SAVED, position=Position("mysql-bin.000008", 2**40)),
        replace(SAVED, snapshot=Snapshot(2, "running", 3_999)),
        replace(SAVED, snapshot=Snapshot(2, "running", None)),
        replace(SAVED, snapshot=Snapshot(1, "done", None)),
    ],
)
def test_the_furthest_holds_whatever_the_order(lower: Saved) -> None:
    assert highest([SAVED, lower]) == SAVED
    assert highest([lower, SAVED]) == SAVED


def test_a_file_name_orders_by_its_number_alone() -> None:
    wrapped = replace(SAVED, position=Position("binlog.1000000", 4))
    assert highest([wrapped, SAVED]) == wrapped


def test_done_is_further_than_any_key_and_a_new_snapshot_than_done() -> None:
    done = replace(SAVED, snapshot=Snapshot(2, "done"))
    again = replace(SAVED, snapshot=Snapshot(3))
    assert highest([again, done, SAVED]) == again
    assert highest([done, SAVED]) == done


def test_of_equals_the_last_holds() -> None:
    dated = replace(SAVED, format_ts=5)
    assert highest([SAVED, dated]) == dated


def mark(pos: int) -> Mark:
    return Mark(Position("binlog.000001", pos), "", 1, {})


def test_a_position_waits_for_everything_before_it() -> None:
    checkpoint = Checkpoint.at(mark(4))
    checkpoint.commit(2, mark(100))
    checkpoint.commit(2, mark(200))  # a transaction of other tables
    checkpoint.commit(5, mark(300))
    assert checkpoint.acked(1) == mark(4)
    assert checkpoint.acked(2) == mark(200)
    assert checkpoint.acked(4) == mark(200)
    assert checkpoint.acked(5) == mark(300)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_it_is_never_ahead_of_what_is_acknowledged(steps: list[tuple[int, int]]) -> None:
    """Each step: a transaction of so many records, then so many more acknowledgements."""
    checkpoint = Checkpoint.at(mark(0))
    sent = acked = 0
    needs = {0: 0}
    for number, (records, acknowledgements) in enumerate(steps, 1):
        sent += records
        needs[number] = sent
        checkpoint.commit(sent, mark(number))
        acked = min(sent, acked + acknowledgements)
        reached = checkpoint.acked(acked).at.pos
        assert reached == max(number for number, need in needs.items() if need <= acked)
