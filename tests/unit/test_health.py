"""What /readyz says of the parts that don't get on."""

from collections.abc import Iterator

import pytest

from passport import health

PART = "hospital nowhere: reader"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    health.working(PART)


def test_a21_the_newest_cause_is_told_with_what_to_do() -> None:
    health.failing(PART, "MySQL doesn't answer", "passport check")
    assert health.failures()[PART] == "MySQL doesn't answer, for 0 s -> passport check"
    health.failing(PART, "MySQL refuses user 'cdc'")
    assert health.failures()[PART] == "MySQL refuses user 'cdc', for 0 s"
    health.working(PART)
    assert PART not in health.failures()


def test_the_time_is_that_of_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(health.time, "monotonic", lambda: now_s)
    health.failing(PART, "MySQL doesn't answer")
    now_s += 12
    health.failing(PART, "another reader holds the lease")
    assert health.failures()[PART] == "another reader holds the lease, for 12 s"
