"""The row that a SELECT gives and the row that the binlog gives are the same bytes of JSON, for
every column type.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from cdc.binlog.stream import RowChange
from openmrs.column_info import ColumnInfo
from openmrs.lenient_utf8 import LENIENT
from openmrs.values import json_value, row_text, select_list
from tests.hospitals import Server
from tests.integration import every_type
from tests.integration.taps import Tap, of
from tests.servers import KINDS, in_test_long

NAMES = (
    "binlog_row_metadata",
    "binlog_checksum",
    "log_bin_compress",
    "binlog_transaction_compression",
)
DEFAULTS = dict(zip(NAMES, ("FULL", "CRC32", "0", "OFF"), strict=True))
# What both flavours have; then what each has alone.
SETTINGS: dict[str, list[dict[str, str]]] = {
    "mariadb": [
        {},
        {"binlog_row_metadata": "MINIMAL"},
        {"binlog_row_metadata": "NO_LOG"},
        {"binlog_checksum": "NONE"},
        {"log_bin_compress": "1"},
        {"log_bin_compress": "1", "binlog_row_metadata": "NO_LOG", "binlog_checksum": "NONE"},
    ],
    "mysql": [
        {},
        {"binlog_row_metadata": "MINIMAL"},
        {"binlog_checksum": "NONE"},
        {"binlog_transaction_compression": "ON"},
        {
            "binlog_transaction_compression": "ON",
            "binlog_row_metadata": "MINIMAL",
            "binlog_checksum": "NONE",
        },
    ],
}
CASES = [
    *((flavour, case) for flavour, cases in SETTINGS.items() for case in cases),
    ("mysql-5.7", {}),
    ("mysql-8.0", {}),
    ("mariadb-11.8", {"binlog_row_metadata": "NO_LOG"}),
    *in_test_long(
        ("mysql-5.7", {"binlog_checksum": "NONE"}),
        ("mysql-8.0", {"binlog_row_metadata": "MINIMAL"}),
        ("mysql-8.0", {"binlog_checksum": "NONE"}),
        *(("mariadb-11.8", case) for case in SETTINGS["mariadb"]),
    ),
]


def named(case: Any) -> str:
    return case if isinstance(case, str) else ",".join(case.values()) or "defaults"


@pytest.fixture(scope="module")
def taps(module_own: Callable[..., Server]) -> Callable[[str], Tap]:
    """By version, each made when it is first asked for."""
    flags = ["--max-allowed-packet=1G", "--loose-log-bin-compress-min-len=10"]
    return functools.cache(lambda version: _prepared(module_own(KINDS[version], flags=flags)))


def _prepared(server: Server) -> Tap:
    tap = Tap(server, key_columns={}, row_columns={every_type.TABLE: ()})
    tap.execute("SET sql_mode = ''", every_type.definition(tap.version))
    names = [column.name for column in tap.columns()[every_type.TABLE]]
    tap.row_columns = {
        every_type.TABLE: [name for name in names if name not in every_type.skipped(tap.version)]
    }
    return tap


@pytest.fixture
def tap(request: pytest.FixtureRequest, taps: Callable[[str], Tap]) -> Iterator[Tap]:
    version, settings = request.param
    tap = taps(version)
    known = {row[0] for row in tap.execute("SHOW GLOBAL VARIABLES LIKE '%bin%'")}
    wanted = {name: value for name, value in (DEFAULTS | settings).items() if name in known}
    assert wanted.keys() >= settings.keys()
    tap.execute(*(f"SET GLOBAL {name} = {value}" for name, value in wanted.items()))
    tap.execute(f"TRUNCATE TABLE {every_type.TABLE}")
    yield tap
    tap.execute(*(f"SET GLOBAL {name} = {DEFAULTS[name]}" for name in wanted))


def wanted(tap: Tap) -> list[ColumnInfo]:
    return [
        column
        for column in tap.columns()[every_type.TABLE]
        if column.name not in every_type.skipped(tap.version)
    ]


def write(tap: Tap, rows: Iterable[dict[str, Any]]) -> None:
    with tap.server.connect(database=tap.database) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = '', time_zone = '+00:00'")
        for row in rows:
            names = ", ".join("`" + name + "`" for name in row)
            marks = ", ".join(["%s"] * len(row))
            cursor.execute(
                f"INSERT INTO {every_type.TABLE} ({names}) VALUES ({marks})", [*row.values()]
            )


def selected(tap: Tap) -> dict[int, str]:
    """JSON text of each row, as a SELECT gives it."""
    columns = wanted(tap)
    names = [column.name for column in columns]
    with (
        tap.server.connect(database=tap.database, conv={}) as connection,
        connection.cursor() as cursor,
    ):
        connection.encoding = LENIENT
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"SELECT id, {select_list(columns)} FROM {every_type.TABLE}")
        return {
            int(key): row_text(names, map(json_value, columns, values))
            for key, *values in cursor.fetchall()
        }


def differences(read: dict[int, str], truth: dict[int, str]) -> list[tuple[int, str, str, str]]:
    """Return key, column and both values, cut short: a failure must be legible."""
    assert read.keys() == truth.keys()
    pairs = [
        (key, json.loads(read[key]), json.loads(truth[key]))
        for key in truth
        if read[key] != truth[key]
    ]
    cut = [
        (key, name, repr(a[name])[:80], repr(b[name])[:80])
        for key, a, b in pairs
        for name in b
        if a[name] != b[name]
    ]
    return cut or [(key, "text", "", "") for key, _, _ in pairs]


def last_images(items: Iterable[RowChange]) -> dict[int, str]:
    """What is left when the changes are applied in order; each image before must be the one after
    of the last.
    """
    state: dict[int, str] = {}
    for row in items:
        key = json.loads(row.after or row.before or "")["id"]
        assert state.pop(key, None) == row.before
        if row.after is not None:
            state[key] = row.after
    return state


@pytest.mark.parametrize("tap", CASES, indirect=True, ids=lambda case: "-".join(map(named, case)))
def test_row_of_a_select_and_of_the_binlog_are_the_same_bytes(tap: Tap) -> None:
    start = tap.end()
    write(tap, every_type.rows(tap.version))
    tap.execute("SET sql_mode = ''", *every_type.statements(tap.version))
    tap.execute(
        "SET sql_mode = ''",
        f"UPDATE {every_type.TABLE} SET v4 = '😀x', n1 = NULL WHERE id < 5",
        f"UPDATE {every_type.TABLE} SET ii = 5",
        f"DELETE FROM {every_type.TABLE} WHERE id = 7",
    )
    truth = selected(tap)
    assert len(truth) > 100
    assert differences(last_images(of(RowChange, tap.read(start))), truth) == []


@pytest.mark.parametrize(
    "tap",
    [("mysql", {}), pytest.param(("mariadb", {}), marks=pytest.mark.long)],
    indirect=True,
    ids=["mysql", "mariadb"],
)
def test_rows_past_16_mebibytes_come_in_several_packets(tap: Tap) -> None:
    start = tap.end()
    write(tap, every_type.large_rows())
    assert differences(last_images(of(RowChange, tap.read(start))), selected(tap)) == []


@pytest.mark.parametrize(
    "tap", [("mariadb", {}), ("mysql", {})], indirect=True, ids=lambda case: case[0]
)
def test_zones_and_clocks_of_who_writes_change_nothing(tap: Tap) -> None:
    """Sessions in other zones, the server's zone changed meanwhile, a clock that goes back, a day
    in 2038.
    """
    start = tap.end()
    row = (
        f"INSERT INTO {every_type.TABLE} (id, ts, ts6, dt, dt6, da, t6)"
        " VALUES ({}, NOW(), NOW(6), NOW(), NOW(6)"
    )
    row += ", CURDATE(), CURTIME(6))"
    clocks = ["DEFAULT", "1700000000", "1699996400.25", "2147483646"]
    try:
        for number, (zone, clock) in enumerate(
            itertools.product(("+00:00", "+05:30", "-08:00"), clocks)
        ):
            tap.execute(f"SET GLOBAL time_zone = '{zone}'")
            tap.execute("SET sql_mode = ''", f"SET timestamp = {clock}", row.format(number))
    finally:
        tap.execute("SET GLOBAL time_zone = 'SYSTEM'")
    items = of(RowChange, tap.read(start))
    assert sorted(item.ts for item in items) != [item.ts for item in items], "the clock went back"
    truth = selected(tap)
    assert len({json.loads(text)["dt"] for text in truth.values()}) > 8, "zones told"
    assert differences(last_images(items), truth) == []
