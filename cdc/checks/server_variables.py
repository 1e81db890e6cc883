"""Checks of a server's variables, each with the statement that sets it. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cdc.checks.services import Service
from passport.check import Check

MIB = 1024 * 1024

Variables = Mapping[str, str]


class Setting(NamedTuple):
    """The value that a variable should have. If it `must`, any other value fails the check."""

    name: str
    value: str
    must: bool
    reason: str


class Minimum(NamedTuple):
    """The least value that a variable should have."""

    name: str
    value: int
    reason: str


SETTINGS = (
    Setting("binlog_format", "ROW", True, "other formats carry no rows"),
    Setting("binlog_row_value_options", "", True, "partial JSON can't be put together again"),
    Setting("binlog_row_image", "FULL", False, "rows are read again instead: slower"),
    Setting(
        "binlog_row_metadata",
        "FULL",
        False,
        "column names come from information_schema instead",
    ),
    Setting("log_bin_compress", "OFF", False, "it is carried, at some CPU"),
    Setting("binlog_transaction_compression", "OFF", False, "it is carried, at some CPU"),
    Setting(
        "sync_binlog", "1", False, "after a power cut the binlog may lack what the tables have"
    ),
    Setting("binlog_order_commits", "ON", False, "reads wait for all transactions instead of one"),
    Setting("gtid_mode", "ON", False, "a failover costs a snapshot, a read waits for all commits"),
    Setting("gtid_strict_mode", "ON", False, "positions of replicas may not agree"),
)
MINIMA = (
    Minimum("max_allowed_packet", 16 * MIB, "a row with a longer text can't be read"),
    Minimum("net_write_timeout", 30, "a reader that Kafka makes wait so long is cut off"),
)
# gtid_mode can only be changed by one step at a time.
GTID_STEPS = ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")


def checks(variables: Variables, service: Service) -> Iterator[Check]:
    """Yield the checks of `variables`, which are by name in lower case."""
    yield _binlog(variables, service)
    for setting in SETTINGS:
        yield _setting(variables, setting, service)
    for minimum in MINIMA:
        yield _minimum(variables, minimum, service)


def is_on(variables: Variables, name: str) -> bool:
    return variables.get(name, "").upper() in ("ON", "1")


def _binlog(variables: Variables, service: Service) -> Check:
    if is_on(variables, "log_bin"):
        return Check("binlog", True, "log_bin is ON")
    return Check("binlog", False, "log_bin is OFF", service.enable_binlog)


def _setting(variables: Variables, setting: Setting, service: Service) -> Check:
    name = setting.name
    value = variables.get(name)
    if value is None:
        return Check(name, True, "not on this server")
    if value.upper() == setting.value:
        return Check(name, True, f"{name} is {setting.value or 'empty'}")

    hint = service.how_to_set(name, setting.value)
    if name == "binlog_format":
        hint += "; sessions that are open keep their format: restart OpenMRS"
    if name == "gtid_mode" and not service.is_managed:
        steps = GTID_STEPS[GTID_STEPS.index(value.upper()) + 1 :]
        statements = ["SET GLOBAL enforce_gtid_consistency = ON"]
        statements += [f"SET GLOBAL gtid_mode = {step}" for step in steps]
        hint = "; ".join(statements) + ";  -- and both in my.cnf"

    detail = f"{name} is {value or 'empty'}: {setting.reason}"
    if setting.must:
        return Check(name, False, detail, hint)
    return Check(name, None, detail, hint)


def _minimum(variables: Variables, minimum: Minimum, service: Service) -> Check:
    name = minimum.name
    value = int(variables.get(name) or minimum.value)
    if value >= minimum.value:
        return Check(name, True, f"{name} is {value}")
    return Check(
        name,
        None,
        f"{name} is {value}: {minimum.reason}",
        service.how_to_set(name, str(minimum.value)),
    )
