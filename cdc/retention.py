"""How long a server keeps its binlog, and how long it is until it purges the file where a reader
would go on.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from openmrs.read import ANY_POSITION, Source
from passport import health, metrics
from passport.version import Position

LOOK_S = 60.0
RDS = "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'"
RDS_READABLE = (
    "SELECT 1 FROM information_schema.tables"
    " WHERE table_schema = 'mysql' AND table_name = 'rds_configuration'"
)

log = structlog.get_logger()


def kept_s(variables: Mapping[str, str], rds_hours: Iterable[tuple[Any, ...]] = ()) -> float:
    """Seconds that a file is kept after its last write, inf for ever. RDS without a number purges
    at once: 0.
    """
    for (hours,) in rds_hours:
        return float(hours or 0) * 3600
    seconds = float(variables.get("binlog_expire_logs_seconds") or 0)
    days = float(variables.get("expire_logs_days") or 0)
    if variables.get("binlog_expire_logs_auto_purge", "ON") == "OFF":
        return math.inf
    return seconds or days * 86_400 or math.inf


def left_s(kept: float, files: Iterable[str], at: Position, age_s: float) -> float:
    """Seconds until the file of `at` is purged, at least: it was last written `age_s` ago or later.

    `files`, oldest first; the newest is still written.
    """
    names = [*files]
    if at.file not in names:
        return 0.0
    return kept if at.file == names[-1] else max(0.0, kept - max(0.0, age_s))


def headroom(source: Source, at: Position, ts_ms: int) -> tuple[float, float]:
    """(`left_s`, `kept_s`) as the server is now; `ts_ms`: its time at the position. Retry, Fatal."""
    with source.read_at(ANY_POSITION) as reading:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in reading.rows(sql)]

        variables = {
            name.lower(): value for name, value in rows("SHOW GLOBAL VARIABLES LIKE '%expire%'")
        }
        kept = kept_s(variables, rds_hours(rows))
        age_s = float(rows("SELECT UNIX_TIMESTAMP(NOW(3))")[0][0]) - ts_ms / 1000
        return left_s(kept, [row[0] for row in rows("SHOW BINARY LOGS")], at, age_s), kept


def rds_hours(rows: Callable[[str], Sequence[tuple[Any, ...]]]) -> Sequence[tuple[Any, ...]]:
    """No row where it isn't an RDS server, or may not be read."""
    return rows(RDS) if rows(RDS_READABLE) else ()


class Headroom:
    """Of one hospital: the metric, and one alarm while it is below `alarm_s` or half of what the
    server keeps.
    """

    def __init__(self, hospital: str, alarm_s: float) -> None:
        self._hospital = hospital
        self._alarm_s = alarm_s
        self._looked = -LOOK_S
        self._what = f"hospital {hospital}: binlog headroom"
        self._low = self._what in health.failures()

    def look(self, source: Source, at: Position, ts_ms: int) -> None:
        """Call often: asks the server once in LOOK_S. Retry, Fatal."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self.tell(*headroom(source, at, ts_ms))

    def tell(self, left: float, kept: float) -> None:
        """Alarms once when it falls, and takes that back when it is well again."""
        metrics.HEADROOM.labels(self._hospital).set(left)
        low = left <= 0 or left < min(self._alarm_s, kept / 2)
        if low and not self._low:
            cause = f"the saved position may be purged in {left / 3600:.1f} hours, which would cost a snapshot"
            log.error("binlog headroom is low", hospital=self._hospital, reason=cause)
            health.failing(self._what, f"{cause}: passport check --hospital {self._hospital}")
        elif self._low and not low:
            log.info("binlog headroom is well again", hospital=self._hospital)
            health.working(self._what)
        self._low = low
