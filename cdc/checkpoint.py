"""The position that may be saved: a transaction's end, once everything before is acknowledged.

This module is pure.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from cdc.positions import Columns, RowPlace
from passport.version import Position


class Mark(NamedTuple):
    """The end of a transaction: where the stream can go on, and with which columns.

    `next_row` is set within the transaction that follows: each of its rows before that one was
    sent.
    """

    at: Position
    gtid_set: str
    format_ts: int
    columns: Columns
    next_row: RowPlace | None = None


@dataclass(slots=True)
class Checkpoint:
    """The marks that wait for Kafka.

    `acknowledged` is the last mark whose records, and all before them, are acknowledged.
    """

    acknowledged: Mark
    _open: deque[tuple[int, Mark]]

    @classmethod
    def at(cls, mark: Mark) -> "Checkpoint":
        return cls(mark, deque())

    def commit(self, sent: int, mark: Mark) -> None:
        """Note that a transaction ended at `mark`, when `sent` records had been sent in all."""
        # Transactions without a record need no mark each: the last of them stands for all.
        if self._open and self._open[-1][0] == sent:
            self._open.pop()
        self._open.append((sent, mark))

    def acked(self, number: int) -> Mark:
        """Return how far it is safe to go on, when the records up to `number` are acknowledged."""
        while self._open and self._open[0][0] <= number:
            self.acknowledged = self._open.popleft()[1]
        return self.acknowledged

    @property
    def settled(self) -> bool:
        """Return whether no mark waits."""
        return not self._open
