"""A primary dies and its replica takes over, on real servers of both flavours: by GTID where it has
all that was read.

A replica that lacks what was published is a gap: recorded, and what only the dead primary had is
gone from the topic's table in the end.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from cdc.binlog.stream import BinlogStream, RowChange
from cdc.column_lists import read_columns
from dev.stack import MariaDB, MySQL
from dev.stack.sql import copy
from openmrs.read import Source
from openmrs.tables import KEY_COLUMNS, ROW_COLUMNS
from passport.event import Event
from passport.settings import Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import (
    PASSWORD,
    Server,
    assert_equal,
    clinic,
    hospital,
    in_source_order,
    reading,
    saved,
)
from tests.reader_process import catch_up, running
from tests.servers import ALL_VERSIONS, KINDS, Address, in_test_long

Pair = tuple[Server, Server]


@pytest.fixture(params=ALL_VERSIONS)
def pair(request: pytest.FixtureRequest, own: Callable[..., Server]) -> Pair:
    """A primary and a replica that follows it by GTID from the first event on, and logs what it
    applies.
    """
    kind = KINDS[request.param]
    primary = own(kind, server_id=101)
    replica = own(kind, server_id=102, flags=["--log-slave-updates=1"])
    follow(replica, primary)
    return primary, replica


def follow(replica: Server, primary: Server) -> None:
    primary_at = f"MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='root'"
    if is_mariadb(replica):
        change = f"CHANGE MASTER TO {primary_at}, MASTER_USE_GTID=slave_pos"
    else:
        change = f"CHANGE MASTER TO {primary_at}, MASTER_AUTO_POSITION=1"
    if replica_word(replica) == "REPLICA":
        change = change.replace("CHANGE MASTER", "CHANGE REPLICATION SOURCE")
        change = change.replace("MASTER_", "SOURCE_")
    replica.execute(change, f"START {replica_word(replica)}")


def replica_word(server: Server) -> str:
    """What the statements and flags of this version call a replica."""
    return "REPLICA" if type(server) is MySQL else "SLAVE"


def is_mariadb(server: Server) -> bool:
    return isinstance(server, MariaDB)


def executed(server: Server) -> str:
    """What a server has executed, as text."""
    variable = "gtid_current_pos" if is_mariadb(server) else "gtid_executed"
    return str(server.execute(f"SELECT @@global.{variable}")[0][0])


def caught_up(replica: Server, primary: Server) -> None:
    """Wait until the replica has all that the primary has."""
    eventually(
        lambda: executed(replica) == executed(primary), "the replica has all that the primary has"
    )


def promote(replica: Server, address: Address) -> Address:
    """It follows nobody any more; where its clients find it."""
    replica.execute(f"STOP {replica_word(replica)}")
    return address._replace(port=replica.port)


def take_over(replica: Server, primary: Server) -> None:
    """It comes up at the dead primary's address."""
    assert primary.pid is None
    replica.stop()
    replica._wanted = primary.port
    replica.flags += (f"--skip-{replica_word(replica).lower()}-start=1",)
    replica.start()


def gtids_from(events: list[Event], server: str) -> set[str]:
    return {event.source.gtid for event in stream.changes(events) if event.source.server == server}


def moved(settings: Settings, address: Address) -> Settings:
    """The hospital's address is now the replica's."""
    mysql = address.settings(user="cdc", password=PASSWORD)
    changed = settings.hospitals["kigali"].model_copy(update={"mysql": mysql})
    return settings.model_copy(update={"hospitals": {"kigali": changed}})


def newest(address: Address) -> int:
    return int(address.execute("SELECT MAX(obs_id) FROM obs")[0][0])


def said(logs: list[Any], words: str) -> list[Any]:
    return [line for line in logs if words in line["event"]]


def test_a_replica_that_has_all_goes_on_by_gtid(pair: Pair, kafka_bootstrap: str) -> None:
    primary, replica = pair
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    with running(settings), clinic(address):
        eventually(
            lambda: saved(settings).position.order > before.position.order, "the position has moved"
        )
    read = saved(settings)
    primary.execute("FLUSH BINARY LOGS")
    with clinic(address, seed=9):  # what no reader has seen, and the replica has
        time.sleep(1)
    caught_up(replica, primary)
    primary.kill()
    promoted = promote(replica, address)
    with structlog.testing.capture_logs() as logs, clinic(promoted, seed=10):
        catch_up(moved(settings, promoted))
    catch_up(moved(settings, promoted))
    after = saved(settings)
    assert (after.epoch > read.epoch, after.server != read.server) == (True, True)
    assert said(logs, "going on by GTID")
    assert not said(logs, "gap")
    events = assert_equal(settings, promoted)
    assert in_source_order(events)
    gtids = {server: gtids_from(events, server) for server in (read.server, after.server)}
    assert len(gtids[after.server]) > 5, "the replica was streamed from"
    assert not gtids[read.server] & gtids[after.server], "and nothing came twice"
    assert all_between(promoted, read.gtid_set) <= gtids[after.server], (
        "nor was anything left to the snapshot"
    )


def all_between(address: Address, gtid_set: str) -> set[str]:
    """GTIDs of all transactions with rows of obs that the server's binlog holds and `gtid_set`
    doesn't.
    """
    source_ = Source("kigali", address.settings())
    stream_ = BinlogStream(
        address.connect,
        flavour=address.flavour,  # type: ignore[arg-type]
        server_id=77,
        start=None,
        gtid_set=gtid_set,
        database="openmrs",
        columns=read_columns(source_.connection(), "openmrs"),
        row_columns=ROW_COLUMNS,
        key_columns=KEY_COLUMNS,
    )
    found = {item.gtid for _ in range(20) for item in stream_.poll(0.1) if type(item) is RowChange}
    stream_.close()
    source_.close()
    return found


def test_a_replica_that_lacks_what_was_read_is_a_gap(pair: Pair, kafka_bootstrap: str) -> None:
    """The same reader process and address all along: the replica comes up where the primary was."""
    primary, replica = pair
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    caught_up(replica, primary)
    with running(settings):
        with clinic(address):
            time.sleep(1)
        eventually(lambda: bool(stream.records(settings)), "something is published")
        caught_up(replica, primary)
        replica.execute(f"STOP {replica_word(replica)}")
        shared = newest(address)
        with clinic(address, seed=9):  # acknowledged, published, and lost with the primary
            eventually(lambda: newest(address) > shared, "the primary alone has a new row")
        end = newest(address)
        eventually(
            lambda: end in stream.Table.of(stream.records(settings)).rows,
            "the last row is published",
        )
        before = saved(settings)
        primary.kill()
        take_over(replica, primary)
        assert newest(address) < end, "it lacks what was published"
        with clinic(address, seed=10):
            eventually(
                lambda: saved(settings).server != before.server, "the position is of the new server"
            )
        eventually(lambda: saved(settings).snapshot.state == "done", "the snapshot is done")  # type: ignore[union-attr]
    with structlog.testing.capture_logs() as logs:
        catch_up(settings)
    assert not said(logs, "new epoch")
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, address)


@pytest.mark.long
def test_a_replica_whose_binlog_no_longer_has_what_follows_is_a_gap(
    pair: Pair, kafka_bootstrap: str
) -> None:
    primary, replica = pair
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    with clinic(address):
        time.sleep(1)
    caught_up(replica, primary)
    primary.kill()
    promoted = promote(replica, address)
    promoted.execute("DELETE FROM obs ORDER BY obs_id DESC LIMIT 1", "FLUSH BINARY LOGS")
    last = promoted.execute("SHOW BINARY LOGS")[-1][0]
    while len(promoted.execute(f"PURGE BINARY LOGS TO '{last}'", "SHOW BINARY LOGS")) > 1:
        time.sleep(0.1)  # MariaDB keeps a file whose transactions InnoDB has not yet flushed
    with structlog.testing.capture_logs() as logs:
        catch_up(moved(settings, promoted))
    assert said(logs, "gap")
    assert saved(settings).epoch >= before.epoch + 2
    assert_equal(settings, promoted)


@pytest.mark.long
def test_what_the_replica_alone_has_or_lacks_comes_to_light(
    pair: Pair, kafka_bootstrap: str
) -> None:
    """Errant changes: one in its binlog under its own GTID, one that is in no binlog at all."""
    primary, replica = pair
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    caught_up(replica, primary)
    promoted = promote(replica, address)
    last = newest(promoted)
    promoted.execute(f"UPDATE obs SET comments = 'errant' WHERE obs_id = {last}")
    end = promoted.execute("SHOW BINARY LOGS")
    promoted.execute("SET SESSION sql_log_bin = 0", f"DELETE FROM obs WHERE obs_id = {last - 1}")
    assert promoted.execute("SHOW BINARY LOGS") == end
    primary.kill()
    with structlog.testing.capture_logs() as logs:
        catch_up(moved(settings, promoted))
    assert said(logs, "going on by GTID")
    events = assert_equal(settings, promoted)
    assert stream.Table.of(events).rows[last]["comments"] == "errant"
    assert last - 1 not in stream.Table.of(events).rows


def test_mariadb_domains_are_each_gone_on_with(own_mariadb: Any, kafka_bootstrap: str) -> None:
    primary = own_mariadb(server_id=101)
    replica = own_mariadb(server_id=102, flags=["--log-slave-updates=1"])
    follow(replica, primary)
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    in_domain(address, 5, "UPDATE obs SET comments = 'five' ORDER BY obs_id LIMIT 3")
    catch_up(settings)
    assert len(saved(settings).gtid_set.split(",")) == 2
    in_domain(address, 5, "UPDATE obs SET comments = 'five again' ORDER BY obs_id LIMIT 5")
    in_domain(address, 0, "UPDATE obs SET comments = 'zero' ORDER BY obs_id DESC LIMIT 2")
    in_domain(address, 7, "UPDATE obs SET comments = 'seven' ORDER BY obs_id DESC LIMIT 1")
    read = saved(settings).server
    caught_up(replica, primary)
    primary.kill()
    promoted = promote(replica, address)
    with structlog.testing.capture_logs() as logs:
        catch_up(moved(settings, promoted))
    assert said(logs, "going on by GTID")
    events = assert_equal(settings, promoted)
    new = gtids_from(events, saved(settings).server)
    assert {gtid.partition("-")[0] for gtid in new} == {"0", "5", "7"}
    assert not new & gtids_from(events, read)


def in_domain(address: Address, domain: int, sql: str) -> None:
    address.execute(f"SET SESSION gtid_domain_id = {domain}", sql)


@pytest.mark.long
def test_a_replica_that_logs_nothing_of_its_primary_is_a_gap(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    primary, replica = own_mariadb(server_id=101), own_mariadb(server_id=102)
    follow(replica, primary)
    address = hospital(primary)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute("DELETE FROM obs ORDER BY obs_id DESC LIMIT 1")
    caught_up(replica, primary)
    primary.kill()
    promoted = promote(replica, address)
    with structlog.testing.capture_logs() as logs:
        catch_up(moved(settings, promoted))
    assert said(logs, "new epoch, snapshot follows")
    assert_equal(settings, promoted)


@pytest.mark.parametrize("version", ["mysql", *in_test_long("mysql-8.0", "mysql-5.7")])
def test_without_gtids_the_same_server_is_gone_on_with_and_another_is_a_gap(
    own: Callable[..., Server], kafka_bootstrap: str, version: str
) -> None:
    kind = KINDS[version]
    off = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
    server = own(kind, flags=off)
    address = hospital(server)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    assert before.gtid_set == ""
    with clinic(address):
        time.sleep(1)
    server.kill()
    server.start()
    with clinic(address, seed=9):
        time.sleep(0.5)
    catch_up(settings)
    assert saved(settings).epoch == before.epoch
    assert in_source_order(assert_equal(settings, address))
    other = hospital(own(kind, flags=off), patients=3)
    server.kill()
    catch_up(moved(settings, other))
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, other)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_a_backup_is_restored_under_the_same_identity(
    own: Callable[..., Server], kafka_bootstrap: str, tmp_path: Path, version: str
) -> None:
    """Its history is shorter than what was read, or, once it went on, another one of the same
    length.
    """
    server = own(KINDS[version])
    address = hospital(server, patients=3)
    settings = reading(address, kafka_bootstrap)
    server.stop()
    copy(server.data, tmp_path / "backup")
    server.start()
    for seed in (None, 11):
        with clinic(address, seed=20):
            time.sleep(0.5)
        catch_up(settings)
        before = saved(settings)
        server.stop()
        shutil.rmtree(server.data)
        copy(tmp_path / "backup", server.data)
        server.start()
        if seed:
            with clinic(address, seed=seed):
                time.sleep(2)
        catch_up(settings)
        after = saved(settings)
        assert after.server == before.server, "the same identity"
        assert after.epoch > before.epoch
        assert_equal(settings, address)
