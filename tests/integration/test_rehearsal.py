"""`passport check` runs every statement that capture runs: compared in the server's general log."""

import re
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from cdc.checks.rehearsal import rehearse
from cdc.checks.server import Server as CheckedServer
from cdc.positions import Positions
from openmrs import connection as mysql
from passport import metrics
from passport.settings import Settings
from tests.eventually import eventually
from tests.hospitals import Server, hospital, reading, saved
from tests.integration.plain import held, told
from tests.reader_process import catch_up, running
from tests.servers import ALL_VERSIONS, KINDS, Address


def statements(server: Server) -> set[str]:
    """Return what the reader's account has run since the log was emptied, without the values."""
    rows = server.execute(
        "SELECT command_type, CONVERT(argument USING utf8mb4) FROM mysql.general_log"
        " WHERE user_host LIKE 'cdc%' AND command_type NOT IN ('Connect', 'Quit')"
    )
    return {f"{kind}: {without_values(argument)}" for kind, argument in rows}


def without_values(statement: str) -> str:
    text = re.sub(r"'(?:[^'\\]|\\.|'')*'", "?", statement)
    text = re.sub(r"\b\d+(?:\.\d+)?\b", "?", text)
    text = re.sub(r"\(\?(?:, ?\?)*\)", "(?)", text)
    # A reader asks for the table that a DDL statement has altered, whichever that is.
    text = re.sub(r"SELECT \? FROM \w+ LIMIT", "SELECT ? FROM a_table LIMIT", text)
    # The log names the file and the position that a dump begins at, or the GTIDs.
    text = re.sub(r"Log: .*", "Log", text)
    return " ".join(text.split())


@pytest.mark.parametrize("kind", ALL_VERSIONS)
def test_check_runs_what_capture_runs(own: Any, kafka_bootstrap: str, kind: str) -> None:
    server: Server = own(KINDS[kind], flags=["--log-output=TABLE"])
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap, load_budget={"chunk_rows": 50})
    settings_of = settings.hospitals["kigali"]
    server.execute("SET GLOBAL general_log = ON")
    capture(settings, address)
    captured = statements(server)
    assert any("obs_id IN" in statement for statement in captured), "rows were read again"
    assert any("GET_LOCK" in statement for statement in captured)
    dumps = {statement for statement in captured if statement.startswith("Binlog Dump")}
    assert dumps

    with closing(mysql.connect("kigali", settings_of.mysql)) as connection:
        checked = CheckedServer("kigali", settings_of, connection)
        server.execute("TRUNCATE mysql.general_log")
        rehearse(checked, settings.kafka)
        rehearsed = statements(server)
    assert captured - rehearsed == set(), "the check leaves these out"
    after_a_crash = {each for each in rehearsed if "SELECT engine FROM" in each}
    assert len(after_a_crash) == 1
    assert rehearsed - captured == after_a_crash, "capture does not run these"


def capture(settings: Settings, address: Address) -> None:
    """Do all that a reader does at a server: each kind of start, of row and of look."""
    catch_up(settings)
    address.execute("SET GLOBAL binlog_row_image = 'MINIMAL'")
    address.execute("UPDATE obs SET comments = 'partly' ORDER BY obs_id LIMIT 2")
    address.execute("ALTER TABLE obs ADD COLUMN extra INT")
    catch_up(settings)

    # The server has another name by now, as after a failover.
    before = saved(settings)
    with closing(Positions(settings.kafka)) as positions:
        positions.save(replace(before, server=f"{before.server}-before"))
    metrics.HEADROOM.labels("kigali").set(-1)
    with running(settings):
        eventually(
            lambda: metrics.HEADROOM.labels("kigali")._value.get() >= 0,
            "the headroom was looked at",
        )
    catch_up(settings)
    assert saved(settings).epoch > before.epoch
    assert told(settings) == held(address)
