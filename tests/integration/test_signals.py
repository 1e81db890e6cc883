"""`passport signal`: a running reader obeys operators, and one that starts again still does."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from structlog.testing import capture_logs

from cdc.positions import Positions
from openmrs.load_share import LoadShare
from openmrs.read import Source
from passport.errors import Fatal
from passport.settings import Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, reading
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
        asked = signal_for("kigali", action, positions.load("kigali"))
        positions.signal("kigali", 0, asked)
        positions.close()

    return ask


def put(address: Address) -> None:
    address.execute(f"INSERT INTO obs ({NEW}, uuid) SELECT {NEW}, UUID() FROM obs LIMIT 1")


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
