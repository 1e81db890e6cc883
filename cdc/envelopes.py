"""What is published, as bytes: pure, one object an epoch."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cdc.binlog.changes import RowChange
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
    """Of one hospital's epoch; `server`: identity of the server whose positions these are.

    `polled`: there is no binlog; the files of the positions count the runs, and no event tells its
    place.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, *, server: str, epoch: int, polled: bool = False
    ) -> None:
        self.epoch = epoch
        self.server = server
        self._hospital_id = hospital_id
        self._hospital = hospital
        self._polled = polled
        self._stream = self._envelope("binlog")
        self._read = self._envelope("poll" if polled else "snapshot")
        self._at: Position | None = None
        self._file = self._begin = ""

    def row(self, row: RowChange, *, transaction: str, last: bool) -> bytes:
        """A changed row."""
        at, stream = row.at, self._stream
        if self._at is not at:  # else it is of the same binlog event as the one before
            self._at = at
            if self._file != at.file:
                self._file, self._begin = at.file, f"{self.epoch:010d}-{at.number:010d}-"
            version = (
                f"{self._begin}{at.pos:016d}-"  # as `prefix`, of which the file's part is kept
            )
            stream.at(
                file=at.file,
                pos=at.pos,
                gtid=row.gtid,
                ts_ms=row.ts * 1000,
                prefix=version,
                transaction=transaction,
            )
        return stream(row.op, row.before, row.after, row.ordinal, last, now_ms())

    def read(self, rows: Iterable[Row], at: Position, ts_ms: int) -> Iterator[bytes]:
        """Rows that a SELECT saw at `at`."""
        version = prefix(self.epoch, at.number, at.pos)
        where = f"{at.file}:{at.pos}"
        self._read.at(
            file=self._told(at), pos=at.pos, gtid="", ts_ms=ts_ms, prefix=version, transaction=where
        )
        for row in rows:
            yield self._read("r", None, row_text(row.keys(), row.values()), 0, True, now_ms())

    def chunk(
        self, first: int | None, to: int | None, keys: Sequence[int], at: Position, ts_ms: int
    ) -> bytes:
        """These keys, and no others, were in (first, to] at `at`."""
        source = self._source("obs", at, 0, "", ts_ms, "snapshot")
        chunk = ChunkEvent(
            v=ENVELOPE, first=first, to=to, keys=tuple(keys), source=source, ts_ms=now_ms()
        )
        return encode_event(chunk)

    def notice(
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
        """A row changed in `table`; no keys: all of the table may have."""
        source = self._source(table, at, ordinal, gtid, ts_ms, "binlog")
        change = KeyChangeEvent(v=ENVELOPE, op=op, keys=tuple(keys), source=source, ts_ms=now_ms())
        return encode_event(change)

    def notices(
        self, table: str, op: Op, keys: Sequence[Any], at: Position, ts_ms: int
    ) -> Iterator[bytes]:
        """Of many rows at once."""
        for start in range(0, len(keys), KEYS_PER_EVENT):
            some = keys[start : start + KEYS_PER_EVENT]
            yield self.notice(table, op, some, at=at, ordinal=0, gtid="", ts_ms=ts_ms)

    def heartbeat(self, at: Position, gtid: str, ts_ms: int) -> bytes:
        """All up to `at` is published; the source's clock was `ts_ms` when that was all there was."""
        source = self._source("", at, 0, gtid, ts_ms, "binlog")
        return encode_event(HeartbeatEvent(v=ENVELOPE, source=source, ts_ms=now_ms()))

    def _source(
        self, table: str, at: Position, ordinal: int, gtid: str, ts_ms: int, origin: Origin
    ) -> EventSource:
        return EventSource(
            hospital=self._hospital_id,
            timezone=self._hospital.timezone,
            db=self._hospital.mysql.database,
            table=table,
            file=self._told(at),
            pos=at.pos,
            row=ordinal,
            gtid=gtid,
            server=self.server,
            ts_ms=ts_ms,
            version=f"{prefix(self.epoch, at.number, at.pos)}{ordinal:08d}",
            origin="poll" if self._polled else origin,
        )

    def _told(self, at: Position) -> str:
        return "" if self._polled else at.file

    def _envelope(self, origin: Origin) -> RowEnvelope:
        return RowEnvelope(
            hospital=self._hospital_id,
            timezone=self._hospital.timezone,
            db=self._hospital.mysql.database,
            table="obs",
            server=self.server,
            origin=origin,
        )


def now_ms() -> int:
    return time.time_ns() // 1_000_000
