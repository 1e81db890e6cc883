"""Which position may be saved: the end of a transaction with everything before it acknowledged.
Pure.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from cdc.positions import Columns
from passport.version import Position


class Mark(NamedTuple):
    """End of a transaction: where, and with which columns the stream goes on."""

    at: Position
    gtid_set: str
    format_ts: int
    columns: Columns


@dataclass(slots=True)
class Checkpoint:
    """`acknowledged`: the last mark whose records, and all before them, are acknowledged."""

    acknowledged: Mark
    _open: deque[tuple[int, Mark]]

    @classmethod
    def at(cls, mark: Mark) -> "Checkpoint":
        return cls(mark, deque())

    def commit(self, sent: int, mark: Mark) -> None:
        """A transaction ended at `mark` when `sent` records had been sent in all."""
        if self._open and self._open[-1][0] == sent:
            self._open.pop()
        self._open.append((sent, mark))

    def acked(self, number: int) -> Mark:
        """The records up to `number` are acknowledged: how far that is."""
        while self._open and self._open[0][0] <= number:
            self.acknowledged = self._open.popleft()[1]
        return self.acknowledged

    @property
    def settled(self) -> bool:
        """Whether nothing waits."""
        return not self._open
