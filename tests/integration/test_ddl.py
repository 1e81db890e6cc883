"""obs is altered, emptied, swapped, made anew: between a snapshot's chunks, while writers work,
while nobody reads.
"""

import functools
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pymysql
import pytest
from prometheus_client import REGISTRY

from dev.hospital.clinic import BUSY
from dev.stack import MySQL
from openmrs.read import ANY_POSITION, Source
from openmrs.tables import OBS
from passport.errors import NotReady, Retry
from passport.settings import LoadBudget, Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import Server, clinic, hospital, reading, saved
from tests.integration.plain import held, told
from tests.reader_process import catch_up, running
from tests.servers import KINDS, in_test_long

# What both have by default is in `make test`, the others take their time in `make test-long`.
DEFAULTS, OTHERS = (
    ["mariadb-NO_LOG", "mysql-MINIMAL"],
    [
        "mariadb-FULL",
        "mariadb-MINIMAL",
        "mariadb-11.8-NO_LOG",
        "mysql-FULL",
        "mysql-8.0-MINIMAL",
        "mysql-5.7-none",
    ],
)
SETTINGS = [*DEFAULTS, *in_test_long(*OTHERS)]
REST = [
    ("mariadb-NO_LOG", False),
    ("mysql-MINIMAL", True),
    *itertools.product(OTHERS, [True, False]),
]
PRIVATE = "kept at the hospital"
ROWS = 40
FEW = "obs_id, person_id, obs_datetime, date_created, uuid"
SHARED = ", ".join(
    sorted({*OBS.columns, "void_reason", "voided_by", "accession_number"} - {"value_boolean"})
)

# Each on an obs as OpenMRS has it; two columns of one type change places or names where nothing but
# a name tells them.
DDL = {
    "a column with a default": [
        "ALTER TABLE obs ADD COLUMN value_boolean TINYINT DEFAULT 1 AFTER obs_id"
    ],
    "a column less": ["ALTER TABLE obs DROP COLUMN form_namespace_and_path"],
    "another type": [
        (
            "ALTER TABLE obs MODIFY value_numeric DECIMAL(12,3),"
            " MODIFY obs_datetime DATETIME(3) NOT NULL"
        )
    ],
    "two names exchanged": [
        "ALTER TABLE obs CHANGE comments spare VARCHAR(255)",
        "UPDATE obs SET uuid = UUID() LIMIT 2",
        (
            "ALTER TABLE obs CHANGE void_reason comments VARCHAR(255),"
            " CHANGE spare void_reason VARCHAR(255)"
        ),
    ],
    "two places exchanged": ["ALTER TABLE obs MODIFY void_reason VARCHAR(255) AFTER value_complex"],
    "truncated": ["TRUNCATE TABLE obs"],
    "dropped and made anew": [
        "CREATE TABLE spare LIKE obs",
        "DROP TABLE obs",
        "CREATE TABLE obs LIKE spare",
    ],
    "swapped for another": [
        "CREATE TABLE spare LIKE obs",
        "ALTER TABLE spare MODIFY comments VARCHAR(255) FIRST, DROP COLUMN interpretation",
        f"INSERT INTO spare ({FEW}) SELECT {FEW} FROM obs WHERE obs_id % 2",
        "RENAME TABLE obs TO before_it, spare TO obs",
    ],
    "statement": [
        "SET SESSION binlog_format = STATEMENT",
        "DELETE FROM obs ORDER BY obs_id DESC LIMIT 3",
    ],
}
# They keep every value that is carried or looked up. `Site.alter` needs void_reason.
KEEPS_VALUES = [
    "CREATE TABLE module_note (id INT PRIMARY KEY)",
    "ALTER TABLE module_note ADD COLUMN location INT, ADD INDEX person (location)",
    "ALTER TABLE obs ADD COLUMN note VARCHAR(255) DEFAULT 'x' AFTER obs_id",
    "ALTER TABLE obs ADD COLUMN amount DECIMAL(8, 2) UNSIGNED FIRST, ADD INDEX (note, comments)",
    "ALTER TABLE obs MODIFY void_reason VARCHAR(255) AFTER value_complex",
    "ALTER TABLE obs CHANGE accession_number accession VARCHAR(300) FIRST, DROP COLUMN note",
    "CREATE INDEX of_reason ON obs (void_reason)",
    "ALTER TABLE obs ENGINE = InnoDB, COMMENT = 'rebuilt', AUTO_INCREMENT = 1000000",
    "ALTER TABLE obs DROP COLUMN accession",
    "ALTER TABLE location ADD COLUMN beds INT NOT NULL DEFAULT 7 FIRST",
    "ALTER TABLE person_name ADD INDEX by_family (family_name)",
    "ALTER TABLE person_name DROP INDEX by_family",
    "DROP TABLE module_note",
]


class Site:
    """A hospital whose server all tests of this file share."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = hospital(server, patients=2)
        self.run(
            "CREATE TABLE kept LIKE obs",
            f"INSERT INTO kept SELECT * FROM obs ORDER BY obs_id LIMIT {ROWS}",
            "UPDATE kept SET value_numeric = obs_id / 8",
        )

    def run(self, *statements: str) -> None:
        """In one session."""
        self.address.execute("SET SESSION foreign_key_checks = 0", *statements)

    def restore(self) -> None:
        """obs as OpenMRS has it, with its first rows, by a swap."""
        self.run(
            "DROP TABLE IF EXISTS spare, before_it, fresh",
            "CREATE TABLE fresh LIKE kept",
            "INSERT INTO fresh SELECT * FROM kept",
            "RENAME TABLE obs TO before_it, fresh TO obs",
            "DROP TABLE before_it",
        )

    def patiently(self, *statements: str) -> None:
        """Again when others work on the same rows."""
        for statement in statements:
            for attempt in range(20):
                try:
                    self.run(statement)
                    break
                except pymysql.MySQLError as error:
                    if error.args[0] not in BUSY or attempt == 19:
                        raise

    def alter(self, *statements: str) -> None:
        """With rows before and after, of the same session."""
        self.run(
            self._insert("before", 3),
            *statements,
            self._insert("after", 4),
            "UPDATE obs SET comments = 'touched' ORDER BY obs_id LIMIT 5",
            "DELETE FROM obs ORDER BY obs_id DESC LIMIT 1",
        )

    def touch(self) -> str:
        """Return a statement that changes some rows."""
        return "UPDATE obs SET comments = UUID() ORDER BY obs_id LIMIT 2"

    def _insert(self, comments: str, rows: int) -> str:
        new = "person_id, obs_datetime, date_created, uuid, comments, void_reason"
        values = f"person_id, obs_datetime, date_created, UUID(), '{comments}', '{PRIVATE}'"
        return f"INSERT INTO obs ({new}) SELECT {values} FROM kept LIMIT {rows}"


@pytest.fixture(scope="module")
def sites(module_own: Callable[..., Any]) -> Callable[[str], Site]:
    """By version, each made when it is first asked for."""
    return functools.cache(lambda version: Site(module_own(KINDS[version])))


@pytest.fixture(params=SETTINGS)
def site(request: pytest.FixtureRequest, sites: Callable[[str], Site]) -> Site:
    """On a server of the version, with the row metadata. MySQL 5.7 has none."""
    version, _, metadata = request.param.rpartition("-")
    found = sites(version)
    if metadata != "none":
        found.server.execute(f"SET GLOBAL binlog_row_metadata = {metadata}")
    found.restore()
    return found


class Progress(NamedTuple):
    """Of the snapshot that is saved; `where`: epoch and number."""

    where: tuple[int, int]
    next_key: int | None
    state: str


def progress(settings: Settings) -> Progress:
    found = saved(settings)
    assert found.snapshot is not None
    return Progress(
        (found.epoch, found.snapshot.number), found.snapshot.next_key, found.snapshot.state
    )


def assert_equal(settings: Settings, site: Site, name: str) -> None:
    there = told(settings)
    assert there == held(site.address), name
    private = [key for key, row in there.items() if PRIVATE in (row.get("comments") or "")]
    assert bool(private) == (name == "two names exchanged"), (
        "only what is called comments leaves the hospital"
    )


@pytest.mark.parametrize(
    ("site", "live"),
    [
        ("mariadb-NO_LOG", True),
        pytest.param("mysql-MINIMAL", False, marks=pytest.mark.long),
        *(pytest.param(one, live, marks=pytest.mark.long) for one, live in REST),
    ],
    indirect=["site"],
)
def test_row_51_between_chunks(site: Site, kafka_bootstrap: str, live: bool) -> None:
    """A snapshot is in its middle when the table changes, and the reader works on, or has just
    stopped.
    """
    settings = reading(
        site.address, kafka_bootstrap, load_budget={"chunk_rows": 10, "rows_per_s": 8}
    )
    catch_up(at_ease(settings))
    for name, statements in DDL.items():
        site.restore()
        with running(settings):
            middle = reached_the_middle(settings)
            if live:
                with grows("events_skipped_total"):
                    site.alter(*statements)
        if not live:
            site.alter(*statements)
        catch_up(at_ease(settings))
        if name == "two places exchanged":
            assert progress(settings).where == middle.where, "no value changed"
        else:
            assert progress(settings).where > middle.where, name
        assert_equal(settings, site, name)


def reached_the_middle(settings: Settings) -> Progress:
    """Waits for the first chunk, behind which the next ones take their time."""
    with grows("snapshot_rows_total"):
        eventually(lambda: progress(settings).state == "running", "the snapshot is running")
    eventually(
        lambda: progress(settings).next_key is not None, "a chunk of the snapshot is published"
    )
    middle = progress(settings)
    assert (middle.state, middle.next_key is not None) == ("running", True)
    return middle


def at_ease(settings: Settings) -> Settings:
    """The same, and the server may be asked as much as it takes."""
    kigali = settings.hospitals["kigali"].model_copy(
        update={"load_budget": LoadBudget(queries_per_s=10_000)}
    )
    return settings.model_copy(update={"hospitals": {"kigali": kigali}})


@contextmanager
def grows(metric: str) -> Iterator[None]:
    """That the counter does so, after what is done within."""
    before = total(metric)
    yield
    eventually(lambda: total(metric) > before, "the counter grows")


@contextmanager
def not_grown(metric: str) -> Iterator[None]:
    """Assert that the counter does not grow within."""
    before = total(metric)
    yield
    assert total(metric) == before


def total(metric: str) -> float:
    samples = (sample for family in REGISTRY.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == f"passport_cdc_{metric}")


def test_a16_ddl_that_keeps_values_begins_no_snapshot(site: Site, kafka_bootstrap: str) -> None:
    """Rows are written between these statements, and nobody reads meanwhile: when the reader comes,
    the server lists no column as it was then.
    """
    settings = reading(site.address, kafka_bootstrap)
    catch_up(settings)
    before = progress(settings)
    site.alter(*itertools.chain.from_iterable((one, site.touch()) for one in KEEPS_VALUES))
    with not_grown("snapshot_rows_total"):
        catch_up(settings)
    assert progress(settings) == before
    assert_equal(settings, site, "values kept")
    site.run("ALTER TABLE location DROP COLUMN beds")


def test_a16_ddl_of_a_table_that_is_looked_up_begins_no_snapshot(
    site: Site, kafka_bootstrap: str
) -> None:
    """Every obs may mean something else then, and consumers are told: their rows are the same."""
    settings = reading(site.address, kafka_bootstrap)
    catch_up(settings)
    before = progress(settings)
    site.run(
        "CREATE TABLE kept_drug LIKE drug",
        "INSERT INTO kept_drug SELECT * FROM drug",
        "DROP TABLE drug",
        "RENAME TABLE kept_drug TO drug",
        "ALTER TABLE visit_type MODIFY name VARCHAR(300)",
        "TRUNCATE TABLE concept_numeric",
    )
    with not_grown("snapshot_rows_total"):
        catch_up(settings)
    assert progress(settings) == before
    notices = [event for event in map(json.loads, values(settings)) if event["kind"] == "notice"]
    whole_tables = {event["source"]["table"] for event in notices if not event["keys"]}
    assert whole_tables == {"drug", "visit_type", "concept_numeric"}
    assert {event["op"] for event in notices if not event["keys"]} == {"r"}
    assert_equal(settings, site, "of other tables")


def test_a16_ddl_under_load_is_no_gap(site: Site, kafka_bootstrap: str) -> None:
    settings = reading(site.address, kafka_bootstrap)
    catch_up(settings)
    before = progress(settings)
    newest = functools.partial(site.address.execute, "SELECT MAX(obs_id) FROM obs")
    with running(settings), clinic(site.address, rate=60):
        for statement in ("ADD COLUMN note INT DEFAULT 7 AFTER person_id", "DROP COLUMN note") * 3:
            with grows("events_skipped_total"):
                site.patiently(f"ALTER TABLE obs {statement}")
            last = newest()
            eventually(lambda last=last: newest() > last, "a row is inserted")
    catch_up(settings)
    assert progress(settings) == before
    assert_equal(settings, site, "under load")


@pytest.mark.parametrize("site", ["mariadb-NO_LOG"], indirect=True)
def test_a5_a_moved_column_is_read_under_its_own_name(site: Site, kafka_bootstrap: str) -> None:
    settings = reading(site.address, kafka_bootstrap)
    catch_up(settings)
    site.run(
        "SET STATEMENT lock_wait_timeout = 5 FOR ALTER TABLE obs"
        " MODIFY value_coded INT AFTER value_coded_name_id",
        "UPDATE obs SET value_coded = 5, value_coded_name_id = NULL ORDER BY obs_id LIMIT 3",
    )
    columns = [row[0] for row in site.address.execute("SHOW COLUMNS FROM obs")]
    assert columns.index("value_coded") == columns.index("value_coded_name_id") + 1
    catch_up(settings)
    assert_equal(settings, site, "moved")


@pytest.mark.parametrize("site", DEFAULTS, indirect=True)
def test_a5_a_database_whose_name_must_be_quoted(site: Site, kafka_bootstrap: str) -> None:
    address = hospital(site.server, patients=2, database="openmrs-prod")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    assert told(settings) == held(address) != {}
    address.execute("SET foreign_key_checks = 0", "--\nTRUNCATE TABLE `openmrs-prod`.`obs`")
    catch_up(settings)
    assert told(settings) == held(address) == {}
    address.execute("DROP DATABASE `openmrs-prod`")


def test_columns_are_listed_once_the_ddl_is_visible(
    module_own: Callable[..., Any], kafka_bootstrap: str
) -> None:
    """A MySQL that waits for a replica, AFTER_SYNC as by default, has sent what it doesn't show."""
    server = module_own(MySQL, flags=["--plugin-load=semisync_source.so"])
    server.execute("SET GLOBAL binlog_row_metadata = MINIMAL")
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    columns = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_name = 'patient_identifier' ORDER BY ordinal_position"
    )
    before = address.execute(columns)
    server.execute(
        "SET GLOBAL rpl_semi_sync_source_timeout = 60000",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica = 1",
        "SET GLOBAL rpl_semi_sync_source_enabled = 1",
    )
    alter = threading.Thread(
        target=address.execute,
        args=(
            "SET foreign_key_checks = 0",
            (
                "ALTER TABLE patient_identifier"
                " MODIFY patient_identifier_id INT NOT NULL AUTO_INCREMENT AFTER patient_id"
            ),
        ),
    )
    with running(settings):
        with grows("events_skipped_total"):
            alter.start()
        assert address.execute(columns) == before
        server.execute("SET GLOBAL rpl_semi_sync_source_enabled = 0")
        alter.join()
        eventually(
            lambda: any(
                event["kind"] == "notice" and not event["keys"]
                for event in map(json.loads, values(settings))
            ),
            "the reader is behind the DDL, and everyone is to be looked up again",
        )
    assert address.execute(columns) != before
    address.execute("UPDATE patient_identifier SET patient_identifier_id = 77777 LIMIT 1")
    ((patient,),) = address.execute(
        "SELECT patient_id FROM patient_identifier WHERE patient_identifier_id = 77777"
    )
    catch_up(settings)
    notices = [event for event in map(json.loads, values(settings)) if event["kind"] == "notice"]
    assert notices[-1]["keys"][-1] == {"patient_identifier_id": 77777, "patient_id": patient}


def values(settings: Settings) -> list[bytes]:
    return [record.value for record in stream.raw(settings)]


# --- as the tools do it that change a table under load: a copy, kept equal, then a swap


def copied(site: Site) -> None:
    """Chunk by chunk, each in a transaction that waits for nobody for long."""
    last = site.address.execute("SELECT MAX(obs_id) FROM obs")[0][0]
    shared = "LOCK IN SHARE MODE"
    for first in range(0, last + 1, 50):
        site.patiently(
            f"INSERT IGNORE INTO _obs_new ({SHARED}) SELECT {SHARED} FROM obs"
            f" WHERE obs_id > {first} AND obs_id <= {first + 50} {shared}"
        )


def by_triggers(site: Site) -> None:
    """pt-online-schema-change: triggers keep the copy equal, one RENAME swaps the two."""
    new = ", ".join(f"NEW.{name}" for name in SHARED.split(", "))
    take, put = (
        "DELETE IGNORE FROM _obs_new WHERE obs_id <=> OLD.obs_id",
        f"REPLACE INTO _obs_new ({SHARED}) VALUES ({new})",
    )
    for event, action in (
        ("DELETE", take),
        ("UPDATE", f"BEGIN {take}; {put}; END"),
        ("INSERT", put),
    ):
        site.patiently(f"CREATE TRIGGER osc_{event} AFTER {event} ON obs FOR EACH ROW {action}")
    copied(site)
    site.patiently("RENAME TABLE obs TO _obs_old, _obs_new TO obs")
    site.patiently(*(f"DROP TRIGGER osc_{event}" for event in ("DELETE", "UPDATE", "INSERT")))


def by_ghost(site: Site) -> None:
    """gh-ost's cut-over: under a lock the last changes go over; a RENAME waits for it, and comes
    before all else.
    """
    copied(site)
    site.patiently("CREATE TABLE _obs_old (sentry INT)")
    with site.address.connect() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLES obs WRITE, obs AS o READ, _obs_new WRITE, _obs_old WRITE")
        cursor.execute("DELETE FROM _obs_new")
        cursor.execute(f"INSERT INTO _obs_new ({SHARED}) SELECT {SHARED} FROM obs AS o")
        swap = threading.Thread(
            target=site.patiently, args=("RENAME TABLE obs TO _obs_old, _obs_new TO obs",)
        )
        swap.start()
        eventually(
            lambda: any(
                "RENAME" in str(row[7]) for row in site.address.execute("SHOW PROCESSLIST")
            ),
            "the rename waits for its locks",
        )
        cursor.execute("DROP TABLE _obs_old")
        cursor.execute("UNLOCK TABLES")
        swap.join()


@pytest.mark.parametrize("tool", [by_triggers, by_ghost])
def test_swapped_under_load(site: Site, kafka_bootstrap: str, tool: Callable[[Site], None]) -> None:
    """Columns in another order, and one more; somebody works in the hospital before, while and
    after.
    """
    settings = reading(site.address, kafka_bootstrap, load_budget={"chunk_rows": 10})
    site.run(
        "DROP TABLE IF EXISTS _obs_new, _obs_old",
        "CREATE TABLE _obs_new LIKE obs",
        "ALTER TABLE _obs_new ADD COLUMN value_boolean TINYINT FIRST,"
        " MODIFY comments VARCHAR(255) AFTER obs_id,"
        " MODIFY void_reason VARCHAR(255) AFTER comments",
    )
    with running(settings), clinic(site.address, rate=40):
        with grows("events_total"):
            pass
        with grows("events_skipped_total"):
            tool(site)
        before = len(held(site.address))
        eventually(
            lambda: len(held(site.address)) > before, "a row is inserted after the tool's change"
        )
    catch_up(settings)
    assert next(iter(held(site.address).values())).keys() >= {"value_boolean", "comments"}
    assert told(settings) == held(site.address)


def test_altered_since_its_columns_were_read(site: Site) -> None:
    """As a snapshot's chunk, or a lookup, may find it before the reader has come to the DDL: not an
    end, read again.
    """
    source = Source("kigali", site.address.settings())
    source.columns(OBS)
    for statement in ("ALTER TABLE obs DROP COLUMN interpretation", "RENAME TABLE obs TO spare"):
        site.run(statement)
        with pytest.raises(Retry, match="altered"), source.read_at(ANY_POSITION) as reading:
            reading.facts(OBS, "1 = 1")
        if "RENAME" in statement:
            with pytest.raises(NotReady, match="obs is not there"):
                source.columns(OBS)
            site.run("RENAME TABLE spare TO obs")
        with source.read_at(ANY_POSITION) as reading:
            assert {row["obs_id"]: row for row in reading.facts(OBS, "1 = 1")} == held(site.address)
    with source.read_at(ANY_POSITION) as reading:
        site.run("ALTER TABLE obs MODIFY comments TEXT, ADD COLUMN value_boolean TINYINT FIRST")
        with pytest.raises(Retry, match="altered"):
            reading.facts(OBS, "1 = 1")
    source.close()
