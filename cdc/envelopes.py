"""What the reader publishes, as bytes: pure, one object an epoch."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from passport.event import ChangeEvent, EventSource, Op, Origin, Row, RowEnvelope
from passport.settings import Hospital
from passport.values import row_text
from passport.version import Position, prefix, read_version


class Envelopes:
    """Of one hospital's epoch; `server`: identity of the server whose positions these are."""

    def __init__(self, hospital_id: str, hospital: Hospital, *, server: str, epoch: int) -> None:
        self.epoch = epoch
        self.server = server
        self._hospital_id = hospital_id
        self._hospital = hospital
        self._stream = self._envelope("binlog")
        self._read = self._envelope("snapshot")
        self._prefix: tuple[Position | None, str] = (None, "")

    def row(  # one call a row: no object in between
        self,
        op: str,
        before: str | None,
        after: str | None,
        *,
        at: Position,
        ordinal: int,
        gtid: str,
        ts_ms: int,
        transaction: str,
        last: bool,
    ) -> bytes:
        """A changed row; `before` and `after` are JSON texts."""
        if self._prefix[0] is not at:
            self._prefix = (at, prefix(self.epoch, at.number, at.pos))
        return self._stream(
            op,
            before,
            after,
            file=at.file,
            pos=at.pos,
            row=ordinal,
            gtid=gtid,
            ts_ms=ts_ms,
            version=f"{self._prefix[1]}{ordinal:08d}",
            transaction=transaction,
            last=last,
            now_ms=now_ms(),
        )

    def read(self, rows: Iterable[Row], at: Position, ts_ms: int) -> Iterator[bytes]:
        """Rows that a SELECT saw at `at`."""
        for row in rows:
            yield self._as_read("r", None, row_text(row.keys(), row.values()), at, ts_ms)

    def _as_read(self, op: Op, before: str | None, after: str | None, at: Position, ts_ms: int) -> bytes:
        return self._read(
            op,
            before,
            after,
            file=at.file,
            pos=at.pos,
            row=0,
            gtid="",
            ts_ms=ts_ms,
            version=read_version(self.epoch, at),
            transaction=f"{at.file}:{at.pos}",
            last=True,
            now_ms=now_ms(),
        )

    def chunk(self, first: int | None, to: int | None, keys: Sequence[int], at: Position, ts_ms: int) -> bytes:
        """These keys, and no others, were in (first, to] at `at`."""
        source = self._source("obs", at, 0, "", ts_ms, "snapshot")
        return ChangeEvent("chunk", source, now_ms(), keys=tuple(keys), first=first, to=to).encode()

    def notice(
        self, table: str, op: Op, keys: Sequence[Any], *, at: Position, ordinal: int, gtid: str, ts_ms: int
    ) -> bytes:
        """A row changed in `table`; no keys: all of the table may have."""
        source = self._source(table, at, ordinal, gtid, ts_ms, "binlog")
        return ChangeEvent("notice", source, now_ms(), op=op, keys=tuple(keys)).encode()

    def heartbeat(self, at: Position, gtid: str, ts_ms: int) -> bytes:
        """All up to `at` is published; the source's clock was `ts_ms` when that was all there was."""
        return ChangeEvent("heartbeat", self._source("", at, 0, gtid, ts_ms, "binlog"), now_ms()).encode()

    def _source(self, table: str, at: Position, ordinal: int, gtid: str, ts_ms: int, origin: Origin) -> EventSource:
        return EventSource(
            hospital=self._hospital_id,
            timezone=self._hospital.timezone,
            db=self._hospital.mysql.database,
            table=table,
            file=at.file,
            pos=at.pos,
            row=ordinal,
            gtid=gtid,
            server=self.server,
            ts_ms=ts_ms,
            version=f"{prefix(self.epoch, at.number, at.pos)}{ordinal:08d}",
            origin=origin,
        )

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
