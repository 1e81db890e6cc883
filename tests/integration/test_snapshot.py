"""Snapshots beside the stream: whole, resumable, gentle, and made again when rows changed without row events."""

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from dev.stack import MariaDB, MySQL
from passport.event import ChangeEvent
from tests import stream
from tests.hospitals import assert_equal, clinic, eventually, hospital, in_source_order, log, reading, saved
from tests.reader_process import catch_up, running, spawn

Server = MariaDB | MySQL


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest, own_mariadb: Any, own_mysql: Any) -> Server:
    """With the column names left out of the binlog, as both have it by default."""
    make, metadata = (own_mariadb, "NO_LOG") if request.param == "mariadb" else (own_mysql, "MINIMAL")
    started: Server = make(flags=[f"--binlog-row-metadata={metadata}"])
    return started


def chunks(events: list[ChangeEvent]) -> list[ChangeEvent]:
    return [event for event in events if event.kind == "chunk"]


def test_an_empty_table_is_one_open_chunk(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server, patients=2)
    server.execute("SET SESSION foreign_key_checks = 0", "DELETE FROM openmrs.obs")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    (chunk,) = chunks(assert_equal(settings, address))
    assert (chunk.first, chunk.to, chunk.keys) == (None, None, ())


def test_chunks_follow_each_other_from_end_to_end(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server)
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 100})
    catch_up(settings)
    found = chunks(assert_equal(settings, address))
    assert len(found) > 10
    assert [chunk.first for chunk in found] == [None, *(chunk.to for chunk in found[:-1])]
    assert found[-1].to is None
    assert sorted(key for chunk in found for key in chunk.keys) == sorted(stream.obs(address))


def test_killed_it_goes_on_after_the_last_whole_chunk(own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50, "rows_per_s": 300})
    process = spawn(settings, tmp_path)
    with eventually(lambda: "reading the binlog" in log(tmp_path)):
        pass
    with eventually(lambda: len(chunks(stream.records(settings))) > 8):
        pass
    process.kill()
    process.wait()
    halfway = saved(settings).snapshot
    assert halfway is not None
    assert halfway.state == "running"
    assert halfway.next_key is not None
    before = chunks(stream.records(settings))
    catch_up(settings)
    after = chunks(assert_equal(settings, address))[len(before) :]
    assert after[0].first == halfway.next_key
    assert before[-1].to is not None
    assert before[-1].to >= halfway.next_key > before[0].to  # type: ignore[operator]


def test_it_keeps_to_its_budget(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb())
    rows = len(stream.obs(address))
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50, "rows_per_s": 500})
    began = time.monotonic()
    catch_up(settings)
    assert time.monotonic() - began > rows / 500 - 1
    assert_equal(settings, address)


def test_changes_are_published_while_it_runs(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50, "rows_per_s": 500})
    with (
        clinic(address, rate=30),
        running(settings),
        eventually(lambda: len(chunks(stream.records(settings))) > 20),
    ):
        pass
    catch_up(settings)
    events = assert_equal(settings, address)
    kinds = [event.kind if event.kind == "chunk" else event.source.origin for event in events]
    between = [kinds[at + 1 :] for at, kind in enumerate(kinds) if kind == "chunk"]
    followed = sum("binlog" in rest[: rest.index("chunk")] for rest in between if "chunk" in rest)
    assert followed > 5
    assert in_source_order(events)


def test_a_transaction_that_was_open_all_the_while_is_not_lost(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    with address.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE obs SET comments = 'late' ORDER BY obs_id LIMIT 3")
        catch_up(settings)
        assert not [row for row in stream.Table.of(stream.records(settings)).rows.values() if row["comments"] == "late"]
        connection.commit()
    catch_up(settings)
    assert_equal(settings, address)


WITHOUT_ROWS = {
    "truncate": ["SET SESSION foreign_key_checks = 0", "TRUNCATE openmrs.obs"],
    "statement": ["SET SESSION binlog_format = STATEMENT", "DELETE FROM openmrs.obs ORDER BY obs_id DESC LIMIT 3"],
    "drop and create": [
        "SET SESSION foreign_key_checks = 0",
        "CREATE TABLE openmrs.o2 LIKE openmrs.obs",
        "DROP TABLE openmrs.obs",
        "CREATE TABLE openmrs.obs LIKE openmrs.o2",
    ],
    "swap": [
        "SET SESSION foreign_key_checks = 0",
        "CREATE TABLE openmrs.o2 LIKE openmrs.obs",
        "INSERT INTO openmrs.o2 SELECT * FROM openmrs.obs WHERE obs_id % 2",
        "RENAME TABLE openmrs.obs TO openmrs.o3, openmrs.o2 TO openmrs.obs",
    ],
    "new column": [
        "ALTER TABLE openmrs.obs DROP COLUMN interpretation",
        "UPDATE openmrs.obs SET comments = 'without' LIMIT 3",
        "ALTER TABLE openmrs.obs ADD COLUMN interpretation VARCHAR(32) DEFAULT 'NORMAL' AFTER obs_id",
        "UPDATE openmrs.obs SET comments = 'with' LIMIT 2",
    ],
}


@pytest.mark.parametrize("what", WITHOUT_ROWS)
@pytest.mark.parametrize("live", [True, False], ids=["live", "down"])
def test_what_no_row_event_shows_is_read_again(server: Server, kafka_bootstrap: str, what: str, live: bool) -> None:
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    first = saved(settings)
    before = skipped()
    if live:
        with running(settings):
            time.sleep(0.5)
            server.execute(*WITHOUT_ROWS[what])
            time.sleep(1)
    else:
        server.execute(*WITHOUT_ROWS[what])
    catch_up(settings)
    assert_equal(settings, address)
    assert skipped() > before
    last = saved(settings)
    assert (last.epoch, last.snapshot.number) > (first.epoch, 1)  # type: ignore[union-attr]


def skipped() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "passport_cdc_events_skipped_total"
    )


def test_a_statement_on_a_key_table_is_a_notice_without_keys(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb(), patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute("SET SESSION binlog_format = STATEMENT", "UPDATE concept_name SET voided = 1 WHERE concept_id = 1")
    catch_up(settings)
    events = assert_equal(settings, address)
    notices = [event for event in events if event.kind == "notice"]
    assert [(event.source.table, event.keys) for event in notices] == [("concept_name", ())]
    assert saved(settings).snapshot.number == 2  # type: ignore[union-attr]


def test_rows_whose_images_are_not_whole_are_read_again(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server, patients=5)
    server.execute("SET GLOBAL binlog_row_image = 'MINIMAL'")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    key = min(stream.obs(address))
    with clinic(address):
        time.sleep(2)
    address.execute(
        "SET SESSION foreign_key_checks = 0",
        f"UPDATE obs SET comments = 'partly' WHERE obs_id = {key}",
        "DELETE FROM obs ORDER BY obs_id DESC LIMIT 2",
        f"UPDATE obs SET obs_id = obs_id + 1000000 WHERE obs_id = {key + 1}",
    )
    catch_up(settings)
    events = assert_equal(settings, address)
    assert stream.Table.of(events).rows[key]["comments"] == "partly"
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def test_a_crashed_server_is_read_again_and_an_orderly_restart_is_not(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    server.restart()
    with clinic(address):
        time.sleep(0.5)
    catch_up(settings)
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]
    with clinic(address):
        time.sleep(0.5)
    server.kill()
    server.start()
    catch_up(settings)
    assert_equal(settings, address)
    assert saved(settings).snapshot.number == 2  # type: ignore[union-attr]
