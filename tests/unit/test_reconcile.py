"""The pure parts of reconciling: hashes, ranges, differences, the report and the load budget."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from cdc.envelopes import Envelopes
from cdc.polling import walk
from cdc.polling.ranges import Ranges
from openmrs import row_hash as hashes
from openmrs.column_info import ColumnInfo
from openmrs.column_types import double_text
from openmrs.load_budget import Pace, WaitingPace, closed_s
from openmrs.row_hash import Digest
from passport.event import KEYS_PER_EVENT, parse_event
from passport.settings import LoadBudget
from passport.version import Position, Version
from reconcile import differences as differing
from reconcile.report import KEPT, Compared, Differences, Report
from tests.integration.published import settings_for
from tests.servers import Address

COLUMNS = [
    ColumnInfo("obs_id", "int", "int(11)"),
    ColumnInfo("value_text", "text", "text", "utf8mb4"),
    ColumnInfo("comments", "varchar", "varchar(255)", "utf8mb4"),
    ColumnInfo("value_numeric", "double", "double"),
    ColumnInfo("obs_datetime", "datetime", "datetime"),
]
TEXT = st.none() | st.text(alphabet="a1#:~'", max_size=4)
ROW = st.fixed_dictionaries({"obs_id": st.integers(0, 9), "value_text": TEXT, "comments": TEXT})


@given(st.lists(ROW, max_size=6), st.randoms())
def test_a_digest_does_not_depend_on_the_order(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(rows, len(rows))
    assert hashes.digest(rows, COLUMNS) == hashes.digest(shuffled, COLUMNS)


@given(st.lists(ROW, max_size=6), st.integers(0, 6))
def test_digests_of_parts_add_up(rows: list[dict[str, Any]], at: int) -> None:
    assert hashes.digest(rows[:at], COLUMNS) | hashes.digest(rows[at:], COLUMNS) == hashes.digest(
        rows, COLUMNS
    )


@given(ROW, ROW)
def test_different_rows_have_different_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (hashes.digest([one], COLUMNS) == hashes.digest([other], COLUMNS)) == (one == other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (37.0, "37"),
        (36.6, "36.6"),
        (-1.5, "-1.5"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (1.5e300, "1.5e300"),
        (0.001, "0.001"),
        (0.30000000000000004, "0.30000000000000004"),
        (123456789.125, "123456789.125"),
        (5e-324, "0." + "0" * 323 + "5"),
    ],
)
def test_a_double_reads_as_the_servers_write_it(value: float, text: str) -> None:
    assert double_text(value) == text


DIGESTS = st.dictionaries(
    st.integers(0, 200),
    st.builds(Digest, st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1)),
    max_size=30,
)


@given(DIGESTS, st.integers(1, 10_000), st.integers(-1, 2**31))
def test_ranges_survive_being_saved(digests: dict[int, Digest], width: int, top: int) -> None:
    ranges = Ranges(width, top, digests)
    assert Ranges.decode(ranges.encode()) == ranges


@given(st.dictionaries(st.integers(0, 5_000), ROW, max_size=60), st.integers(1, 20))
def test_wider_ranges_hold_what_the_narrow_ones_held(
    rows: dict[int, dict[str, Any]], most: int
) -> None:
    def ranged(width: int) -> dict[int, Digest]:
        found: dict[int, Digest] = {}
        for key, row in rows.items():
            found[key // width] = found.get(key // width, Digest()) | hashes.digest([row], COLUMNS)
        return found

    ranges = Ranges(10, -1, ranged(10))
    ranges.limit(most)
    assert len(ranges.digests) <= most
    assert ranges.digests == ranged(ranges.width)


def test_what_polling_knows_survives_being_saved() -> None:
    ranges = {"obs": Ranges(100, 7, {0: Digest(2, 3)})}
    state = walk.PolledState(
        ranges, ("visit", 63), complete=True, run_ms=5, round_ms=4, through_ms=3
    )
    assert walk.PolledState.decode(state.encode()) == state
    assert walk.PolledState.decode({}) == walk.PolledState()


def test_all_is_published_up_to_where_the_last_whole_round_set_out() -> None:
    state = walk.PolledState()
    state.begin(1_000)
    state.cursor = ("obs", 5)
    state.end(1_000)
    assert state.through_ms == 0
    state.begin(2_000)
    state.cursor = None
    state.end(2_000)
    assert state.through_ms == 1_000
    state.begin(3_000)
    state.end(3_000)
    assert state.through_ms == 3_000


RECORD = {
    "patientId": "p",
    "type": "medication",
    "createdBy": "u",
    "data": {"name": "Quinine"},
    "openmrsData": {"obsId": 1},
}
SYNCED = datetime(2026, 1, 1, tzinfo=UTC)
EDITED = {"syncDate": SYNCED, "lastEditedAt": SYNCED + timedelta(hours=1)}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"updatedAt": SYNCED, "editableBy": ["x"], "rev": 9, "tempOTP": "1"}, True),
        ({"data": {"name": "Quinine", "medicationStatus": "Past", "medications": []}}, True),
        ({"data": {"name": "Aspirin"}}, False),
        ({"data": {}}, False),
        ({"patientId": "q"}, False),
        ({"createdBy": "v"}, False),
        ({"openmrsData": {"obsId": 2}}, False),
        ({"type": "test"}, False),
        ({"data": {"name": "Aspirin"}, **EDITED}, True),
        ({"patientId": "q", **EDITED}, False),
        (
            {
                "data": {"name": "A"},
                "openmrsData": {"obsId": 1, "pending": {"name": "Quinine"}},
                **EDITED,
            },
            True,
        ),
        (
            {
                "data": {"name": "A"},
                "openmrsData": {"obsId": 1, "pending": {"name": "old"}},
                **EDITED,
            },
            False,
        ),
    ],
)
def test_what_makes_a_record_differ(change: dict[str, Any], same: bool) -> None:
    assert differing.states_the_same(RECORD, RECORD | change) is same


def test_a_tombstone_counts_as_not_there() -> None:
    key, other = ObjectId(), ObjectId()
    found = differing.records(
        {key: RECORD}, {key: RECORD | {"patientId": ""}, other: {"patientId": ""}}
    )
    assert found.counts == {"missing": 1, "extra": 0, "different": 0}
    rows = differing.rows({"k/1": {"row": {}}}, {"k/1": {"row": {}, "deleted": True}})
    assert rows.counts == {"missing": 1, "extra": 0, "different": 0}


def test_nothing_compared_is_not_equal() -> None:
    report = Report()
    report.add("kigali", Compared(persons=3), Differences())
    assert not report.equal
    assert "nothing was compared" in report.as_text()


@pytest.mark.parametrize("order", [("kigali", "huye"), ("huye", "kigali")])
def test_a20_each_hospital_must_be_equal(order: tuple[str, str]) -> None:
    compared = {"kigali": Compared(persons=3), "huye": Compared(persons=3, matched=1, rows=1)}
    report = Report()
    for hospital_id in order:
        report.add(hospital_id, compared[hospital_id], Differences())
    assert not report.equal
    assert "kigali: nothing was compared, because nobody is matched" in report.as_text()
    assert report.as_text().endswith("NOT equal")


def test_a_report_keeps_numbers_whole_and_keys_few() -> None:
    report = Report()
    for number in range(30):
        found = Differences()
        found.add("extra", (f"observations/h{number}/{key}" for key in range(50)))
        report.add(f"h{number}", Compared(rows=1), found)
    assert report.extra == 1_500
    assert len(report.keys["extra"]) == KEPT
    assert not report.equal


class Stop(threading.Event):
    """Keeps for how long it was asked to wait, which a busy machine does not make longer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked_s += timeout
        return super().wait(timeout)


def test_a_pace_keeps_to_the_budget_and_stops_at_once() -> None:
    stop = Stop()
    pace = WaitingPace(LoadBudget(rows_per_s=1_000, queries_per_s=1_000), stop)
    started = time.monotonic()
    for _ in range(4):
        pace.spend(50)
    assert time.monotonic() - started >= 0.15
    assert stop.asked_s < 0.5
    stopped = Stop()
    stopped.set()
    WaitingPace(LoadBudget(rows_per_s=1, queries_per_s=1), stopped).spend(1_000)
    assert stopped.asked_s == 0


def test_a_pace_says_how_long_to_wait_and_makes_up_for_a_pause_only_if_no_query_begins() -> None:
    now = 100.0
    pace = Pace(LoadBudget(rows_per_s=100, queries_per_s=10), clock=lambda: now)
    assert pace.wait_s() == 0
    pace.begin()
    now += 0.5  # the query's own time counts
    pace.count(200)
    assert pace.wait_s() == pytest.approx(1.5)
    pace.count(0, queries=11)
    assert pace.wait_s() == pytest.approx(2.6)
    now += 60
    pace.begin()
    pace.count(200)
    assert pace.wait_s() == pytest.approx(2)
    now += 60
    pace.count(50)
    assert pace.wait_s() == 0
    pace.count(150)
    assert pace.wait_s() == pytest.approx(0.5)
    assert pace.spent == 600


AT = Position("poll.7", 0)


def polled() -> Envelopes:
    address = Address("mariadb", "127.0.0.1", 3306, "root", "", "openmrs")
    hospital = settings_for(address, "127.0.0.1:9092", "t").hospitals["kigali"]
    return Envelopes("kigali", hospital, server="mariadb-1", epoch=3, polled=True)


def test_rows_of_a_run_are_events_like_all_others() -> None:
    rows = [
        {"obs_id": key, "value_text": "ü", "value_numeric": 36.6, "voided": 0} for key in (1, 2)
    ]
    events = [parse_event(value) for value in polled().read(rows, AT, 1)]
    assert [event.after for event in events] == rows
    for event in events:
        source = event.source
        assert (event.kind, event.op, source.origin, source.ts_ms) == ("row", "r", "poll", 1)
        assert (source.file, source.version) == ("", str(Version(3, 7, 0, 0)))


def test_many_keys_make_several_notices() -> None:
    keys = [{"visit_id": key} for key in range(KEYS_PER_EVENT + 1)]
    notices = [parse_event(value) for value in polled().key_changes("visit", "u", keys, AT, 1)]
    assert [len(notice.keys) for notice in notices] == [KEYS_PER_EVENT, 1]
    assert {notice.source.origin for notice in notices} == {"poll"}


@pytest.mark.parametrize(
    ("hours", "clock", "seconds"),
    [
        (None, "12:00", 0),
        ("22:00-05:00", "22:00", 0),
        ("22:00-05:00", "04:59", 0),
        ("22:00-05:00", "05:00", 17 * 3600),
        ("22:00-05:00", "21:59", 60),
        ("01:30-02:30", "00:00", 5400),
        ("01:30-02:30", "02:00", 0),
        ("00:00-00:00", "12:00", 0),
    ],
)
def test_quiet_hours(hours: str | None, clock: str, seconds: float) -> None:
    now = datetime.fromisoformat(f"2026-03-29T{clock}").replace(tzinfo=ZoneInfo("Europe/Paris"))
    assert closed_s(hours, now) == seconds
