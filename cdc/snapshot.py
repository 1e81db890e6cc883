"""Reads the whole obs table beside the stream, in ranges of keys, between two transactions.

Each piece of the table is read at a position that contains what the stream has published so far. It
is published as its rows and then a chunk event, which says which keys its range holds. A snapshot
that breaks off goes on after its last acknowledged chunk.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import structlog

from cdc.envelopes import Envelopes
from cdc.positions import Snapshot
from cdc.publisher import Publisher
from openmrs.key_ranges import RowsOfRange, key_ends, next_rows
from openmrs.load_budget import Pace, PageSize
from openmrs.read import ANY_POSITION, ConsistentRead, Source, SourcePosition
from openmrs.tables import OBS
from passport import metrics
from passport.errors import Gap, Origin, TooSlow
from passport.version import Position

# The queries that reading one chunk costs a MySQL: a consistent read needs most of them. A MariaDB
# has 6.
QUERIES_OF_A_CHUNK = 10
# While changes flow, a chunk that took t seconds is followed by this many times t without one.
LIVE_SHARE = 2.0
# The pause until Kafka is asked once more whether it has acknowledged.
ACKNOWLEDGED_S = 0.002

log = structlog.get_logger()


class ReadInStream(NamedTuple):
    """A consistent read that has a place in the stream, so that what it gives can be published."""

    read: ConsistentRead
    at: Position
    ts_ms: int
    """The hospital's clock then, in Unix ms."""


class Chunk(NamedTuple):
    """A range of the table, as it was at position `at`."""

    range: RowsOfRange
    at: Position
    ts_ms: int

    @property
    def keys(self) -> list[int]:
        return [row[OBS.key] for row in self.range.rows]


@contextmanager
def read_in_stream(
    source: Source, at_least: SourcePosition, *, longest_s: float | None = None
) -> Iterator[ReadInStream]:
    """Open a consistent read that contains `at_least`, as `Source.read_at` does.

    Raises Gap when there is no such read, because another server answers or its binlog began anew;
    Retry, TooSlow and Fatal as every read does.
    """
    with source.read_at(at_least, longest_s=longest_s) as read:
        if read.position is None:
            raise Gap(
                f"hospital {source.hospital}: another server answers, or its binlog began anew",
                hint="nothing to do: a new epoch and a snapshot follow by themselves",
                origin=Origin.hospital(source.hospital),
            )
        yield ReadInStream(read, read.position, read.clock_ms())


class SnapshotJob:
    """One running snapshot, of which `step` does one piece at a time.

    `cursor` says how far it is; it may be saved at any time. The snapshot ends behind the key `to`,
    or with the table if that is None.
    """

    def __init__(
        self,
        source: Source,
        publisher: Publisher,
        envelopes: Envelopes,
        pace: Pace,
        cursor: Snapshot,
        *,
        chunk_rows: int,
        to: int | None = None,
    ) -> None:
        self._source = source
        self._publisher = publisher
        self._envelopes = envelopes
        self._pace = pace
        self._size = PageSize(chunk_rows)
        self.cursor = cursor
        self._to = to
        self._ends: tuple[int, int] | None = None
        self.rows = 0

        # The chunk whose rows are sent, until its chunk event is acknowledged.
        self._chunk: Chunk | None = None
        self._is_chunk_event_sent = False
        self._last_record = 0

        # When the last chunk was read, and how long that took.
        self._read_at = 0.0
        self._took_s = 0.0

    @property
    def done(self) -> bool:
        return self.cursor.state != "running"

    @property
    def share(self) -> float:
        """Return the share of the keys that is done, 0 to 1; gaps between keys make it uneven."""
        if self.done:
            return 1.0
        if self._ends is None or self.cursor.next_key is None:
            return 0.0
        first, last = self._ends
        return min(1.0, max(0.0, (self.cursor.next_key - first) / max(1, last - first)))

    def wait_s(self, *, live: bool) -> float:
        """Return the seconds until `step` has something to do.

        `live` says that changes flow. They come first, so that the snapshot rests after each chunk.
        """
        if self.done or self._chunk is not None:
            return ACKNOWLEDGED_S
        wait_s = self._pace.wait_s()
        if live:
            rested_s = time.monotonic() - self._read_at
            wait_s = max(wait_s, LIVE_SHARE * self._took_s - rested_s)
        return wait_s

    def step(self, at_least: SourcePosition, *, live: bool) -> None:
        """Read the next chunk, which contains `at_least`, and send its rows.

        If the last chunk isn't acknowledged yet, go on with that one instead. Raises what
        `read_in_stream` raises.
        """
        if self._chunk is not None:
            self.settle()
        elif not self.done and self.wait_s(live=live) == 0:
            self._send_next(at_least)

    def _send_next(self, at_least: SourcePosition) -> None:
        began_at = time.monotonic()
        self._pace.begin()
        if self._ends is None:
            self._ends = self._first_and_last_key()

        size = self._size
        try:
            with read_in_stream(self._source, at_least, longest_s=size.longest_s) as in_stream:
                rows_of_range = next_rows(in_stream.read, OBS, self.cursor.next_key, size.rows)
        except TooSlow:
            size.ended()
            self._pace.count(0, QUERIES_OF_A_CHUNK)
            return
        size.answered(in_stream.read.worked_s)
        at = in_stream.at
        ts_ms = in_stream.ts_ms
        rows = rows_of_range.rows
        for value in self._envelopes.read(rows, at, ts_ms):
            self._publisher.send("row", value)
        self._chunk = Chunk(rows_of_range, at, ts_ms)
        self._is_chunk_event_sent = False
        self._last_record = self._publisher.sent

        self.rows += len(rows)
        metrics.SNAPSHOT_ROWS.labels(self._source.hospital).inc(len(rows))
        self._read_at = time.monotonic()
        self._took_s = self._read_at - began_at
        self._pace.count(len(rows), QUERIES_OF_A_CHUNK)

    def _first_and_last_key(self) -> tuple[int, int]:
        """Return the keys between which `share` is measured."""
        with self._source.read_at(ANY_POSITION) as read:
            first, last = key_ends(read, OBS) or (0, 0)
        if self._to is not None:
            last = self._to
            if self.cursor.next_key is not None:
                first = self.cursor.next_key
        return first, last

    def stop(self) -> None:
        """End it where it is. The rows of later keys are not read."""
        self._chunk = None
        self.cursor = replace(self.cursor, state="stopped")
        self._pace.rest()

    def settle(self) -> None:
        """Go on with the chunk that was sent, if Kafka has acknowledged it by now."""
        chunk = self._chunk
        if chunk is None or self._publisher.acked() < self._last_record:
            return
        first, to, _ = chunk.range
        if not self._is_chunk_event_sent:
            # Only now, so that no consumer takes a row for gone that is still on its way.
            value = self._envelopes.chunk(OBS.name, first, to, chunk.keys, chunk.at, chunk.ts_ms)
            self._last_record = self._publisher.send("chunk", value)
            self._is_chunk_event_sent = True
            return
        self._chunk = None
        self.cursor = replace(self.cursor, state="done" if to is None else "running", next_key=to)
        metrics.SNAPSHOT_DONE.labels(self._source.hospital).set(self.share)
        if self.done:
            self._pace.rest()
            log.info(
                "snapshot done",
                hospital=self._source.hospital,
                rows=self.rows,
                number=self.cursor.number,
            )
