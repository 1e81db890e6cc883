"""The retention of a server's binlog, and how long the saved position is still in it.

A reader whose position is purged needs a new epoch and a snapshot. The headroom is the time until
that can happen at the earliest, and an alarm comes while there is time to act.

A server purges what is older than a time, what is more than a size, or both. How long a size lasts
depends on how much the hospital writes: that is measured over all the binlog that the server has. A
server may keep more for a replica that is connected, on which nobody can rely.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from cdc import probe
from openmrs.read import ANY_POSITION, Source
from passport import health, metrics
from passport.errors import Gap, Retry
from passport.settings import MySQL
from passport.version import Position

LOOK_S = 60.0
# RDS has a setting of its own, in a table that only RDS has.
RDS = "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'"
RDS_READABLE = (
    "SELECT 1 FROM information_schema.tables"
    " WHERE table_schema = 'mysql' AND table_name = 'rds_configuration'"
)
# MariaDB's and Percona's names of the same limit. MariaDB knows both.
SIZE_LIMITS = ("max_binlog_total_size", "binlog_space_limit")
VARIABLES_SQL = (
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_auto_purge',"
    " 'binlog_expire_logs_seconds', 'expire_logs_days', 'max_binlog_total_size',"
    " 'binlog_space_limit')"
)

log = structlog.get_logger()

Rows = Callable[[str], Sequence[tuple[Any, ...]]]
"""Runs a statement and returns its rows."""


class Retention(NamedTuple):
    """What a server keeps of its binlog; inf means that it sets no limit.

    `seconds` count from a file's last write. `size` is that of all files together, in bytes.
    """

    seconds: float
    size: float = math.inf


class Binlog(NamedTuple):
    """The binlog that a server has.

    `files` are the sizes in bytes by name, oldest first. `growth` is in bytes a second, on average
    since the oldest file was made; 0 if nobody asked.
    """

    files: Mapping[str, int]
    growth: float = 0.0

    def lasts_s(self, size: float) -> float:
        """Return the seconds until the server has written `size` bytes more."""
        if size <= 0:
            return 0.0
        return size / self.growth if self.growth else math.inf


def retention(variables: Mapping[str, str], rds_hours: Iterable[tuple[Any, ...]] = ()) -> Retention:
    """Return what a server keeps.

    `variables` are the server's, by their names in lower case. `rds_hours` is the row in which RDS
    has its own setting. RDS without a number there purges at once: 0.
    """
    # On RDS the server's own variables have no effect.
    for (hours,) in rds_hours:
        return Retention(float(hours or 0) * 3600)
    limits = [float(variables.get(name) or 0) for name in SIZE_LIMITS]
    size = min(filter(None, limits), default=math.inf)
    if variables.get("binlog_expire_logs_auto_purge", "ON") == "OFF":
        return Retention(math.inf, size)
    seconds = float(variables.get("binlog_expire_logs_seconds") or 0)
    days = float(variables.get("expire_logs_days") or 0)
    # Each of them is 0 if the other is set; both are 0 if nothing is purged for its age.
    return Retention(seconds or days * 86_400 or math.inf, size)


def kept_s(kept: Retention, binlog: Binlog) -> float:
    """Return how long the server keeps what it writes now, at least, in seconds."""
    return min(kept.seconds, binlog.lasts_s(kept.size))


def left_s(kept: Retention, binlog: Binlog, at: Position, age_s: float) -> float:
    """Return the seconds until the file of `at` is purged, at least; 0 if it is gone.

    `age_s` is how long ago the server wrote what is at `at`: the file was last written then, or
    later.
    """
    names = [*binlog.files]
    if at.file not in names:
        return 0.0
    left_by_age_s = kept.seconds
    is_still_written = at.file == names[-1]
    if not is_still_written:
        # The two clocks may differ: an age below zero would promise more than is kept.
        left_by_age_s = max(0.0, kept.seconds - max(0.0, age_s))
    # The oldest file goes once all files together are larger than the limit.
    size = sum(binlog.files[name] for name in names[names.index(at.file) :])
    return min(left_by_age_s, binlog.lasts_s(kept.size - size))


def read_retention(rows: Rows) -> Retention:
    """Ask the server what it keeps."""
    variables = {}
    for name, value in rows(VARIABLES_SQL):
        variables[name.lower()] = value
    return retention(variables, rds_hours(rows))


def read_binlog(rows: Rows, kept: Retention, settings: MySQL, hospital_id: str) -> Binlog:
    """Ask the server for its binlog files, and how fast they grow if it limits their size.

    Needs BINLOG MONITOR or REPLICATION CLIENT. Raises Retry and Fatal.
    """
    files = {row[0]: int(row[1]) for row in rows("SHOW BINARY LOGS")}
    if math.isinf(kept.size) or not files:
        return Binlog(files)
    try:
        made_at = probe.made_at(hospital_id, settings, next(iter(files)))
    except (Gap, Retry) as error:
        # It was purged just now, or the server has no connection left: the next look will tell.
        log.warning("binlog growth is not known", hospital=hospital_id, reason=error.reason)
        return Binlog(files)
    ((now,),) = rows("SELECT UNIX_TIMESTAMP()")
    return Binlog(files, sum(files.values()) / max(1, now - made_at))


def read_headroom(source: Source, at: Position, ts_ms: int) -> tuple[float, float]:
    """Ask the server how long it keeps the position. Return `left_s` and `kept_s`.

    `ts_ms` is the server's clock at the position, in Unix ms. Raises Retry and Fatal.
    """
    with source.read_at(ANY_POSITION) as read:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row.values()) for row in read.rows(sql)]

        kept = read_retention(rows)
        binlog = read_binlog(rows, kept, source.settings, source.hospital)
        age_s = (read.clock_ms() - ts_ms) / 1000
    return left_s(kept, binlog, at, age_s), kept_s(kept, binlog)


def rds_hours(rows: Rows) -> Sequence[tuple[Any, ...]]:
    """Return the row in which RDS has its setting.

    There is none on other servers, or if it can't be read.
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
            self.report(*read_headroom(source, at, ts_ms))

    def report(self, headroom_s: float, longest_s: float) -> None:
        """Set the metric. Raise the alarm once when it gets low; end it when it is well again.

        `headroom_s` is what `left_s` returns, `longest_s` what `kept_s` returns.
        """
        metrics.HEADROOM.labels(self._hospital).set(headroom_s)
        is_low = headroom_s <= 0 or headroom_s < min(self._alarm_s, longest_s / 2)
        if is_low and not self._is_low:
            hours = headroom_s / 3600
            reason = (
                f"the saved position may be purged in {hours:.1f} hours,"
                " which would cost a snapshot"
            )
            hint = f"passport check --hospital {self._hospital}"
            log.error("binlog headroom is low", hospital=self._hospital, reason=reason, hint=hint)
            health.failing(self._part, reason, hint)
        elif self._is_low and not is_low:
            log.info("binlog headroom is well again", hospital=self._hospital)
            health.working(self._part)
        self._is_low = is_low
