"""What a hospital's server prefers for its own programs changes nothing that this project reads.

Each server gets globals that nobody would choose for a reader. A plain session shows that they
hold; the project's sessions must not care.
"""

import threading
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
from prometheus_client import REGISTRY

from cdc.polling import poll
from openmrs import session_variables
from openmrs.connection import connect, fetch_all
from tests import stream
from tests.eventually import eventually
from tests.hospitals import PASSWORD, Server, assert_equal, hospital, is_published, reading
from tests.reader_process import catch_up, running
from tests.servers import ALL_VERSIONS, KINDS, Address

Rows = tuple[tuple[Any, ...], ...]

LIMIT = 50
HOSTILE = {
    "sql_select_limit": str(LIMIT),
    "group_concat_max_len": "4",
    "sql_mode": "'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_ZERO_DATE,NO_BACKSLASH_ESCAPES'",
    "time_zone": "'+05:00'",
    "lc_time_names": "'en_GB'",
    "default_week_format": "3",
    "div_precision_increment": "0",
    "max_sort_length": "8",
    "sql_auto_is_null": "1",
    "sql_safe_updates": "1",
    "completion_type": "'CHAIN'",
    "autocommit": "0",
    "wait_timeout": "2",
    "interactive_timeout": "2",
    "net_read_timeout": "1",
    "net_write_timeout": "1",
    "lock_wait_timeout": "1",
    "max_execution_time": "5000",
    "max_statement_time": "5",
    "idle_transaction_timeout": "1",
    "idle_readonly_transaction_timeout": "1",
    "system_versioning_asof": "'2001-01-01 00:00:00'",
    "wsrep_dirty_reads": "1",
    "show_gipk_in_create_table_and_information_schema": "0",
    "show_old_temporals": "1",
    "default_collation_for_utf8mb4": "'utf8mb4_general_ci'",
    "use_secondary_engine": "'FORCED'",
    "init_connect": "'SET net_read_timeout = 2'",
}
ISOLATION = "SET GLOBAL TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"


def make_hostile(address: Address) -> set[str]:
    """Set every global of HOSTILE that this server has, and return their names."""
    known = set()
    # Of one session, because the next one would already suffer.
    with address.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES")
        here = {name for name, _ in cursor.fetchall()}
        for name in HOSTILE:
            if name in here:
                cursor.execute(f"SET GLOBAL {name} = {HOSTILE[name]}")
                known.add(name)
        cursor.execute(ISOLATION)
    return known


def variables(connection: "pymysql.Connection[Any]") -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_select_limit = 18446744073709551615")
        cursor.execute("SHOW SESSION VARIABLES")
        return dict(cursor.fetchall())


@pytest.fixture(scope="module", params=ALL_VERSIONS)
def server(request: pytest.FixtureRequest, module_own: Callable[..., Server]) -> Server:
    """A server whose globals a test may set."""
    return module_own(KINDS[request.param])


@pytest.fixture(scope="module")
def address(server: Server) -> Address:
    """A hospital with more obs than LIMIT, and an account that may poll it too."""
    address = hospital(server, patients=5)
    assert len(stream.obs(address)) > LIMIT
    known = make_hostile(address)
    assert {"sql_select_limit", "sql_mode", "wait_timeout"} <= known
    return address


def normal(value: str) -> str:
    names = {"ON": "1", "OFF": "0", "NO_CHAIN": "0", "DEFAULT": "0.000000"}
    bare = value.strip("'")
    return names.get(bare, bare)


def test_a10_a_session_inherits_nothing_that_changes_answers(address: Address) -> None:
    with address.connect(user="cdc", password=PASSWORD) as connection:
        inherited = variables(connection)
    with connect("kigali", address.settings(user="cdc", password=PASSWORD)) as ours:
        held = variables(ours)
    pinned = {**session_variables.EVERYWHERE, **session_variables.WHERE_KNOWN}
    # The fault is there: a plain session has other values.
    differing = {name for name in pinned if inherited.get(name) != held.get(name)}
    # Of these a plain session has what is right: `variables` and PyMySQL set them.
    right = {"sql_select_limit", "sql_big_selects", "autocommit"}
    assert differing >= {*session_variables.EVERYWHERE} - right
    for name, value in pinned.items():
        if name in held and name != "system_versioning_asof":
            unit = float(held[name]) if name == "max_statement_time" else held[name]
            assert normal(str(unit)) in (normal(value), f"{value}.0"), name
    assert held["collation_connection"] == "utf8mb4_general_ci"
    assert held["character_set_results"] == "utf8mb4"
    assert held["autocommit"] == "ON"
    isolation = held.get("transaction_isolation") or held["tx_isolation"]
    assert isolation == "REPEATABLE-READ"


def test_a10_a_server_that_refuses_large_selects_answers_all_of_them(address: Address) -> None:
    with address.connect(user="cdc", password=PASSWORD) as plain, plain.cursor() as cursor:
        cursor.execute("SET SESSION max_join_size = 1")
        with pytest.raises(pymysql.err.OperationalError, match="MAX_JOIN_SIZE"):
            cursor.execute("SELECT comments FROM obs")
    run_as_root(address, "SET GLOBAL max_join_size = 1")
    try:
        with connect("kigali", address.settings(user="cdc", password=PASSWORD)) as ours:
            rows = fetch_all(ours, "SELECT comments FROM obs")
    finally:
        run_as_root(address, "SET GLOBAL max_join_size = 18446744073709551615")
    assert len(rows) > LIMIT


def test_a10_polling_a_server_that_limits_answers_publishes_every_row(
    address: Address, kafka_bootstrap: str
) -> None:
    with address.connect(user="cdc", password=PASSWORD) as plain, plain.cursor() as cursor:
        assert cursor.execute("SELECT obs_id FROM obs") == LIMIT, "the server limits answers"
    settings = reading(
        address,
        kafka_bootstrap,
        hospital={"capture": "polling", "poll_interval_s": 0.5},
        load_budget={"chunk_rows": 2_000},
    )
    poll.run("kigali", settings, once=True, stop=threading.Event())
    ((count,),) = run_as_root(address, "SELECT COUNT(*) FROM obs")
    assert len(stream.obs(address)) == count
    assert is_published(settings, address)


def test_a10_a_row_read_and_a_row_streamed_have_the_same_text(
    address: Address, kafka_bootstrap: str
) -> None:
    with address.connect(user="cdc", password=PASSWORD) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT uuid FROM obs LIMIT 1")
        ((text,),) = cursor.fetchall()
        assert text != text.rstrip(), "the server pads what it answers"
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    run_as_root(address, "UPDATE obs SET comments = 'changed' WHERE obs_id = 1")
    catch_up(settings)
    events = assert_equal(settings, address)
    images = [event for event in events if event.kind == "row" and event.row["obs_id"] == 1]
    assert {event.source.origin for event in images} == {"snapshot", "binlog"}
    assert len({event.row["uuid"] for event in images}) == 1


def run_as_root(address: Address, *statements: str) -> Rows:
    """Run the statements in a session that the server's globals don't limit."""
    return address.execute(
        "SET SESSION sql_select_limit = 18446744073709551615, autocommit = 1", *statements
    )


def idle_sessions(address: Address) -> dict[int, int]:
    """Return the ids of the reader's sessions that wait for a statement, and for how many s."""
    rows = run_as_root(
        address,
        "SELECT id, time FROM information_schema.processlist"
        " WHERE user = 'cdc' AND command = 'Sleep'",
    )
    return {int(number): int(seconds) for number, seconds in rows}


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(f"passport_cdc_{name}", {"hospital": "kigali"}) or 0


def test_a12_a_server_that_ends_idle_sessions_does_not_interrupt_the_reader(
    address: Address, kafka_bootstrap: str
) -> None:
    """The reader's session for rows is idle between two looks. The server ends others after 2 s."""
    settings = reading(address, kafka_bootstrap, cdc={"heartbeat_s": 600})
    with address.connect() as plain, running(settings):
        eventually(
            lambda: any(seconds >= 5 for seconds in idle_sessions(address).values()),
            "a session of the reader outlives the server's time-out",
            within_s=30,
        )
        with pytest.raises(pymysql.err.OperationalError):
            plain.query("SELECT 1")


def test_a12_a_session_that_is_lost_before_a_ddl_ends_no_reader(
    address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(address, kafka_bootstrap)
    with running(settings):
        eventually(
            lambda: sample("connected") == 1 and sample("snapshot_running") == 0,
            "the reader is connected, and its snapshot is done",
        )
        sessions = idle_sessions(address)
        assert len(sessions) == 2, "the reader's sessions for rows and for its lease"
        kills = [f"KILL {number}" for number in sessions]
        run_as_root(address, *kills, "ALTER TABLE obs ADD COLUMN remark INT")
        eventually(lambda: not {*sessions} & {*idle_sessions(address)}, "both sessions are gone")
        run_as_root(address, "UPDATE obs SET comments = 'after the DDL' WHERE obs_id = 2")
        eventually(
            lambda: is_published(settings, address),
            "the topic equals the table",
        )
