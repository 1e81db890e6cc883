"""Checks how long the server keeps its binlog: so long a reader may be away without a snapshot."""

import math

from cdc.checks.server import Server
from cdc.retention import Binlog, Retention, kept_s, rds_hours, read_binlog, retention
from passport.check import Check

LEAST_S = 3 * 24 * 3600  # a long weekend
KEEP_DAYS = 7
DAY_S = 86_400
MIB = 1024 * 1024


def check(server: Server) -> Check:
    """Check how long the binlog is kept: by its age, and by its size while it grows as it does."""
    hours = rds_hours(server.rows)
    kept = retention(server.variables, hours)
    binlog = Binlog({})
    if kept.size != math.inf:
        mysql = server.hospital.mysql
        binlog = read_binlog(server.rows_if_readable, kept, mysql, server.hospital_id)

    seconds = kept_s(kept, binlog)
    if seconds == math.inf:
        return Check("retention", True, "the binlog is kept for ever")
    detail = f"the binlog is kept for {seconds / DAY_S:.3g} days"
    if seconds < LEAST_S:
        detail = (
            f"the binlog is kept for {seconds / 3600:.3g} hours: a longer outage costs a snapshot"
        )
    if seconds < kept.seconds:
        detail += (
            f" (at most {kept.size / MIB:,.0f} MiB, and it grows by"
            f" {binlog.growth * 3600 / MIB:,.1f} MiB an hour)"
        )
    if seconds >= LEAST_S:
        return Check("retention", True, detail)
    return Check("retention", None, detail, _hint(server, kept, binlog, is_rds=bool(hours)))


def _hint(server: Server, kept: Retention, binlog: Binlog, *, is_rds: bool) -> str:
    """Return what the DBA does to keep the binlog for KEEP_DAYS."""
    statements = []
    # RDS doesn't let its variables be set. Older servers only have the one that counts days.
    if is_rds:
        hours = KEEP_DAYS * 24
        statements.append(f"CALL mysql.rds_set_configuration('binlog retention hours', {hours});")
    elif kept.seconds < LEAST_S and "binlog_expire_logs_seconds" in server.variables:
        seconds = str(KEEP_DAYS * DAY_S)
        statements.append(server.service.how_to_set("binlog_expire_logs_seconds", seconds))
    elif kept.seconds < LEAST_S:
        statements.append(server.service.how_to_set("expire_logs_days", str(KEEP_DAYS)))
    if binlog.lasts_s(kept.size) < LEAST_S:
        size = math.ceil(binlog.growth * KEEP_DAYS * DAY_S)
        if "max_binlog_total_size" in server.variables:
            statements.append(server.service.how_to_set("max_binlog_total_size", str(size)))
        else:
            # Percona's can't be set while the server runs.
            statements.append(f"in my.cnf: binlog_space_limit={size}; then restart the server")
    return "\n".join(statements)
