"""The events that this stage publishes: rows, chunks, notices and heartbeats of one version."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from passport.event import ChangeEvent, EventSource, Origin, Row, RowEnvelope
from passport.settings import Hospital
from passport.values import row_text

KEYS_OF_A_NOTICE = 500


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the events of one reading have in common. `file` and `pos`: where it was, "" and 0 for polling."""

    hospital_id: str
    hospital: Hospital
    server: str
    version: str
    origin: Origin
    ts_ms: int
    file: str = ""
    pos: int = 0
    gtid: str = ""

    def rows(self, rows: Sequence[Row]) -> Iterator[bytes]:
        """Row events, encoded, of rows as read; the last one ends the transaction."""
        envelope = RowEnvelope(
            hospital=self.hospital_id,
            timezone=self.hospital.timezone,
            db=self.hospital.mysql.database,
            table="obs",
            server=self.server,
            origin=self.origin,
        )
        envelope.at(
            file=self.file,
            pos=self.pos,
            gtid=self.gtid,
            ts_ms=self.ts_ms,
            prefix=self.version[:-8],
            transaction=f"{self.origin}:{self.version}",
        )
        now_ms = int(time.time() * 1000)
        for index, row in enumerate(rows, 1):
            yield envelope("r", None, row_text(row.keys(), row.values()), 0, index == len(rows), now_ms)

    def chunk(self, first: int | None, to: int | None, keys: Sequence[int]) -> ChangeEvent:
        return self._event("chunk", "obs", first=first, to=to, keys=tuple(keys))

    def notices(self, table: str, keys: Sequence[dict[str, Any]]) -> Iterator[ChangeEvent]:
        for start in range(0, len(keys), KEYS_OF_A_NOTICE):
            yield self._event("notice", table, op="u", keys=tuple(keys[start : start + KEYS_OF_A_NOTICE]))

    def heartbeat(self) -> ChangeEvent:
        return self._event("heartbeat", "")

    def _event(self, kind: Any, table: str, **fields: Any) -> ChangeEvent:
        source = EventSource(
            hospital=self.hospital_id,
            timezone=self.hospital.timezone,
            db=self.hospital.mysql.database,
            table=table,
            file=self.file,
            pos=self.pos,
            row=0,
            gtid=self.gtid,
            server=self.server,
            ts_ms=self.ts_ms,
            version=self.version,
            origin=self.origin,
        )
        return ChangeEvent(kind, source, int(time.time() * 1000), **fields)
