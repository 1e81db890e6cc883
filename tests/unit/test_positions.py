"""Saved positions: which of several holds, what goes through Kafka, and what may be saved."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.checkpoint import Checkpoint, Mark
from cdc.positions import HospitalRecords, Saved, Snapshot
from openmrs.column_info import ColumnInfo
from passport.version import Position
from tests.positions_topic import highest

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


# --- the records of the topic, and what compaction makes of them


def written(topic: HospitalRecords, saved: Saved, **options: bool) -> dict[str, bytes | None]:
    """Return the records of one save by their keys."""
    in_full = options.get("in_full", False)
    return {key.decode(): value for key, value in topic.write(saved, in_full=in_full)}


def test_a_save_is_small_and_its_columns_come_once() -> None:
    topic = HospitalRecords("kigali")
    first = written(topic, SAVED)
    columns_key = next(key for key in first if "/columns/" in key)
    position_key = f"kigali/position/{SAVED.epoch}/0"
    assert first.keys() == {columns_key, position_key, "kigali"}

    further = replace(SAVED, position=Position("binlog.000010", 4))
    assert written(topic, further).keys() == {position_key}
    assert written(topic, further, in_full=True).keys() == {position_key, "kigali"}

    column = ColumnInfo("comments", "varchar", "varchar(255)", "utf8mb4", 1020)
    altered = replace(further, columns={"obs": [*SAVED.columns["obs"], column]})
    again = written(topic, altered)
    assert len(again) == 3
    assert columns_key not in again


def read_by_the_release_before(value: bytes) -> str:
    """Parse a record as the releases did that kept all in one key. Return its hospital."""
    wire = json.loads(value)
    assert wire["v"] == 1
    body = {name: wire[name] for name in wire if name in Saved.__slots__}
    file, pos = body["position"]
    body["position"] = Position(file, int(pos))
    body["columns"] = {
        table: [ColumnInfo(*column) for column in rows] for table, rows in body["columns"].items()
    }
    body["snapshot"] = Snapshot(**body["snapshot"]) if body["snapshot"] else None
    saved = Saved(**body)
    assert saved.rank <= SAVED.rank
    return saved.hospital


def test_the_release_before_reads_every_record_and_goes_on_from_its_own() -> None:
    records = written(HospitalRecords("kigali"), SAVED)
    for value in records.values():
        assert value is not None
        assert read_by_the_release_before(value) == "kigali"
    in_full = records["kigali"]
    assert in_full is not None
    assert Saved.parse(in_full) == SAVED


def test_without_the_record_of_its_columns_a_position_has_none() -> None:
    topic = HospitalRecords("kigali")
    position_key = f"kigali/position/{SAVED.epoch}/0"
    value = written(HospitalRecords("kigali"), SAVED)[position_key]
    topic.add(position_key.encode(), value)
    assert topic.furthest() == replace(SAVED, columns={})


def test_what_a_later_release_writes_beside_it_is_passed_over() -> None:
    topic = HospitalRecords("kigali")
    for key in (b"kigali/later/1/2", b"kigali/later", b"\xff", b""):
        topic.add(key, b"{}")
    assert topic.furthest() is None


class CompactedTopic:
    """A topic whose records land late, and which is compacted at any time."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.highest = (0, 0)

    def read(self) -> HospitalRecords:
        records = HospitalRecords("kigali")
        for key, value in self.records:
            records.add(key, value)
        return records

    def compact(self) -> None:
        last = dict(self.records)
        self.records = [(key, value) for key, value in last.items() if value is not None]


class Writer:
    """A reader that saves: each record that it sends waits for the one before it."""

    def __init__(self, topic: CompactedTopic, *, polls: bool) -> None:
        self._topic = topic
        self._records = topic.read()
        saved = self._records.furthest()
        epoch, run = (saved.epoch, saved.run) if saved else (0, 0)
        if polls:
            self._epoch, self._run = max(epoch, 1), run + 1
        else:
            self._epoch, self._run = epoch + 1, 0
        self._pos = 4
        self._sending: Iterator[tuple[bytes, bytes | None]] = iter(())
        self._saving: Saved | None = None

    def step(self) -> None:
        """Let the record that was sent land, be it late, and send the next one."""
        record = next(self._sending, None)
        if record is not None:
            self._topic.records.append(record)
            return
        if self._saving is not None:
            done = (self._saving.epoch, self._saving.run)
            self._topic.highest = max(self._topic.highest, done)
        self._pos += 1
        place = Position("binlog.000001", self._pos)
        if self._run:
            # A polled hospital's position has the run's number, and whether the run has ended.
            place = Position("poll.0", 2 * self._run + self._pos % 2)
        self._saving = replace(SAVED, epoch=self._epoch, run=self._run, position=place)
        self._sending = self._records.write(self._saving, in_full=self._pos % 3 == 0)


# The second reader's epoch is acknowledged, then a record of the first one lands late.
LATE_SAVE: list[str | int] = ["start", *[0] * 7, "start", *[0] * 7, 1, "compact"]


@given(
    st.booleans(),
    st.lists(st.sampled_from(["start", "compact", 0, 1, 2]), min_size=10, max_size=120),
)
@example(False, LATE_SAVE)
@example(True, LATE_SAVE)
def test_a2_compaction_and_late_writers_take_no_acknowledged_epoch_or_run_away(
    polls: bool, steps: list[str | int]
) -> None:
    """Three readers at once, each of which may stand still at any moment."""
    topic = CompactedTopic()
    writers: list[Writer] = []
    for step in steps:
        if step == "start":
            writers.append(Writer(topic, polls=polls))
        elif step == "compact":
            topic.compact()
        elif writers:
            writers[-1 - int(step) % len(writers)].step()
        saved = topic.read().furthest()
        reached = (saved.epoch, saved.run) if saved else (0, 0)
        assert reached >= topic.highest
        assert saved is None or saved.columns == SAVED.columns
