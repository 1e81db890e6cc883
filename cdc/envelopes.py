"""Makes the events that a reader publishes, as bytes: those of one hospital in one epoch."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cdc.binlog.changes import RowChange
from openmrs.tables import OBS
from openmrs.values import row_text
from passport.event import (
    ENVELOPE,
    KEYS_PER_EVENT,
    ChunkEvent,
    EventSource,
    HeartbeatEvent,
    KeyChangeEvent,
    Op,
    Origin,
    Row,
    RowEnvelope,
    encode_event,
)
from passport.settings import Hospital
from passport.version import Position, prefix


class Envelopes:
    """Makes the events of a hospital's epoch.

    `server` is the identity of the server whose positions these are. With `polled` there is no
    binlog: the file of a position only counts the snapshots of polling, and no event names it.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, *, server: str, epoch: int, polled: bool = False
    ) -> None:
        self.epoch = epoch
        self.server = server
        self._hospital_id = hospital_id
        self._hospital = hospital
        self._polled = polled
        self._origin_of_changes: Origin = "poll" if polled else "binlog"
        self._origin_of_reads: Origin = "poll" if polled else "snapshot"
        self._changed_row = self._row_envelope(self._origin_of_changes)
        self._read_row = self._row_envelope(self._origin_of_reads)

        # The binlog event, and the file, of the last row that `row` was called with.
        self._at: Position | None = None
        self._file = ""
        self._file_prefix = ""

    def row(self, row: RowChange, *, transaction: str, last: bool) -> bytes:
        """Return the event of a changed row; `last` says that it is the last of its transaction."""
        at = row.at
        envelope = self._changed_row
        # This is called for each row. What the rows of one binlog event share is made once: they
        # have the same Position object.
        if self._at is not at:
            self._at = at
            if self._file != at.file:
                self._file = at.file
                self._file_prefix = f"{self.epoch:010d}-{at.number:010d}-"
            envelope.at(
                file=at.file,
                pos=at.pos,
                gtid=row.gtid,
                ts_ms=row.ts * 1000,
                # The same as `prefix` gives, of which the file's part is kept.
                prefix=f"{self._file_prefix}{at.pos:016d}-",
                transaction=transaction,
            )
        return envelope(row.op, row.before, row.after, row.ordinal, last, now_ms())

    def read(self, rows: Iterable[Row], at: Position, ts_ms: int) -> Iterator[bytes]:
        """Yield the events of rows that a SELECT saw at `at`, at `ts_ms` by the source's clock."""
        envelope = self._read_row
        envelope.at(
            file=self._file_of(at),
            pos=at.pos,
            gtid="",
            ts_ms=ts_ms,
            prefix=prefix(self.epoch, at.number, at.pos),
            transaction=f"{at.file}:{at.pos}",
        )
        for row in rows:
            yield envelope("r", None, row_text(row.keys(), row.values()), 0, True, now_ms())

    def chunk(
        self,
        table: str,
        first: int | None,
        to: int | None,
        keys: Sequence[int],
        at: Position,
        ts_ms: int,
    ) -> bytes:
        """Return the event that says which keys of the table were in (first, to] at `at`.

        A key of the range that it doesn't list was not there.
        """
        source = self._source(table, at, 0, "", ts_ms, self._origin_of_reads)
        chunk = ChunkEvent(
            v=ENVELOPE, first=first, to=to, keys=tuple(keys), source=source, ts_ms=now_ms()
        )
        return encode_event(chunk)

    def key_change(
        self,
        table: str,
        op: Op,
        keys: Sequence[Any],
        *,
        at: Position,
        ordinal: int,
        gtid: str,
        ts_ms: int,
    ) -> bytes:
        """Return the event of a changed row in `table`. No keys: any row of it may have changed."""
        source = self._source(table, at, ordinal, gtid, ts_ms, self._origin_of_changes)
        change = KeyChangeEvent(v=ENVELOPE, op=op, keys=tuple(keys), source=source, ts_ms=now_ms())
        return encode_event(change)

    def key_changes(
        self, table: str, op: Op, keys: Sequence[Any], at: Position, ts_ms: int
    ) -> Iterator[bytes]:
        """Yield as few events as possible for many changed rows of `table`."""
        for start in range(0, len(keys), KEYS_PER_EVENT):
            keys_of_event = keys[start : start + KEYS_PER_EVENT]
            yield self.key_change(table, op, keys_of_event, at=at, ordinal=0, gtid="", ts_ms=ts_ms)

    def heartbeat(self, at: Position, gtid: str, ts_ms: int) -> bytes:
        """Return the event that says: everything up to `at` is published.

        `ts_ms` was the source's clock when that was all there was.
        """
        source = self._source("", at, 0, gtid, ts_ms, self._origin_of_changes)
        return encode_event(HeartbeatEvent(v=ENVELOPE, source=source, ts_ms=now_ms()))

    def _source(
        self, table: str, at: Position, ordinal: int, gtid: str, ts_ms: int, origin: Origin
    ) -> EventSource:
        return EventSource(
            hospital=self._hospital_id,
            timezone=self._hospital.timezone,
            db=self._hospital.mysql.database,
            table=table,
            file=self._file_of(at),
            pos=at.pos,
            row=ordinal,
            gtid=gtid,
            server=self.server,
            ts_ms=ts_ms,
            version=f"{prefix(self.epoch, at.number, at.pos)}{ordinal:08d}",
            origin=origin,
        )

    def _file_of(self, at: Position) -> str:
        return "" if self._polled else at.file

    def _row_envelope(self, origin: Origin) -> RowEnvelope:
        return RowEnvelope(
            hospital=self._hospital_id,
            timezone=self._hospital.timezone,
            db=self._hospital.mysql.database,
            table=OBS.name,
            server=self.server,
            origin=origin,
        )


def now_ms() -> int:
    """Return this machine's clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000
