"""A planned switchover behind one address: other connections reach another server from now on, and
the demoted one lives on, with every connection that it had.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import structlog

from cdc.lease import former_lock_name
from cdc.polling import poll
from cdc.positions import Positions
from dev.stack import MariaDB
from dev.stack.sql import copy
from openmrs import read as openmrs_read
from openmrs.connection import end_of_binlog, identity
from openmrs.read import ANY_POSITION, ConsistentRead, Source, SourcePosition
from passport.errors import Fatal
from tests.beside import beside
from tests.eventually import eventually, seconds_until
from tests.hospitals import assert_equal, hospital, is_published, is_snapshot_done, reading, saved
from tests.integration.test_failover import (
    Pair,
    caught_up,
    follow,
    is_mariadb,
    pair,
    replica_word,
    said,
)
from tests.proxy import Proxy
from tests.reader_process import catch_up, running
from tests.servers import Address

__all__ = ["pair"]  # a fixture

# The least that this project promises. It is looked at far more often here.
WITHIN_S = 60
QUICK = {"address_check_s": 0.5}


@contextmanager
def behind_one_address(pair: Pair) -> Iterator[tuple[Proxy, Address, Address]]:
    """The proxy, the hospital's address, and the replica's own."""
    primary, replica = pair
    address = hospital(primary, patients=5)
    caught_up(replica, primary)
    with Proxy(primary.port) as proxy:
        yield proxy, address._replace(port=proxy.port), address._replace(port=replica.port)


def switch_over(pair: Pair, proxy: Proxy) -> None:
    """The replica takes over, and the primary follows it."""
    primary, replica = pair
    primary.execute("SET GLOBAL read_only = 1")
    caught_up(replica, primary)
    replica.execute(f"STOP {replica_word(replica)}")
    proxy.lead_to(replica.port)
    if is_mariadb(primary):
        where = f"MASTER_HOST='127.0.0.1', MASTER_PORT={replica.port}, MASTER_USER='root'"
        primary.execute(f"CHANGE MASTER TO {where}, MASTER_USE_GTID=current_pos", "START SLAVE")
    else:
        follow(primary, replica)


def change(address: Address) -> None:
    """Edit some rows, and insert one."""
    address.execute(
        "UPDATE obs SET comments = 'after' ORDER BY obs_id LIMIT 3",
        "INSERT INTO obs (person_id, concept_id, obs_datetime, creator, date_created, uuid)"
        " SELECT person_id, concept_id, NOW(), creator, NOW(), UUID() FROM obs LIMIT 1",
    )


def test_a3_a_switchover_behind_one_address_is_noticed(pair: Pair, kafka_bootstrap: str) -> None:
    primary, _ = pair
    with behind_one_address(pair) as (proxy, address, promoted):
        settings = reading(address, kafka_bootstrap, cdc=QUICK)
        Positions.ensure(settings)
        with structlog.testing.capture_logs() as logs, running(settings):
            eventually(
                lambda: is_published(settings, promoted) and is_snapshot_done(settings),
                "the snapshot is done",
            )
            before = saved(settings)
            switch_over(pair, proxy)
            change(promoted)
            # A demoted MySQL logs what it replicates, and shows the change, too. So it is not
            # enough that the change has come.
            took_s = seconds_until(
                lambda: saved(settings).server != before.server,
                "the reader is at the other server",
                WITHIN_S,
            )
            print(f"noticed {took_s:.1f} s after the switchover")
            eventually(lambda: is_published(settings, promoted), "the change is published")
            assert primary.answers(), "the demoted server lives on"
        after = saved(settings)
        assert (after.server != before.server, after.epoch > before.epoch) == (True, True)
        assert said(logs, "going on by GTID")
        assert not said(logs, "gap")
        catch_up(settings)
        assert_equal(settings, promoted)


def test_a3_a_clone_with_the_same_identity_is_another_server(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    """A copy of the primary's files has its server_id, and its binlog up to the copy."""
    primary: MariaDB = own_mariadb(server_id=101)
    clone: MariaDB = own_mariadb(server_id=101)
    address = hospital(primary, patients=5)
    primary.stop()
    clone.stop()
    shutil.rmtree(clone.data)
    copy(primary.data, clone.data)
    primary.start()
    clone.start()
    promoted = address._replace(port=clone.port)
    with Proxy(primary.port) as proxy:
        settings = reading(address._replace(port=proxy.port), kafka_bootstrap, cdc=QUICK)
        Positions.ensure(settings)
        with running(settings):
            eventually(lambda: is_published(settings, address), "the snapshot is published")
            with address.connect() as one, promoted.connect() as other:
                assert identity(one) == identity(other)
            proxy.lead_to(clone.port)
            change(promoted)
            eventually(
                lambda: is_published(settings, promoted),
                "what was changed at the clone is published",
                WITHIN_S,
            )
            assert not is_published(settings, address)


def test_a3_a_replica_that_logs_nothing_stops_and_is_read_again(
    own_mariadb: Any, kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address still leads to the demoted server, which has every row and shows none of them."""
    monkeypatch.setattr("cdc.heartbeat.OBSTACLE_LOOK_S", 0.5)
    server: MariaDB = own_mariadb(server_id=101)
    other: MariaDB = own_mariadb(server_id=102, flags=["--log-slave-updates=1"])
    pair = server, other
    follow(other, server)
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap, cdc=QUICK)
    Positions.ensure(settings)
    epochs: list[int] = []

    def read_on(unused: Proxy) -> None:
        with running(settings):
            eventually(lambda: is_published(settings, address), "the snapshot is published")
            epochs.append(saved(settings).epoch)
            switch_over(pair, unused)
            change(address._replace(port=other.port))
            caught_up(server, other)
            eventually(lambda: saved(settings).gap, "the reader stops, and knows of a gap")

    with Proxy(server.port) as unused, pytest.raises(Fatal, match="a replica and doesn't log"):
        read_on(unused)
    assert not is_published(settings, address), "what was replicated is not in the binlog"
    server.execute("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")
    catch_up(settings)
    assert saved(settings).epoch > epochs[0]
    assert_equal(settings, address)


def test_a3_a_consumers_reads_leave_the_demoted_server(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks up names keeps its connection, too: it must not read there for ever."""
    with behind_one_address(pair) as (proxy, address, promoted):
        source = Source("kigali", address.settings())
        with closing(source):
            newest = "SELECT MAX(obs_id) AS obs_id FROM obs"

            def seen(read: ConsistentRead) -> int:
                return int(read.rows(newest)[0]["obs_id"])

            with source.read_at(ANY_POSITION) as read:
                before = seen(read)
            switch_over(pair, proxy)
            pair[0].execute(f"STOP {replica_word(pair[0])}")  # so that it stays behind
            change(promoted)
            with promoted.connect() as connection:
                end = end_of_binlog(connection)
                server = identity(connection)
            assert end is not None

            with source.read_at(ANY_POSITION) as read:
                assert seen(read) == before, "its connection is that of the demoted server"
            with source.read_at(SourcePosition(end, "", server)) as read:
                assert read.position is not None
                assert seen(read) > before

            proxy.lead_to(pair[0].port)
            with source.read_at(ANY_POSITION) as read:
                assert seen(read) > before, "a connection is kept for a while"
            monkeypatch.setattr(openmrs_read, "LONGEST_CONNECTION_S", 0)
            with source.read_at(ANY_POSITION) as read:
                assert seen(read) == before, "and no longer"


def test_a3_polling_moves_its_lease_to_the_server_that_it_reads(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    primary: MariaDB = own_mariadb(server_id=101)
    replica: MariaDB = own_mariadb(server_id=102, flags=["--log-slave-updates=1"])
    follow(replica, primary)
    with behind_one_address((primary, replica)) as (proxy, address, promoted):
        settings = reading(
            address, kafka_bootstrap, hospital={"capture": "polling", "poll_interval_s": 0.3}
        )
        Positions.ensure(settings)

        def polling(done: threading.Event) -> None:
            poll.run("kigali", settings, once=False, stop=done)

        with beside(polling):
            eventually(lambda: is_published(settings, promoted), "it is polled")
            eventually(lambda: holds_lease(primary), "the lease is at the primary")
            switch_over((primary, replica), proxy)
            change(promoted)
            eventually(lambda: is_published(settings, promoted), "the other one is polled")
            eventually(lambda: holds_lease(replica), "the lease is at the server that is polled")
            eventually(lambda: not holds_lease(primary), "and no longer at the demoted one")


def holds_lease(server: MariaDB) -> bool:
    ((holder,),) = server.execute(f"SELECT IS_USED_LOCK('{former_lock_name('kigali')}')")
    return holder is not None
