"""Rows of the transaction that is being read: published as they come, one held back so that the
last is known.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from cdc.binlog.stream import IncompleteRow, KeyChange, RowChange
from cdc.envelopes import Envelopes
from cdc.publisher import Publisher
from passport import metrics, tracing
from passport.errors import Fatal
from passport.event import Op
from passport.tracing import Trace
from passport.version import Position

# behind a held row, to keep the order; past that the row goes without being called the last
HELD_NOTICES = 1_000


class Transaction:
    """`start`: where the one before ended, which names a transaction that has no GTID."""

    def __init__(
        self, hospital: str, publisher: Publisher, envelopes: Envelopes, start: Position
    ) -> None:
        self._hospital = hospital
        self._publisher = publisher
        self._envelopes = envelopes
        self._start = start
        self._held: RowChange | None = None
        self._notices: list[KeyChange] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self.partial: list[int] = []
        self.is_open = False

    def row(self, row: RowChange) -> None:
        self.is_open = True
        if self._held is not None:
            self._release(last=False)
        self._held = row

    def notice(self, notice: KeyChange) -> None:
        self.is_open = True
        if self._held is None:
            self._notify(notice)
            return
        self._notices.append(notice)
        if len(self._notices) >= HELD_NOTICES:
            self._release(last=False)

    def part(self, item: IncompleteRow) -> None:
        """A row that is to be read again when the transaction has ended."""
        self.is_open = True
        self.partial += [key["obs_id"] for key in item.keys if key.get("obs_id") is not None]  # type: ignore[misc]

    def commit(self, at: Position) -> None:
        self._release(last=True)
        self._start, self.is_open, self.partial = at, False, []

    def roll_back(self) -> None:
        """What is held never happened."""
        self._held, self._notices, self.partial, self.is_open = None, [], [], False

    def count(self) -> None:
        """Tell the metrics what was published since the last time: now and then, since they take a
        lock each.
        """
        for (table, op), number in self._counts.items():
            metrics.EVENTS.labels(self._hospital, table, op).inc(number)
        self._counts.clear()

    def _release(self, *, last: bool) -> None:
        row = self._held
        if row is None:
            return
        self._held = None
        transaction = row.gtid or f"{self._start.file}:{self._start.pos}"
        try:
            self._publisher.send(
                "row", self._envelopes.row(row, transaction=transaction, last=last)
            )
        except Fatal as error:
            raise Fatal(
                f"{error.reason}: obs at {row.at.file}:{row.at.pos}", hint=error.hint
            ) from None
        self._counts["obs", row.op] += 1
        if self._notices:
            for notice in self._notices:
                self._notify(notice)
            self._notices = []

    def _notify(self, notice: KeyChange) -> None:
        op: Op = notice.op  # type: ignore[assignment]
        value = self._envelopes.notice(
            notice.table,
            op,
            notice.keys,
            at=notice.at,
            ordinal=notice.ordinal,
            gtid=notice.gtid,
            ts_ms=notice.ts * 1000,
        )
        self._publisher.send("notice", value)
        self._counts[notice.table, notice.op] += 1


class Traced(Transaction):
    """One in `tracing.every` is traced: its records carry where its span is, which ends when Kafka
    has the last.

    `begin`: makes the trace of a transaction of this time in ms.
    """

    def __init__(self, *given: Any, begin: Callable[[int], Trace]) -> None:
        super().__init__(*given)
        self._begin_trace = begin
        self._until_next, self._before = (
            1,
            0,
        )  # transactions; records sent before the one that is traced
        self._trace: Trace | None = None

    def row(self, row: RowChange) -> None:
        if not self.is_open:
            self._begin(row.ts)
        super().row(row)

    def notice(self, notice: KeyChange) -> None:
        if not self.is_open:
            self._begin(notice.ts)
        super().notice(notice)

    def commit(self, at: Position) -> None:
        super().commit(at)
        if self._trace is not None:
            self._publisher.mark(None)
            if count := self._publisher.sent - self._before:
                self._publisher.when_acked(partial(self._trace.end, count))
            self._trace = None

    def _begin(self, ts: int) -> None:
        self._until_next -= 1
        if self._until_next == 0:
            self._until_next, self._before = tracing.every, self._publisher.sent
            self._trace = self._begin_trace(ts * 1000)
            self._publisher.mark(self._trace.header)
