"""Snapshots beside the stream: whole, resumable, gentle, and made again when rows changed without
row events.
"""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pymysql
import pytest
import yaml

from dev.hospital.clinic import BUSY
from dev.stack import MariaDB, MySQL
from passport.event import Event
from passport.kafka import topic_offsets
from passport.settings import Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import (
    PASSWORD,
    assert_equal,
    clinic,
    hospital,
    in_source_order,
    reading,
    saved,
)
from tests.reader_process import catch_up, running, spawn
from tests.servers import ALL_VERSIONS, KINDS, Address

Server = MariaDB | MySQL


@pytest.fixture(params=ALL_VERSIONS)
def server(request: pytest.FixtureRequest, own: Callable[..., Server]) -> Server:
    """With the column names left out of the binlog, as all have it by default."""
    kind = KINDS[request.param]
    metadata = "NO_LOG" if issubclass(kind, MariaDB) else "MINIMAL"
    return own(kind, flags=[f"--loose-binlog-row-metadata={metadata}"])


def chunks(events: list[Event]) -> list[Event]:
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


def bulk(address: Address, times: int) -> None:
    """So many copies of all obs, each with a uuid of its own."""
    listed = address.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'openmrs' AND table_name = 'obs'"
        " AND column_name NOT IN ('obs_id', 'uuid')"
    )
    columns = ", ".join(row[0] for row in listed)
    copy = (
        f"INSERT INTO obs (uuid, {columns}) SELECT UUID(), {columns} FROM obs WHERE obs_id <= @last"
    )
    address.execute("SELECT MAX(obs_id) INTO @last FROM obs", *[copy] * times)


def edges(address: Address, stop: threading.Event, done: Counter[str]) -> None:
    """As fast as one session can: keys below and at zero, far apart, moved, gone, come back."""
    rng = Random(5)
    listed = address.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'openmrs' AND table_name = 'obs'"
        " AND column_name NOT IN ('obs_id', 'uuid', 'comments')"
    )
    columns = ", ".join(row[0] for row in listed)
    with address.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0")
        cursor.execute("SELECT obs_id FROM obs ORDER BY obs_id LIMIT 60")
        low = [row[0] for row in cursor.fetchall()]
        wild = [
            -2_147_483_648,
            -7,
            -1,
            0,
            100_000,
            1_000_000,
        ]  # not the last one: no key could follow it
        while not stop.is_set():
            key, from_key = rng.choice(wild), rng.choice(low)
            what = rng.choice(["insert", "delete", "edit", "void", "move", "delete low"])
            statement = {
                "insert": f"INSERT IGNORE INTO obs (obs_id, uuid, comments, {columns})"
                f" SELECT {key}, UUID(), 'edge', {columns} FROM obs WHERE obs_id = {from_key}",
                "delete": f"DELETE FROM obs WHERE obs_id = {key}",
                "edit": f"UPDATE obs SET comments = UUID() WHERE obs_id IN ({key}, {from_key})",
                "void": "UPDATE obs SET voided = 1 - voided, date_voided = NOW()"
                f" WHERE obs_id = {key}",
                "move": f"UPDATE IGNORE obs SET obs_id = {key} WHERE obs_id = {rng.choice(wild)}",
                "delete low": f"DELETE FROM obs WHERE obs_id = {from_key} AND obs_id % 7 = 0",
            }[what]
            try:
                done[what] += cursor.execute(statement)
            except pymysql.MySQLError as error:
                if error.args[0] not in BUSY:
                    raise


def test_it_is_exact_beside_writers_at_full_speed(server: Server, kafka_bootstrap: str) -> None:
    address = hospital(server)
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 25, "rows_per_s": 400})
    # The row is a newer version of itself, since a clinic never purges a row that has one. Once the
    # lowest possible key is there, most random keys lie below zero: the next purge would take it.
    address.execute(
        "SET GLOBAL foreign_key_checks = 0",  # what an edge takes away, a clinic may refer to
        "INSERT INTO obs (obs_id, person_id, concept_id, obs_datetime, creator, date_created, uuid,"
        " previous_version) SELECT -900, person_id, concept_id, obs_datetime, creator,"
        " date_created,"
        " 'below zero', -900 FROM obs LIMIT 1",
    )
    stop, done = threading.Event(), Counter[str]()
    writer = threading.Thread(target=edges, args=(address, stop, done))
    writer.start()
    try:
        with clinic(address, rate=None), running(settings):
            eventually(
                lambda: len(chunks(stream.records(settings))) > 30,
                "enough chunks are published",
                120,
            )
    finally:
        stop.set()
        writer.join()
    catch_up(settings)
    events = assert_equal(settings, address)
    assert in_source_order(events)
    assert min(done.values()) > 3, "each of what an edge may suffer was done, several times"
    assert len(done) == 6
    found = chunks(events)
    assert -900 in found[0].keys, "keys below zero are in the first chunk"
    assert (found[0].first, found[-1].to) == (None, None)
    last = 0
    for at, event in enumerate(
        events
    ):  # a chunk's rows come before it, and are acknowledged before it is sent
        if event.kind == "chunk":
            read = {one.row["obs_id"] for one in events[last:at] if one.source.origin == "snapshot"}
            assert read >= {
                *event.keys
            }  # more where the reader was stopped within a chunk and read it again
            last = at + 1


def test_killed_between_and_within_chunks_it_goes_on(
    server: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Large chunks, so that one is surely being sent when the process dies."""
    address = hospital(server, patients=5)
    bulk(address, -(-36_000 // len(stream.obs(address))))
    settings = reading(
        address, kafka_bootstrap, load_budget={"chunk_rows": 12_000, "rows_per_s": 6_000}
    )
    for _ in range(10):
        kill_once_it_has_sent(settings, tmp_path, 500)
        unfinished = rows_behind_last_chunk(stream.records(settings))
        if unfinished:
            break
    assert unfinished, "it was killed within a chunk"
    first = saved(settings).snapshot
    assert first is not None
    assert first.state == "running"

    process = spawn(settings, tmp_path)
    eventually(
        lambda: (saved(settings).snapshot.next_key or -1) > (first.next_key or 0),  # type: ignore[union-attr]
        "another chunk of the snapshot is published",
    )
    process.kill()
    assert process.wait() == -signal.SIGKILL
    second = saved(settings).snapshot
    assert second is not None
    assert second.state == "running"
    before = len(chunks(stream.records(settings)))
    catch_up(settings)
    rest = chunks(assert_equal(settings, address))[before:]
    assert rest[0].first == second.next_key, "from the saved cursor on, not anew"
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def kill_once_it_has_sent(settings: Settings, folder: Path, records: int) -> None:
    """Start a reader, and kill it once the topic has so many records more."""
    before = sent(settings)
    process = spawn(settings, folder)
    eventually(lambda: sent(settings) > before + records, "the snapshot goes on")
    process.kill()
    assert process.wait() == -signal.SIGKILL


def rows_behind_last_chunk(events: list[Event]) -> int:
    """Return how many rows were sent of a chunk that wasn't finished."""
    kinds = [event.kind for event in events]
    last = max((at for at, kind in enumerate(kinds) if kind == "chunk"), default=-1)
    return kinds[last + 1 :].count("row")


def sent(settings: Settings) -> int:
    ends = topic_offsets(settings.kafka, settings.kafka.topic)
    return ends.get(0, (0, 0))[1]


@pytest.mark.parametrize(
    ("budget", "most_rows", "most_queries"),
    [
        ({"chunk_rows": 30, "rows_per_s": 120}, 120, None),
        ({"chunk_rows": 20, "queries_per_s": 60}, None, 60),
    ],
    ids=["rows", "queries"],
)
def test_it_keeps_to_its_budget(
    server: Server,
    kafka_bootstrap: str,
    budget: dict[str, int],
    most_rows: int | None,
    most_queries: int | None,
) -> None:
    """By what the server counts: statements, and the rows that a scan moved on to."""
    address = hospital(server, patients=8)
    whole = len(stream.obs(address))
    settings = reading(address, kafka_bootstrap, load_budget=budget, cdc={"heartbeat_s": 60})
    with running(settings):
        eventually(lambda: len(chunks(stream.records(settings))) > 1, "enough chunks are published")
        began, before = time.monotonic(), counters(server)
        time.sleep(2.5)
        after, seconds = counters(server), time.monotonic() - began
        assert saved(settings).snapshot.state == "running"  # type: ignore[union-attr]
    rows, queries = (after[name] - before[name] for name in ("Handler_read_next", "Questions"))
    assert whole > rows > 100, "it read meanwhile"
    if most_rows:
        assert rows / seconds < most_rows * 1.3 + 50 / seconds
    if most_queries:
        assert queries / seconds < most_queries * 1.1 + 5
    catch_up(settings)
    assert_equal(settings, address)


def counters(server: Server) -> dict[str, int]:
    return {
        name: int(value)
        for name, value in server.execute("SHOW GLOBAL STATUS")
        if name in ("Handler_read_next", "Questions")
    }


def test_a_terminal_shows_a_bar_and_whole_log_lines(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb(), patients=5)
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50, "rows_per_s": 150})
    tree = settings.model_dump(mode="json")
    tree["hospitals"]["kigali"]["mysql"]["password"] = PASSWORD
    config = tmp_path / "passport.yaml"
    config.write_text(yaml.safe_dump(tree))
    said = on_a_terminal(
        ["--config", str(config), "cdc", "run", "--hospital", "kigali", "--until-caught-up"]
    )
    assert "snapshot of kigali" in said
    shares = [int(share) for share in re.findall(r"(\d+)%", said)]
    assert shares == sorted(shares)
    assert len({*shares}) > 3
    assert re.search(r"\d+ rows", said)
    assert [
        line
        for line in said.splitlines()
        if "reading the binlog" in line and "snapshot of" not in line
    ]
    again = on_a_terminal(["--config", str(config), "backfill", "--hospital", "kigali"])
    assert "obs of kigali" in again
    assert f"{len(stream.obs(address)):,} rows read" in again


def on_a_terminal(words: list[str]) -> str:
    """What one command writes to a terminal of 120 columns, without escapes."""
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *words],
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment,
    )
    os.close(other)
    said = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while piece := os.read(main, 65_536):
            said += piece
    os.close(main)
    assert process.wait(60) == 0, said.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n")


def test_changes_are_published_while_it_runs(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb())
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50, "rows_per_s": 500})
    with clinic(address, rate=30), running(settings):
        eventually(
            lambda: len(chunks(stream.records(settings))) > 20, "enough chunks are published"
        )
    catch_up(settings)
    events = assert_equal(settings, address)
    kinds = [event.kind if event.kind == "chunk" else event.source.origin for event in events]
    between = [kinds[at + 1 :] for at, kind in enumerate(kinds) if kind == "chunk"]
    followed = sum("binlog" in rest[: rest.index("chunk")] for rest in between if "chunk" in rest)
    assert followed > 5
    assert in_source_order(events)


def test_a_transaction_that_was_open_all_the_while_is_not_lost(
    server: Server, kafka_bootstrap: str
) -> None:
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    with address.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE obs SET comments = 'late' ORDER BY obs_id LIMIT 3")
        catch_up(settings)
        assert not [
            row
            for row in stream.Table.of(stream.records(settings)).rows.values()
            if row["comments"] == "late"
        ]
        connection.commit()
    catch_up(settings)
    assert_equal(settings, address)


def test_a_statement_on_a_key_table_is_a_notice_without_keys(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute(
        "SET SESSION binlog_format = STATEMENT",
        "UPDATE concept_name SET voided = 1 WHERE concept_id = 1",
    )
    catch_up(settings)
    events = assert_equal(settings, address)
    key_changes = [event for event in events if event.kind == "notice"]
    assert [(event.source.table, event.op, event.keys) for event in key_changes] == [
        ("concept_name", "r", ())
    ]
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def test_a_crashed_server_is_read_again_and_an_orderly_restart_is_not(
    server: Server, kafka_bootstrap: str
) -> None:
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
