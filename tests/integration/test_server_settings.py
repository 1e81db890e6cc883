"""What a server may be set to, and what sessions may do to its binlog: right in the end, or stopped
with the reason.
"""

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pymysql
import pytest
from pymysql.constants import ER
from structlog.testing import capture_logs

from cdc.kafka import alter_configs
from dev.stack import MariaDB
from openmrs.connection import server_version
from openmrs.server_version import ServerVersion
from passport.errors import Fatal
from passport.kafka import admin_client
from passport.settings import Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import clinic, hospital, in_source_order, reading, saved
from tests.integration.plain import held, told
from tests.reader_process import catch_up, running
from tests.servers import ALL_VERSIONS, KINDS, Address
from tests.topic_reader import read_topic

NEW = "person_id, concept_id, obs_datetime, creator, date_created"


@pytest.fixture(scope="module", params=ALL_VERSIONS)
def shared(request: pytest.FixtureRequest, module_own: Callable[..., Any]) -> Address:
    """A hospital of each version. Its binlog has the text of every statement beside the rows."""
    kind = KINDS[request.param]
    flags = ["--max-allowed-packet=256M", "--log-bin-trust-function-creators=1"]
    if issubclass(kind, MariaDB):
        flags.append("--binlog-annotate-row-events=ON")
    else:
        flags.append("--binlog-rows-query-log-events=ON")
    address = hospital(module_own(kind, flags=flags), patients=3)
    address.execute("CREATE TABLE kept LIKE obs", "INSERT INTO kept SELECT * FROM obs")
    return address


@pytest.fixture
def address(shared: Address) -> Iterator[Address]:
    """Settings and obs are put back, so that one test's failure is not the next one's."""
    before = dict(shared.execute("SHOW GLOBAL VARIABLES"))
    yield shared
    names = (
        "binlog_checksum",
        "binlog_row_image",
        "time_zone",
        "gtid_strict_mode",
        "binlog_row_metadata",
    )
    shared.execute(*(f"SET GLOBAL {name} = '{before[name]}'" for name in names if name in before))
    shared.execute(
        "SET SESSION foreign_key_checks = 0",
        "DROP TABLE obs",
        "CREATE TABLE obs LIKE kept",
        "INSERT INTO obs SELECT * FROM kept",
    )


def insert(number: int = 1, **values: str) -> str:
    """So many rows, taken from others; `values`: SQL expressions of columns."""
    names, new = ", ".join(["uuid", *values]), ", ".join(["UUID()", *values.values()])
    return f"INSERT INTO obs ({NEW}, {names}) SELECT {NEW}, {new} FROM kept LIMIT {number}"


def add_beside_writers(address: Address) -> None:
    """One row: again, when it was the victim of a deadlock with them."""
    try:
        address.execute(insert())
    except pymysql.err.OperationalError as error:
        if error.args[0] != ER.LOCK_DEADLOCK:
            raise
        add_beside_writers(address)


def test_checksums_come_and_go(address: Address, kafka_bootstrap: str) -> None:
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    with running(settings), clinic(address):
        for value in ("NONE", "CRC32", "NONE"):
            before = len(stream.raw(settings))
            address.execute(f"SET GLOBAL binlog_checksum = {value}")
            add_beside_writers(address)
            eventually(lambda: len(stream.raw(settings)) > before, "what was written is published")  # noqa: B023
    catch_up(settings)
    events = stream.records(settings)
    assert len({event.source.file for event in stream.changes(events)}) >= 3, (
        "each value began a file"
    )
    assert in_source_order(events)
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]
    assert told(settings) == held(address)


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_rows_whose_images_are_not_whole_are_read_again(
    address: Address, kafka_bootstrap: str, image: str
) -> None:
    address.execute(f"SET GLOBAL binlog_row_image = '{image}'")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = reads(settings)
    key = min(held(address))
    with clinic(address):
        time.sleep(1)
    address.execute(
        "SET SESSION foreign_key_checks = 0",
        f"UPDATE obs SET comments = 'partly' WHERE obs_id = {key}",
        f"UPDATE obs SET value_text = 'a text' WHERE obs_id = {key}",
        "DELETE FROM obs ORDER BY obs_id DESC LIMIT 2",
        f"UPDATE obs SET obs_id = obs_id + 1000000 WHERE obs_id = {key + 1}",
    )
    catch_up(settings)
    there = told(settings)
    assert there == held(address)
    assert (there[key]["comments"], there[key]["value_text"]) == ("partly", "a text")
    assert reads(settings) > before, "beside the one snapshot"
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def reads(settings: Settings) -> int:
    return sum(
        event.source.origin == "snapshot"
        for event in stream.records(settings)
        if event.kind == "row"
    )


def test_statements_texts_go_nowhere(address: Address, kafka_bootstrap: str) -> None:
    """The binlog has them for rows (Annotate_rows, ROWS_QUERY), for DDL, and for statement-based
    sessions.
    """
    settings = reading(address, kafka_bootstrap)
    canary = "canary-4711"
    catch_up(settings)
    with capture_logs() as logs:
        with running(settings):
            address.execute(
                insert(void_reason=f"'{canary}'"),
                f"UPDATE obs /* {canary} */ SET accession_number = '{canary}'"
                " ORDER BY obs_id LIMIT 3",
                f"UPDATE person_name SET family_name = '{canary}' LIMIT 2",
                f"ALTER TABLE obs ADD COLUMN spare INT DEFAULT 5 COMMENT '{canary}'",
                "SET SESSION binlog_format = STATEMENT",
                f"UPDATE obs SET voided = 0 WHERE void_reason = '{canary}'",
                f"DELETE FROM obs WHERE accession_number = '{canary}' ORDER BY obs_id LIMIT 1",
            )
            eventually(lambda: "statement_dml on obs" in str(logs), "the log names the statement")
        catch_up(settings)
    file = saved(settings).position.file
    texts = [str(row) for row in address.execute(f"SHOW BINLOG EVENTS IN '{file}'")]
    of_rows = [
        text
        for text in texts
        if canary in text and ("Annotate_rows" in text or "Rows_query" in text)
    ]
    assert len(of_rows) >= 3, "it was in the binlog"
    values = [record.value for record in stream.raw(settings)]
    kafka = settings.kafka
    values += [record.value or b"" for record in read_topic(kafka.bootstrap, kafka.positions_topic)]
    assert len(values) > 10
    assert not [value for value in values if canary.encode() in value]
    assert canary not in str(logs)
    assert told(settings) == held(address)


@pytest.fixture
def prepared(address: Address) -> Iterator[None]:
    """An XA transaction between its two phases."""
    address.execute(
        "XA START 'one'", insert(comments="'by xa'"), "XA END 'one'", "XA PREPARE 'one'"
    )
    yield
    with suppress(pymysql.MySQLError):  # it was committed
        address.execute("XA ROLLBACK 'one'")


def test_rows_of_an_xa_transaction_come_with_its_commit(
    address: Address, kafka_bootstrap: str, request: pytest.FixtureRequest
) -> None:
    """Also when an epoch began in between: then the rows are in the binlog before its beginning."""
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    epoch = saved(settings).epoch
    request.getfixturevalue("prepared")
    catch_up(settings)
    assert saved(settings).epoch == epoch, "what is prepared stops nobody"
    assert told(settings) == held(address)
    catch_up(settings, new_epoch=True)
    assert saved(settings).epoch > epoch
    assert told(settings) == held(address)
    address.execute("XA COMMIT 'one'", insert(comments="'after xa'"))
    catch_up(settings)
    there = told(settings)
    assert there == held(address)
    assert {"by xa", "after xa"} <= {row["comments"] for row in there.values()}
    assert saved(settings).snapshot.number == 2  # type: ignore[union-attr]


def test_tables_without_transactions(address: Address, kafka_bootstrap: str) -> None:
    """MyISAM: beside obs in a transaction that is rolled back, all or a part; then obs itself."""
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    mariadb = address.flavour == "mariadb"  # MySQL with GTIDs refuses to mix them
    log = ["INSERT INTO my_log VALUES (1)"] * mariadb
    address.execute("DROP TABLE IF EXISTS my_log", "CREATE TABLE my_log (i INT) ENGINE=MyISAM")
    for end in ("COMMIT", "ROLLBACK", "COMMIT"):
        rows = [
            *log,
            insert(2, comments=f"'{end}'"),
            *log,
            "SAVEPOINT a",
            insert(),
            *log,
            "ROLLBACK TO a",
        ]
        address.execute("BEGIN", *rows, end)
    catch_up(settings)
    there = told(settings)
    assert there == held(address)
    assert "ROLLBACK" not in {row["comments"] for row in there.values()}
    address.execute(
        "SET SESSION foreign_key_checks = 0",
        "CREATE TABLE mine LIKE obs",
        "ALTER TABLE mine ENGINE=MyISAM",
        "INSERT INTO mine SELECT * FROM obs",
        "DROP TABLE obs",
        "RENAME TABLE mine TO obs",
    )
    with running(settings):
        for number in range(20):
            address.execute(
                *["BEGIN"] * mariadb, insert(2, comments=f"'{number}'"), *["ROLLBACK"] * mariadb
            )
    address.execute("DELETE FROM obs ORDER BY obs_id DESC LIMIT 3")
    catch_up(settings)
    there = told(settings)
    assert there == held(address)
    assert len({row["comments"] for row in there.values()}) > 15, "nothing was rolled back"


def version(address: Address) -> ServerVersion:
    with address.connect() as connection:
        return server_version(connection)


SESSIONS = {
    "mysql": [
        ["SET gtid_next = 'AUTOMATIC:night_shift'"],
        ["SET SESSION binlog_row_image = MINIMAL", "SET gtid_next = 'AUTOMATIC:b'"],
        ["SET SESSION binlog_transaction_compression = ON", "SET gtid_next = 'AUTOMATIC:b'"],
        ["SET gtid_next = 'AUTOMATIC:c'", "ALTER TABLE obs MODIFY comments VARCHAR(255) FIRST"],
    ],
    "mariadb": [
        ["SET SESSION gtid_domain_id = 7"],
        ["SET SESSION gtid_seq_no = 900000"],
        ["SET SESSION server_id = 99", "SET SESSION gtid_seq_no = 5"],
        ["SET SESSION binlog_row_image = MINIMAL", "SET SESSION gtid_domain_id = 8"],
        [
            "SET SESSION binlog_alter_two_phase = 1",
            "ALTER TABLE obs MODIFY comments VARCHAR(255) FIRST",
        ],
    ],
}


def test_sessions_out_of_the_ordinary(address: Address, kafka_bootstrap: str) -> None:
    """MySQL: tagged GTIDs. MariaDB: other domains and servers, numbers that go back, an ALTER that
    is logged twice.
    """
    address.execute(*["SET GLOBAL gtid_strict_mode = 0"] * (address.flavour == "mariadb"))
    if address.flavour == "mysql" and not version(address).is_mysql(8, 3):
        pytest.skip("the server has no tagged GTIDs")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    epoch = saved(settings).epoch
    for number, session in enumerate([[], *SESSIONS[address.flavour], []]):
        address.execute(
            f"UPDATE obs SET voided = {number % 2} LIMIT 3",
            *session,
            insert(comments=f"'{number}'"),
        )
        catch_up(settings)
        assert told(settings) == held(address), session
    assert saved(settings).epoch == epoch
    gtids = {event.source.gtid for event in stream.changes(stream.records(settings))}
    said = [":night_shift:", ":b:", ":c:"] if address.flavour == "mysql" else ["7-", "0-99-5"]
    for part in said:
        assert any(part in gtid if ":" in part else gtid.startswith(part) for gtid in gtids), (
            part,
            gtids,
        )


def test_a_clock_and_a_zone_that_change(address: Address, kafka_bootstrap: str) -> None:
    """A TIMESTAMP is an instant whatever zone wrote it; a DATETIME, past 2038 too, is what was
    written.
    """
    address.execute("ALTER TABLE obs MODIFY date_voided TIMESTAMP(3) NULL")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    with running(settings):
        for zone in ("+00:00", "-09:30", "+13:00", "+02:00"):
            address.execute(f"SET GLOBAL time_zone = '{zone}'")
            for seconds in (1, 1729990799, 1729994399, 1711846800, 2147483647 - 13 * 3600):
                address.execute(
                    # of this session's events too: clocks go back
                    f"SET SESSION timestamp = {seconds}",
                    insert(date_voided="NOW()", value_datetime="NOW()"),
                )
            address.execute(insert(value_datetime="'2155-06-01 12:00:00'"))
    catch_up(settings)
    events = stream.records(settings)
    assert in_source_order(events)
    clocks = [event.source.ts_ms for event in stream.changes(events)]
    assert min(clocks) < 2_000_000 < max(clocks), "they went back"
    streamed = told(settings)
    assert streamed == held(address)
    again = reading(address, kafka_bootstrap)
    catch_up(again)
    assert told(again) == streamed
    utc = {row["date_voided"] for row in streamed.values() if row["date_voided"]}
    assert utc >= {
        "1970-01-01T00:00:01.000Z",
        "2024-10-27T00:59:59.000Z",
        "2024-10-27T01:59:59.000Z",
    }


def test_a_text_that_no_record_takes_stops_it(address: Address, kafka_bootstrap: str) -> None:
    address.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute(insert(value_text="REPEAT('x', 7 << 20)"))
    catch_up(settings)
    assert told(settings) == held(address)
    address.execute(insert(value_text="REPEAT('y', 32 << 20)"))
    ((obs_id,),) = address.execute("SELECT MAX(obs_id) FROM obs")
    named = rf"kigali.*larger than topic .*: obs {obs_id}"
    with pytest.raises(Fatal, match=rf"{named} at binlog\.\d+:\d+") as caught:
        catch_up(settings)
    assert "passport cdc run --hospital kigali --new-epoch" in caught.value.hint
    with pytest.raises(Fatal, match=rf"{named}\n"):
        catch_up(settings, new_epoch=True)  # its snapshot meets the text, too
    address.execute("UPDATE obs SET value_text = 'shorter' WHERE LENGTH(value_text) > 20000000")
    catch_up(settings, new_epoch=True)
    assert told(settings) == held(address)


def test_a_text_that_the_broker_refuses_is_named(address: Address, kafka_bootstrap: str) -> None:
    """The broker's answer comes when others are sent already, and says no more than the error."""
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    address.execute("ALTER TABLE obs MODIFY value_text LONGTEXT")
    text = b64encode(Random(1).randbytes(1_000_000)).decode()
    address.execute(insert(value_text=f"'{text}'"))
    ((obs_id,),) = address.execute("SELECT MAX(obs_id) FROM obs")
    address.execute(insert())
    _let_records_have(500_000, settings)
    named = rf"kigali.*larger than topic .*: obs {obs_id}\n"
    with pytest.raises(Fatal, match=named):
        catch_up(settings)
    with pytest.raises(Fatal, match=named):
        catch_up(settings, new_epoch=True)
    _let_records_have(2_000_000, settings)
    catch_up(settings)
    assert told(settings) == held(address)


def _let_records_have(size: int, settings: Settings) -> None:
    with admin_client(settings.kafka) as admin:
        assert alter_configs(admin, settings.kafka.topic, {"max.message.bytes": str(size)})


CANNOT = {
    "mariadb": [
        ("comments", "TEXT CHARACTER SET gbk", "character set gbk"),
        ("comments", "UUID NULL", "uuid"),
    ],
    "mysql": [
        ("comments", "TEXT CHARACTER SET gbk", "character set gbk"),
        ("comments", "VECTOR(3)", "vector"),
    ],
}


@pytest.mark.parametrize("which", [0, 1])
def test_a_column_that_cannot_be_decoded(
    address: Address, kafka_bootstrap: str, which: int
) -> None:
    """Before the first record at a start, and when it becomes one while it reads."""
    column, kind, why = CANNOT[address.flavour][which]
    if why == "vector" and not version(address).is_mysql(9):
        pytest.skip("the server has no such type")
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    with pytest.raises(Fatal) as caught:
        altered_meanwhile(settings, address, f"ALTER TABLE obs MODIFY {column} {kind}")
    assert re.search(rf"kigali.*\bobs\b.*{column}", caught.value.reason)
    fresh = reading(address, kafka_bootstrap)
    with pytest.raises(Fatal) as caught:
        catch_up(fresh)
    assert re.search(rf"kigali.*\bobs\b.*{column}", caught.value.reason)
    assert why in caught.value.reason
    assert not stream.raw(fresh)
    address.execute(f"ALTER TABLE obs MODIFY {column} VARCHAR(255)")
    catch_up(settings)
    assert told(settings) == held(address)


def altered_meanwhile(settings: Settings, address: Address, statement: str) -> None:
    """Raises what the reader raised."""
    with running(settings) as stop, capture_logs() as logs:
        address.execute("UPDATE obs SET comments = NULL", statement, insert())
        eventually(lambda: "reader stopped" in str(logs) or stop.is_set(), "the reader has stopped")


def test_a_server_that_folds_names(own_mariadb: Any, kafka_bootstrap: str) -> None:
    """As on Windows: however tables and the database are written, they are these."""
    address = hospital(own_mariadb(flags=["--lower-case-table-names=1"]), patients=2)._replace(
        database="OpenMRS"
    )
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    assert told(settings) == held(address)
    address.execute(
        "CREATE TABLE kept LIKE obs",
        "INSERT INTO KEPT SELECT * FROM Obs",
        insert(3).replace("obs", "OpenMRS.OBS", 1),
        "UPDATE `openMRS`.`Obs` SET comments = 'x' LIMIT 2",
        "DELETE FROM OBS ORDER BY obs_id DESC LIMIT 1",
    )
    catch_up(settings)
    assert told(settings) == held(address)
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]
    address.execute("ALTER TABLE OPENMRS.OBS ADD COLUMN value_boolean TINYINT DEFAULT 1")
    catch_up(settings)
    assert told(settings) == held(address)
