"""What is kept, for how long, and what a notice takes away."""

import pytest

from consumers.cache import Cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_cache(clock: Clock, entries: int = 3) -> Cache[str]:
    return Cache("concept", entries, 10, clock)


def test_misses_are_asked_for_again(clock: Clock) -> None:
    cache = a_cache(clock)
    assert cache.take([2, 1]) == ({}, [1, 2])
    cache.put({1: "one"}, (1, 4))
    assert cache.take([2, 1]) == ({1: "one"}, [2])


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    cache = a_cache(clock)
    cache.put({1: "one", 2: "two", 3: "three"}, None)
    cache.take([1])
    cache.put({4: "four"}, None)
    assert cache.take([1, 2, 3, 4]) == ({1: "one", 3: "three", 4: "four"}, [2])


def test_entries_expire(clock: Clock) -> None:
    cache = a_cache(clock)
    cache.put({1: "one"}, None)
    clock.now = 10.0
    assert cache.take([1]) == ({1: "one"}, [])
    clock.now = 10.1
    assert cache.take([1]) == ({}, [1])


@pytest.mark.parametrize(
    ("read_at", "before", "kept"),
    [
        ((2, 100), (2, 101), False),
        ((2, 100), (2, 100), True),
        ((2, 100), (1, 900), True),
        ((2, 100), None, False),
        (None, (1, 4), False),
        (None, None, False),
    ],
)
def test_a_notice_evicts_what_was_read_before_it(
    clock: Clock, read_at: tuple[int, int] | None, before: tuple[int, int] | None, *, kept: bool
) -> None:
    cache = a_cache(clock)
    cache.put({1: "one"}, read_at)
    cache.evict(1, before)
    assert (1 in cache.take([1])[0]) is kept


def test_evict_by_value_and_clear(clock: Clock) -> None:
    cache = a_cache(clock)
    cache.put({1: "one", 2: "two"}, None)
    cache.evict_if(lambda value: value == "one")
    assert cache.take([1, 2]) == ({2: "two"}, [1])
    cache.clear()
    assert len(cache) == 0
