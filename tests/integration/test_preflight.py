"""`passport check` and `passport grants` against real servers, with nothing but the rights they print."""

from typing import Any

import pytest

from cdc.grants import grants
from cdc.preflight import checks
from dev.hospital import create
from dev.stack import MariaDB, MySQL
from passport.check import Check
from passport.settings import Settings
from tests import stream
from tests.reader_process import catch_up
from tests.servers import Address, fresh_name

GOOD = ["--binlog-expire-logs-seconds=604800"]
GRACE = {
    "topics",
    "replication",
    "sync_binlog",
    "gtid_strict_mode",
    "not carried: orders",
}  # warnings that are right here


@pytest.fixture(params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest, own_mariadb: Any, own_mysql: Any) -> MariaDB | MySQL:
    started: MariaDB | MySQL = (own_mariadb if request.param == "mariadb" else own_mysql)(flags=GOOD)
    return started


def prepared(server: MariaDB | MySQL, bootstrap: str, *, counted: bool = True, **changes: Any) -> Settings:
    """An OpenMRS and the account of `grants`, its commented lines too."""
    server.execute("CREATE DATABASE openmrs")
    create(server.connect(database="openmrs"), seed=1, patients=2)
    server.execute(
        "USE openmrs",
        *[
            f"CREATE TABLE IF NOT EXISTS {table} ({key} INT PRIMARY KEY)"
            for table, key in (
                ("encounter_diagnosis", "diagnosis_id"),
                ("conditions", "condition_id"),
                ("allergy", "allergy_id"),
            )
        ],
    )
    flavour = "mariadb" if isinstance(server, MariaDB) else "mysql"
    address = Address(flavour, "127.0.0.1", server.port, "root", "", "openmrs")
    uuid = server.execute("SELECT uuid FROM openmrs.patient_identifier_type WHERE retired = 0 ORDER BY 1 LIMIT 1")[0][0]
    settings = stream.settings(
        address.settings(user="cdc", password="choose-a-password"), bootstrap, fresh_name(), **changes
    )
    hospital = settings.hospitals["kigali"].model_copy(update={"national_id_type": uuid})
    sql = grants("kigali", hospital, flavour).splitlines()  # type: ignore[arg-type]
    lines = [line.removeprefix("-- ") if counted else line for line in sql]
    server.execute(*[line for line in lines if line.startswith(("GRANT", "CREATE"))])
    return settings.model_copy(update={"hospitals": {"kigali": hospital}})


def checked(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in checks("kigali", settings.hospitals["kigali"], settings.kafka)}


def bad(found: dict[str, Check]) -> dict[str, Check]:
    return {name: check for name, check in found.items() if not check.ok}


def test_with_the_printed_grants_everything_holds(server: MariaDB | MySQL, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    found = checked(settings)
    assert set(bad(found)) - GRACE == set(), bad(found)
    assert all(check.ok is None for check in bad(found).values())
    assert all(check.remedy for name, check in bad(found).items() if not name.startswith("not carried"))
    catch_up(settings)
    found = checked(settings)
    assert found["position"].ok
    assert found["partition"].ok
    assert found["own partition"].ok
    assert set(bad(found)) - GRACE == set(), bad(found)


def test_the_account_sees_no_password(server: MariaDB | MySQL, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    assert checked(settings)["excess grants"].ok
    server.execute("GRANT SELECT ON openmrs.* TO cdc@'%'", "GRANT INSERT ON openmrs.obs TO cdc@'%'")
    found = checked(settings)["excess grants"]
    assert found.ok is None
    assert "users.password" in found.detail
    assert "INSERT" in found.detail


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("REVOKE REPLICATION SLAVE ON *.* FROM cdc@'%'", "replication grants"),
        ("REVOKE {monitor} ON *.* FROM cdc@'%'", "replication grants"),
        ("REVOKE SELECT ON openmrs.`concept_name` FROM cdc@'%'", "tables"),
        ("REVOKE SELECT (uuid) ON openmrs.`users` FROM cdc@'%'", "tables"),
    ],
)
def test_each_missing_grant_comes_with_its_statement(
    server: MariaDB | MySQL, kafka_bootstrap: str, statement: str, name: str
) -> None:
    settings = prepared(server, kafka_bootstrap)
    monitor = "BINLOG MONITOR" if isinstance(server, MariaDB) else "REPLICATION CLIENT"
    server.execute(statement.format(monitor=monitor))
    failed = checked(settings)[name]
    assert failed.ok is False
    server.execute(*failed.remedy.split("\n"))
    assert checked(settings)[name].ok


@pytest.mark.parametrize(
    ("name", "value", "ok"),
    [
        ("binlog_format", "'MIXED'", False),
        ("binlog_row_image", "'MINIMAL'", None),
        ("binlog_row_metadata", "'{minimal}'", None),
        ("sync_binlog", "0", None),
        ("binlog_expire_logs_seconds", "3600", None),
    ],
)
def test_each_bad_setting_comes_with_its_statement(
    server: MariaDB | MySQL, kafka_bootstrap: str, name: str, value: str, ok: bool | None
) -> None:
    settings = prepared(server, kafka_bootstrap)
    minimal = "NO_LOG" if isinstance(server, MariaDB) else "MINIMAL"
    server.execute(f"SET GLOBAL {name} = {value.format(minimal=minimal)}")
    check = "retention" if name.startswith("binlog_expire") else name
    failed = checked(settings)[check]
    assert failed.ok is ok
    server.execute(failed.remedy.partition(";")[0])
    assert checked(settings)[check].ok


def test_an_unknown_identifier_type_lists_those_that_there_are(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb()
    settings = prepared(server, kafka_bootstrap)
    hospital = settings.hospitals["kigali"].model_copy(update={"national_id_type": "nothing"})
    failed = checked(settings.model_copy(update={"hospitals": {"kigali": hospital}}))["national_id_type"]
    assert failed.ok is False
    for uuid, name in server.execute("SELECT uuid, name FROM openmrs.patient_identifier_type WHERE retired = 0"):
        assert uuid in failed.detail
        assert name in failed.detail


def test_rows_that_are_not_carried_are_counted(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb()
    settings = prepared(server, kafka_bootstrap)
    server.execute(
        "SET SESSION sql_mode = '', foreign_key_checks = 0",
        "INSERT INTO openmrs.conditions (condition_id) VALUES (1), (2)",
    )
    found = checked(settings)
    assert found["not carried: conditions"].ok is None
    assert found["not carried: conditions"].detail.startswith("2 rows")
    assert found["not carried: allergy"].ok


def test_rows_that_may_not_be_counted_come_with_the_grant(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb()
    settings = prepared(server, kafka_bootstrap, counted=False)
    warned = checked(settings)["not carried: conditions"]
    assert warned.ok is None
    server.execute(warned.remedy)
    assert checked(settings)["not carried: conditions"].ok


def test_no_binlog(own_mariadb: Any, kafka_bootstrap: str) -> None:
    found = checked(prepared(own_mariadb(flags=["--skip-log-bin"]), kafka_bootstrap))
    assert found["binlog"].ok is False
    assert "log_bin" in found["binlog"].remedy


def test_a_purged_position_is_named(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb()
    settings = prepared(server, kafka_bootstrap)
    catch_up(settings)
    server.execute("RESET MASTER", "FLUSH BINARY LOGS")
    warned = checked(settings)["position"]
    assert warned.ok is None
    assert "of no use" in warned.detail


def test_servers_that_are_away(own_mariadb: Any, own_kafka: Any) -> None:
    server, kafka = own_mariadb(), own_kafka()
    settings = prepared(server, kafka.url)
    server.kill()
    kafka.kill()
    found = checked(settings)
    assert found["connection"].ok is False
    assert found["kafka"].ok is False
    assert found["connection"].remedy
    assert found["kafka"].remedy


def test_another_hospitals_partition(own_mariadb: Any, kafka_bootstrap: str) -> None:
    settings = prepared(own_mariadb(), kafka_bootstrap)
    catch_up(settings)
    hospital = settings.hospitals["kigali"]
    found = {check.name: check for check in checks("butare", hospital, settings.kafka)}
    assert found["own partition"].ok is False
    assert "kigali" in found["own partition"].detail
