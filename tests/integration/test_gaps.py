"""What the binlog does not show, or shows too early, is read from the table: nobody needs to come.

Each test makes its fault on a real server, and first asserts that it happened.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest

from cdc.binlog.changes import RowChange
from cdc.positions import Positions
from dev.hospital import create
from passport import health
from passport.errors import Fatal
from passport.settings import Settings
from passport.version import Position
from tests import stream
from tests.eventually import eventually
from tests.hospitals import Server, assert_equal, hospital, is_published, reading, saved
from tests.integration.taps import Tap, of
from tests.integration.test_silent_loss import events
from tests.reader_process import catch_up, running
from tests.servers import Address

INSERT = """
INSERT INTO obs (person_id, concept_id, obs_datetime, date_created, creator, value_text, uuid)
SELECT person_id, concept_id, obs_datetime, date_created, creator, '{text}', UUID() FROM obs LIMIT 1
"""


LONG_ON = {
    "mariadb": pytest.param("mariadb", marks=pytest.mark.long),
    "mysql": pytest.param("mysql", marks=pytest.mark.long),
}
MARIADB_IN_CI = pytest.mark.parametrize("server", ["mariadb", LONG_ON["mysql"]], indirect=True)
MYSQL_IN_CI = pytest.mark.parametrize("server", [LONG_ON["mariadb"], "mysql"], indirect=True)


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    started: Server = request.getfixturevalue(f"own_{request.param}")()
    return started


def texts(settings: Settings) -> list[str]:
    """The texts of the rows that the topic tells of now."""
    rows = stream.Table.of(stream.records(settings)).rows.values()
    return [str(row["value_text"]) for row in rows]


def binlog(server: Server, file: str) -> list[str]:
    """The types of the events in a binlog file."""
    return [str(row[2]) for row in server.execute(f"SHOW BINLOG EVENTS IN '{file}'")]


# --- XA


def prepare(address: Address, *, insert: str) -> None:
    address.execute("XA START 'a'", insert, "XA END 'a'", "XA PREPARE 'a'")


def test_a22_rows_of_an_xa_transaction_are_read_when_it_is_committed(
    server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    prepare(address, insert=INSERT.format(text="prepared"))
    assert server.execute("XA RECOVER"), "it is prepared, and in the binlog"
    address.execute(INSERT.format(text="behind it"))
    catch_up(settings)
    assert "behind it" in texts(settings)
    assert "prepared" not in texts(settings), "nobody can see it yet"
    assert saved(settings).snapshot == before.snapshot, "nothing was read again for it"

    server.execute("XA COMMIT 'a'")
    catch_up(settings)
    assert "prepared" in texts(settings)
    assert_equal(settings, address)
    assert saved(settings).epoch == before.epoch


@MARIADB_IN_CI
def test_a22_an_xa_transaction_that_is_committed_after_an_epoch_began_is_read(
    server: Server, kafka_bootstrap: str
) -> None:
    """Nobody who begins behind its rows knows of them."""
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    prepare(address, insert=INSERT.format(text="prepared"))
    assert server.execute("XA RECOVER")
    catch_up(settings)
    assert "prepared" not in texts(settings)
    server.execute("XA COMMIT 'a'")
    catch_up(settings)
    assert "prepared" in texts(settings)
    assert_equal(settings, address)
    assert saved(settings).snapshot.number == 2  # type: ignore[union-attr]


@MYSQL_IN_CI
def test_a22_an_xa_transaction_in_one_phase_or_rolled_back(
    server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    prepare(address, insert=INSERT.format(text="never"))
    server.execute("XA ROLLBACK 'a'")
    catch_up(settings)
    assert saved(settings).snapshot.number == 1, "nothing was read again"  # type: ignore[union-attr]
    address.execute(
        "XA START 'a'", INSERT.format(text="at once"), "XA END 'a'", "XA COMMIT 'a' ONE PHASE"
    )
    catch_up(settings)
    assert "at once" in texts(settings)
    assert_equal(settings, address)


# --- what the server lost, and positions that are none


def lose_changes(server: Server) -> str:
    """Let the server write an INCIDENT. Return the name of the file that has it.

    A statement on a table that can't be rolled back has done more than the binlog's cache takes.
    """
    server.execute(
        "CREATE TABLE openmrs.old_engine (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(4000))"
        " ENGINE = MyISAM",
        "SET GLOBAL max_binlog_stmt_cache_size = 4096",
    )
    rows = ", ".join("(REPEAT('x', 4000))" for _ in range(10))
    with pytest.raises(Exception, match="max_binlog_stmt_cache_size"):
        server.execute(f"INSERT INTO openmrs.old_engine (t) VALUES {rows}")
    files = [row[0] for row in server.execute("SHOW BINARY LOGS")]
    [file] = [file for file in files if "Incident" in binlog(server, file)]
    return str(file)


@MARIADB_IN_CI
def test_a22_an_incident_is_a_gap_that_heals(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    address.execute("SET sql_log_bin = 0", INSERT.format(text="lost"))
    assert lose_changes(server)
    address.execute(INSERT.format(text="behind it"))
    catch_up(settings)
    assert saved(settings).epoch > before.epoch
    assert {"lost", "behind it"} <= {*texts(settings)}
    assert_equal(settings, address)
    after = saved(settings)
    catch_up(settings)
    assert saved(settings).epoch == after.epoch, "it was one gap"


@MYSQL_IN_CI
def test_a22_a_position_inside_a_transaction_is_a_gap_that_heals(
    server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    address.execute("BEGIN", INSERT.format(text="first"), INSERT.format(text="second"), "COMMIT")
    rows = server.execute(
        f"SHOW BINLOG EVENTS IN '{before.position.file}' FROM {before.position.pos}"
    )
    [in_front, behind] = next([int(row[1]), int(row[4])] for row in rows if row[2] == "Table_map")
    for place in (behind, in_front):
        epoch = saved(settings).epoch
        with closing(Positions(settings.kafka)) as positions:
            wrong = replace(
                saved(settings), position=Position(before.position.file, place), gtid_set=""
            )
            positions.save(replace(wrong, epoch=epoch + 1))
        catch_up(settings)
        assert saved(settings).epoch > epoch + 1
        assert_equal(settings, address)


# --- the database goes and comes


@MARIADB_IN_CI
def test_a22_a_dropped_database_is_waited_for_and_read_when_it_is_back(
    server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    part = "hospital kigali: reader"
    with running(settings):
        eventually(lambda: stream.records(settings), "the first records are published")
        server.execute("DROP DATABASE openmrs")
        eventually(
            lambda: "'openmrs'" in health.failures().get(part, ""),
            lambda: f"the reader says why it is not ready: {health.failures()}",
        )
        server.execute("CREATE DATABASE openmrs")
        create(server.connect(database="openmrs"), seed=2, patients=5)
        eventually(
            lambda: is_published(settings, address),
            "the topic is what the table is",
        )
        eventually(lambda: part not in health.failures(), "the reader is ready")
    catch_up(settings)
    assert_equal(settings, address)


# --- compressed transactions that can't be read


def test_a24_a_compressed_transaction_that_is_damaged_says_so(own_mysql: Any) -> None:
    """Its checksum is right, as that of a server that wrote it wrongly would be."""
    tap = Tap(own_mysql())
    tap.execute("CREATE TABLE obs (obs_id INT PRIMARY KEY, void_reason INT, value_text TEXT)")
    start = tap.end()
    tap.execute(
        "SET SESSION binlog_transaction_compression = ON",
        "INSERT INTO obs VALUES (1, 1, REPEAT('x', 3000))",
    )
    ends = [4, *(end for _, end in events(tap, start._replace(pos=4)))]
    [(payload_at, payload_end)] = [
        (ends[number], end)
        for number, (kind, end) in enumerate(events(tap, start._replace(pos=4)))
        if kind == "Transaction_payload"
    ]
    [file] = tap.server.data.rglob(start.file)
    written = bytearray(file.read_bytes())
    for place in range(payload_end - 40, payload_end - 4):
        written[place] ^= 0xFF
    checksum = crc32(written[payload_at : payload_end - 4])
    written[payload_end - 4 : payload_end] = checksum.to_bytes(4, "little")
    file.write_bytes(written)
    with pytest.raises(Fatal, match="compressed transaction is not understood"):
        of(RowChange, tap.read(start))


# --- a transaction that stops the reader


def test_a11_a_large_transaction_that_stops_the_reader_is_published_once(
    own_mariadb: Callable[..., Any], kafka_bootstrap: str
) -> None:
    """Its last row is larger than a record may be. A supervisor starts the reader again."""
    server = own_mariadb(flags=["--max-allowed-packet=64M"])
    address = hospital(server, patients=2)
    address.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    published = len(stream.raw(settings))
    address.execute(
        "BEGIN",
        INSERT.format(text="x").replace(
            "FROM obs LIMIT 1", "FROM (SELECT o.* FROM obs o JOIN obs) o LIMIT 3000"
        ),
        INSERT.format(text="x").replace("'x'", "REPEAT('x', 17 * 1024 * 1024)"),
        "COMMIT",
    )

    def ends_with_a_fatal() -> int:
        with pytest.raises(Fatal, match=r"obs \d+ at binlog\.\d+:\d+"):
            catch_up(settings)
        return len(stream.raw(settings)) - published

    first = ends_with_a_fatal()
    assert first >= 2_999, "what comes before it was published"
    assert [ends_with_a_fatal() for _ in range(3)] == [first] * 3, "and never again"

    # Someone makes room for it, in the only way: it goes.
    epoch = saved(settings).epoch
    address.execute("DELETE FROM obs WHERE LENGTH(value_text) > 1000000")
    catch_up(settings, new_epoch=True)
    assert saved(settings).epoch > epoch
    assert_equal(settings, address)


# --- a server that crashes


@pytest.mark.parametrize(
    ("flavour", "how"),
    [
        ("mariadb", "durable"),
        pytest.param("mysql", "durable", marks=pytest.mark.long),
        pytest.param("mariadb", "relaxed", marks=pytest.mark.long),
        ("mysql", "relaxed"),
        pytest.param("mariadb", "not InnoDB", marks=pytest.mark.long),
        pytest.param("mysql", "not InnoDB", marks=pytest.mark.long),
    ],
)
def test_a_crash_with_durable_settings_needs_no_snapshot(
    flavour: str, how: str, request: pytest.FixtureRequest, kafka_bootstrap: str
) -> None:
    """The settings of before the crash count, and only for tables that take part in recovery."""
    server: Server = request.getfixturevalue(f"own_{flavour}")(fast=False)
    address = hospital(server, patients=2)
    if how == "not InnoDB":
        server.execute(
            "USE openmrs",
            "CREATE TABLE copied LIKE person_name",
            "ALTER TABLE copied ENGINE = MyISAM",
            "INSERT INTO copied SELECT * FROM person_name",
            "DROP TABLE person_name",
            "RENAME TABLE copied TO person_name",
        )
    settings = reading(address, kafka_bootstrap, cdc={"heartbeat_s": 0.3})
    with running(settings):
        file = server.execute("SHOW BINARY LOGS")[-1][0]
        eventually(lambda: stream.records(settings), "it has begun")
        eventually(lambda: saved(settings).seen_durable.end.file == file, "the settings were seen")
        if how == "relaxed":
            server.execute("SET GLOBAL sync_binlog = 0")
            eventually(lambda: not saved(settings).seen_durable.end.file, "that was seen, too")
        address.execute(INSERT.format(text="before the crash"))
        eventually(lambda: "before the crash" in texts(settings), "it is published")
    server.kill()
    server.start()
    address.execute(INSERT.format(text="after it"))
    assert "Stop" not in binlog(server, file), "the file has no end"
    assert "Rotate" not in binlog(server, file)
    catch_up(settings)
    assert {"before the crash", "after it"} <= {*texts(settings)}
    assert_equal(settings, address)
    snapshot = saved(settings).snapshot
    assert snapshot is not None
    assert snapshot.number == (1 if how == "durable" else 2)
    catch_up(settings)
    assert saved(settings).snapshot == snapshot
