"""The whole obs table beside the stream: key-range chunks between transactions, resumable after
each.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import structlog

from cdc.envelopes import Envelopes
from cdc.positions import Snapshot
from cdc.publisher import Publisher
from openmrs.read import ANY_POSITION, Source, SourcePosition
from passport import metrics
from passport.errors import Gap
from passport.event import Row
from passport.settings import LoadBudget
from passport.version import Position

READ_QUERIES = 11  # that one chunk costs a MySQL; a MariaDB has 7
# while changes flow, a chunk that took t seconds is followed by this many times t without one
LIVE_SHARE = 2.0

log = structlog.get_logger()


class Chunk(NamedTuple):
    """The rows with `first` < obs_id <= `to` (None: open-ended) as they were at `at`."""

    first: int | None
    to: int | None
    rows: list[Row]
    at: Position
    ts_ms: int

    @property
    def keys(self) -> list[int]:
        return [row["obs_id"] for row in self.rows]


def read_chunk(source: Source, after: int | None, rows: int, at_least: SourcePosition) -> Chunk:
    """The next `rows` rows after key `after`. Retry, Gap (another server, or its binlog began
    anew), Fatal.
    """
    where, args = ("obs_id > %s", [after]) if after is not None else ("1 = 1", [])
    found, at, ts_ms = read_obs(
        source, f"{where} ORDER BY obs_id LIMIT %s", [*args, rows], at_least
    )
    return Chunk(after, found[-1]["obs_id"] if len(found) == rows else None, found, at, ts_ms)


def read_obs(
    source: Source, where: str, args: list[int], at_least: SourcePosition
) -> tuple[list[Row], Position, int]:
    """The rows, the position that they were read at, and the server's clock then, in ms."""
    with source.read_at(at_least) as reading:
        (clock,) = reading.rows("SELECT ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000) AS ts_ms")
        found, at = reading.obs(where, args), reading.position
    if at is None:
        raise Gap(
            f"hospital {source.hospital}: another server answers, or its binlog began anew",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
        )
    return found, at, int(clock["ts_ms"])


class SnapshotJob:
    """One running snapshot. `step` does one piece of work at a time; `cursor` is what may be saved."""

    def __init__(
        self,
        source: Source,
        publisher: Publisher,
        envelopes: Envelopes,
        budget: LoadBudget,
        cursor: Snapshot,
        *,
        to: int | None = None,
    ) -> None:
        self._source = source
        self._publisher = publisher
        self._envelopes = envelopes
        self._budget = budget
        self.cursor = cursor
        self._chunk: Chunk | None = None  # its rows are sent
        self._ended = False  # and its chunk event too
        self._last_record = 0
        self._not_before = 0.0
        self._took_s = 0.0
        self._read_s = 0.0
        self._ends: tuple[int, int] | None = None
        self._to = to
        self.rows = 0

    @property
    def done(self) -> bool:
        return self.cursor.state == "done"

    @property
    def share(self) -> float:
        """How much of the keys from the first to the last (or `to`) is done, 0 to 1; gaps make it
        uneven.
        """
        if self.done:
            return 1.0
        if self._ends is None or self.cursor.next_key is None:
            return 0.0
        first, last = self._ends
        return min(1.0, max(0.0, (self.cursor.next_key - first) / max(1, last - first)))

    def wait_s(self, *, live: bool) -> float:
        """Seconds until `step` has something to do; `live`: changes flow, and come first."""
        if self.done or self._chunk is not None:
            return 0.002
        rest = self._read_s + LIVE_SHARE * self._took_s if live else 0.0
        return max(0.0, max(self._not_before, rest) - time.monotonic())

    def step(self, at_least: SourcePosition, *, live: bool) -> None:
        """Read a chunk that contains `at_least` and send its rows, or go on with the one that was
        sent.
        """
        if self._chunk is not None:
            self.settle()
        elif not self.done and self.wait_s(live=live) == 0:
            self._send(at_least)

    def _send(self, at_least: SourcePosition) -> None:
        began = time.monotonic()
        if self._ends is None:
            self._ends = self._measured()
        chunk = read_chunk(self._source, self.cursor.next_key, self._budget.chunk_rows, at_least)
        for value in self._envelopes.read(chunk.rows, chunk.at, chunk.ts_ms):
            self._publisher.send("row", value)
        self._chunk, self._ended, self._last_record = chunk, False, self._publisher.sent
        self.rows += len(chunk.rows)
        metrics.SNAPSHOT_ROWS.labels(self._source.hospital).inc(len(chunk.rows))
        self._read_s = time.monotonic()
        self._took_s = self._read_s - began
        cost_s = max(
            len(chunk.rows) / self._budget.rows_per_s, READ_QUERIES / self._budget.queries_per_s
        )
        self._not_before = max(began, self._not_before) + cost_s

    def _measured(self) -> tuple[int, int]:
        """First and last key, of both ends of the primary key's index."""
        with self._source.read_at(ANY_POSITION) as reading:
            (ends,) = reading.rows("SELECT MIN(obs_id) AS first, MAX(obs_id) AS last FROM obs")
        first = (
            ends["first"]
            if self.cursor.next_key is None or self._to is None
            else self.cursor.next_key
        )
        return int(first or 0), int((ends["last"] if self._to is None else self._to) or 0)

    def settle(self) -> None:
        """Go on with the chunk that was sent, if Kafka has it by now."""
        chunk = self._chunk
        if chunk is None or self._publisher.acked() < self._last_record:
            return
        if not self._ended:
            value = self._envelopes.chunk(chunk.first, chunk.to, chunk.keys, chunk.at, chunk.ts_ms)
            self._last_record = self._publisher.send("chunk", value)
            self._ended = True
            return
        self._chunk = None
        self.cursor = replace(
            self.cursor, state="done" if chunk.to is None else "running", next_key=chunk.to
        )
        metrics.SNAPSHOT_DONE.labels(self._source.hospital).set(self.share)
        if self.done:
            log.info(
                "snapshot done",
                hospital=self._source.hospital,
                rows=self.rows,
                number=self.cursor.number,
            )
