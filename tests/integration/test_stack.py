"""The servers that all other tests stand on: they start, keep their data, die, come back, and touch
nothing else.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from pymongo import MongoClient
from pymongo.database import Database

from dev.stack import Kafka, MariaDB, Mongo, MySQL, ports, process
from dev.stack.server import Server
from passport.errors import Fatal
from tests.eventually import eventually
from tests.servers import Address
from tests.topic_reader import read_topic

KINDS = [MariaDB, MySQL, Kafka, Mongo]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest, own: Callable[..., Server]) -> Server:
    """Each kind, started for this test alone."""
    return own(request.param)


def write(server: Server, value: str) -> None:
    """Keep `value` in the server; it's acknowledged when this returns."""
    match server:
        case MariaDB() | MySQL():
            create = "CREATE TABLE IF NOT EXISTS kept.t (v VARCHAR(20))"
            server.execute(
                "CREATE DATABASE IF NOT EXISTS kept",
                create,
                f"INSERT INTO kept.t VALUES ('{value}')",
            )
        case Kafka():
            _create_topic(server)
            producer = KafkaProducer(bootstrap_servers=server.url, acks="all")
            producer.send("kept", value.encode()).get(timeout=30)
            producer.close()
        case Mongo():
            with MongoClient[Any](server.url, w="majority", journal=True) as client:
                client.kept.t.insert_one({"v": value})


def read(server: Server) -> list[str]:
    """What was kept, in the order of writing."""
    match server:
        case MariaDB() | MySQL():
            return [row[0] for row in server.execute("SELECT v FROM kept.t")]
        case Mongo():
            with MongoClient[Any](server.url) as client:
                return [document["v"] for document in client.kept.t.find().sort("_id")]
        case _:
            return [record.value.decode() for record in read_topic(server.url, "kept")]


def _create_topic(server: Kafka) -> None:
    admin = KafkaAdminClient(bootstrap_servers=server.url)
    if "kept" not in admin.list_topics():
        admin.create_topics([NewTopic("kept", 1, 1)])
    admin.close()


def test_a_stop_and_a_kill_keep_what_was_acknowledged(server: Server) -> None:
    port, first = server.port, server.pid
    write(server, "one")
    server.restart()
    assert server.pid not in (None, first)
    write(server, "two")

    pid = server.pid
    server.kill()
    assert process.running(server.folder) is None
    assert not server.answers()
    assert not Path(f"/proc/{pid}").exists()

    server.start()
    assert read(server) == ["one", "two"]
    assert server.port == port


def test_another_object_on_the_same_folder_finds_the_running_server(server: Server) -> None:
    other = type(server)(server.folder).start()
    assert (other.pid, other.port, other.url) == (server.pid, server.port, server.url)
    other.stop()
    assert server.pid is None


def test_a_paused_server_answers_nobody_until_it_is_resumed(server: Server) -> None:
    server.pause()
    stat = Path(f"/proc/{server.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it stands still")
    assert not server.answers()
    server.resume()
    eventually(server.answers, "it answers again")


def test_a_paused_server_can_be_stopped(own_mariadb: Callable[..., MariaDB]) -> None:
    hospital = own_mariadb()
    hospital.pause()
    hospital.stop()
    assert hospital.pid is None
    assert "Shutdown complete" in (hospital.folder / "log").read_text()


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    """Numbers are used again: after a reboot the pid of a server may be anyone's."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid} 1\n")
        assert process.running(tmp_path) is None
        MariaDB(tmp_path).stop()
        MariaDB(tmp_path).kill()
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_dies_with_a_starter_that_is_killed(tmp_path: Path) -> None:
    with _starter(tmp_path, outlives=False) as starter:
        pid = process.running(tmp_path)
        assert pid is not None
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    eventually(lambda: process.running(tmp_path) is None, "the process has ended")


def test_a_server_that_outlives_its_starter_is_stopped_by_its_folder(tmp_path: Path) -> None:
    with _starter(tmp_path, outlives=True) as starter:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    hospital = MariaDB(tmp_path)
    assert hospital.execute("SELECT 1") == ((1,),)
    hospital.stop()
    assert hospital.pid is None


def _starter(folder: Path, *, outlives: bool) -> "subprocess.Popen[bytes]":
    """A process that started a MariaDB and now waits."""
    script = f"""if True:
        from dev.stack import MariaDB
        server = MariaDB({str(folder)!r}, outlives={outlives}).start()
        print("started", flush=True)
        input()
    """
    starter = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"started\n"
    return starter


def test_the_commands_start_show_and_stop(tmp_path: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dev.stack", *arguments, "--folder", str(tmp_path)]
        environment = {**os.environ, "STACK": "local"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    try:
        up = run("up", "--hospitals", "1")
        assert up.returncode == 0, up.stderr
        assert [line.split()[0] for line in up.stdout.splitlines()] == [
            "mariadb-kigali",
            "kafka",
            "mongo",
        ]
        pid = process.running(tmp_path / "mariadb-kigali")
        assert run("up", "--hospitals", "1").stdout == up.stdout
        assert process.running(tmp_path / "mariadb-kigali") == pid
        assert run("status").returncode == 0
        url = MariaDB(tmp_path / "mariadb-kigali").url
        assert f"export TEST_MYSQL_URL='{url}'" in run("env").stdout
    finally:
        assert run("down").stdout.count("stopped") == 3
    assert run("status").returncode == 3


def test_a_server_that_cannot_start_says_why(
    own_mariadb: Callable[..., MariaDB], tmp_path: Path
) -> None:
    with pytest.raises(Fatal, match="ended while it started") as caught:
        MariaDB(tmp_path, flags=["--no-such-flag"]).start()
    assert "unknown option '--no-such-flag'" in caught.value.hint


def test_flags_win_and_each_server_has_its_own_id(
    own_mariadb: Callable[..., MariaDB], own_mysql: Callable[..., MySQL]
) -> None:
    servers = [
        own_mariadb(flags=["--binlog-row-metadata=NO_LOG"]),
        own_mysql(flags=["--binlog-row-metadata=MINIMAL"]),
    ]
    asked = "SELECT @@binlog_row_metadata, @@binlog_format, @@binlog_row_image, @@server_id"
    rows = [server.execute(asked)[0] for server in servers]
    assert rows == [
        ("NO_LOG", "ROW", "FULL", servers[0].server_id),
        ("MINIMAL", "ROW", "FULL", servers[1].server_id),
    ]
    assert servers[0].server_id != servers[1].server_id


def test_copies_of_one_mysql_have_uuids_of_their_own(own_mysql: Callable[..., MySQL]) -> None:
    uuids = {own_mysql().execute("SELECT @@server_uuid")[0][0] for _ in range(2)}
    assert len(uuids) == 2


def test_a_mongo_whose_port_changed_is_primary_again(own_mongo: Callable[..., Mongo]) -> None:
    first = own_mongo()
    write(first, "one")
    first.stop()
    moved = Mongo(first.folder, ports.kept(first.folder / "another"))
    assert moved.port != first.port
    with moved:
        assert read(moved) == ["one"]


def test_a_remembered_port_is_used_again_if_it_is_free(tmp_path: Path) -> None:
    first = ports.kept(tmp_path / "port")
    assert ports.kept(tmp_path / "port") == first
    with socket.create_server(("127.0.0.1", first)):
        assert ports.kept(tmp_path / "port") != first


@pytest.fixture(params=range(2))
def twice(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_each_test_has_a_database_of_its_own(twice: int, flavour_database: Address) -> None:
    flavour_database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY)", f"INSERT INTO t VALUES ({twice})"
    )
    assert flavour_database.execute("SELECT id FROM t") == ((twice,),)
    version = flavour_database.execute("SELECT VERSION()")[0][0]
    assert ("MariaDB" in version) == (flavour_database.flavour == "mariadb")


def test_each_test_has_a_mongo_database_of_its_own(
    twice: int, mongo_database: Database[dict[str, Any]]
) -> None:
    mongo_database.t.insert_one({"_id": twice})
    assert mongo_database.t.count_documents({}) == 1


def test_topics_are_made_on_purpose_only(
    topic: str, create_topic: Callable[..., str], kafka_bootstrap: str
) -> None:
    create_topic(topic, partitions=3, cleanup_policy="compact")
    consumer = KafkaConsumer(bootstrap_servers=kafka_bootstrap)
    assert consumer.partitions_for_topic(topic) == {0, 1, 2}
    assert not consumer.partitions_for_topic("no-such-topic")
    consumer.close()


def test_the_password_of_an_address_stays_out_of_its_settings_text() -> None:
    address = Address.parse("mariadb", "mysql://cdc:s%40cret@db.example:3307/openmrs")
    assert [*address] == ["mariadb", "db.example", 3307, "cdc", "s@cret", "openmrs"]
    assert "s@cret" not in repr(address.settings())


def test_the_guarantees_name_the_versions_that_are_tested(mysql_flavour: Address) -> None:
    """And that others were not: the line at the start of a session says what this one has."""
    ((version,),) = mysql_flavour.execute("SELECT VERSION()")
    name = "MariaDB" if mysql_flavour.flavour == "mariadb" else "MySQL"
    series = ".".join(version.split(".")[:2])
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "guarantees.md").read_text()
    assert f"\n| {name} {series} " in page
    not_tested, _, _ = page.partition("were not tested")
    assert "MySQL 8.4" in not_tested
