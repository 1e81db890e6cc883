"""Time, chance and processes: one thing runs at a time, and which one is drawn from the seed."""

import threading
from collections.abc import Callable
from random import Random
from typing import Any

MOST_CALLS = 60_000


class Crashed(BaseException):
    """The process that gets this is gone.

    No handler may catch it by mistake, as none runs after kill -9.
    """


class BrokenPromise(AssertionError):  # noqa: N818
    """A promise was broken."""


class Process:
    """Something that runs by itself until it gives way. `skew_s` is how wrong its clock is."""

    def __init__(self, world: "World", work: Callable[[], None], skew_s: float = 0) -> None:
        self.world = world
        self.skew_s = skew_s
        self.dead = False
        self.ended = False
        self.stopping = False
        self.asleep_until = 0.0
        self.raised: BaseException | None = None
        self.at_death: list[Callable[[], None]] = []  # what the world does with what it held
        self._work = work
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Run it until it gives way or ends."""
        self._go.release()
        self._back.acquire()

    def give_way(self) -> None:
        self._back.release()
        self._go.acquire()

    def die(self) -> None:
        """Die as by kill -9: its connections end, and none of its code runs any more."""
        self.dead = True
        for end in self.at_death:
            end()
        self.at_death.clear()

    def is_set(self) -> bool:
        """Return whether it was asked to stop. It stands in for the reader's stop event."""
        return self.stopping

    def wait(self, timeout: float) -> bool:
        self.world.sleep(timeout)
        return self.stopping

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except Crashed:
            self.dead = True
        except BaseException as error:  # noqa: BLE001  # raised again by the world
            self.raised = error
        self.ended = True
        self._back.release()


class World:
    """The clock, the chance and the process that runs now.

    `between` is what may happen between two calls, each with its probability. Once the world is
    `quiet`, nothing of it happens any more.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 1_700_000_000.0
        self.calls = 0
        self.quiet = False
        self.happened: dict[str, int] = {}
        self.process: Process | None = None
        self.between: list[tuple[Callable[[], None], float]] = []
        self.settle: Callable[[], None] = lambda: None
        self.enough: Callable[[], bool] = lambda: False
        self.crash_p = 0.0
        self.switch_p = 0.0

    def call(self, name: str) -> None:
        """Note that the process talks to the outside. Here anything may happen in between."""
        self.calls += 1
        self.now += 0.002
        if self.calls > MOST_CALLS:
            raise BrokenPromise(f"no end: still calling {name}")
        process = self.process
        if process is not None and process.dead:
            raise Crashed
        if self.quiet:
            self.settle()
            return
        draw = self.rng.random
        for happen, probability in self.between:
            if draw() < probability:
                happen()
        if process is None:
            return
        if draw() < self.crash_p and not process.dead:
            self.count(f"crash at {name}")
            process.die()
        if process.dead:
            raise Crashed
        if self.enough() or draw() < self.switch_p:
            process.give_way()
            if process.dead:
                raise Crashed

    def sleep(self, seconds: float) -> None:
        self.call("sleep")
        self.now += seconds

    def run(self, process: Process) -> None:
        """Give a process one turn."""
        before = self.process
        self.process = process
        process.resume()
        self.process = before
        if process.raised is not None:
            raise process.raised

    def count(self, name: str) -> None:
        self.happened[name] = self.happened.get(name, 0) + 1

    # --- as the module `time`

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        if self.process is None:
            return self.now
        return self.now + self.process.skew_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    # --- as the module `random`

    def uniform(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)


class Silent:
    """A log that nobody reads."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: None
