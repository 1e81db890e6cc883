"""With every log line on, and servers that break, no patient's name, identifier or value is in any
output.
"""

import random
import re
import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dev import hospital as generator
from tests.e2e.stage import Hospital, Stage, opened

CANARIES = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)
    with opened(
        tmp_path_factory.mktemp("privacy"), kigali, logs={"level": "DEBUG", "format": "json"}
    ) as stage:
        with kigali.connect() as connection:
            generator.create(connection, seed=41, patients=60, visits=2)
            able = [digits for _, digits in generator.registrable(connection)]
        generator.passport_patients(stage.db, able[::2])
        stage.grant()
        yield stage


def canaries(connection: Any) -> list[str]:
    """Text, comments and numbers that nothing else holds, put into obs of registered and of other
    patients.
    """
    planted = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT MIN(o.obs_id), o.person_id, o.concept_id FROM obs o"
            " JOIN concept c USING (concept_id)"
            " JOIN concept_datatype d ON d.concept_datatype_id = c.datatype_id"
            " WHERE d.name = 'Text'"
            " GROUP BY o.person_id, o.concept_id"
        )
        for _, person, concept in list(cursor.fetchall())[:CANARIES]:
            text, comment = f"CANARY{uuid.uuid4().hex}", f"CANARY{uuid.uuid4().hex}"
            cursor.execute(
                "INSERT INTO obs (person_id, concept_id, obs_datetime, value_text,"
                " comments, creator, date_created,"
                " voided, uuid) VALUES (%s, %s, NOW(), %s, %s, 1, NOW(), 0, %s)",
                (person, concept, text, comment, str(uuid.uuid4())),
            )
            planted += [text, comment]
    return planted


def private(connection: Any) -> list[str]:
    """Names of patients and their national ids, as written and as digits."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT identifier FROM patient_identifier")
        written = [row[0] for row in cursor.fetchall() if len(re.sub(r"\D", "", row[0])) >= 10]
        cursor.execute(
            "SELECT DISTINCT CONCAT(n.given_name, ' ', n.family_name) FROM person_name n"
            " JOIN patient p ON p.patient_id = n.person_id"
        )
        names = [row[0] for row in cursor.fetchall()]
    return [*written, *(re.sub(r"\D", "", one) for one in written), *names]


def found_in(text: str, secrets: list[str]) -> list[str]:
    """Return the places in the list of the secrets that stand in the text, never the secrets."""
    folded = text.casefold()
    return [
        f"secret {number}" for number, secret in enumerate(secrets) if secret.casefold() in folded
    ]


def test_row_46_no_output_holds_anything_of_a_patient(stage: Stage) -> None:
    kigali = stage.hospitals["kigali"]
    ports = [free_port(), free_port()]
    with kigali.connect() as connection:
        secrets = canaries(connection)
    stage.role("cdc", "run", "--hospital", "kigali", PASSPORT_HEALTH__PORT=str(ports[0]))
    stage.role("consume", "--destination", "passport", PASSPORT_HEALTH__PORT=str(ports[1]))
    stage.wait_equal(120)
    with kigali.connect() as connection:
        generator.Clinic(connection, seed=4, rate=25).run(4)
        secrets += canaries(connection)
    broken(stage)
    stage.wait_equal(90)
    assert stage.db["observations"].count_documents({"row.value_text": {"$in": secrets}}) > 10, (
        "they travelled"
    )
    with kigali.connect() as connection:
        secrets += private(connection)

    outputs = {role.log.name: role.said() for role in stage.roles}
    outputs |= {f"metrics of {port}": metrics(port) for port in ports}
    commands = (
        ("status",),
        ("status", "--json"),
        ("check",),
        ("unmatched", "list"),
        ("config", "show"),
        ("verify",),
    )
    outputs |= {" ".join(words): said(stage, words) for words in commands}
    leaked = {name: found for name, text in outputs.items() if (found := found_in(text, secrets))}
    assert not leaked
    assert all(outputs.values()), [name for name, text in outputs.items() if not text]
    control(outputs, secrets)


def control(outputs: dict[str, str], secrets: list[str]) -> None:
    """The search finds a secret that does stand there."""
    rng = random.Random(3)
    for name, text in outputs.items():
        number = rng.randrange(len(secrets))
        place = rng.randrange(len(text) + 1)
        planted = text[:place] + secrets[number].upper() + text[place:]
        assert f"secret {number}" in found_in(planted, secrets), name


def broken(stage: Stage) -> None:
    """MongoDB and the hospital's server die and come back: what is said then is logged too."""
    for server in (stage.mongo, stage.hospitals["kigali"].sql):
        before = server.pid
        server.kill()
        time.sleep(1)
        server.start()
        assert server.pid != before


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    assert "passport_" in text
    return text


def said(stage: Stage, words: tuple[str, ...]) -> str:
    found = stage.run(*words)
    return str(found.stdout + found.stderr)
