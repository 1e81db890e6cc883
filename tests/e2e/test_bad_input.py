"""What goes wrong names the hospital or the setting, and what to type next; never a traceback,
never a password.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from dev import hospital as generator
from tests.e2e.roles import command, environment, run
from tests.e2e.stage import PASSWORD, Hospital, Stage, opened
from tests.eventually import eventually
from tests.topic_reader import read_topic

FAILED, USAGE, NOT_READY = 1, 2, 3
WRONG = "wr0ng-but-secret-too"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """kigali is in order; huye has no binlog, and no reader."""
    hospitals = (
        Hospital("kigali", 0, generator.NATIONAL_ID_TYPE),
        Hospital("huye", 1, generator.NATIONAL_ID_TYPE, flags=("--skip-log-bin",)),
    )
    with opened(tmp_path_factory.mktemp("bad"), *hospitals) as stage:
        for hospital in stage.hospitals.values():
            with hospital.connect() as connection:
                generator.create(connection, seed=31, patients=12, visits=1)
        stage.grant()
        yield stage


@pytest.fixture
def altered(stage: Stage, tmp_path: Path) -> Any:
    """``altered(hospital={...}, mysql={...}, kafka={...}) -> settings file``: kigali's settings
    with these changes.
    """

    def write(
        *,
        hospital: dict[str, Any] | None = None,
        mysql: dict[str, Any] | None = None,
        **top: dict[str, Any],
    ) -> Path:
        kigali = stage.hospitals["kigali"].as_settings()
        kigali |= hospital or {}
        kigali["mysql"] |= mysql or {}
        return stage.write_config(tmp_path / "altered.yaml", hospitals={"kigali": kigali}, **top)

    return write


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require(
    found: "subprocess.CompletedProcess[str]", code: int, *words: str, hint: bool = True
) -> None:
    """This exit code, all these words, a next step, and nothing that nobody should read."""
    said = found.stdout + found.stderr
    assert found.returncode == code, said
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"
    assert not hint or "->" in said, said
    for never in ("Traceback", PASSWORD, WRONG):
        assert never not in said, said


def test_a_wrong_password(altered: Any) -> None:
    config = altered(mysql={"password": WRONG})
    words = ("hospital kigali", "refuses user 'passport'", "passport check --hospital kigali")
    require(run(config, "cdc", "run", "--hospital", "kigali"), FAILED, *words)
    require(run(config, "check"), FAILED, "kigali", "refuses user")


def test_a_missing_grant(stage: Stage, altered: Any) -> None:
    server = stage.hospitals["kigali"].sql
    server.execute(
        f"CREATE USER IF NOT EXISTS partly@'%' IDENTIFIED BY '{PASSWORD}'",
        "GRANT SELECT ON openmrs.* TO partly@'%'",
    )
    config = altered(mysql={"user": "partly"})
    words = ("kigali", "passport grants --hospital kigali")
    require(run(config, "cdc", "run", "--hospital", "kigali"), FAILED, *words)
    require(run(config, "check"), FAILED, "REPLICATION SLAVE", "passport grants --hospital kigali")


def test_a_binlog_that_is_off(stage: Stage) -> None:
    require(
        run(stage.config, "cdc", "run", "--hospital", "huye"),
        FAILED,
        "hospital huye",
        "binlog",
        "polling",
    )
    require(run(stage.config, "check"), FAILED, "kigali", "huye", "log_bin")


def test_an_unknown_identifier_type(altered: Any) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    config = altered(hospital={"national_id_type": unknown})
    require(run(config, "check"), FAILED, "kigali", unknown, "hospitals.kigali.national_id_type")


def test_a_hospital_that_is_away(altered: Any) -> None:
    """A command ends with 3; the role itself says so and tries again."""
    config = altered(mysql={"port": closed_port()})
    words = ("hospital kigali", "doesn't answer", "passport check --hospital kigali")
    require(
        run(config, "cdc", "run", "--hospital", "kigali", "--until-caught-up"), NOT_READY, *words
    )


def test_kafka_away(altered: Any) -> None:
    config = altered(kafka={"bootstrap": f"127.0.0.1:{closed_port()}"})
    words = ("Kafka at 127.0.0.1", "passport check")
    require(
        run(config, "cdc", "run", "--hospital", "kigali", "--until-caught-up"), NOT_READY, *words
    )
    require(run(config, "consume", "--until-caught-up"), NOT_READY, *words)
    require(run(config, "status"), NOT_READY, *words)


def test_mongodb_away(altered: Any) -> None:
    options = {
        "uri": f"mongodb://passport:{WRONG}@127.0.0.1:{closed_port()}/?replicaSet=rs0",
        "database": "passport",
        "link_key": "x" * 32,
    }
    config = altered(destinations={"passport": {"type": "mongo", "options": options}})
    require(run(config, "consume", "--until-caught-up"), NOT_READY, "MongoDB")
    require(run(config, "check"), FAILED, "MongoDB")
    require(run(config, "verify"), NOT_READY, "MongoDB")


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text(f"hospitals:\n  kigali: [unclosed {WRONG}\n", encoding="utf-8")
    require(run(config, "status"), USAGE, "broken.yaml", "line")
    require(run(tmp_path / "absent.yaml", "status"), USAGE, "absent.yaml", "does not exist")


def test_settings_that_are_none(altered: Any) -> None:
    config = altered(
        hospital={"passwort": WRONG, "timezone": "Africa/Nowhere"}, logs={"levle": "DEBUG"}
    )
    require(
        run(config, "status"),
        USAGE,
        "hospitals.kigali.passwort",
        "hospitals.kigali.timezone",
        "logs.levle",
        "config/local.example.yaml",
    )


def test_names_that_are_none(stage: Stage) -> None:
    require(
        run(stage.config, "cdc", "run", "--hospital", "kigaly"), USAGE, "kigaly", "huye, kigali"
    )
    require(run(stage.config, "consume", "--destination", "pasport"), USAGE, "pasport", "passport")
    require(run(stage.config, "cdc", "rum"), USAGE, "rum", hint=False)


def test_a_variable_that_is_no_setting(stage: Stage) -> None:
    found = run(stage.config, "config", "show", extra={"PASSPORT_KAFKA_BOOTSTRAP": WRONG})
    require(
        found, 0, "PASSPORT_KAFKA_BOOTSTRAP is not a setting", "passport config schema", hint=False
    )


def test_a_record_that_nobody_understands(stage: Stage) -> None:
    """It is parked with a reason; what comes before and after it is applied."""
    reader = stage.role("cdc", "run", "--hospital", "kigali")
    consumer = stage.role("consume", "--destination", "passport")
    with stage.hospitals["kigali"].connect() as connection:
        generator.passport_patients(
            stage.db, [digits for _, digits in generator.registrable(connection)]
        )
    eventually(stage.db["observations"].find_one, "the snapshot arrived", 120)

    producer = KafkaProducer(bootstrap_servers=stage.kafka.url)
    for value in (b'{"v": 1, "kind": "row", ' + WRONG.encode(), b'{"v": 99}', None):
        producer.send(
            "openmrs.changes", value, key=b"kigali", partition=0, headers=[("ce_type", b"row")]
        ).get(10)
    producer.close()
    eventually(lambda: len(parked(stage)) >= 3, "three records are parked")
    with stage.hospitals["kigali"].connect() as connection:
        generator.Clinic(connection, seed=1).run(3, rate=10)
    stage.wait_equal(120, "kigali")
    assert sorted(parked(stage)) == ["malformed", "malformed", "unknown_version"]
    assert WRONG not in stage.said()
    reader.stop()
    consumer.stop()


def parked(stage: Stage) -> list[str]:
    """Return the reasons of what stands in the dead letters' topic."""
    reasons = []
    for record in read_topic(stage.kafka.url, "openmrs.changes.dead-letters"):
        if record.value is not None:
            headers = dict(record.headers)
            reasons.append(headers["_dlq.errors.reason"].decode())
    return reasons


def test_dead_letters_are_listed_without_their_content(stage: Stage) -> None:
    found = stage.run("dead-letters", "list")
    require(found, 0, hint=False)
    listed = stage.run("dead-letters", "list", "--json")
    require(listed, 0, hint=False)
    assert isinstance(json.loads(listed.stdout), list)


@pytest.mark.parametrize(("most", "code"), [(64, 0), (8, NOT_READY)])
def test_few_file_descriptors(stage: Stage, most: int, code: int) -> None:
    """64 suffice for a reader; where they don't, it says so."""
    words = command(stage.config, "cdc", "run", "--hospital", "kigali", "--until-caught-up")
    found = subprocess.run(
        ["prlimit", f"--nofile={most}", "--", *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    require(found, code, hint=code != 0)


LOSES_A_THREAD = """
import pathlib, sys, threading, time
from cli.context import CommandContext
context = CommandContext(pathlib.Path(sys.argv[1]))
context.settings
context.start_role()
threading.Thread(target=lambda: {}["a patient's value"]).start()
time.sleep(30)
"""


def test_a_role_does_not_outlive_one_of_its_threads(stage: Stage) -> None:
    words = [sys.executable, "-c", LOSES_A_THREAD, str(stage.config)]
    found = subprocess.run(
        words, env=environment(), capture_output=True, text=True, check=False, timeout=25
    )
    assert found.returncode == FAILED
    assert json.loads(found.stderr)["error"] == "KeyError"
    assert "value" not in found.stderr
