"""A transaction larger than the reader's memory is read, published and acknowledged in pieces."""

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from passport.kafka import topic_offsets
from passport.settings import Settings
from tests.eventually import eventually
from tests.hospitals import Server, hospital, log, reading, saved
from tests.reader_process import catch_up, spawn
from tests.topic_reader import read_topic

PEAK_MB = 150
INSERT = """
INSERT INTO openmrs.obs (person_id, concept_id, obs_datetime, date_created, creator, value_text,
uuid)
SELECT a.person_id, a.concept_id, a.obs_datetime, a.date_created, a.creator, REPEAT('x', 100),
UUID()
FROM openmrs.obs a, openmrs.obs b, openmrs.obs c LIMIT {rows}"""


@pytest.mark.parametrize(
    ("flavour", "rows"),
    [
        ("mariadb", 100_000),
        pytest.param("mariadb", 1_000_000, marks=pytest.mark.long),
        pytest.param("mysql", 1_000_000, marks=pytest.mark.long),
    ],
)
def test_row_52_its_first_rows_are_acknowledged_while_it_is_read(
    flavour: str, rows: int, own_mariadb: Any, own_mysql: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    server: Server = (own_mariadb if flavour == "mariadb" else own_mysql)()
    settings = reading(hospital(server, patients=5), kafka_bootstrap)
    catch_up(settings)
    before = _end(settings)
    server.execute("SET foreign_key_checks = 0, unique_checks = 0", INSERT.format(rows=rows))
    process = spawn(settings, tmp_path, "caught-up")
    eventually(lambda: _end(settings) > before, "rows are published while the transaction is read")
    process.send_signal(signal.SIGSTOP)
    acknowledged, dump = _end(settings) - before, _dump(server)
    process.send_signal(signal.SIGCONT)
    process.terminate()
    peak = peak_mb(process)
    assert process.wait() == 0, log(tmp_path)
    stopped_at = _end(settings) - before
    assert saved(settings).next_row is not None, "it was stopped within the transaction"
    process = spawn(settings, tmp_path, "caught-up")
    peak = max(peak, peak_mb(process))
    assert process.wait() == 0, log(tmp_path)
    print(f"{acknowledged} of {rows} rows acknowledged while it was read, peak {peak:.0f} MB")
    assert 0 < acknowledged <= stopped_at < rows, "rows were acknowledged"
    assert "has sent all" not in dump, (
        "while the server still had some of their transaction to send"
    )
    assert 0 < peak <= PEAK_MB
    assert rows_and_ends(settings, before) == (rows, 1), "each once, though it was stopped within"


def _end(settings: Settings) -> int:
    """How many records the topic has."""
    return topic_offsets(settings.kafka, settings.kafka.topic)[0][1]


def _dump(server: Server) -> str:
    """What the server's thread that sends the binlog says it is doing."""
    ((state,),) = server.execute(
        "SELECT state FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    )
    return str(state)


def peak_mb(process: "subprocess.Popen[bytes]") -> float:
    """The most memory that the process had, seen until it ended."""
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.02)
    return peak / 1024


def rows_and_ends(settings: Settings, start: int) -> tuple[int, int]:
    """Return how many rows the topic has from `start` on, and how many end a transaction."""
    rows = ends = 0
    for record in read_topic(settings.kafka.bootstrap, settings.kafka.topic, first=start):
        rows += b'"kind":"row"' in record.value
        ends += b'"last":true}' in record.value
    return rows, ends
