"""How long a saved position is kept, and the alarm."""

import math
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from cdc.retention import Binlog, Headroom, Retention, kept_s, left_s, retention
from passport import health
from passport.version import Position

WHAT = "hospital kigali: binlog headroom"
MIB = 1024 * 1024
FILES = {"binlog.000007": 40 * MIB, "binlog.000008": 30 * MIB, "binlog.000009": 10 * MIB}


@pytest.mark.parametrize(
    ("variables", "rds", "expected"),
    [
        ({"binlog_expire_logs_seconds": "2592000"}, (), 2_592_000),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "0.000000"}, (), math.inf),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "2"}, (), 172_800),
        (
            {"binlog_expire_logs_seconds": "60", "binlog_expire_logs_auto_purge": "OFF"},
            (),
            math.inf,
        ),
        ({}, (), math.inf),
        ({"binlog_expire_logs_seconds": "2592000"}, (("24",),), 86_400),
        ({"binlog_expire_logs_seconds": "2592000"}, ((None,),), 0),  # RDS: as soon as it likes
    ],
)
def test_what_the_server_keeps(
    variables: dict[str, str], rds: tuple[tuple[str | None, ...], ...], expected: float
) -> None:
    assert retention(variables, rds) == Retention(expected)


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({}, math.inf),
        ({"max_binlog_total_size": "0"}, math.inf),
        # MariaDB shows its limit under both names, Percona Server has the second one.
        ({"max_binlog_total_size": "3000", "binlog_space_limit": "3000"}, 3000),
        ({"binlog_space_limit": "3000"}, 3000),
        ({"binlog_space_limit": "3000", "binlog_expire_logs_auto_purge": "OFF"}, 3000),
    ],
)
def test_a18_how_much_the_server_keeps(variables: dict[str, str], size: float) -> None:
    assert retention(variables).size == size


@pytest.mark.parametrize(
    ("file", "kept", "age_s", "left"),
    [
        ("binlog.000009", 3600, 10_000, 3600),  # is still written, however old the position is
        ("binlog.000008", 3600, 1000, 2600),
        ("binlog.000007", 3600, 5000, 0),
        ("binlog.000006", 3600, 1, 0),  # gone
        ("binlog.000007", math.inf, 1e9, math.inf),
        ("binlog.000006", math.inf, 1, 0),
        ("binlog.000008", 3600, -5, 3600),  # clocks differ
    ],
)
def test_what_is_left(file: str, kept: float, age_s: float, left: float) -> None:
    assert left_s(Retention(kept), Binlog(FILES), Position(file, 4), age_s) == left


@pytest.mark.parametrize(
    ("file", "limit_mib", "left_s_by_size", "kept_s_by_size"),
    [
        ("binlog.000009", 100, 90, 100),
        ("binlog.000008", 100, 60, 100),
        ("binlog.000007", 100, 20, 100),
        ("binlog.000007", 80, 0, 80),  # it goes with the next byte
        ("binlog.000007", 50, 0, 50),
        ("binlog.000006", 100, 0, 100),  # gone
        ("binlog.000007", 10_000, 3600, 3600),  # its age comes first
    ],
)
def test_a18_what_is_left_of_a_size(
    file: str, limit_mib: int, left_s_by_size: float, kept_s_by_size: float
) -> None:
    """The binlog grows by 1 MiB a second, and is kept for an hour as well."""
    kept = Retention(3600, limit_mib * MIB)
    binlog = Binlog(FILES, growth=MIB)
    assert left_s(kept, binlog, Position(file, 4), 0) == left_s_by_size
    assert kept_s(kept, binlog) == kept_s_by_size


@pytest.fixture
def headroom() -> Iterator[Headroom]:
    yield Headroom("kigali", 86_400)
    health.working(WHAT)


def test_the_alarm_comes_once_and_goes(headroom: Headroom) -> None:
    with capture_logs() as logs:
        headroom.report(200_000, 259_200)
        assert not logs
        for left in (80_000, 60_000, 0):
            headroom.report(left, 259_200)
        (alarm,) = logs
        assert (alarm["log_level"], alarm["hospital"]) == ("error", "kigali")
        assert "22.2 hours" in alarm["reason"]
        assert "passport check --hospital kigali" in health.failures()[WHAT]
        Headroom("kigali", 86_400).report(1_000, 259_200)  # the next connection's
        assert len(logs) == 1
        headroom.report(259_200, 259_200)
        assert WHAT not in health.failures()


def test_a_server_that_keeps_little_is_no_alarm_in_itself(headroom: Headroom) -> None:
    headroom.report(3_600, 3_600)
    assert WHAT not in health.failures()
    headroom.report(1_700, 3_600)
    assert WHAT in health.failures()
    headroom.report(math.inf, math.inf)
    assert WHAT not in health.failures()
    headroom.report(0, 0)
    assert WHAT in health.failures()
