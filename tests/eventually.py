"""Wait for a condition. This is the one loop with a time limit that the tests have.

A test that uses a mutant of the product may wait in vain. `tests.mutants` therefore shortens every
wait with the environment variable TEST_WITHIN_S.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

WITHIN_S = 90.0
POLL_S = 0.05
LIMIT_S = float(os.environ.get("TEST_WITHIN_S", "inf"))


def eventually(
    condition: Callable[[], Answer], what: str | Callable[[], str], within_s: float = WITHIN_S
) -> Answer:
    """Call `condition` until its answer is true, and return that answer.

    `what` says what is waited for, or is called to say it once the time is over. Raise an
    AssertionError with it after `within_s` seconds.
    """
    within_s = min(within_s, LIMIT_S)
    end = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > end:
            description = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {within_s:g} s: {description}")
        time.sleep(POLL_S)
    return answer


def seconds_until(
    condition: Callable[[], object], what: str | Callable[[], str], within_s: float = WITHIN_S
) -> float:
    """Return how many seconds `condition` took to become true."""
    began = time.monotonic()
    eventually(condition, what, within_s)
    return time.monotonic() - began
