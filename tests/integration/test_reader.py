"""The reader against real servers: what it publishes equals the table, whatever is done to it."""

import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from cdc.positions import Positions
from passport.errors import Fatal, NotReady
from tests import stream
from tests.eventually import eventually
from tests.hospitals import (
    PASSWORD,
    Server,
    assert_equal,
    clinic,
    hospital,
    in_source_order,
    log,
    reading,
    saved,
)
from tests.reader_process import catch_up, running, spawn
from tests.servers import KINDS, Address, fresh_name, in_test_long


@pytest.fixture(
    params=[
        "mariadb-FULL",
        "mariadb-NO_LOG",
        "mysql-FULL",
        "mysql-MINIMAL",
        *in_test_long("mariadb-11.8-NO_LOG", "mysql-8.0-MINIMAL", "mysql-5.7-none"),
    ]
)
def any_server(request: pytest.FixtureRequest, own: Callable[..., Server]) -> Server:
    """Each version, with and without column names in the binlog. MySQL 5.7 never has them."""
    name, _, metadata = request.param.rpartition("-")
    flags = []
    if metadata != "none":
        flags.append(f"--binlog-row-metadata={metadata}")
    return own(KINDS[name], flags=flags)


def test_first_start_and_stream_equal_the_table(any_server: Server, kafka_bootstrap: str) -> None:
    address = hospital(any_server)
    settings = reading(address, kafka_bootstrap)
    with clinic(address, rate=None), clinic(address, seed=8, rate=None), running(settings):
        time.sleep(4)
    any_server.execute("UPDATE openmrs.users SET username = 'x' WHERE user_id = 1")
    catch_up(settings)
    events = assert_equal(settings, address)
    assert in_source_order(events)
    origins = {event.source.origin for event in events if event.kind == "row"}
    assert origins == {"binlog", "snapshot"}
    assert {event.kind for event in events} == {"row", "notice", "chunk", "heartbeat"}
    assert [event.keys for event in events if event.source.table == "users"]
    rows = list(stream.changes(events))
    for event, following in itertools.pairwise(rows):
        assert event.transaction.last == (event.transaction.id != following.transaction.id)
    assert rows[-1].transaction.last


@pytest.mark.long
def test_killed_at_random_moments_it_loses_nothing(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap, load_budget={"rows_per_s": 600, "chunk_rows": 50})
    rng = Random(11)
    killed = 0
    with clinic(address, rate=15):
        for turn in range(10):
            sign = "reading the binlog" if turn % 2 else "lease taken"
            begun = log(tmp_path).count(sign)
            process = spawn(settings, tmp_path)
            eventually(
                lambda sign=sign, begun=begun: log(tmp_path).count(sign) > begun,
                "the reader's log says how far it is",
            )  # type: ignore[misc]
            time.sleep(rng.uniform(0, 2))
            assert process.poll() is None
            process.kill()
            killed += process.wait() == -signal.SIGKILL
    catch_up(settings)
    events = assert_equal(settings, address)
    assert killed == 10
    assert log(tmp_path).count("reading the binlog") >= 5
    assert in_source_order(events)
    versions = [event.source.version for event in stream.changes(events)]
    assert len(versions) > 200
    assert len({event.source.version[:10] for event in events}) == 1, (
        "one epoch: it went on, and never began again"
    )


def test_a_second_reader_waits_and_takes_over(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = spawn(settings, folders[0])
    eventually(lambda: "reading the binlog" in log(folders[0]), "the first reader reads the binlog")
    second = spawn(settings, folders[1])
    eventually(
        lambda: "another reader holds the lease" in log(folders[1]),
        "the second reader waits for the lease",
    )
    assert "reading the binlog" not in log(folders[1])
    first.kill()
    first.wait()
    eventually(
        lambda: "reading the binlog" in log(folders[1]), "the second reader reads the binlog"
    )
    with clinic(address):
        time.sleep(1)
    second.terminate()
    assert second.wait(10) == 0
    catch_up(settings)
    assert_equal(settings, address)


def test_sigterm_saves_what_was_published(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap, cdc={"checkpoint_s": 60, "heartbeat_s": 60})
    catch_up(settings)
    process = spawn(settings, tmp_path)
    with clinic(address):
        eventually(
            lambda: len([*stream.changes(stream.records(settings))]) > 20, "changes are published"
        )
        began = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
    assert time.monotonic() - began < 10
    before = len(stream.records(settings))
    catch_up(settings)
    events = assert_equal(settings, address)
    repeated = [event.source.version for event in stream.changes(events)]
    assert before < len(events)
    assert len(repeated) == len(set(repeated)), "nothing twice after an orderly stop"


def test_reset_while_it_runs_and_the_server_is_idle(
    any_server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(any_server)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    epoch = saved(settings).epoch
    with running(settings):
        time.sleep(1)
        any_server.execute(any_server.reset_binlog)
        eventually(lambda: saved(settings).epoch > epoch, "a new epoch has begun")
        with clinic(address):
            time.sleep(1)
    catch_up(settings)
    assert saved(settings).snapshot.state == "done"  # type: ignore[union-attr]
    assert_equal(settings, address)


def test_reset_while_it_is_down_and_the_binlog_has_grown_past_the_position(
    any_server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(any_server)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    any_server.execute(any_server.reset_binlog)
    any_server.execute(
        "DELETE FROM openmrs.obs WHERE obs_id IN (SELECT * FROM (SELECT MAX(obs_id)"
        " FROM openmrs.obs) o)"
    )
    any_server.execute("CREATE TABLE openmrs.filler (f LONGBLOB)")
    any_server.execute(f"INSERT INTO openmrs.filler VALUES (REPEAT('x', {before.position.pos}))")
    files = {row[0]: row[1] for row in any_server.execute("SHOW BINARY LOGS")}
    assert files[before.position.file] > before.position.pos, (
        "the old position exists in the new binlog too"
    )
    catch_up(settings)
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, address)


def test_row_49_purged_while_it_is_down(any_server: Server, kafka_bootstrap: str) -> None:
    address = hospital(any_server)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    with clinic(address):
        time.sleep(1)
    any_server.execute(
        "DELETE FROM openmrs.obs WHERE obs_id IN (SELECT * FROM (SELECT MAX(obs_id)"
        " FROM openmrs.obs) o)"
    )
    any_server.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    last = [row[0] for row in any_server.execute("SHOW BINARY LOGS")][-1]
    # The server keeps a file for as long as it believes that somebody reads it.
    while len(any_server.execute(f"PURGE BINARY LOGS TO '{last}'", "SHOW BINARY LOGS")) > 1:
        time.sleep(0.2)
    eventually(
        lambda: (
            before.position.file not in [row[0] for row in any_server.execute("SHOW BINARY LOGS")]
        ),
        "the file of the saved position is purged",
    )
    catch_up(settings)
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, address)


@pytest.mark.parametrize("any_server", ["mariadb-NO_LOG", "mysql-FULL"], indirect=True)
def test_what_the_server_cannot_read_at_the_position_is_a_gap(
    any_server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(any_server, patients=3)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    address.execute("UPDATE obs SET comments = 'MARKER' ORDER BY obs_id LIMIT 1")
    inside = before.position._replace(pos=before.position.pos + 1)
    positions = Positions(settings.kafka)
    positions.save(replace(before, position=inside))
    positions.close()
    catch_up(settings)
    between = saved(settings)
    assert between.epoch > before.epoch
    assert_equal(settings, address)

    address.execute("UPDATE obs SET comments = 'MARKED' ORDER BY obs_id LIMIT 1")
    [file] = any_server.data.rglob(between.position.file)
    written = file.read_bytes()
    file.write_bytes(written.replace(b"MARKED", b"MURKED"))
    assert b"MARKED" in written
    with structlog.testing.capture_logs() as logs:
        catch_up(settings)
    assert [line["reason"] for line in logs if "wrong checksum" in line.get("reason", "")]
    assert saved(settings).epoch > between.epoch
    assert_equal(settings, address)


def test_another_server_answers_at_the_same_address(own_mariadb: Any, kafka_bootstrap: str) -> None:
    first, second = own_mariadb(server_id=101), own_mariadb(server_id=102)
    settings = reading(hospital(first), kafka_bootstrap)
    catch_up(settings)
    address = hospital(second, patients=5)
    changed = settings.hospitals["kigali"].model_copy(
        update={"mysql": address.settings(user="cdc", password=PASSWORD)}
    )
    moved = settings.model_copy(update={"hospitals": {"kigali": changed}})
    before = saved(settings)
    catch_up(moved)
    assert saved(moved).epoch > before.epoch
    assert saved(moved).server != before.server
    assert_equal(moved, address)


def test_a_wrong_password_stops_it_and_says_so(own_mariadb: Any, kafka_bootstrap: str) -> None:
    settings = reading(hospital(own_mariadb(), patients=2), kafka_bootstrap)
    mysql = settings.hospitals["kigali"].mysql.model_copy(update={"user": "nobody"})
    changed = settings.hospitals["kigali"].model_copy(update={"mysql": mysql})
    with pytest.raises(Fatal, match="kigali") as caught:
        catch_up(settings.model_copy(update={"hospitals": {"kigali": changed}}))
    assert "1045" in caught.value.reason
    assert "mysql.user" in caught.value.hint


@pytest.mark.parametrize("right", ["REPLICATION SLAVE", "BINLOG MONITOR", "SELECT"])
def test_a_missing_grant_stops_it_and_says_so(
    own_mariadb: Any, kafka_bootstrap: str, right: str
) -> None:
    server = own_mariadb()
    settings = reading(hospital(server, patients=2), kafka_bootstrap)
    place = "openmrs.obs" if right == "SELECT" else "*.*"
    server.execute(f"REVOKE {right} ON {place} FROM cdc@'%'")
    with pytest.raises((Fatal, NotReady), match="kigali") as caught:
        catch_up(settings)
    assert "grants" in caught.value.hint or "check" in caught.value.hint


def test_without_a_binlog_it_stops_and_says_so(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb(flags=["--skip-log-bin"])
    settings = reading(hospital(server, patients=2), kafka_bootstrap)
    with pytest.raises(Fatal, match=r"kigali.*log_bin"):
        catch_up(settings)


def test_a_polling_hospital_is_not_read(kafka_bootstrap: str, mysql_database: Address) -> None:
    settings = reading(mysql_database, kafka_bootstrap, hospital={"capture": "polling"})
    with pytest.raises(Fatal) as caught:
        catch_up(settings)
    assert "passport reconcile" in caught.value.hint


def test_kafka_away_and_back(own_mariadb: Any, own_kafka: Any) -> None:
    address, kafka = hospital(own_mariadb()), own_kafka()
    settings = reading(address, kafka.url)
    catch_up(settings)
    with clinic(address), running(settings):
        time.sleep(1)
        kafka.kill()
        time.sleep(3)
        assert kafka.pid is None
        kafka.start()
        time.sleep(2)
    catch_up(settings)
    events = assert_equal(settings, address)
    assert in_source_order(events)


def test_the_database_away_and_back(any_server: Server, kafka_bootstrap: str) -> None:
    address = hospital(any_server)
    settings = reading(address, kafka_bootstrap)
    with running(settings):
        for seed in range(3):
            with clinic(address, seed=seed):
                time.sleep(1)
            pid = any_server.pid
            any_server.kill()
            any_server.start()
            assert any_server.pid != pid
    catch_up(settings)
    events = assert_equal(settings, address)
    assert in_source_order(events)


def test_a_reader_that_stood_still_gives_way(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = spawn(settings, folders[0])
    eventually(lambda: "reading the binlog" in log(folders[0]), "the first reader reads the binlog")
    first.send_signal(signal.SIGSTOP)
    second = spawn(settings, folders[1])
    with clinic(address):
        eventually(
            lambda: "reading the binlog" in log(folders[1]), "the second reader reads the binlog"
        )
        first.send_signal(signal.SIGCONT)
        eventually(
            lambda: "another reader holds the lease" in log(folders[0]),
            "the first reader waits for the lease",
        )
        time.sleep(1)
    for process in (first, second):
        process.terminate()
        assert process.wait(20) == 0
    catch_up(settings)
    assert_equal(settings, address)


def test_a_server_that_stands_still_is_left_and_come_back_to(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    server = own_mariadb()
    address = hospital(server)
    fast = address.settings(user="cdc", password=PASSWORD, read_timeout_s=2, connect_timeout_s=1)
    settings = stream.settings(fast, kafka_bootstrap, fresh_name())
    with running(settings):
        time.sleep(1)
        before = sample("passport_cdc_disconnects_total")
        server.pause()
        eventually(
            lambda: sample("passport_cdc_disconnects_total") > before,
            "the reader has lost its connection",
        )
        server.resume()
        with clinic(address):
            time.sleep(1)
            eventually(lambda: sample("passport_cdc_connected") == 1, "the reader is connected")
    catch_up(settings)
    assert in_source_order(assert_equal(settings, address))


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"hospital": "kigali"}) or 0


def test_a_command_does_not_wait_for_a_kafka_that_is_away(own_mariadb: Any, own_kafka: Any) -> None:
    address, kafka = hospital(own_mariadb(), patients=2), own_kafka()
    settings = reading(address, kafka.url)
    kafka.kill()
    with pytest.raises(NotReady, match="Kafka"):
        catch_up(settings)


def test_files_rotate_while_it_reads(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb(flags=["--max-binlog-size=65536"])
    address = hospital(server)
    settings = reading(address, kafka_bootstrap)
    with running(settings):
        eventually(lambda: bool(stream.records(settings)), "something is published")
        before = len(server.execute("SHOW BINARY LOGS"))
        with clinic(address, rate=None):
            eventually(
                lambda: len(server.execute("SHOW BINARY LOGS")) > before + 4,
                "the server has begun new files",
            )
    catch_up(settings)
    events = assert_equal(settings, address)
    assert len({event.source.file for event in stream.changes(events)}) > 3
    assert in_source_order(events)
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def test_the_gtids_saved_in_the_next_file_are_whole(own_mariadb: Any, kafka_bootstrap: str) -> None:
    """The last commit of a file and the step into the next one come in one read."""
    server = own_mariadb()
    settings = reading(hospital(server, patients=2), kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    server.execute("UPDATE openmrs.obs SET comments = 'again' LIMIT 1", "FLUSH BINARY LOGS")
    with running(settings):
        eventually(
            lambda: saved(settings).position.file != before.position.file,
            "the position is in another file",
        )
    found = saved(settings)
    file, pos = found.position
    assert server.execute(f"SELECT BINLOG_GTID_POS('{file}', {pos})") == ((found.gtid_set,),)
    assert found.gtid_set != before.gtid_set
    catch_up(settings)
    assert saved(settings).epoch == before.epoch
