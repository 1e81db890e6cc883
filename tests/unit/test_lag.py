"""The lag of a stream: the age of the oldest commit that Kafka has not acknowledged."""

from collections.abc import Callable

import pytest

from cdc import lag
from cdc.lag import Lag

NOW_S = 1_700_000_000.0


class Clock:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lag, "time", clock)
    return clock


def at(seconds: float) -> int:
    """Return the time so many seconds after the start, in Unix milliseconds."""
    return int((NOW_S + seconds) * 1000)


@pytest.fixture
def stream(clock: Clock) -> Lag:
    """A stream that has read all, of which Kafka has acknowledged two records."""
    stream = Lag("kigali")
    stream.begin()
    assert stream.seconds() == 0, "nothing is known yet"
    stream.commit(2, at(-5))
    stream.look(2, 2, open_ms=0, read_all_ms=at(0))
    assert stream.seconds() == 0
    return stream


def test_a14_it_is_the_age_of_the_oldest_commit_that_waits(stream: Lag, clock: Clock) -> None:
    clock.now_s += 600  # quiet
    assert stream.seconds() == 0
    stream.commit(3, at(600))
    stream.commit(4, at(601))
    stream.look(4, 2, open_ms=0, read_all_ms=at(600))
    clock.now_s += 10
    assert stream.seconds() == 10
    stream.look(4, 3, open_ms=0, read_all_ms=at(610))
    assert stream.seconds() == 9
    stream.look(4, 4, open_ms=0, read_all_ms=at(610))
    assert stream.seconds() == 0


def test_a_transaction_that_is_being_read_counts(stream: Lag, clock: Clock) -> None:
    clock.now_s += 20
    stream.look(9, 9, open_ms=at(5), read_all_ms=0)
    assert stream.seconds() == 15


def test_what_is_not_read_yet_is_younger_than_what_is_acknowledged(
    stream: Lag, clock: Clock
) -> None:
    clock.now_s += 100
    stream.commit(3, at(40))
    stream.look(3, 3, open_ms=0, read_all_ms=0)
    assert stream.seconds() == 60


def test_between_two_sessions_it_grows(stream: Lag, clock: Clock) -> None:
    stream.end()
    clock.now_s += 30
    assert stream.seconds() == 30
    stream.begin()
    assert stream.seconds() == 30


def test_what_waited_when_a_session_ended_still_waits(stream: Lag, clock: Clock) -> None:
    stream.commit(3, at(1))
    stream.look(3, 2, open_ms=0, read_all_ms=0)
    stream.end()
    stream.begin()
    clock.now_s += 60
    stream.look(0, 0, open_ms=0, read_all_ms=0)
    assert stream.seconds() >= 59


@pytest.mark.parametrize(
    ("acked", "silent_s"),
    [(lambda second: 2, 29), (lambda second: 2 + second // 10, 9), (lambda second: 40, 0)],
)
def test_a14_kafka_is_silent_while_something_waits(
    stream: Lag, clock: Clock, acked: Callable[[int], int], silent_s: float
) -> None:
    clock.now_s += 1_000  # quiet, and no look in between
    for second in range(30):
        stream.look(40, acked(second), open_ms=0, read_all_ms=0)
        clock.now_s += 1
    clock.now_s -= 1
    assert stream.silent_s() == silent_s


def test_a_clock_that_is_ahead_makes_no_lag_below_zero(stream: Lag) -> None:
    stream.commit(3, at(100))
    stream.look(3, 2, open_ms=0, read_all_ms=0)
    assert stream.seconds() == 0
