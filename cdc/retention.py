"""The retention of a server's binlog, and how long the saved position is still in it.

A reader whose position is purged needs a new epoch and a snapshot. The headroom is the time until
that can happen at the earliest, and an alarm comes while there is time to act.
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
# RDS has a setting of its own, in a table that only RDS has.
RDS = "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'"
RDS_READABLE = (
    "SELECT 1 FROM information_schema.tables"
    " WHERE table_schema = 'mysql' AND table_name = 'rds_configuration'"
)

log = structlog.get_logger()


def retention_s(variables: Mapping[str, str], rds_hours: Iterable[tuple[Any, ...]] = ()) -> float:
    """Return the seconds that a binlog file is kept after its last write; inf if for ever.

    `variables` are the server's, by their names in lower case. `rds_hours` is the row in which RDS
    has its own setting. RDS without a number there purges at once: 0.
    """
    # On RDS the server's own variables have no effect.
    for (hours,) in rds_hours:
        return float(hours or 0) * 3600
    seconds = float(variables.get("binlog_expire_logs_seconds") or 0)
    days = float(variables.get("expire_logs_days") or 0)
    if variables.get("binlog_expire_logs_auto_purge", "ON") == "OFF":
        return math.inf
    # Each of them is 0 if the other is set; both are 0 if nothing is ever purged.
    return seconds or days * 86_400 or math.inf


def headroom_s(retention: float, files: Sequence[str], at: Position, age_s: float) -> float:
    """Return the seconds until the file of `at` is purged, at least; 0 if it is gone.

    `retention` is in seconds. `files` are the server's, oldest first. `age_s` is how long ago the
    server wrote what is at `at`: the file was last written then, or later.
    """
    if at.file not in files:
        return 0.0
    if at.file == files[-1]:
        return retention  # it is still written
    # The two clocks may differ: an age below zero would promise more than is kept.
    return max(0.0, retention - max(0.0, age_s))


def read_headroom(source: Source, at: Position, ts_ms: int) -> tuple[float, float]:
    """Ask the server how long it keeps the position. Return the headroom and the retention in s.

    `ts_ms` is the server's clock at the position, in Unix ms. Raises Retry and Fatal.
    """
    with source.read_at(ANY_POSITION) as read:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in read.rows(sql)]

        variables = {}
        for name, value in rows("SHOW GLOBAL VARIABLES LIKE '%expire%'"):
            variables[name.lower()] = value
        retention = retention_s(variables, rds_hours(rows))
        age_s = (read.clock_ms() - ts_ms) / 1000
        files = [row[0] for row in rows("SHOW BINARY LOGS")]
    return headroom_s(retention, files, at, age_s), retention


def rds_hours(rows: Callable[[str], Sequence[tuple[Any, ...]]]) -> Sequence[tuple[Any, ...]]:
    """Return the row in which RDS has its setting; none on other servers, or if it can't be read.

    `rows` runs a SELECT and returns its rows.
    """
    if not rows(RDS_READABLE):
        return ()
    return rows(RDS)


class Headroom:
    """One hospital's headroom: the metric, and an alarm while it is low.

    It is low below `alarm_s`, and below half of what the server keeps if that is less: a server
    that keeps little is no alarm in itself.
    """

    def __init__(self, hospital: str, alarm_s: float) -> None:
        self._hospital = hospital
        self._alarm_s = alarm_s
        self._looked_at = -LOOK_S
        self._part = f"hospital {hospital}: binlog headroom"
        # The session before may have raised the alarm. It is not raised again.
        self._is_low = self._part in health.failures()

    def look(self, source: Source, at: Position, ts_ms: int) -> None:
        """Ask the server for the headroom, once in LOOK_S. Call it often. Retry, Fatal."""
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._looked_at = time.monotonic()
            headroom, retention = read_headroom(source, at, ts_ms)
            self.report(headroom, retention)

    def report(self, headroom: float, retention: float) -> None:
        """Set the metric. Raise the alarm once when it gets low; end it when it is well again.

        Both are in seconds.
        """
        metrics.HEADROOM.labels(self._hospital).set(headroom)
        is_low = headroom <= 0 or headroom < min(self._alarm_s, retention / 2)
        if is_low and not self._is_low:
            hours = headroom / 3600
            reason = (
                f"the saved position may be purged in {hours:.1f} hours,"
                " which would cost a snapshot"
            )
            hint = f"passport check --hospital {self._hospital}"
            log.error("binlog headroom is low", hospital=self._hospital, reason=reason, hint=hint)
            health.failing(self._part, f"{reason}: {hint}")
        elif self._is_low and not is_low:
            log.info("binlog headroom is well again", hospital=self._hospital)
            health.working(self._part)
        self._is_low = is_low
