"""A read at a known position, against real servers that are being written to."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cdc.binlog.stream import BinlogStream, Commit, RowChange
from dev.stack import MariaDB, MySQL
from openmrs import connection as source
from openmrs.read import END_OF_BINLOG, ConsistentRead, Source, SourcePosition
from openmrs.tables import ROW_COLUMNS
from passport.settings import MySQL as MySQLSettings
from passport.version import Position
from tests.servers import ALL_VERSIONS, KINDS, in_test_long

WRITERS = 4
OBS = (
    "CREATE TABLE obs (obs_id INT AUTO_INCREMENT PRIMARY KEY, person_id INT NOT NULL,"
    " value_text TEXT,"
    " value_numeric DOUBLE, obs_datetime DATETIME NOT NULL, voided TINYINT(1) NOT NULL,"
    " secret TEXT)"
)


@pytest.fixture(
    params=[
        *ALL_VERSIONS,
        "mysql-unordered",
        "mysql-without-gtid",
        *in_test_long("mysql-8.0-without-gtid", "mysql-5.7-unordered", "mysql-5.7-without-gtid"),
    ]
)
def server(request: pytest.FixtureRequest, own: Callable[..., MariaDB | MySQL]) -> MariaDB | MySQL:
    """Durable settings: fsync between a commit's place in the binlog and its being visible widens
    what is tested.
    """
    name = request.param
    flags = []
    if name.endswith("-unordered"):
        flags = ["--binlog-order-commits=OFF"]
    elif name.endswith("-without-gtid"):
        flags = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
    kind = KINDS[name.removesuffix("-unordered").removesuffix("-without-gtid")]
    started = own(kind, flags=flags, fast=False)
    started.execute("CREATE DATABASE openmrs", "USE openmrs", OBS)
    return started


def settings(server: MariaDB | MySQL, **changes: Any) -> MySQLSettings:
    return MySQLSettings(**{"host": "127.0.0.1", "port": server.port, "user": "root", **changes})


@contextmanager
def writing(server: MariaDB | MySQL) -> Iterator[None]:
    """Several sessions insert and update, a commit each."""
    done = threading.Event()

    def write() -> None:
        with server.connect(database="openmrs") as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute("INSERT INTO obs VALUES (NULL, 1, 'x', 1.5, NOW(), 0, 's')")

    threads = [threading.Thread(target=write) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def stream(server: MariaDB | MySQL, start: Position) -> BinlogStream:
    with server.connect() as connection:
        flavour = source.flavour(connection)
        columns = source.list_columns(connection, "openmrs", ["obs"])
    return BinlogStream(
        lambda: server.connect(database="openmrs"),
        flavour=flavour,
        server_id=77,
        start=start,
        gtid_set="",
        database="openmrs",
        columns=columns,
        row_columns=ROW_COLUMNS,
        key_columns={},
    )


def end(server: MariaDB | MySQL) -> Position:
    with server.connect() as connection:
        position = source.end_of_binlog(connection)
    assert position is not None
    return position


def commits(events: BinlogStream, until: Position) -> dict[int, Commit]:
    """obs_id -> its commit."""
    found: dict[int, Commit] = {}
    keys: list[int] = []
    while not events.format_ts or events.position.order < until.order:
        for item in events.poll(1):
            if isinstance(item, RowChange):
                keys.append(int((item.after or "").split(":")[1].split(",")[0]))
            elif isinstance(item, Commit):
                found |= dict.fromkeys(keys, item)
                keys = []
    return found


def ids(reading: ConsistentRead, above: int = 0) -> set[int]:
    return {
        row["obs_id"] for row in reading.rows("SELECT obs_id FROM obs WHERE obs_id > %s", (above,))
    }


def test_a_row_is_seen_by_the_read_that_its_event_asks_for(server: MariaDB | MySQL) -> None:
    reader = Source("kigali", settings(server))
    events = stream(server, end(server))
    with server.connect() as connection:
        identity = source.identity(connection)
    seen = 0
    with writing(server):
        deadline = time.monotonic() + 4
        keys: list[int] = []
        while seen < 3 or time.monotonic() < deadline:
            for item in events.poll(0.5):
                if isinstance(item, RowChange):
                    keys.append(int((item.after or "").split(":")[1].split(",")[0]))
                elif isinstance(item, Commit) and keys:
                    if seen >= 3 and time.monotonic() >= deadline:
                        break
                    with reader.read_at(SourcePosition(item.at, item.gtid, identity)) as reading:
                        rows = reading.rows("SELECT obs_id FROM obs WHERE obs_id IN %s", (keys,))
                        assert reading.position is not None
                        assert reading.position.order >= item.at.order
                    assert {row["obs_id"] for row in rows} == {*keys}
                    seen += len(keys)
                    keys = []
    events.close()
    reader.close()


def test_a_read_contains_all_up_to_its_position(server: MariaDB | MySQL) -> None:
    reader = Source("kigali", settings(server))
    start = end(server)
    taken: list[tuple[Position, int, set[int]]] = []
    with writing(server):
        deadline = time.monotonic() + 4
        above = 0
        while len(taken) < 3 or time.monotonic() < deadline:
            with reader.read_at(END_OF_BINLOG) as reading:
                assert reading.position is not None
                taken.append((reading.position, above, ids(reading, above)))
            above = max(taken[-1][2], default=above) - 50
    reader.close()
    events = stream(server, start)
    at = commits(events, end(server))
    events.close()
    assert len(at) > 50
    for position, above, found in taken:
        expected = {
            key for key, commit in at.items() if key > above and commit.at.order <= position.order
        }
        assert expected <= found
        if isinstance(server, MariaDB):
            assert expected == found
