"""The transaction that is being read: its rows are published as they come.

One row is held back until the next one, so that the last row of a transaction can say that it is
the last. A destination then knows when it has seen a transaction whole. Nothing else is kept in
memory, however large a transaction is.
"""

from collections import Counter

from cdc.binlog.stream import IncompleteRow, KeyChange, RowChange
from cdc.envelopes import Envelopes
from cdc.positions import RowPlace
from cdc.publisher import Publisher
from cdc.signals import name_transaction
from openmrs.tables import OBS
from passport import metrics
from passport.errors import RecordTooLarge
from passport.event import Op
from passport.tracing import Attributes, Trace
from passport.version import Position

# Key changes wait behind the row that is held back, to keep the order. When there are so many, the
# row goes out, and none of its transaction may say that it is the last.
HELD_KEY_CHANGES = 1_000


class TransactionTraces:
    """Traces one transaction in `one_in`, from its commit until Kafka has its last record.

    The records of that transaction carry a header that names the span.
    """

    def __init__(
        self, publisher: Publisher, topic: str, attributes: Attributes, *, one_in: int
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._attributes = attributes
        self._one_in = one_in
        self._until_next = 1  # transactions
        self._sent_before = 0
        self._trace: Trace | None = None

    def begin(self, ts: int) -> None:
        """A transaction began; `ts` is its time in Unix seconds."""
        self._until_next -= 1
        if self._until_next > 0:
            return
        self._until_next = self._one_in
        self._sent_before = self._publisher.sent
        self._trace = Trace(self._topic, ts * 1000, self._attributes)
        self._publisher.set_trace_header(self._trace.header)

    def commit(self) -> None:
        """The transaction's last record was sent."""
        trace = self._trace
        if trace is None:
            return
        self._trace = None
        self._publisher.set_trace_header(None)
        count = self._publisher.sent - self._sent_before
        if count:
            self._publisher.when_acked(lambda offset: trace.end(count, offset))


class Transaction:
    """The transaction that is being read, and after its commit the next one.

    `start` is where the one before ended. It names a transaction that has no GTID. `is_open` says
    whether anything of a transaction has come that was not committed yet; `began_ts` is the time of
    its first row, in Unix seconds.
    """

    def __init__(
        self,
        hospital_id: str,
        publisher: Publisher,
        envelopes: Envelopes,
        start: Position,
        traces: TransactionTraces | None = None,
    ) -> None:
        self.is_open = False
        self.began_ts = 0
        self._hospital_id = hospital_id
        self._publisher = publisher
        self._envelopes = envelopes
        self._start = start
        self._traces = traces
        self._held_row: RowChange | None = None
        self._last_key_change: KeyChange | None = None
        self._held_key_changes: list[KeyChange] = []
        self._incomplete_keys: list[int] = []
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def next_row(self) -> RowPlace | None:
        """The first row of the open transaction that was not sent; None if none was sent yet."""
        if self._held_row is not None:
            return RowPlace(self._held_row.at, self._held_row.ordinal)
        if self._last_key_change is not None:
            return RowPlace(self._last_key_change.at, self._last_key_change.ordinal + 1)
        return None

    def row(self, row: RowChange) -> None:
        """Hold the row back, and publish the one that was held back so far."""
        if not self.is_open:
            self._begin(row.ts)
        if self._held_row is not None:
            self._publish_held(last=False)
        self._held_row = row

    def key_change(self, change: KeyChange) -> None:
        """Publish the key change, behind the row that is held back."""
        if not self.is_open:
            self._begin(change.ts)
        if self._held_row is None:
            self._publish_key_change(change)
            return
        self._held_key_changes.append(change)
        if len(self._held_key_changes) >= HELD_KEY_CHANGES:
            self._publish_held(last=False)

    def published_row(self, row: RowChange | KeyChange) -> None:
        """Pass over a row that an earlier session has published."""
        if not self.is_open:
            self._begin(row.ts)

    def incomplete_row(self, row: IncompleteRow) -> None:
        """Remember a row whose image is not whole. `commit` returns its key."""
        if not self.is_open:
            self._begin(row.ts)
        for key in row.keys:
            obs_id = key.get(OBS.key)
            if obs_id is not None:
                self._incomplete_keys.append(obs_id)

    def commit(self, at: Position) -> list[int]:
        """End the transaction. Return the obs_ids of its rows that must be read again."""
        self._publish_held(last=True)
        if self._traces is not None:
            self._traces.commit()
        incomplete_keys = self._incomplete_keys
        self._incomplete_keys = []
        self._start = at
        self._last_key_change = None
        self.is_open = False
        return incomplete_keys

    def move_to(self, at: Position) -> None:
        """Note that the next transaction begins behind `at`; none is open."""
        self._start = at

    def roll_back(self) -> None:
        """Forget what is held back: it never happened."""
        self._held_row = None
        self._held_key_changes = []
        self._last_key_change = None
        self._incomplete_keys = []
        self.is_open = False

    def count(self) -> None:
        """Add what was published since the last call to the metrics.

        Call it once a batch, not once a row: a metric takes a lock.
        """
        for (table, op), number in self._counts.items():
            metrics.EVENTS.labels(self._hospital_id, table, op).inc(number)
        self._counts.clear()

    def _begin(self, ts: int) -> None:
        self.is_open = True
        self.began_ts = ts
        if self._traces is not None:
            self._traces.begin(ts)

    def _publish_held(self, *, last: bool) -> None:
        row = self._held_row
        if row is None:
            return
        transaction = row.gtid or f"{self._start.file}:{self._start.pos}"
        try:
            value = self._envelopes.row(row, transaction=transaction, last=last)
            self._publisher.send("row", value)
        except RecordTooLarge as error:
            # Whatever becomes of the row, this state of it is in the binlog.
            placed = RecordTooLarge(
                f"{error.reason} at {row.at.file}:{row.at.pos}",
                hint=f"{error.hint}, then: passport cdc run --hospital {self._hospital_id}"
                " --new-epoch",
                origin=error.origin,
            )
            raise name_transaction(placed, self._hospital_id, row.gtid) from None
        self._held_row = None
        self._counts[OBS.name, row.op] += 1
        if self._held_key_changes:
            for change in self._held_key_changes:
                self._publish_key_change(change)
            self._held_key_changes = []

    def _publish_key_change(self, change: KeyChange) -> None:
        op: Op = change.op  # type: ignore[assignment]
        value = self._envelopes.key_change(
            change.table,
            op,
            change.keys,
            at=change.at,
            ordinal=change.ordinal,
            gtid=change.gtid,
            ts_ms=change.ts * 1000,
        )
        self._publisher.send("notice", value)
        self._last_key_change = change
        self._counts[change.table, change.op] += 1
