"""What `status` and the operators' page call a problem, and what they say to type."""

import math
from dataclasses import replace
from typing import Any

import pytest

from cdc.positions import Saved, Snapshot
from cdc.signals import Signals
from cli.hospital_status import HospitalFacts, problems, state, status_row
from passport.check import Check
from passport.kafka import OffsetRange
from passport.sink import Progress
from passport.version import Position

WELL: dict[str, Any] = {
    "hospital": "kigali",
    "state": "streaming",
    "behind": False,
    "last_event_s": 3.0,
    "lag_records": 20,
    "headroom_s": "never purged",
    "dead_letters": {},
    "conflicts": 0,
    "unmatched_by": {"ok": 7, "none": 2, "invalid": 11},
    "verified": {"equal": True},
}


def test_who_is_well_has_no_problem() -> None:
    assert not list(problems(WELL))
    assert not list(
        problems(WELL | {"behind": True, "verified": None, "last_event_s": None, "headroom_s": 1e6})
    )


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({"state": "never started"}, "passport cdc run --hospital kigali"),
        ({"behind": None}, "passport check --hospital kigali"),
        ({"last_event_s": 301}, "passport check --hospital kigali"),
        (
            {"state": "polled instead of streaming", "behind": None},
            "passport check --hospital kigali",
        ),
        ({"lag_records": 10_001}, "passport consume"),
        ({"dead_letters": {"too_large": 1}}, "passport dead-letters list --hospital kigali"),
        ({"headroom_s": 3_600.0}, "passport check --hospital kigali"),
        (
            {"state": "paused", "paused_by": "me@here"},
            "passport signal --hospital kigali resume",
        ),
        (
            {"snapshot": "stopped", "snapshot_key": 7},
            "passport signal --hospital kigali snapshot",
        ),
        ({"rows_per_s": 5}, "passport signal --hospital kigali budget=default"),
        ({"conflicts": 1}, "passport conflicts list --hospital kigali"),
        (
            {"unmatched_by": {"contradicting": 1}},
            "passport unmatched contradictions --hospital kigali",
        ),
        ({"verified": {"equal": False}}, "passport reconcile --hospital kigali --once"),
    ],
)
def test_each_problem_comes_with_the_command_that_repairs_it(
    change: dict[str, Any], command: str
) -> None:
    assert [one["command"] for one in problems(WELL | change)] == [command]


SAVED = Saved("kigali", 0, "server", 0, 7, Position("binlog.000012", 345))


def test_a_row_says_what_was_read() -> None:
    facts = HospitalFacts(
        "kigali",
        "binlog",
        SAVED,
        OffsetRange(100, 250),
        Progress("kigali", 240, "", at_ms=50_000),
        {"stored": 9, "matched": 2, "unmatched": 1},
        behind=False,
        headroom_s=math.inf,
        signals=Signals(),
    )
    row = status_row(facts, now_s=60)
    assert row["position"] == "binlog.000012:345"
    assert (row["state"], row["epoch"], row["headroom_s"]) == ("streaming", 7, "never purged")
    assert (row["captured"], row["applied_offset"], row["lag_records"]) == (150, 240, 10)
    assert (row["last_event_s"], row["stored"], row["problems"]) == (10.0, 9, [])


def test_a_hospital_without_a_reader_has_nothing_but_its_problem() -> None:
    facts = HospitalFacts(
        "kigali", "binlog", None, OffsetRange(0, 0), None, {}, None, None, Signals()
    )
    row = status_row(facts, now_s=60)
    assert (row["state"], row["position"], row["lag_records"]) == ("never started", None, 0)
    assert [problem["what"] for problem in row["problems"]] == ["its reader has never run"]


@pytest.mark.parametrize(
    ("capture", "saved", "expected"),
    [
        ("binlog", None, "never started"),
        ("polling", SAVED, "polling"),
        ("binlog", replace(SAVED, capture="polling"), "polled instead of streaming"),
        ("binlog", replace(SAVED, snapshot=Snapshot(state="running")), "snapshot"),
        ("binlog", replace(SAVED, snapshot=Snapshot(state="done")), "streaming"),
    ],
)
def test_states(capture: str, saved: Saved | None, expected: str) -> None:
    assert state(capture, saved) == expected


def test_check_json_has_the_former_name_of_hint_for_one_release() -> None:
    check = Check("kafka", False, "away", "start it").as_json()
    assert check == {
        "name": "kafka",
        "ok": False,
        "detail": "away",
        "hint": "start it",
        "remedy": "start it",
    }
