"""Lets a command write what a consumer writes at the same time.

Both take a hospital from each other. A consumer that lost it waits, longer each time, before it
takes the hospital back. So a command that takes it again and again comes to its end.
"""

import random
import threading
from collections.abc import Callable

from passport.errors import Overtaken, Retry
from passport.sink import OneWriter, Sink

ATTEMPTS = 12
LONGEST_WAIT_S = 0.5


class Taking:
    """A command's turns as the writer. `take` makes it the writer once more."""

    def __init__(self, take: Callable[[], None], stop: threading.Event) -> None:
        self.take = take
        self._stop = stop
        self._lost = 0  # times, one after the other

    def take_again(self, error: Overtaken) -> None:
        """Take what was lost with `error`. What was read has to be read again.

        Raises Retry when it was lost too often.
        """
        self._lost += 1
        if self._lost == ATTEMPTS or self._stop.is_set():
            raise Retry(
                f"{error.reason}, {self._lost} times in a row",
                hint="type the command again, or stop passport consume as long as it runs",
            ) from error
        self._stop.wait(random.uniform(0, LONGEST_WAIT_S))
        self.take()

    def written(self) -> None:
        """Note that something was written: the next loss is the first one again."""
        self._lost = 0


def taking_hospital(sink: Sink, hospital_id: str, stop: threading.Event) -> Taking:
    """Return the turns at one hospital. A destination that lets anybody write is not taken."""

    def take() -> None:
        if isinstance(sink, OneWriter):
            sink.take(hospital_id)

    return Taking(take, stop)
