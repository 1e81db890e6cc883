"""A server that keeps changes of the hospital's database out of its binlog stops the reader.

Each test proves that the change is not in the binlog, and that the reader has it in the end.
"""

from collections.abc import Callable
from typing import Any

import pytest

from cdc.hidden_changes import Filters
from dev.stack import MySQL
from openmrs.connection import end_of_binlog
from openmrs.server_version import ServerVersion
from passport.errors import Fatal
from passport.settings import Settings
from tests.eventually import eventually
from tests.hospitals import Server, checked, hospital, reading, saved
from tests.integration.plain import held, told
from tests.integration.test_failover import caught_up, follow
from tests.reader_process import catch_up, running
from tests.servers import KINDS, Address

NEW_OBS = (
    "INSERT INTO obs (person_id, concept_id, obs_datetime, creator, date_created, uuid, comments)"
    " SELECT person_id, concept_id, obs_datetime, creator, date_created, UUID(), 'hidden'"
    " FROM obs LIMIT 1"
)


def restart(server: Server, *flags: str) -> None:
    """Restart the server with these flags, and without those of the restart before."""
    server.flags = flags
    server.restart()


def in_binlog(server: Server, work: Callable[[], object]) -> bool:
    """Do some work, and return whether the binlog grew."""
    with server.connect() as connection:
        before = end_of_binlog(connection)
        work()
        return end_of_binlog(connection) != before


def refused(settings: Settings) -> Fatal:
    with pytest.raises(Fatal) as caught:
        catch_up(settings)
    assert "kigali" in caught.value.reason
    assert "passport check --hospital kigali" in caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("mariadb", "--binlog-ignore-db=openmrs"),
        ("mysql", "--binlog-do-db=other"),
        pytest.param("mariadb", "--binlog-do-db=other", marks=pytest.mark.long),
        pytest.param("mysql", "--binlog-ignore-db=openmrs", marks=pytest.mark.long),
        pytest.param("mysql-5.7", "--binlog-ignore-db=openmrs", marks=pytest.mark.long),
        pytest.param("mysql-8.0", "--binlog-do-db=other", marks=pytest.mark.long),
        pytest.param("mariadb-11.8", "--binlog-do-db=other", marks=pytest.mark.long),
    ],
)
def test_a6_a_filter_of_the_binlog_stops_the_reader(
    own: Any, kafka_bootstrap: str, kind: str, flag: str
) -> None:
    server = own(KINDS[kind])
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    epoch = saved(settings).epoch

    restart(server, flag)
    assert not in_binlog(server, lambda: address.execute(NEW_OBS)), "the change is hidden"
    error = refused(settings)
    option = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    assert option in error.reason
    assert f"remove {option}" in error.hint
    assert checked(settings)["hidden changes"].ok is False

    # As soon as the server is set right any supervisor may start the reader again.
    restart(server)
    assert checked(settings)["hidden changes"].ok
    catch_up(settings)
    assert told(settings) == held(address), "what was hidden has come by a snapshot"
    assert saved(settings).epoch > epoch
    assert saved(settings).gap == ""


@pytest.mark.parametrize(
    "kind",
    [
        "mariadb",
        pytest.param("mysql", marks=pytest.mark.long),
        pytest.param("mysql-5.7", marks=pytest.mark.long),
    ],
)
def test_a6_what_the_filters_of_a_binlog_do(own: Any, kafka_bootstrap: str, kind: str) -> None:
    """Rows go by the database that they are in, other statements by the session's database."""
    server: Server = own(KINDS[kind], flags=["--binlog-do-db=openmrs"])
    address = hospital(server, patients=2)
    server.execute("CREATE DATABASE other", "CREATE TABLE other.notes (id INT PRIMARY KEY)")

    def rows(*statements: str) -> bool:
        return in_binlog(server, lambda: server.execute(*statements))

    assert rows("USE openmrs", NEW_OBS)
    assert rows("USE other", NEW_OBS.replace(" obs ", " openmrs.obs "))
    assert not rows("USE openmrs", "INSERT INTO other.notes VALUES (1)")
    assert rows("USE openmrs", "ALTER TABLE obs ADD COLUMN extra1 INT")
    assert not rows("USE other", "ALTER TABLE openmrs.obs ADD COLUMN extra2 INT")
    # Of a session that uses no database MySQL writes everything, and MariaDB nothing.
    is_written = rows("ALTER TABLE openmrs.obs ADD COLUMN extra3 INT")
    assert is_written == isinstance(server, MySQL)
    warned = checked(reading(address, kafka_bootstrap))["hidden changes"]
    assert warned.ok is None
    assert "ALTER TABLE" in warned.detail

    # Two names in one line are the name of one database, and nobody can see the difference.
    restart(server, "--binlog-do-db=openmrs,other")
    assert not rows("USE openmrs", NEW_OBS)
    in_one_line = server.execute(status(server))[0][2]
    restart(server, "--binlog-do-db=openmrs", "--binlog-do-db=other")
    assert rows("USE openmrs", NEW_OBS)
    assert server.execute(status(server))[0][2] == in_one_line


def status(server: Server) -> str:
    """Return the statement that shows the filters of the server's binlog."""
    (version,) = server.execute("SELECT VERSION()")[0]
    return ServerVersion.parse(version).show_binlog_end


# With GTIDs a replica knows which transactions it has left out.
@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.long)])
def replicated(request: pytest.FixtureRequest, own: Any) -> tuple[Server, Server, Address]:
    """A primary, its replica that has all of the hospital, and the replica's address."""
    kind = KINDS[request.param]
    primary = own(kind, server_id=101)
    replica = own(kind, server_id=102, flags=["--log-slave-updates=1"])
    address = hospital(primary, patients=2)
    follow(replica, primary)
    caught_up(replica, primary)
    return primary, replica, address._replace(port=replica.port)


def test_a6_a_filter_of_replication_stops_the_reader(
    replicated: tuple[Server, Server, Address], kafka_bootstrap: str
) -> None:
    primary, replica, address = replicated
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)

    restart(replica, "--log-slave-updates=1", "--replicate-wild-ignore-table=openmrs.ob_")
    before = len(held(address))
    primary.execute("USE openmrs", NEW_OBS)
    caught_up(replica, primary)
    assert len(held(address)) == before, "the replica lacks it"
    error = refused(settings)
    assert "replicate_wild_ignore_table leaves out openmrs.obs" in error.reason
    assert checked(settings)["hidden changes"].ok is False


def test_a6_a_replica_that_logs_nothing_stops_the_reader(
    replicated: tuple[Server, Server, Address], kafka_bootstrap: str
) -> None:
    primary, replica, address = replicated
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)

    restart(replica, "--log-slave-updates=0")

    def replicate() -> None:
        primary.execute("USE openmrs", NEW_OBS)
        caught_up(replica, primary)

    assert not in_binlog(replica, replicate), "the row is in the table and not in the binlog"
    assert "doesn't log what it replicates" in refused(settings).reason
    assert checked(settings)["log_slave_updates"].ok is False
    restart(replica, "--log-slave-updates=1")
    catch_up(settings)
    assert told(settings) == held(address)


def test_a6_a_filter_that_comes_while_the_reader_runs(
    replicated: tuple[Server, Server, Address],
    kafka_bootstrap: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Filters of replication are set without a restart, so that the connection stays."""
    monkeypatch.setattr("cdc.heartbeat.OBSTACLE_LOOK_S", 0.1)
    _, replica, address = replicated
    settings = reading(address, kafka_bootstrap)
    filter_obs = [
        "STOP SLAVE",
        "SET GLOBAL replicate_ignore_table = 'openmrs.obs'",
        "START SLAVE",
    ]
    if address.flavour == "mysql":
        filter_obs = [
            "STOP REPLICA SQL_THREAD",
            "CHANGE REPLICATION FILTER REPLICATE_IGNORE_TABLE = (openmrs.obs)",
            "START REPLICA SQL_THREAD",
        ]

    def filtered_meanwhile() -> None:
        with running(settings):
            eventually(lambda: told(settings) == held(address), "the snapshot is done")
            replica.execute(*filter_obs)
            eventually(lambda: saved(settings).gap, "the position says that changes are missing")

    with pytest.raises(Fatal, match="replicate_ignore_table leaves out"):
        filtered_meanwhile()


@pytest.mark.parametrize(
    ("filters", "hidden"),
    [
        (Filters(), ""),
        (Filters(do_db=("openmrs", "x")), ""),
        (Filters(do_db=("x",)), "do_db"),
        (Filters(ignore_db=("openmrs",)), "ignore_db"),
        # The list of what to ignore has no effect beside one of what to do.
        (Filters(do_db=("openmrs",), ignore_db=("openmrs",)), ""),
        (Filters(ignore_table=("openmrs.obs",)), "ignore_table"),
        (Filters(ignore_table=("openmrs.person",)), ""),
        (Filters(do_table=("openmrs.person",)), "do_table"),
        (Filters(do_table=("openmrs.obs",), ignore_table=("openmrs.obs",)), ""),
        (Filters(wild_do_table=("open%.%",)), ""),
        (Filters(wild_do_table=("other.%",)), "wild_do_table"),
        (Filters(wild_ignore_table=(r"openmrs.ob\_",)), ""),
        (Filters(wild_ignore_table=("%.ob_",)), "wild_ignore_table"),
        (Filters(wild_do_table=("%.obs",), wild_ignore_table=("openmrs.%",)), ""),
    ],
)
def test_which_filter_hides_obs(filters: Filters, hidden: str) -> None:
    assert filters.hide_table("openmrs", "obs") == hidden
