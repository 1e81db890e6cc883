"""The smallest faithful destination. It may die at any write.

The newest version of a row wins. A deleted row leaves a tombstone. A chunk deletes the rows of its
range that it doesn't list. A tombstone keeps the version at which its row was found to be gone.
"""

from passport.event import Event, parse_event
from passport.version import LOWEST
from tests.simulation.kafka import Broker
from tests.simulation.world import BrokenPromise, World

BATCH = 5


class Destination:
    """`rows` are the version and value of each row, by key; the value None is a tombstone.

    `committed` is the offset from which a start goes on. The newest epoch is stored with it.
    """

    def __init__(self, world: World, broker: Broker) -> None:
        self._world = world
        self._broker = broker
        self.rows: dict[int, tuple[str, str | None]] = {}
        self.committed = 0
        self._next = 0
        # The newest that was seen. A row of an older one comes late, from a reader that is cut off.
        self._epoch = ""
        self._committed_epoch = ""

    def work(self) -> None:
        """Write a batch, row by row, and commit its offset. It may die in between."""
        for value in self._broker.log[self._next : self._next + BATCH]:
            if self._world.rng.random() < 0.02 and not self._world.quiet:
                self._world.count("destination died")
                self._next = self.committed
                self._epoch = self._committed_epoch
                return
            self.apply(parse_event(value))
            self._next += 1
        if self._world.rng.random() < 0.7 or self._world.quiet:
            self.committed = self._next
            self._committed_epoch = self._epoch

    def drain(self) -> None:
        while self._next < len(self._broker.log):
            self.work()

    def go_back(self) -> None:
        """Go back to an older offset, as if the offsets were restored from a backup."""
        self.committed = self._world.rng.randint(0, self.committed)
        self._next = self.committed
        self._world.count("read again")

    def cut(self, length: int) -> None:
        """Begin at the topic's start, if the topic now ends before its offset, or was made anew."""
        if self._next > length or not length:
            self.committed = 0
            self._next = 0

    def apply(self, event: Event) -> None:
        version = event.source.version
        epoch = version[:10]
        is_late = epoch < self._epoch
        self._epoch = max(self._epoch, epoch)
        if event.kind == "row" and not is_late:
            value = None
            if event.op != "d" and event.after is not None:
                value = event.after["value_text"]
            self._write(event.row["obs_id"], version, value)
        elif event.kind == "chunk":
            self.retain(event)

    def retain(self, event: Event) -> None:
        present = set(event.keys)
        for key in sorted(self.table):
            is_after_first = event.first is None or key > event.first
            is_up_to_end = event.to is None or key <= event.to
            if is_after_first and is_up_to_end and key not in present:
                self._write(key, event.source.version, None)

    def _write(self, key: int, version: str, value: str | None) -> None:
        before = self.rows.get(key, (LOWEST, None))[0]
        if not self.newer(version, before):
            return
        if version < before:
            raise BrokenPromise(f"row {key}: its version fell")
        self.rows[key] = (version, value)

    def newer(self, version: str, before: str) -> bool:
        return version >= before

    @property
    def table(self) -> dict[int, str]:
        return {key: value for key, (_, value) in self.rows.items() if value is not None}
