"""A changed mapping is carried out when the consumer starts again, and nothing else is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import hospital as generator
from dev.hospital.dictionary import concept_uuid
from tests import passport_writes as doctor
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually

UUID = concept_uuid("ward-remark")
READ_AGAIN = "everybody is read again in the background"
AS_VISITS = f"""version: 2
rules:
  - {{ kind: visit, mappings: ["uuid:{UUID}"] }}
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    mapping = tmp_path / "kigali.yaml"
    mapping.write_text("version: 2\n")
    hospital = Hospital(
        "kigali",
        0,
        generator.NATIONAL_ID_TYPE,
        settings={"mapping": str(mapping)},
    )
    with opened(tmp_path, hospital) as stage:
        stage.fill(hospital, seed=19, patients=120)
        stage.grant()
        yield stage


def test_it_is_carried_out_in_the_background_and_after_a_kill(stage: Stage) -> None:
    records = stage.db["medicalrecords"]
    stage.role("cdc", "run", "--hospital", "kigali")
    consumer = stage.role("consume", "--destination", "passport")
    stage.wait_equal(120)
    remarks = {one["_id"] for one in records.find({"openmrsData.conceptId": concept_id(stage)})}
    before = state(stage)
    assert len(remarks) > 10
    assert {before[key]["type"] for key in remarks} == {"test"}
    edited = min(remarks)
    doctor.put(stage.db, edited, notes="as the doctor says")

    assert consumer.stop() == 0
    (stage.folder / "kigali.yaml").write_text(AS_VISITS)
    # So slow that the consumer can be killed in the middle.
    hospital = stage.hospitals["kigali"]
    hospital.settings = {**hospital.settings, "load_budget": {"queries_per_s": 10}}
    stage.write_config()
    consumer.start()
    eventually(lambda: visits(stage, remarks) > 0, "the first remarks are visits")
    consumer.kill()
    assert visits(stage, remarks) < len(remarks), "it was killed in the middle"
    consumer.start()
    eventually(lambda: not is_reading_everybody(stage), "everybody has been read")

    after = state(stage)
    changed = {key for key in before if after[key] != before[key]}
    assert changed == remarks, "nothing else was written"
    assert after.keys() == before.keys()
    assert visits(stage, remarks) == len(remarks) - 1
    assert after[edited]["data"]["notes"] == "as the doctor says", "an edit waits for a person"
    assert consumer.said().count(READ_AGAIN) == 1, "it went on where it was"
    verified = stage.run("verify")
    assert verified.returncode == 0, verified.stdout

    assert consumer.stop() == 0
    consumer.start()
    consumer.says("partitions assigned")
    assert consumer.said().count(READ_AGAIN) == 1, "the rules are the same"


def concept_id(stage: Stage) -> int:
    with stage.hospitals["kigali"].connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT concept_id FROM concept WHERE uuid = %s", (UUID,))
        return int(cursor.fetchone()[0])


def state(stage: Stage) -> dict[Any, dict[str, Any]]:
    return {record["_id"]: record for record in stage.db["medicalrecords"].find()}


def visits(stage: Stage, remarks: set[Any]) -> int:
    query = {"_id": {"$in": list(remarks)}, "type": "visit"}
    return stage.db["medicalrecords"].count_documents(query)


def is_reading_everybody(stage: Stage) -> bool:
    [progress] = stage.db["progress"].find()
    return any("everyone" in work for work in progress["rereads"])
