"""Where an epoch begins and what it contains, on real servers that others write to meanwhile."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from kafka import KafkaAdminClient

from cdc import positions_file, resume
from cdc.binlog.stream import BinlogStream
from cdc.lease import Lease
from cdc.positions import Positions, Saved
from dev.stack import MySQL
from openmrs.connection import connect, end_of_binlog
from openmrs.read import END_OF_BINLOG, Source
from passport import health
from passport.errors import NotReady, Retry
from passport.settings import Settings
from passport.version import Position
from tests import stream
from tests.beside import beside
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, is_snapshot_done, reading, saved
from tests.proxy import Proxy
from tests.reader_process import catch_up, running
from tests.servers import Address

DELAY_S = 0.05
SEMI_SYNC = ["--plugin-load=semisync_source.so"]
WITHOUT_GTIDS = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]


# --- A4: positions that were restored


def lose_positions(settings: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
    topic = settings.kafka.positions_topic
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics(), "the topic is gone")
    admin.close()


@pytest.fixture
def restored(own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path) -> tuple[Address, Settings]:
    """A hospital with positions of an epoch before the one that was published last."""
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    file = tmp_path / "positions"
    positions_file.save(settings, file)
    backup = saved(settings)
    catch_up(settings, new_epoch=True)
    assert saved(settings).epoch > backup.epoch
    lose_positions(settings)
    assert positions_file.restore(settings, file) == {"kigali": "older than what was published"}
    assert saved(settings).epoch == backup.epoch
    return address, settings


def test_a4_a_restored_position_older_than_the_newest_epoch_begins_a_new_one(
    restored: tuple[Address, Settings],
) -> None:
    address, settings = restored
    published = max(event.source.version[:10] for event in stream.records(settings))
    address.execute(
        "UPDATE obs SET comments = 'after' ORDER BY obs_id LIMIT 3",
        "DELETE FROM obs ORDER BY obs_id DESC LIMIT 1",
    )
    with structlog.testing.capture_logs() as logs:
        catch_up(settings)
    assert saved(settings).epoch > int(published)
    (line,) = [line for line in logs if line["event"].startswith("new epoch")]
    assert "older than" in line["reason"]
    assert_equal(settings, address)
    again = saved(settings)
    catch_up(settings)
    assert saved(settings).epoch == again.epoch, "once"


def test_a4_nobody_publishes_into_an_older_epoch(restored: tuple[Address, Settings]) -> None:
    """`verify --repair` and `backfill` would be dropped, too: they wait for the reader."""
    from cdc import backfill

    _, settings = restored
    before = len(stream.records(settings))
    with pytest.raises(NotReady, match="older than"):
        backfill.persons("kigali", settings, [1])
    assert len(stream.records(settings)) == before


# --- A7: what is in the binlog and not visible yet


@contextmanager
def waiting_commit(server: MySQL, address: Address) -> Iterator[Callable[[], None]]:
    """Insert a row whose commit waits for a replica, as long as nobody calls what this yields."""
    server.execute(
        "SET GLOBAL rpl_semi_sync_source_timeout = 600000",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
        "SET GLOBAL rpl_semi_sync_source_enabled = 1",
    )

    def go_on() -> None:
        server.execute("SET GLOBAL rpl_semi_sync_source_enabled = 0")

    def insert(_: threading.Event) -> None:
        address.execute(
            "INSERT INTO obs (person_id, concept_id, obs_datetime, creator, date_created, uuid,"
            " comments) SELECT person_id, concept_id, NOW(), creator, NOW(), UUID(), 'waits'"
            " FROM obs LIMIT 1"
        )

    with beside(insert):
        try:
            waits = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_wait_sessions'"
            eventually(lambda: server.execute(waits)[0][1] == "1", "the commit waits")
            yield go_on
        finally:
            go_on()


def is_visible(address: Address) -> bool:
    return bool(address.execute("SELECT 1 FROM obs WHERE comments = 'waits'"))


GTID_MODES = {"OFF": 0, "OFF_PERMISSIVE": 1, "ON_PERMISSIVE": 2, "ON": 3}


def test_a7_a_read_contains_a_row_that_waits_for_a_replica(own_mysql: Any) -> None:
    """Semi-synchronous replication (AFTER_SYNC, its default) with each gtid_mode."""
    server: MySQL = own_mysql(flags=[*WITHOUT_GTIDS, *SEMI_SYNC])
    address = hospital(server, patients=1)
    server.execute("SET GLOBAL enforce_gtid_consistency = ON")
    for mode in GTID_MODES:
        server.execute(f"SET GLOBAL gtid_mode = {mode}" if mode != "OFF" else "SELECT 1")
        address.execute("DELETE FROM obs WHERE comments = 'waits'")
        with (
            closing(Source("kigali", address.settings())) as source,
            waiting_commit(server, address) as go_on,
        ):
            with address.connect() as connection:
                end = end_of_binlog(connection)
            assert end is not None
            assert not is_visible(address)
            with (
                pytest.raises(Retry, match="not visible yet"),
                source.read_at(END_OF_BINLOG, patience_s=0.3) as read,
            ):
                print(mode, "was read at", read.position, "of", end)
            assert not is_visible(address)
            go_on()
            with source.read_at(END_OF_BINLOG) as read:
                assert read.position is not None
                assert read.position.order >= end.order
                assert read.rows("SELECT obs_id FROM obs WHERE comments = 'waits'")


@pytest.mark.long
def test_a7_an_epoch_begins_behind_a_row_that_waits_for_a_replica(
    own_mysql: Any, kafka_bootstrap: str
) -> None:
    server: MySQL = own_mysql(flags=[*WITHOUT_GTIDS, *SEMI_SYNC])
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    Positions.ensure(settings)
    with waiting_commit(server, address) as go_on, running(settings):
        # The fault: where the stream begins, the row is in the binlog, and nobody sees it.
        with address.connect() as connection:
            end = end_of_binlog(connection)
        assert end is not None
        eventually(lambda: Positions(settings.kafka).load("kigali"), "the epoch has begun")
        assert saved(settings).position.order >= end.order
        assert not is_visible(address)
        eventually(
            lambda: is_snapshot_done(settings) or "not visible yet" in str(health.failures()),
            "the snapshot is done, or waits",
        )
        assert not is_visible(address)
        go_on()
        eventually(lambda: is_snapshot_done(settings), "the snapshot is done")
    catch_up(settings)
    assert_equal(settings, address)
    assert is_visible(address)


# --- A8: a MySQL that is never still


@contextmanager
def commits(server: MySQL) -> Iterator[None]:
    """Commit all the time, in another database."""
    server.execute("CREATE DATABASE busy", "CREATE TABLE busy.t (i INT AUTO_INCREMENT PRIMARY KEY)")

    def write(done: threading.Event) -> None:
        with server.connect() as connection, connection.cursor() as cursor:
            while not done.wait(0.005):
                cursor.execute("INSERT INTO busy.t VALUES ()")

    with beside(write, write):
        yield


def ends(address: Address, looks: int = 10) -> list[Position | None]:
    """Where the binlog ended each time that somebody asked, one question after the other."""
    with address.connect() as connection:
        return [end_of_binlog(connection) for _ in range(looks)]


def test_a8_an_epoch_begins_on_a_busy_server_far_away(own_mysql: Any, kafka_bootstrap: str) -> None:
    server: MySQL = own_mysql()
    address = hospital(server, patients=2)
    with Proxy(server.port) as proxy:
        proxy.delay_s = DELAY_S
        away = address._replace(port=proxy.port)
        settings = reading(away, kafka_bootstrap)
        Positions.ensure(settings)
        with commits(server), running(settings):
            found = ends(away)
            assert len({*found}) == len(found), "others commit between any two questions"
            eventually(lambda: Positions(settings.kafka).load("kigali"), "an epoch has begun", 60)
            eventually(lambda: is_snapshot_done(settings), "the snapshot is done")
            found = ends(away)
            assert len({*found}) == len(found), "and they still do"
        catch_up(settings)
    assert_equal(settings, address)


def test_a8_the_gtids_of_an_epoch_are_those_before_its_position(
    own_mysql: Any, kafka_bootstrap: str
) -> None:
    """Not one more, which a replica would leave out, and not one less, which it would repeat."""
    server: MySQL = own_mysql()
    address = hospital(server, patients=1)
    settings = reading(address, kafka_bootstrap)
    positions = Positions(settings.kafka)
    positions.ensure(settings)
    mysql = settings.hospitals["kigali"].mysql
    opened: list[Position] = []
    with (
        closing(Source("kigali", mysql)) as source,
        closing(Lease("kigali", mysql)) as lease,
    ):
        assert lease.take(positions.reader_name("kigali"), threading.Event())

        def open_stream(position: Position) -> closing[BinlogStream]:
            opened.append(position)
            stream = BinlogStream(
                lambda: connect("kigali", mysql),
                flavour="mysql",
                server_id=77,
                start=position,
                gtid_set="",
                database="openmrs",
                columns={},
                row_columns={},
                key_columns={},
            )
            return closing(stream)

        with commits(server):
            begun: list[Saved] = []
            deadline = time.monotonic() + 60
            while len(opened) < 3 and time.monotonic() < deadline:
                start = resume.find_start(
                    "kigali", settings.hospitals["kigali"], positions, source, lease, open_stream
                )
                begun.append(start.saved)
        assert len(opened) >= 3, "others committed meanwhile"
    positions.close()
    for start in begun:
        ((everything,),) = server.execute("SELECT @@global.gtid_executed")
        later = ",".join(gtids_behind(server, start.position))
        ((expected,),) = server.execute(f"SELECT GTID_SUBTRACT('{everything}', '{later}')")
        assert start.gtid_set == expected.replace("\n", "")


def gtids_behind(server: MySQL, at: Position) -> Iterator[str]:
    """The GTIDs behind a place, as the server itself lists them."""
    for row in server.execute(f"SHOW BINLOG EVENTS IN '{at.file}' FROM {at.pos}"):
        match = re.search(r"GTID_NEXT= '([^']+)'", row[5])
        if match:
            yield match[1]
