"""What mysql-replication, as it comes, loses or garbles without a word, and what this reader makes
of the same bytes.

On the same server, from the same position. docs/explanation/silent-loss.md has the whole list.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from cdc.binlog.changes import DamagedEvent
from cdc.binlog.stream import RowChange, Statement
from dev.stack import MariaDB, MySQL
from passport.errors import Fatal
from passport.version import Position
from tests.integration.taps import Tap, of

pytestmark = pytest.mark.filterwarnings(
    "ignore:'(db|passwd)' is deprecated:DeprecationWarning"
)  # the library's

TABLE = """CREATE TABLE obs (obs_id INT PRIMARY KEY, big BIGINT UNSIGNED, kind ENUM('low', 'high'),
octets BINARY(4),
moment TIMESTAMP NULL, value_text TEXT)"""
COLUMNS = ("obs_id", "big", "kind", "octets", "moment", "value_text")


@pytest.fixture(scope="module", params=[MariaDB, MySQL])
def server(request: pytest.FixtureRequest, module_own: Callable[..., Any]) -> MariaDB | MySQL:
    started: MariaDB | MySQL = module_own(request.param)
    return started


@pytest.fixture
def tap(server: MariaDB | MySQL) -> Iterator[Tap]:
    tap = Tap(server, row_columns={"obs": COLUMNS}, key_columns={})
    tap.execute(TABLE)
    yield tap
    server.execute("SET GLOBAL binlog_row_metadata = FULL")


def stock(tap: Tap, start: Position | None, **options: Any) -> list[dict[str, Any]]:
    """The rows that the library gives from `start` to the end, with its checksums verified."""
    account = {
        "host": "127.0.0.1",
        "port": tap.server.port,
        "user": "root",
        "password": "",
        "ssl_disabled": True,
    }
    place = {"log_file": start.file, "log_pos": start.pos} if start else {}
    reader = BinLogStreamReader(
        connection_settings=account,
        server_id=4712,
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        verify_checksum=True,
        enable_logging=False,
        **place,
        **options,
    )
    rows = [row.get("after_values") or row["values"] for event in reader for row in event.rows]
    reader.close()
    return rows


def ours(tap: Tap, start: Position) -> list[dict[str, Any]]:
    return [json.loads(row.after or row.before) for row in of(RowChange, tap.read(start))]


def events(tap: Tap, start: Position) -> list[tuple[str, int]]:
    """Type and end of what is in the binlog from `start` on."""
    found = tap.server.execute(f"SHOW BINLOG EVENTS IN '{start.file}' FROM {start.pos}")
    return [(str(row[2]), int(row[4])) for row in found]


def test_compressed_changes_are_lost(tap: Tap) -> None:
    mariadb = tap.flavour == "mariadb"
    change = (
        "SET GLOBAL log_bin_compress = 1"
        if mariadb
        else "SET SESSION binlog_transaction_compression = ON"
    )
    start = tap.end()
    try:
        tap.execute(
            change,
            "INSERT INTO obs (obs_id, value_text) VALUES (1, REPEAT('a', 3000))",
            "UPDATE obs SET value_text = REPEAT('b', 3000)",
        )
    finally:
        if mariadb:
            tap.server.execute("SET GLOBAL log_bin_compress = 0")
    assert [
        kind
        for kind, _ in events(tap, start)
        if "compressed" in kind.lower() or kind == "Transaction_payload"
    ]
    assert stock(tap, start) == []
    assert [row["value_text"][0] for row in ours(tap, start)] == ["a", "b"]


def test_rows_behind_a_position_inside_a_transaction_are_lost(tap: Tap) -> None:
    start = tap.end()
    tap.execute(
        "BEGIN",
        "INSERT INTO obs (obs_id) VALUES (1)",
        "INSERT INTO obs (obs_id) VALUES (2)",
        "COMMIT",
    )
    inside = start._replace(
        pos=next(end for kind, end in events(tap, start) if kind == "Table_map")
    )
    assert [row["obs_id"] for row in stock(tap, inside)] == [2], (
        "the first was behind its TABLE_MAP"
    )
    with pytest.raises(Fatal, match="without their TABLE_MAP"):
        tap.read(inside)


def test_without_names_in_the_binlog_columns_and_values_are_garbled(tap: Tap) -> None:
    """As both servers come: MariaDB logs no metadata, MySQL signs and charsets, which the library
    does not use.
    """
    tap.server.execute(
        f"SET GLOBAL binlog_row_metadata = {'NO_LOG' if tap.flavour == 'mariadb' else 'MINIMAL'}"
    )
    start = tap.end()
    tap.execute("INSERT INTO obs (obs_id, big, kind) VALUES (1, 18446744073709551615, 'high')")
    [garbled] = stock(tap, start)
    assert not {"obs_id", "big", "kind"} & garbled.keys()
    assert "high" not in garbled.values()
    assert -1 in garbled.values()
    [row] = ours(tap, start)
    assert (row["obs_id"], row["big"], row["kind"]) == (1, 18446744073709551615, "high")


def test_a_damaged_event_is_delivered(tap: Tap) -> None:
    start = tap.end()
    tap.execute("INSERT INTO obs (obs_id, value_text) VALUES (1, 'MARKER')", "FLUSH BINARY LOGS")
    [file] = tap.server.data.rglob(start.file)
    written = file.read_bytes()
    assert b"MARKER" in written
    file.write_bytes(written.replace(b"MARKER", b"MURKER"))
    try:
        assert [row["value_text"] for row in stock(tap, start)] == ["MURKER"]
        with pytest.raises(DamagedEvent):
            tap.read(start)
    finally:
        file.write_bytes(written)


def test_what_was_logged_as_a_statement_is_lost(tap: Tap) -> None:
    start = tap.end()
    tap.execute("SET SESSION binlog_format = STATEMENT", "INSERT INTO obs (obs_id) VALUES (1)")
    assert stock(tap, start) == []
    items = tap.read(start)
    assert [item.table for item in of(Statement, items)] == ["obs"], "which asks for a snapshot"


def test_values_become_others(tap: Tap) -> None:
    start = tap.end()
    tap.execute(
        "SET SESSION sql_mode = '', time_zone = '+00:00'",
        "INSERT INTO obs (obs_id, octets, moment) VALUES (1, x'ff000000', '0000-00-00 00:00:00')",
    )
    [garbled] = stock(tap, start)
    assert str(garbled["moment"]) == "1970-01-01 00:00:00"
    assert garbled["octets"] == b"\xff"
    [row] = ours(tap, start)
    assert (row["moment"], row["octets"]) == ("0000-00-00T00:00:00Z", "/wAAAA==")
