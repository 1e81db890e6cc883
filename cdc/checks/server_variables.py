"""A hospital's server by its variables: what must be set, what had better be, and the statement
that sets it. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence

from cdc.retention import kept_s
from openmrs.read import SETTLE_S
from passport.check import Check

RETENTION_S = 3 * 24 * 3600  # a long weekend
KEEP_DAYS = 7
MIB = 1024 * 1024

# (variable, what it should be, whether it must, why)
WANTED = (
    ("binlog_format", "ROW", True, "other formats carry no rows"),
    ("binlog_row_value_options", "", True, "partial JSON can't be put together again"),
    ("binlog_row_image", "FULL", False, "rows are read again instead: slower"),
    ("binlog_row_metadata", "FULL", False, "column names come from information_schema instead"),
    ("log_bin_compress", "OFF", False, "it is carried, at some CPU"),
    ("binlog_transaction_compression", "OFF", False, "it is carried, at some CPU"),
    ("sync_binlog", "1", False, "after a power cut the binlog may lack what the tables have"),
    ("binlog_order_commits", "ON", False, "reads wait for all transactions instead of one"),
    ("gtid_mode", "ON", False, f"each read of rows waits {SETTLE_S:g} s instead"),
    ("gtid_strict_mode", "ON", False, "positions of replicas may not agree"),
)
# What it should at least be.
LEAST = (
    ("max_allowed_packet", 16 * MIB, "a row with a longer text can't be read"),
    ("net_write_timeout", 30, "a reader that Kafka makes wait so long is cut off"),
)
GTID_STEPS = ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")

Variables = Mapping[str, str]


def checks(variables: Variables, rds_hours: Sequence[tuple[str | None, ...]]) -> Iterator[Check]:
    """`variables`: names in lower case; `rds_hours`: the row that RDS keeps its retention in, if it
    is one.
    """
    yield _binlog(variables)
    yield from (_setting(variables, *one) for one in WANTED)
    yield from (_at_least(variables, *one) for one in LEAST)
    yield _retention(variables, rds_hours)


def is_on(variables: Variables, name: str) -> bool:
    return variables.get(name, "").upper() in ("ON", "1")


def _binlog(variables: Variables) -> Check:
    on = is_on(variables, "log_bin")
    remedy = "in my.cnf: log_bin=binlog, server_id=<a number of its own>; then restart the server"
    return Check("binlog", on, f"log_bin is {'ON' if on else 'OFF'}", "" if on else remedy)


def _setting(variables: Variables, name: str, wanted: str, must: bool, why: str) -> Check:
    value = variables.get(name)
    if value is None or value.upper() == wanted:
        return Check(
            name,
            True,
            f"{name} is {wanted or 'empty'}" if value is not None else "not on this server",
        )
    repair = _set(name, wanted if wanted.isdigit() else repr(wanted))
    if name == "binlog_format":
        repair += "; sessions that are open keep their format: restart OpenMRS"
    if name == "gtid_mode":
        steps = GTID_STEPS[GTID_STEPS.index(value.upper()) + 1 :]
        repair = "SET GLOBAL enforce_gtid_consistency = ON; "
        repair += (
            "; ".join(f"SET GLOBAL gtid_mode = {step}" for step in steps)
            + ";  -- and both in my.cnf"
        )
    return Check(name, False if must else None, f"{name} is {value or 'empty'}: {why}", repair)


def _at_least(variables: Variables, name: str, least: int, why: str) -> Check:
    value = int(variables.get(name) or least)
    if value >= least:
        return Check(name, True, f"{name} is {value}")
    return Check(name, None, f"{name} is {value}: {why}", _set(name, str(least)))


def _retention(variables: Variables, rds_hours: Sequence[tuple[str | None, ...]]) -> Check:
    kept = kept_s(variables, rds_hours)
    if kept >= RETENTION_S:
        return Check(
            "retention",
            True,
            f"the binlog is kept for {f'{kept / 86_400:g} days' if kept < 1e9 else 'ever'}",
        )
    detail = f"the binlog is kept for {kept / 3600:g} hours: a longer outage costs a snapshot"
    if rds_hours:
        return Check("retention", None, detail, _rds(KEEP_DAYS * 24))
    name = (
        "binlog_expire_logs_seconds"
        if "binlog_expire_logs_seconds" in variables
        else "expire_logs_days"
    )
    return Check(
        "retention",
        None,
        detail,
        _set(name, str(KEEP_DAYS * (86_400 if name.endswith("seconds") else 1))),
    )


def _rds(hours: int) -> str:
    return f"CALL mysql.rds_set_configuration('binlog retention hours', {hours});"


def _set(name: str, value: str) -> str:
    return f"SET GLOBAL {name} = {value};  -- and in my.cnf"
