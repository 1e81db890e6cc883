"""`passport signal`: a running reader obeys operators, and one that starts again still does."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from cdc.polling import poll
from cdc.positions import Positions
from dev.hospital import create
from openmrs.load_share import LoadShare
from openmrs.read import Source
from passport.errors import Fatal
from passport.settings import LoadBudget, Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, is_published, reading
from tests.integration.published import settings_for
from tests.reader_process import catch_up, running
from tests.servers import Address

Ask = Callable[[str], None]
NEW = "person_id, concept_id, obs_datetime, creator, date_created"


@pytest.fixture
def address(own_mariadb: Any) -> Address:
    return hospital(own_mariadb(), patients=20)


def asking(settings: Settings) -> Ask:
    """Return what `passport signal` does."""
    from cli.signal import signal_for

    def ask(action: str) -> None:
        positions = Positions(settings.kafka)
        name, _, gtid = action.partition(" ")
        asked = signal_for("kigali", name, positions.load("kigali"), gtid)
        positions.signal("kigali", 0, asked)
        positions.close()

    return ask


def put(address: Address) -> None:
    address.execute(f"INSERT INTO obs ({NEW}, uuid) SELECT {NEW}, UUID() FROM obs LIMIT 1")


@contextmanager
def polling(settings: Settings) -> Iterator[None]:
    """Poll in a thread until the block ends."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(poll.run, "kigali", settings, once=False, stop=stop)
        try:
            yield
        finally:
            stop.set()
        ended.result(30)


def sessions(address: Address) -> int:
    """Return how many sessions the reader's account has at the hospital."""
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'cdc'"
    return int(address.execute(sql)[0][0])


def test_a_paused_reader_leaves_the_hospital_alone_and_stays_paused_over_a_restart(
    address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    ask = asking(settings)
    with capture_logs() as logs, running(settings):
        eventually(lambda: sessions(address) > 0, "it reads")
        ask("pause")
        eventually(lambda: _is_said(logs, "paused"), "it is paused")
        eventually(lambda: not sessions(address), "it has left")
    put(address)
    published = changes(settings)
    with capture_logs() as logs, running(settings):
        eventually(lambda: _is_said(logs, "paused"), "it is paused")
        assert changes(settings) == published
        with pytest.raises(Fatal, match="has paused") as refused:
            catch_up(settings)
        assert "resume" in refused.value.hint
        ask("resume")
        eventually(lambda: changes(settings) > published, "it goes on")
    assert_equal(settings, address)


def changes(settings: Settings) -> int:
    """Return how many rows of the binlog are published."""
    return len(list(stream.changes(stream.records(settings))))


def _is_said(logs: list[Any], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


def test_a_snapshot_is_taken_once_and_one_that_runs_is_stopped(
    address: Address, kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A new connection would give the snapshot's share of the budget back, too.
    monkeypatch.setattr("openmrs.read.LONGEST_CONNECTION_S", 3600)
    slow = {"rows_per_s": 20, "chunk_rows": 20}
    settings = reading(address, kafka_bootstrap, load_budget=slow)
    ask = asking(settings)
    with running(settings):
        eventually(lambda: _state(settings) == (1, "running"), "its first snapshot")
        ask("stop-snapshot")
        eventually(lambda: _state(settings) == (1, "stopped"), "it is stopped")
        with pytest.raises(Fatal, match="no snapshot is running"):
            ask("stop-snapshot")
        with closing(Source("kigali", address.settings())) as source:
            share = LoadShare(source)
            eventually(lambda: share.jobs() == 1, "it leaves its share of the budget to others")
        ask("budget=100000")
        ask("snapshot")
        eventually(lambda: _state(settings) == (3, "done"), "another one, with another budget")
    assert_equal(settings, address)
    before = changes(settings)
    with running(settings):
        put(address)
        eventually(lambda: changes(settings) > before, "it goes on")
    assert _state(settings) == (3, "done"), "what was done is not done again"


def _state(settings: Settings) -> tuple[int, str]:
    position = Positions(settings.kafka).load("kigali")
    if position is None or position.snapshot is None:
        return 0, ""
    return position.snapshot.number, position.snapshot.state


@pytest.mark.parametrize("flavour", ["mariadb", pytest.param("mysql", marks=pytest.mark.long)])
def test_skip_transaction_leaves_out_exactly_this_one(
    flavour: str, request: pytest.FixtureRequest, kafka_bootstrap: str
) -> None:
    """One that stops the reader at each start, and one that a running reader has yet to meet."""
    server = request.getfixturevalue(f"own_{flavour}")(flags=["--max-allowed-packet=64M"])
    address = hospital(server, patients=5)
    address.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    settings = reading(address, kafka_bootstrap)
    ask = asking(settings)
    catch_up(settings)
    put(address)
    address.execute(
        "BEGIN",
        "UPDATE obs SET value_text = REPEAT('x', 17 << 20) ORDER BY obs_id LIMIT 1",
        "UPDATE obs SET value_text = NULL ORDER BY obs_id LIMIT 1",
        "UPDATE obs SET comments = 'not read' ORDER BY obs_id DESC LIMIT 2",
        "COMMIT",
    )
    put(address)
    for _ in range(2):
        with pytest.raises(Fatal, match="larger than topic") as stopped:
            catch_up(settings)
    named = re.search(
        r"passport signal --hospital kigali (skip-transaction \S+)$", stopped.value.hint
    )
    assert named is not None

    ask(named[1])
    with capture_logs() as logs:
        catch_up(settings)
    assert [entry["gtid"] for entry in logs if "skipped" in entry["event"]] == named[1].split()[1:]
    newest = sorted(stream.obs(address))
    assert _missing(settings, address) == newest[-3:-1], "the two rows of this transaction"
    with pytest.raises(Fatal, match="is past transaction"):
        ask(named[1])

    with running(settings):
        ask(f"skip-transaction {_next_gtid(address)}")
        ask("snapshot")
        eventually(lambda: _state(settings) == (3, "done"), "both signals are obeyed")
        assert_equal(settings, address)
        address.execute("UPDATE obs SET comments = 'nor this' ORDER BY obs_id LIMIT 1")
        put(address)
        last = max(stream.obs(address))
        rows = stream.Table.of
        eventually(lambda: last in rows(stream.records(settings)).rows, "it is past it")
    assert _missing(settings, address) == newest[:1]
    ask("snapshot")
    catch_up(settings)
    assert_equal(settings, address)


def _missing(settings: Settings, address: Address) -> list[int]:
    """Return the keys of the rows that the topic doesn't tell as they are."""
    told = stream.Table.of(stream.records(settings)).rows
    held = stream.obs(address)
    return sorted(key for key in {*told, *held} if told.get(key) != held.get(key))


def _next_gtid(address: Address) -> str:
    """Return the GTID of the transaction that this server commits next."""
    is_mariadb = address.flavour == "mariadb"
    name = "@@gtid_binlog_pos" if is_mariadb else "@@global.gtid_executed"
    ((executed,),) = address.execute(f"SELECT {name}")
    head, number = re.fullmatch(r"(.*?)(?:1-)?(\d+)", str(executed)).groups()  # type: ignore[union-attr]
    return f"{head}{int(number) + 1}"


# --- a hospital that is polled


@pytest.fixture
def polled(mysql_database: Address) -> Address:
    with mysql_database.connect() as connection:
        create(connection, seed=3, patients=20)
    return mysql_database


def test_a_polled_hospital_is_left_alone_while_it_is_paused(
    polled: Address, kafka_bootstrap: str, topic: str
) -> None:
    settings = settings_for(polled, kafka_bootstrap, topic)
    ask = asking(settings)

    def is_visited() -> bool:
        sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = %s AND id <> %s"
        with polled.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, (polled.database, connection.thread_id()))
            return bool(cursor.fetchone()[0])  # type: ignore[index]

    with capture_logs() as logs, polling(settings):
        eventually(lambda: is_published(settings, polled), "its first run")
        assert is_visited()
        ask("pause")
        eventually(lambda: _is_said(logs, "paused"), "it is paused")
        eventually(lambda: not is_visited(), "no session is left")
        put(polled)
        with pytest.raises(Fatal, match="has paused"):
            poll.run("kigali", settings, once=True, stop=threading.Event())
        assert not is_published(settings, polled)
        ask("resume")
        eventually(lambda: is_published(settings, polled), "it goes on")


def test_a_polled_hospital_is_read_once_more_at_another_budget_or_not_to_its_end(
    polled: Address, kafka_bootstrap: str, topic: str
) -> None:
    while len(stream.obs(polled)) < 5_000:
        polled.execute(f"INSERT INTO obs ({NEW}, uuid) SELECT {NEW}, UUID() FROM obs LIMIT 3000")
    budget = LoadBudget(rows_per_s=1_000_000, queries_per_s=10_000, chunk_rows=200)
    settings = settings_for(polled, kafka_bootstrap, topic, load_budget=budget)
    ask = asking(settings)
    everything = set(stream.obs(polled))

    with polling(settings):
        eventually(lambda: is_published(settings, polled), "its first run")
        first = len(stream.records(settings))
        ask("budget=200")
        ask("snapshot")
        eventually(lambda: _rows_from(settings, first), "it has begun")
        ask("stop-snapshot")
        eventually(lambda: _state(settings) == (2, "stopped"), "it is stopped")
        assert _rows_from(settings, first) < everything, "before it has read them all"

        second = len(stream.records(settings))
        ask("budget=default")
        ask("snapshot")
        eventually(lambda: _state(settings) == (4, "done"), "another one")
        assert _rows_from(settings, second) == everything
        put(polled)
        eventually(lambda: is_published(settings, polled), "it polls as before")
    third = len(stream.records(settings))
    poll.run("kigali", settings, once=True, stop=threading.Event())
    assert _rows_from(settings, third) == set(), "what was asked for once is done once"


def _rows_from(settings: Settings, offset: int) -> set[int]:
    """Return the keys of the rows that were published from this offset on."""
    events = stream.records(settings)[offset:]
    return {event.row["obs_id"] for event in events if event.kind == "row"}
