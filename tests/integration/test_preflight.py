"""`passport check` and `passport grants` against real servers, with nothing but the rights they
print.

Each setting is broken on a real server, the check sees it, and what it prints repairs it, run as it
is printed.
"""

import argparse
import shlex
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from cdc.checks.grants import grants
from cdc.lease import server_id
from cdc.positions import Positions
from dev.hospital import create
from dev.stack import MariaDB, MySQL
from passport.check import Check
from passport.settings import Settings
from tests import stream
from tests.hospitals import checked
from tests.integration import consuming
from tests.reader_process import catch_up
from tests.servers import Address, fresh_name

Server = MariaDB | MySQL
GOOD = ["--binlog-expire-logs-seconds=604800"]
GRACE = {
    "topics",
    "replication",
    "sync_binlog",
    "gtid_strict_mode",
    "time_zone",
    "national_id_format",
    "not carried: orders",
}  # warnings that are right here
COUNTED = {
    "encounter_diagnosis": "diagnosis_id",
    "conditions": "condition_id",
    "allergy": "allergy_id",
}


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest, module_own: Callable[..., Any]) -> Server:
    """Each flavour once for all tests: what one of them breaks, it repairs as the check says."""
    started: Server = module_own(MariaDB if request.param == "mariadb" else MySQL, flags=GOOD)
    opened(started)
    return started


@pytest.fixture(scope="module")
def mariadb(module_own: Callable[..., Any]) -> Server:
    started: Server = module_own(MariaDB, flags=GOOD)
    opened(started)
    return started


def opened(server: Server) -> None:
    """An OpenMRS, also with the tables that are only counted."""
    server.execute("CREATE DATABASE openmrs")
    create(server.connect(database="openmrs"), seed=1, patients=2)
    made = [
        f"CREATE TABLE IF NOT EXISTS {table} ({key} INT PRIMARY KEY)"
        for table, key in COUNTED.items()
    ]
    server.execute("USE openmrs", *made)


def flavour(server: Server) -> Any:
    return "mariadb" if isinstance(server, MariaDB) else "mysql"


def prepared(server: Server, bootstrap: str, *, counted: bool = True, **changes: Any) -> Settings:
    """The account of `grants`, made anew, its commented lines too; topics of its own."""
    address = Address(flavour(server), "127.0.0.1", server.port, "root", "", "openmrs")
    uuid = server.execute(
        "SELECT uuid FROM openmrs.patient_identifier_type WHERE retired = 0 ORDER BY 1 LIMIT 1"
    )[0][0]
    settings = stream.settings(
        address.settings(user="cdc", password="choose-a-password"),
        bootstrap,
        fresh_name(),
        **changes,
    )
    hospital = settings.hospitals["kigali"].model_copy(update={"national_id_type": uuid})
    lines = grants("kigali", hospital).splitlines()
    lines = [line.removeprefix("-- ") if counted else line for line in lines]
    server.execute(
        "DROP USER IF EXISTS cdc@'%'",
        *[line for line in lines if line.startswith(("GRANT", "CREATE"))],
    )
    return settings.model_copy(update={"hospitals": {"kigali": hospital}})


def bad(found: dict[str, Check]) -> dict[str, Check]:
    return {name: check for name, check in found.items() if not check.ok}


def typed(server: Server, sql: str) -> None:
    """As a DBA would in the server's own client: statements end with semicolons, `--` begins a
    comment.
    """
    code = " ".join(line.partition("-- ")[0] for line in sql.splitlines())
    server.execute(*[statement for statement in code.split(";") if statement.strip()])


def changed(settings: Settings, **update: Any) -> Settings:
    hospital = settings.hospitals["kigali"].model_copy(update=update)
    return settings.model_copy(update={"hospitals": {"kigali": hospital}})


def test_with_the_printed_grants_everything_holds(server: Server, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    found = checked(settings)
    assert set(bad(found)) - GRACE == set(), bad(found)
    assert all(check.ok is None for check in bad(found).values())
    assert all(
        check.hint for name, check in bad(found).items() if not name.startswith("not carried")
    )
    catch_up(settings)
    found = checked(settings)
    assert found["position"].ok
    assert found["partition"].ok
    assert found["own partition"].ok
    assert set(bad(found)) - GRACE == set(), bad(found)


def test_the_printed_grants_suffice_for_every_stage(
    server: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    prepared(server, kafka_bootstrap, counted=False)
    given = consuming.settings({"kigali": server}, kafka_bootstrap, path := tmp_path / "out")
    assert given.hospitals["kigali"].mysql.user == "cdc"
    consuming.read(given)
    server.execute("USE openmrs", "UPDATE obs SET comments = 'streamed' WHERE voided = 0 LIMIT 3")
    server.execute("USE openmrs", "UPDATE person_name SET given_name = CONCAT(given_name, 'x')")
    consuming.read(given)
    consuming.consume(given)
    consuming.assert_equal(given, path)


@pytest.mark.parametrize(
    "statement",
    [
        *[
            f"SELECT {column} FROM users"
            for column in ("password", "salt", "secret_question", "secret_answer", "*")
        ],
        "SELECT * FROM person_attribute",
        "UPDATE obs SET comments = 'mine'",
        "FLUSH TABLES WITH READ LOCK",
        "LOCK TABLES obs READ",
        "SELECT authentication_string FROM mysql.user",
    ],
)
def test_row_47_the_printed_grants_allow_no_more(
    server: Server, kafka_bootstrap: str, statement: str
) -> None:
    mysql = prepared(server, kafka_bootstrap).hospitals["kigali"].mysql
    server.execute(
        "CREATE TABLE IF NOT EXISTS openmrs.person_attribute (person_attribute_id INT PRIMARY KEY)"
    )
    connection = pymysql.connect(
        host=mysql.host,
        port=mysql.port,
        user="cdc",
        password="choose-a-password",
        database="openmrs",
    )
    with (
        connection,
        connection.cursor() as cursor,
        pytest.raises(pymysql.err.OperationalError) as refused,
    ):
        cursor.execute(statement)
    assert refused.value.args[0] in (1044, 1142, 1143, 1227)


def test_rights_that_are_too_much_come_with_what_takes_them_back(
    server: Server, kafka_bootstrap: str
) -> None:
    settings = prepared(server, kafka_bootstrap)
    assert checked(settings)["excess grants"].ok
    server.execute("GRANT SELECT ON openmrs.* TO cdc@'%'", "GRANT INSERT ON openmrs.obs TO cdc@'%'")
    found = checked(settings)["excess grants"]
    assert found.ok is None
    assert "users.password" in found.detail
    assert "INSERT" in found.detail
    assert "passport grants --hospital kigali" in found.hint
    typed(server, found.hint)
    typed(server, grants("kigali", settings.hospitals["kigali"]))
    assert checked(settings)["excess grants"].ok


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
    server: Server, kafka_bootstrap: str, statement: str, name: str
) -> None:
    settings = prepared(server, kafka_bootstrap)
    monitor = "BINLOG MONITOR" if isinstance(server, MariaDB) else "REPLICATION CLIENT"
    server.execute(statement.format(monitor=monitor))
    failed = checked(settings)[name]
    assert failed.ok is False
    typed(server, failed.hint)
    assert checked(settings)[name].ok


def test_a_table_of_newer_versions_that_is_not_granted_is_named_and_left_out(
    server: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    """As it is after an upgrade of ours: rows of the table come, and the account may not see it."""
    settings = prepared(server, kafka_bootstrap)
    server.execute("REVOKE SELECT ON openmrs.obs_reference_range FROM cdc@'%'")
    found = checked(settings)
    assert found["obs_reference_range"].ok is None
    assert [name for name, check in found.items() if check.ok is False] == []

    given = consuming.settings({"kigali": server}, kafka_bootstrap, tmp_path / "out")
    consuming.read(given)
    try:
        server.execute(
            "SET GLOBAL binlog_row_metadata = 'MINIMAL'",
            "INSERT INTO openmrs.obs_reference_range (obs_id, low_normal, uuid)"
            " SELECT MAX(obs_id), 1, UUID() FROM openmrs.obs WHERE value_numeric IS NOT NULL",
        )
        consuming.read(given)
    finally:
        server.execute(
            "SET GLOBAL binlog_row_metadata = 'FULL'",
            "DELETE FROM openmrs.obs_reference_range WHERE low_normal = 1",
        )
    consuming.consume(given)
    values = [row["value"] for row in consuming.delivered(tmp_path / "out").live.values()]
    ranges = [value["reference_range"] for value in values if value["reference_range"]]
    assert {bounds["source"] for bounds in ranges} == {"concept"}

    typed(server, found["obs_reference_range"].hint)
    assert checked(settings)["obs_reference_range"].ok


GTID_OFF = ["ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"]
# check -> (where, the statements that break it, what the check then says)
BROKEN: dict[str, tuple[str, list[str], bool | None]] = {
    "binlog_format": ("both", ["SET GLOBAL binlog_format = 'MIXED'"], False),
    "binlog_row_value_options": (
        "mysql",
        ["SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'"],
        False,
    ),
    "binlog_row_image": ("both", ["SET GLOBAL binlog_row_image = 'MINIMAL'"], None),
    "binlog_row_metadata": ("both", ["SET GLOBAL binlog_row_metadata = 'MINIMAL'"], None),
    "log_bin_compress": ("mariadb", ["SET GLOBAL log_bin_compress = ON"], None),
    "binlog_transaction_compression": (
        "mysql",
        ["SET GLOBAL binlog_transaction_compression = ON"],
        None,
    ),
    "sync_binlog": ("both", ["SET GLOBAL sync_binlog = 0"], None),
    "binlog_order_commits": ("mysql", ["SET GLOBAL binlog_order_commits = OFF"], None),
    "gtid_mode": ("mysql", [f"SET GLOBAL gtid_mode = {step}" for step in GTID_OFF], None),
    "gtid_strict_mode": ("mariadb", ["SET GLOBAL gtid_strict_mode = OFF"], None),
    "max_allowed_packet": ("both", ["SET GLOBAL max_allowed_packet = 1048576"], None),
    "net_write_timeout": ("both", ["SET GLOBAL net_write_timeout = 5"], None),
    "retention": ("both", ["SET GLOBAL binlog_expire_logs_seconds = 3600"], None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_row_50_each_bad_setting_comes_with_its_statement(
    server: Server, kafka_bootstrap: str, name: str
) -> None:
    where, statements, ok = BROKEN[name]
    settings = prepared(server, kafka_bootstrap)
    if where not in ("both", flavour(server)):
        assert checked(settings)[name].detail == "not on this server"
        return
    server.execute(*statements)
    failed = checked(settings)[name]
    assert failed.ok is ok
    typed(server, failed.hint)
    assert checked(settings)[name].ok


def test_rds_keeps_its_retention_in_a_table_of_its_own(
    server: Server, kafka_bootstrap: str
) -> None:
    """As Amazon documents it; tried on servers with the same table and procedure, not on RDS."""
    settings = prepared(server, kafka_bootstrap)
    server.execute(
        "USE mysql",
        "CREATE TABLE rds_configuration (name VARCHAR(100), value VARCHAR(100))",
        "INSERT INTO rds_configuration VALUES ('binlog retention hours', NULL)",
        "CREATE PROCEDURE rds_set_configuration (n VARCHAR(100), v INT)"
        " UPDATE rds_configuration SET value = v WHERE name = n",
        "GRANT SELECT ON mysql.rds_configuration TO cdc@'%'",
    )
    try:
        failed = checked(settings)["retention"]
        assert failed.ok is None
        typed(server, failed.hint)
        assert checked(settings)["retention"].detail == "the binlog is kept for 7 days"
    finally:
        server.execute(
            "USE mysql", "DROP TABLE rds_configuration", "DROP PROCEDURE rds_set_configuration"
        )


def test_the_readers_id_must_be_its_own(server: Server, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    same = checked(changed(settings, server_id=server.server_id))["server_id"]
    assert same.ok is False
    assert "hospitals.kigali.server_id" in same.hint
    if isinstance(server, MariaDB):  # shows its replicas only to who may reconfigure them
        server.execute("GRANT REPLICATION MASTER ADMIN ON *.* TO cdc@'%'")
    with server.connect() as connection:
        reader_id = server_id(Positions(settings.kafka).reader_name("kigali"))
        body = struct.pack("<I", reader_id) + b"\0\0\0" + struct.pack("<HII", 3306, 0, 0)
        connection._execute_command(0x15, body)  # type: ignore[attr-defined]  # COM_REGISTER_SLAVE
        connection._read_ok_packet()  # type: ignore[attr-defined]
        taken = checked(settings)["server_id"]
        assert taken.ok is False
        assert "replica" in taken.detail
        assert checked(changed(settings, server_id=4_000_000_001))["server_id"].ok


def test_a_replica_must_log_what_it_replicates(server: Server, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    if isinstance(server, MariaDB):
        server.execute(
            "SET GLOBAL gtid_strict_mode = OFF", "SET GLOBAL gtid_slave_pos = '99-99-99'"
        )
    else:
        server.flags += ("--log-replica-updates=OFF", "--skip-replica-start")
        server.restart()
        server.execute("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1")
    failed = checked(settings)["log_slave_updates"]
    assert failed.ok is (
        None if isinstance(server, MariaDB) else False
    )  # MariaDB hides whether it still is one
    option = failed.hint.removeprefix("in my.cnf: ").partition(";")[0]
    server.flags += (f"--{option.replace('_', '-')}",)
    server.restart()
    assert checked(settings)["log_slave_updates"].ok
    if isinstance(server, MariaDB):
        server.execute("SET GLOBAL gtid_strict_mode = OFF", "SET GLOBAL gtid_slave_pos = ''")
    else:
        server.execute("RESET REPLICA ALL")


def test_a_server_in_another_zone_is_pointed_at(server: Server, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    server.execute("SET GLOBAL time_zone = '+05:30'")
    try:
        found = checked(settings)["time_zone"]
        assert found.ok is None
        assert "UTC+5.5" in found.detail
        assert "hospitals.kigali.timezone" in found.hint
        assert checked(changed(settings, timezone="Asia/Kolkata"))["time_zone"].ok
    finally:
        server.execute("SET GLOBAL time_zone = 'SYSTEM'")


def test_topics_that_lose_come_with_their_command(mariadb: Server, kafka_bootstrap: str) -> None:
    settings = prepared(mariadb, kafka_bootstrap)
    Positions.ensure(settings)
    spoilt = {
        settings.kafka.topic: {
            "retention.ms": "3600000",
            "cleanup.policy": "compact",
            "max.message.bytes": "1000000",
            "min.insync.replicas": "2",
        },
        settings.kafka.positions_topic: {"cleanup.policy": "delete", "segment.ms": "604800000"},
    }
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, name, configs)
            for name, configs in spoilt.items()
        ]
    )
    admin.close()
    found = checked(settings)
    wanted = {
        "topic retention": None,
        "topic cleanup": False,
        "record size": None,
        f"in sync: {settings.kafka.topic}": False,
        "positions": False,
        "positions compaction": None,
    }
    assert {name: found[name].ok for name in wanted} == wanted
    for name in wanted:
        ran(found[name].hint)
    assert not bad(checked(settings)).keys() & wanted.keys()


def ran(command: str) -> None:
    """Kafka's scripts are not here: what this one does, the same words read as strictly."""
    words = argparse.ArgumentParser(
        prog="kafka-configs.sh", allow_abbrev=False, exit_on_error=False
    )
    for word in ("--bootstrap-server", "--topic", "--add-config"):
        words.add_argument(word, required=True)
    words.add_argument("--alter", action="store_true", required=True)
    script, *given = shlex.split(command)
    assert script == "kafka-configs.sh"
    asked = words.parse_args(given)
    admin = KafkaAdminClient(bootstrap_servers=asked.bootstrap_server)
    name, value = asked.add_config.split("=")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, asked.topic, {name: value})])
    admin.close()


def test_an_unknown_identifier_type_lists_those_that_there_are(
    mariadb: Server, kafka_bootstrap: str
) -> None:
    settings = prepared(mariadb, kafka_bootstrap)
    failed = checked(changed(settings, national_id_type="nothing"))["national_id_type"]
    assert failed.ok is False
    for uuid, name in mariadb.execute(
        "SELECT uuid, name FROM openmrs.patient_identifier_type WHERE retired = 0"
    ):
        assert uuid in failed.detail
        assert name in failed.detail


def test_b5_a_format_that_is_missing_or_not_understood_is_told(
    mariadb: Server, kafka_bootstrap: str
) -> None:
    settings = prepared(mariadb, kafka_bootstrap)
    uuid = settings.hospitals["kigali"].national_id_type

    def told(java_format: str, validator: str) -> Check:
        mariadb.execute(
            f"UPDATE openmrs.patient_identifier_type SET format = {java_format},"
            f" validator = {validator} WHERE uuid = '{uuid}'"
        )
        return checked(settings)["national_id_format"]

    missing = told("NULL", "NULL")
    assert missing.ok is None
    assert "10 to 16 digits" in missing.detail
    assert told(r"'([0-9]+)+'", "NULL").ok is None
    assert "org.example.Other" in told(r"'[0-9]{16}'", "'org.example.Other'").detail
    luhn = "'org.openmrs.patient.impl.LuhnIdentifierValidator'"
    assert told("'[0-9]{16}'", luhn).ok
    assert told("NULL", "NULL").ok is None


def test_rows_that_are_not_carried_are_counted(mariadb: Server, kafka_bootstrap: str) -> None:
    settings = prepared(mariadb, kafka_bootstrap)
    mariadb.execute(
        "SET SESSION sql_mode = '', foreign_key_checks = 0",
        "INSERT INTO openmrs.conditions (condition_id) VALUES (1), (2)",
    )
    found = checked(settings)
    assert found["not carried: conditions"].ok is None
    assert found["not carried: conditions"].detail.startswith("2 rows")
    assert found["not carried: allergy"].ok


def test_rows_that_may_not_be_counted_come_with_the_grant(
    mariadb: Server, kafka_bootstrap: str
) -> None:
    settings = prepared(mariadb, kafka_bootstrap, counted=False)
    warned = checked(settings)["not carried: allergy"]
    assert warned.ok is None
    typed(mariadb, warned.hint)
    assert checked(settings)["not carried: allergy"].ok


def test_no_binlog(own_mariadb: Any, kafka_bootstrap: str) -> None:
    server = own_mariadb(flags=["--skip-log-bin"])
    opened(server)
    found = checked(prepared(server, kafka_bootstrap))
    assert found["binlog"].ok is False
    assert "log_bin" in found["binlog"].hint


def test_a_position_that_is_gone_is_named(server: Server, kafka_bootstrap: str) -> None:
    settings = prepared(server, kafka_bootstrap)
    catch_up(settings)
    assert checked(settings)["position"].ok
    reset = "RESET MASTER" if isinstance(server, MariaDB) else "RESET BINARY LOGS AND GTIDS"
    server.execute(reset, "FLUSH BINARY LOGS")
    warned = checked(settings)["position"]
    assert warned.ok is None
    assert "of no use" in warned.detail
    catch_up(settings)  # what the remedy names
    assert checked(settings)["position"].ok


def test_servers_that_are_away(own_mariadb: Any, own_kafka: Any) -> None:
    server, kafka = own_mariadb(), own_kafka()
    opened(server)
    settings = prepared(server, kafka.url)
    server.kill()
    kafka.kill()
    found = checked(settings)
    assert found["connection"].ok is False
    assert found["kafka"].ok is False
    assert found["connection"].hint
    assert found["kafka"].hint


def test_another_hospitals_partition(mariadb: Server, kafka_bootstrap: str) -> None:
    settings = prepared(mariadb, kafka_bootstrap)
    catch_up(settings)
    found = checked(settings, "butare")
    assert found["own partition"].ok is False
    assert "kigali" in found["own partition"].detail
