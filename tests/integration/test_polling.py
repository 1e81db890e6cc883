"""Polling against real servers: whatever happens to the rows, what is published folds to what the
hospital holds.
"""

import itertools
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cdc.polling import poll, scan
from cdc.positions import Positions
from consumers.lookups import Lookups, RowToEnrich
from dev import hospital as generator
from dev.stack import MariaDB, MySQL
from openmrs.read import END_OF_BINLOG, Source
from openmrs.tables import OBS
from passport.errors import Fatal
from passport.event import Event, Row
from passport.settings import LoadBudget, Settings
from tests.integration.published import HOSPITAL, folded, read, settings_for
from tests.servers import Address

COPIED = ", ".join(
    column for column in OBS.columns if column not in {"obs_id", "uuid", "value_boolean"}
)


class Polled:
    """A hospital that is polled once at each call; `events` are all that was ever published."""

    def __init__(self, settings: Settings, address: Address) -> None:
        self.settings = settings
        self.address = address
        self.events: list[Event] = []

    def poll(self) -> list[Event]:
        poll.run(HOSPITAL, self.settings, once=True, stop=threading.Event())
        new = read(self.settings.kafka.bootstrap, self.settings.kafka.topic, len(self.events))
        self.events += new
        return new

    def equal(self) -> bool:
        return folded(self.events) == self.truth()

    def truth(self) -> dict[int, Row]:
        source = Source(HOSPITAL, self.address.settings())
        with source.read_at(END_OF_BINLOG) as reading:
            rows = {row["obs_id"]: row for row in reading.facts(OBS, "obs_id > %s", (0,))}
        source.close()
        return rows

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        return self.address.execute("SET foreign_key_checks = 0", *statements)

    def insert(self, count: int, **changed: str) -> None:
        """Copies of existing rows, in one transaction; `changed`: SQL of a column."""
        columns = [changed.get(column, column) for column in COPIED.split(", ")]
        select = f"SELECT {', '.join(columns)}, UUID() FROM obs WHERE obs_id <= {count}"
        self.execute(f"INSERT INTO obs ({COPIED}, uuid) {select}")


def rows_of(events: list[Event]) -> set[int]:
    return {event.row["obs_id"] for event in events if event.kind == "row"}


def key_changes_of(events: list[Event], table: str) -> list[dict[str, int]]:
    return [
        key
        for event in events
        if event.kind == "notice" and event.source.table == table
        for key in event.keys
    ]


@pytest.fixture
def polled(flavour_database: Address, kafka_bootstrap: str, topic: str) -> Polled:
    """A small hospital, polled for the first time."""
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=40, visits=2)
    hospital = Polled(settings_for(flavour_database, kafka_bootstrap, topic), flavour_database)
    hospital.poll()
    assert hospital.equal()
    return hospital


def test_the_first_run_gives_every_row_in_ranges_that_leave_no_key_out(polled: Polled) -> None:
    chunks = [event for event in polled.events if event.kind == "chunk"]
    assert chunks[0].first is None
    assert chunks[-1].to is None
    assert all(before.to == after.first for before, after in itertools.pairwise(chunks))
    assert {event.op for event in polled.events if event.kind == "row"} == {"r"}
    assert {event.source.origin for event in polled.events} == {"poll"}
    assert polled.events[-1].kind == "heartbeat"


def test_a_quiet_hospital_gives_a_heartbeat_and_nothing_else(polled: Polled) -> None:
    assert [event.kind for event in polled.poll()] == ["heartbeat"]


def test_row_01_a_burst_of_40000_rows_in_one_second_arrives_whole(polled: Polled) -> None:
    (least,) = polled.execute("SELECT COUNT(*) FROM obs")[0]
    while least < 40_000:
        polled.insert(min(least, 10_000), date_created="'2026-01-15 12:00:00'")
        least += min(least, 10_000)
    assert (
        polled.execute("SELECT COUNT(*) FROM obs WHERE date_created = '2026-01-15 12:00:00'")[0][0]
        >= 30_000
    )
    polled.poll()
    assert polled.equal()


def test_row_04_a_late_commit_is_seen_though_two_runs_passed(polled: Polled) -> None:
    with closing(polled.address.connect(autocommit=False)) as late, late.cursor() as cursor:
        cursor.execute(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        )  # no locks on what it copies
        cursor.execute(
            f"INSERT INTO obs ({COPIED}, uuid) SELECT {COPIED}, UUID() FROM obs WHERE obs_id = 1"
        )
        late_id = cursor.lastrowid
        for _ in range(2):
            polled.insert(3)
            polled.poll()
        assert late_id not in rows_of(polled.events)
        late.commit()
    assert late_id in rows_of(polled.poll())
    assert polled.equal()


def test_row_02_a_page_that_ends_within_a_second_loses_none(
    flavour_database: Address, kafka_bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_ROWS", 100)
    with flavour_database.connect() as connection:
        generator.create(connection, seed=3, patients=20, visits=2)
    budget = LoadBudget(rows_per_s=1_000_000, queries_per_s=10_000, chunk_rows=50)
    polled = Polled(
        settings_for(flavour_database, kafka_bootstrap, topic, load_budget=budget), flavour_database
    )
    polled.execute("UPDATE obs SET date_created = '2026-01-15 12:00:00'")
    polled.poll()
    assert len(polled.truth()) > 3 * 100, "several pages of one second"
    assert polled.equal()
    polled.insert(250, date_created="'2026-01-15 12:00:00'")
    assert len(rows_of(polled.poll())) >= 250
    assert polled.equal()


@pytest.mark.parametrize("zone", ["Africa/Maputo", "America/Bogota"])
def test_row_03_two_hours_east_or_five_west_all_is_there_and_instants_are_right(
    mysql_database: Address, kafka_bootstrap: str, topic: str, zone: str
) -> None:
    with mysql_database.connect() as connection:
        generator.create(connection, seed=3, patients=10, visits=1)
    kind = generator.NATIONAL_ID_TYPE
    settings = settings_for(
        mysql_database, kafka_bootstrap, topic, timezone=zone, national_id_type=kind
    )
    polled = Polled(settings, mysql_database)
    polled.poll()
    wall = datetime.now(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")
    polled.insert(5, date_created=f"'{wall}'", obs_datetime="'2026-01-15 12:00:00'")
    new = rows_of(polled.poll())
    assert len(new) == 5
    assert polled.equal()
    source = Source(HOSPITAL, mysql_database.settings())
    lookups = Lookups(HOSPITAL, settings.hospitals[HOSPITAL], source, entries=1_000, ttl_s=60)
    with source.read_at(END_OF_BINLOG) as reading:
        rows = reading.facts(OBS, "obs_id = %s", [max(new)])
        (found,) = lookups.observations_in(reading, [RowToEnrich(rows[0], "", False, "stream")])
    source.close()
    assert found.at == datetime(2026, 1, 15, 12, tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    "stamp",
    [
        pytest.param("'2024-01-15 08:00:00'", id="row 5: back-dated"),
        pytest.param("'1999-12-31 23:59:59'", id="row 6: a clock that is late"),
        pytest.param("'2099-01-01 00:00:00'", id="row 6: a clock that is ahead"),
    ],
)
def test_row_05_and_06_a_row_with_a_stamp_long_ago_or_ahead_is_published_once(
    polled: Polled, stamp: str
) -> None:
    polled.insert(1, date_created=stamp)
    (key,) = polled.execute("SELECT MAX(obs_id) FROM obs")[0]
    assert rows_of(polled.poll()) == {key}
    assert rows_of(polled.poll()) == set()
    assert polled.equal()


CHANGES = (
    "UPDATE obs SET voided = 1, date_voided = '2020-01-01' WHERE obs_id IN (3, 4, 5)",
    "UPDATE obs SET voided = 0, date_voided = NULL WHERE voided = 1",
    "UPDATE obs SET value_text = CONCAT(COALESCE(value_text, ''), 'ü') WHERE obs_id = 7",
    "UPDATE obs SET value_numeric = COALESCE(value_numeric, 0) + 1e-9 WHERE obs_id = 7",
    "DELETE FROM obs WHERE obs_id IN (2, 9)",
    "DELETE FROM obs ORDER BY obs_id DESC LIMIT 5",
    "UPDATE obs SET obs_id = 100000 WHERE obs_id = 8",
    "DELETE FROM obs",
)


def test_whatever_happens_to_rows_in_place_is_seen(polled: Polled) -> None:
    for change in CHANGES:
        before = polled.truth()
        polled.execute(change)
        assert polled.truth() != before, change
        polled.poll()
        assert polled.equal(), change


def test_rows_voided_at_once_do_not_cancel_out(polled: Polled) -> None:
    for _ in range(2):
        polled.execute("UPDATE obs SET voided = 1 - voided")
        polled.poll()
        assert polled.equal()


def test_only_the_new_rows_of_the_last_range_are_published(polled: Polled) -> None:
    polled.insert(5)
    new = polled.poll()
    assert len(rows_of(new)) == 5
    assert not [event for event in new if event.kind == "chunk"]


def test_a_removed_identifier_notifies_its_patient(polled: Polled) -> None:
    (patient, key) = polled.execute(
        "SELECT patient_id, patient_identifier_id FROM patient_identifier LIMIT 1"
    )[0]
    polled.execute(f"DELETE FROM patient_identifier WHERE patient_identifier_id = {key}")
    keys = key_changes_of(polled.poll(), "patient_identifier")
    assert patient in {key["patient_id"] for key in keys}


AROUND = (
    (
        "concept_name",
        "UPDATE concept_name SET name = CONCAT(name, '!') WHERE concept_name_id = 5",
        "concept_name_id",
    ),
    ("person_name", "UPDATE person_name SET voided = 1 WHERE person_id = 5", "person_id"),
    ("location", "UPDATE location SET name = 'Elsewhere' WHERE location_id = 1", "location_id"),
    ("encounter_provider", "DELETE FROM encounter_provider WHERE encounter_id = 5", "encounter_id"),
    ("patient", "DELETE FROM patient WHERE patient_id = 12", "patient_id"),
    ("users", "UPDATE users SET retired = 1 WHERE user_id = 2", "user_id"),
)


def test_a_change_around_the_rows_gives_a_notice_with_keys(polled: Polled) -> None:
    for table, change, key in AROUND:
        changed = int(change.rpartition(" ")[2])
        polled.execute(change)
        new = polled.poll()
        assert changed in {found.get(key) for found in key_changes_of(new, table)}, table
        assert not rows_of(new)


def test_a_password_changes_nothing_and_is_not_even_hashed(polled: Polled) -> None:
    polled.execute("UPDATE users SET password = 'x', salt = 'y'")
    assert [event.kind for event in polled.poll()] == ["heartbeat"]


def test_a_run_that_breaks_off_comes_again_with_another_number(
    polled: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled.execute("UPDATE obs SET comments = 'changed' WHERE obs_id = 1")
    monkeypatch.setattr(poll.Poller, "_end", _power_cut)
    with pytest.raises(ConnectionAbortedError):
        polled.poll()
    monkeypatch.undo()
    kafka = polled.settings.kafka
    broken_off = read(kafka.bootstrap, kafka.topic, len(polled.events))
    assert 1 in rows_of(broken_off), "it was published"
    polled.events += broken_off
    before = {event.source.version for event in polled.events}
    new = polled.poll()
    versions = {event.source.version for event in new if event.kind == "row"}
    assert 1 in rows_of(new)
    assert min(versions) > max(before), "no number is used twice"
    assert polled.equal()
    assert [event.kind for event in polled.poll()] == ["heartbeat"]


def test_a_row_that_came_in_a_run_that_broke_off_and_is_gone_by_the_next_is_told_of(
    polled: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is then as the last whole run has saved it: no digest would tell."""
    before = polled.truth()
    (edited,) = polled.execute("SELECT MIN(obs_id) FROM obs WHERE comments IS NULL")[0]
    polled.insert(3)
    polled.execute(f"UPDATE obs SET comments = 'for a moment' WHERE obs_id = {edited}")
    monkeypatch.setattr(poll.Poller, "_end", _power_cut)
    with pytest.raises(ConnectionAbortedError):
        polled.poll()
    monkeypatch.undo()
    (new_keys,) = [polled.truth().keys() - before.keys()]
    polled.events = read(polled.settings.kafka.bootstrap, polled.settings.kafka.topic)
    assert new_keys <= rows_of(polled.events), "they were published"
    polled.execute(
        f"DELETE FROM obs WHERE obs_id IN ({', '.join(map(str, new_keys))})",
        f"UPDATE obs SET comments = NULL WHERE obs_id = {edited}",
    )
    assert polled.truth() == before
    polled.poll()
    assert polled.equal()


def test_a23_no_key_change_names_a_key_0(polled: Polled) -> None:
    (patient,) = polled.execute("SELECT MIN(patient_id) FROM patient_identifier")[0]
    polled.execute(
        "UPDATE patient_identifier SET identifier = '1199080099999998'"
        f" WHERE patient_id = {patient} LIMIT 1"
    )
    keys = {key["patient_id"] for key in key_changes_of(polled.poll(), "patient_identifier")}
    assert patient in keys
    assert 0 not in keys


def _power_cut(*_: object) -> None:
    raise ConnectionAbortedError


def test_a_large_table_is_walked_in_slices_and_new_rows_come_first(
    flavour_database: Address, kafka_bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_ROWS", 500)
    with flavour_database.connect() as connection:
        generator.create(connection, seed=4, patients=40, visits=2)
    budget = LoadBudget(rows_per_s=20_000, queries_per_s=10_000, chunk_rows=100)
    settings = settings_for(
        flavour_database, kafka_bootstrap, topic, load_budget=budget, poll_interval_s=0.01
    )
    polled = Polled(settings, flavour_database)
    polled.poll()
    assert polled.equal()
    heartbeats = [event for event in polled.events if event.kind == "heartbeat"]
    assert len(heartbeats) >= 3, "it took several runs"
    polled.execute("UPDATE obs SET voided = 1 - voided WHERE obs_id % 300 = 0")
    polled.insert(10, date_created="UTC_TIMESTAMP() + INTERVAL 2 HOUR")
    new = polled.poll()
    assert polled.equal()
    kinds = [event.kind for event in new]
    first_run = new[: kinds.index("heartbeat")]
    assert set(sorted(polled.truth())[-10:]) <= rows_of(first_run)


def test_another_server_begins_a_new_epoch(
    polled: Polled, own_mariadb: Callable[..., MariaDB]
) -> None:
    first = Positions(polled.settings.kafka).load(HOSPITAL)
    other = own_mariadb(flags=["--skip-log-bin", "--server-id=77"])
    other.execute(f"CREATE DATABASE {polled.address.database}")
    address = Address.parse("mariadb", other.url)._replace(database=polled.address.database)
    with address.connect() as connection:
        generator.create(connection, seed=9, patients=10, visits=1)
    moved = Polled(
        settings_for(address, polled.settings.kafka.bootstrap, polled.settings.kafka.topic), address
    )
    moved.events = polled.events
    moved.poll()
    second = Positions(polled.settings.kafka).load(HOSPITAL)
    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch
    assert moved.equal()


@pytest.mark.parametrize("flavour", ["own_mariadb", "own_mysql"])
def test_row_07_select_alone_suffices_and_nothing_is_written_or_locked(
    flavour: str, request: pytest.FixtureRequest, kafka_bootstrap: str, topic: str
) -> None:
    server: MariaDB | MySQL = request.getfixturevalue(flavour)(flags=["--skip-log-bin"])
    server.execute(
        "CREATE DATABASE openmrs",
        "CREATE USER poll@'127.0.0.1' IDENTIFIED BY 'secret'",
        "GRANT SELECT ON openmrs.* TO poll@'127.0.0.1'",
    )
    address = Address.parse(flavour.removeprefix("own_"), server.url)._replace(database="openmrs")
    with address.connect() as connection:
        generator.create(connection, seed=5, patients=10, visits=1)
    limited = address._replace(user="poll", password="secret")
    polled = Polled(settings_for(limited, kafka_bootstrap, topic), address)
    server.execute("SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1")
    polled.poll()
    polled.execute("UPDATE obs SET voided = 1 WHERE obs_id = 2")
    polled.poll()
    assert polled.equal()
    rows = server.execute(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE user_host LIKE 'poll%'"
    )
    said = {words[0].split()[0].upper() for words in rows if words[0].strip()}
    assert "SELECT" in said
    assert said <= {"SELECT", "SET", "START", "ROLLBACK", "SHOW", "COMMIT", "POLL@127.0.0.1"}, said


def test_a_hospital_of_the_stream_is_not_polled(
    flavour_database: Address, kafka_bootstrap: str, topic: str
) -> None:
    settings = settings_for(flavour_database, kafka_bootstrap, topic, capture="binlog")
    with pytest.raises(Fatal, match="capture is binlog"):
        poll.run(HOSPITAL, settings, once=True, stop=threading.Event())
