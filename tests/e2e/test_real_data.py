"""A real OpenMRS database streams into the Passport, and all that MongoDB then holds is what the
oracle says.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from kafka import KafkaAdminClient

from dev.hospital import passport_patients
from tests import real_data
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import seconds_until
from tests.oracle.compare import Comparison
from tests.oracle.facts import read

OBS = 58_020
DUMP_OBS = 220
SHARERS = {1100, 1101, 1200, 1201}


@dataclass
class Filled:
    """`waiting`: national ids (by person) that can be matched and are not registered yet."""

    stage: Stage
    consumer: Role
    first: Comparison
    waiting: dict[int, str]

    @property
    def unmapped(self) -> int:
        return self.first.unmapped


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Kigali: everything but obs is there, then 58,020 obs are written while the roles work. Huye:
    the dump alone.
    """
    real_data.folder()
    kind = real_data.NATIONAL_ID_TYPE
    hospitals = Hospital("kigali", 0, kind), Hospital("huye", 1, kind, locales=("fr", "en"))
    with opened(tmp_path_factory.mktemp("real"), *hospitals) as stage:
        kigali, huye = (stage.hospitals[key] for key in ("kigali", "huye"))
        real_data.load(kigali.address, "openmrs", "--only-static")
        real_data.load(huye.address, "openmrs", "--small")
        stage.grant()
        waiting = register_two_thirds(stage)
        obs = real_data.start_loading(kigali.address, "openmrs", "--only-obs")
        stage.readers()
        consumer = stage.role("consume", "--destination", "passport")
        assert obs.wait(240) == 0
        yield Filled(stage, consumer, stage.wait_equal(120), waiting)


def register_two_thirds(stage: Stage) -> dict[int, str]:
    """Of Kigali's patients who can be matched, the dump's own two always among them; returns the
    others.
    """
    with stage.hospitals["kigali"].connect() as connection:
        people = read(connection, stage.hospitals["kigali"].for_oracle()).people
    able = {person: digits for person, (_, digits) in people.items() if digits}
    chosen = {7, 8, *random.Random(20).sample(sorted(able), len(able) * 2 // 3)}
    passport_patients(stage.db, [able.pop(person) for person in chosen])
    return able


def test_mongodb_holds_what_the_oracle_expects(filled: Filled) -> None:
    assert filled.first.matched > 150
    assert filled.first.rows > 30_000
    assert filled.first.records > 10_000
    assert set(filled.first.types) == {"condition", "test", "medication", "visit"}
    with filled.stage.hospitals["kigali"].connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM obs")
        assert cursor.fetchone() == (OBS,)


def test_row_35_diagnoses_are_conditions_and_vitals_are_tests_with_units(filled: Filled) -> None:
    """An English substring, as documented, made conditions of none of these 16, and of 32
    certainties and ranks.
    """
    records = filled.stage.db["medicalrecords"]
    dump = {
        "openmrsData.hospitalId": "kigali",
        "openmrsData.personId": {"$in": [7, 8]},
        "patientId": {"$ne": ""},
    }
    conditions = list(records.find({**dump, "type": "condition"}))
    assert len(conditions) == 16
    assert Counter(one["data"]["status"] for one in conditions) == {
        "Presumed diagnosis": 13,
        "Confirmed diagnosis": 3,
    }
    assert all(one["openmrsData"]["conceptId"] == 159947 for one in conditions)
    tests = [one["data"] for one in records.find({**dump, "type": "test"})]
    assert len(tests) == 96 - 12, "a blood pressure is one"
    units = {one["testName"]: one["result"].partition(" ")[2] for one in tests}
    assert units["Blood pressure"] == "mmHg"
    assert units.pop("Respiratory rate") == "", "concept_numeric has none"
    assert set(units.values()) == {"mmHg", "beats/min", "DEG C", "kg", "cm", "%"}
    unmapped = filled.stage.run("unmapped", "list", "--json")
    found = [one for one in json.loads(unmapped.stdout) if one["hospital"] == "kigali"]
    assert sum(one["obs"] for one in found) == filled.unmapped


def test_none_is_the_name_of_no_medicine(filled: Filled) -> None:
    """997 times a question for medicines was answered by None."""
    stage = filled.stage
    with stage.hospitals["kigali"].connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT concept_id FROM concept WHERE uuid LIKE '1107AAAA%'")
        [(none,)] = cursor.fetchall()
    rows = {
        row["obsId"]
        for row in stage.db["observations"].find({"row.value_coded": none, "row.concept_id": 1111})
    }
    assert len(rows) > 100
    shown = {"openmrsData.hospitalId": "kigali", "openmrsData.obsId": {"$in": list(rows)}}
    assert stage.db["medicalrecords"].count_documents(shown) == 0


def test_the_same_obs_id_in_two_hospitals_is_two_records(filled: Filled) -> None:
    records = list(filled.stage.db["medicalrecords"].find({"openmrsData.obsId": 13}))
    assert sorted(record["openmrsData"]["hospitalId"] for record in records) == ["huye", "kigali"]
    assert len({record["_id"] for record in records}) == 2
    assert len({record["patientId"] for record in records}) == 1, "it is one person, known in both"
    assert filled.stage.db["observations"].count_documents({"hospital": "huye"}) == DUMP_OBS


def test_nobody_else_is_matched(filled: Filled) -> None:
    people = {
        doc["personId"]: doc for doc in filled.stage.db["people"].find({"hospital": "kigali"})
    }
    assert {people[person]["state"] for person in SHARERS} == {"ambiguous"}
    assert sum(doc["state"] == "invalid" for doc in people.values()) == 12
    unmatched = [person for person, doc in people.items() if not doc.get("patientId")]
    assert set(unmatched) > SHARERS
    assert (
        filled.stage.db["observations"].count_documents(
            {"hospital": "kigali", "personId": {"$in": unmatched}}
        )
        == 0
    )


def test_verify_finds_it_equal(filled: Filled) -> None:
    filled.stage.wait_equal(120)
    found = filled.stage.run("verify", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    assert json.loads(found.stdout)["equal"] is True
    noted = [one["verified"]["equal"] for one in filled.stage.db.progress.find()]
    assert noted == [True] * len(filled.stage.hospitals)
    filled.consumer.require_running()


def test_who_registers_late_has_all_records_in_five_seconds(filled: Filled) -> None:
    stage = filled.stage
    person = max(filled.waiting)
    digits = filled.waiting.pop(person)
    link = {"_id": f"kigali/{person}", "patientId": None}
    assert stage.db["people"].find_one(link), "not matched so far"
    patient = passport_patients(stage.db, [digits])[digits]
    seconds = seconds_until(
        lambda: stage.db["medicalrecords"].find_one({"patientId": str(patient)}),
        f"records of person {person}",
        5,
    )
    print(f"records {seconds:.2f} s after registration")
    found = stage.wait_equal(120)
    assert found.matched > filled.first.matched


@pytest.mark.long
def test_a_replay_of_the_whole_topic_changes_no_document(filled: Filled) -> None:
    stage, topic = filled.stage, "openmrs.changes"
    stage.wait_equal(120)
    consumer = filled.consumer
    assert consumer.stop() == 0
    before = stage.fingerprint()
    assert len(before) > 100_000
    admin = KafkaAdminClient(bootstrap_servers=stage.kafka.url)
    groups = [group["group_id"] for group in admin.list_groups()]
    assert groups, "the consumer had a group"
    admin.delete_groups(groups)
    admin.close()
    assert stage.db["progress"].delete_many({}).deleted_count > 0

    began = time.monotonic()
    again = stage.role("consume", "--destination", "passport", "--until-caught-up")
    assert again.wait(180) == 0, again.said()[-2000:]
    print(f"{topic} replayed in {time.monotonic() - began:.1f} s")
    after = stage.fingerprint()
    applied = [one.get("offset", 0) for one in stage.db["progress"].find({})]
    assert sum(filter(None, applied)) > OBS, "the whole topic was read again"
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    # How far a person was read whole: it moves whenever they are read again, and shows nowhere.
    changed = {
        key
        for key in changed
        if not (key.startswith("people/") and key.endswith(("/floor", "/rev", "/version")))
    }
    assert not changed, f"{len(changed)} fields: {sorted(changed)[:20]}"
    consumer.start()
    stage.wait_equal(120)
