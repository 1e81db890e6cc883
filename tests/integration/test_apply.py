"""A consumer meets chunks, key changes and failing writes, one at a time.

The mutants rest on it.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cdc import backfill
from destinations.jsonl import JsonLines
from passport.errors import Retry
from passport.facts import Observation
from passport.settings import Settings
from passport.sink import Outcome
from tests.integration.consuming import Server, assert_equal, consume, hospital, read, settings


class Kigali:
    """A small hospital whose topic is applied."""

    def __init__(self, server: Server, given: Settings, path: Path) -> None:
        self.server, self.settings, self.path = server, given, path

    def bring(self) -> None:
        read(self.settings)
        consume(self.settings)


@pytest.fixture
def kigali(own_mariadb: Callable[..., Server], kafka_bootstrap: str, tmp_path: Path) -> Kigali:
    server = own_mariadb()
    hospital(server, patients=3)
    found = Kigali(
        server, settings({"kigali": server}, kafka_bootstrap, tmp_path / "out"), tmp_path / "out"
    )
    found.bring()
    return found


def test_a_row_that_a_chunk_has_not_is_gone(kigali: Kigali) -> None:
    kigali.server.execute(
        "USE openmrs", "SET sql_log_bin = 0", "DELETE FROM obs WHERE obs_id IN (3, 4)"
    )
    backfill.run(
        "kigali",
        kigali.settings,
        first=None,
        to=None,
        stop=threading.Event(),
        progress=lambda *_: None,
    )
    consume(kigali.settings)
    assert_equal(kigali.settings, kigali.path)


def test_a_new_name_reaches_old_rows(kigali: Kigali) -> None:
    kigali.server.execute("USE openmrs", "UPDATE location SET name = CONCAT(name, ' renamed')")
    kigali.bring()
    assert_equal(kigali.settings, kigali.path)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """The next write fails; how large it was is listed."""
    failed: list[int] = []
    write = JsonLines.write

    def once(sink: JsonLines, observations: Sequence[Observation]) -> Outcome:
        if not failed:
            failed.append(len(observations))
            raise error
        return write(sink, observations)

    monkeypatch.setattr(JsonLines, "write", once)
    return failed


def test_a_write_that_fails_comes_again(kigali: Kigali, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = failing(monkeypatch, Retry("the disk is full", after=0.1))
    kigali.server.execute("USE openmrs", "UPDATE obs SET comments = 'changed' WHERE obs_id < 20")
    kigali.bring()
    assert failed[0] > 0
    assert_equal(kigali.settings, kigali.path)


def test_a_write_that_fails_comes_again_after_a_restart(
    kigali: Kigali, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = failing(monkeypatch, ConnectionAbortedError())
    kigali.server.execute("USE openmrs", "UPDATE obs SET comments = 'changed' WHERE obs_id < 20")
    with pytest.raises(ConnectionAbortedError):
        kigali.bring()
    assert failed[0] > 0
    consume(kigali.settings)
    assert_equal(kigali.settings, kigali.path)
