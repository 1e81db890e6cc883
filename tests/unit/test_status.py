"""What `status` and the operators' page call a problem, and what they say to type."""

from typing import Any

import pytest

from cli.hospital_status import problems

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
        ({"conflicts": 1}, "passport conflicts list --hospital kigali"),
        ({"verified": {"equal": False}}, "passport reconcile --hospital kigali --once"),
    ],
)
def test_each_problem_comes_with_the_command_that_repairs_it(
    change: dict[str, Any], command: str
) -> None:
    assert [one["command"] for one in problems(WELL | change)] == [command]
