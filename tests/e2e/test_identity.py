"""Never the wrong patient, though a right is missing, and though a consumer is behind."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev import hospital as generator
from dev.stack import MySQL
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import Ward, equal, new_id
from tests.eventually import eventually

RIGHT = "REPLICATION CLIENT ON *.*"


class Scene:
    """One hospital with MySQL, whose commits have GTIDs; its reader and a consumer."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ward = Ward(stage, "kigali")
        self.reader = stage.readers()["kigali"]
        self.consumer = self.new_consumer()
        eventually(lambda: stage.db["progress"].count_documents({}) == 1, "the hospital came")
        equal(stage)

    def new_consumer(self) -> Role:
        return self.stage.role("consume", "--destination", "passport")

    def shown_to(self, patient: str) -> int:
        return int(self.stage.db["medicalrecords"].count_documents({"patientId": patient}))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE, kind=MySQL)
    # The reader opens no connection by itself: it goes on with the rights of its session.
    cdc = {"heartbeat_s": 1, "reconnect_max_s": 2, "address_check_s": 3600}
    folder = tmp_path_factory.mktemp("identity")
    with opened(folder, kigali, cdc=cdc, consumer={"retry_max_s": 2}) as stage:
        stage.contradictions = "ask"
        stage.write_config()
        stage.fill(kigali, every=2, seed=51, patients=6, visits=1)
        stage.grant()
        yield Scene(stage)


def test_b4_who_may_not_see_the_binlog_drops_nothing(scene: Scene) -> None:
    stage, ward = scene.stage, scene.ward
    rightful, other = new_id(), new_id()
    rightful_patient, other_patient = ward.register(rightful), ward.register(other)
    person = ward.patient(other, registered=False)
    ward.shown(ward.obs(person))
    assert scene.shown_to(other_patient) == 1

    account = "'passport'@'%'"
    scene.consumer.stop()
    ward.hospital.sql.execute(f"REVOKE {RIGHT} FROM {account}")
    ward.run(f"UPDATE patient_identifier SET identifier = '{rightful}' WHERE patient_id = {person}")
    scene.consumer = scene.new_consumer()
    eventually(lambda: "partition paused" in scene.consumer.said(), "the right is missed")
    assert f"GRANT {RIGHT} TO {account}" in scene.consumer.said() + stage.run("check").stdout
    assert "re-enrichment dropped" not in scene.consumer.said()

    ward.hospital.sql.execute(f"GRANT {RIGHT} TO {account}")
    eventually(lambda: scene.shown_to(rightful_patient) == 1, "the right is back")
    assert scene.shown_to(other_patient) == 0
    if not scene.reader.running:
        scene.reader = stage.readers()["kigali"]
    equal(stage)


@pytest.mark.long
def test_b6_another_year_of_birth_or_sex_waits_for_an_operator(scene: Scene) -> None:
    stage, ward = scene.stage, scene.ward
    number = new_id()
    patient = ward.register(number)  # a woman, born in 1990
    person = ward.patient(number, registered=False)
    obs = ward.obs(person)
    ward.shown(obs)
    key = f"kigali/{person}"

    def unmatched(*words: str) -> str:
        finished = stage.run("unmatched", *words)
        assert finished.returncode == 0, finished.stderr
        return str(finished.stdout)

    def listed() -> dict[str, Any]:
        rows = json.loads(unmatched("contradictions", "--json"))
        [row] = [row for row in rows if row["person_id"] == person]
        return dict(row)

    ward.run(f"UPDATE person SET gender = 'M', birthdate = '1959-07-28' WHERE person_id = {person}")
    ward.hidden(obs)
    eventually(lambda: ward.state(person) == "contradicting", "it waits for an operator")
    equal(stage)
    assert listed()["contradicts"] == ["birth_year", "sex"]
    assert scene.shown_to(patient) == 0
    assert "1959" not in unmatched("show", key)
    assert "1959" in unmatched("show", key, "--reveal")

    unmatched("link", key)
    ward.shown(obs)
    equal(stage)
    assert (listed()["linked"], listed()["verdict"]) == (True, "link")
    unmatched("refuse", key)
    ward.hidden(obs)
    eventually(lambda: ward.state(person) == "refused", "it is refused")
    equal(stage)
    unmatched("undo", key)
    eventually(lambda: ward.state(person) == "contradicting", "nobody has decided")
    ward.run(
        f"UPDATE person SET gender = 'F', birthdate = '1991-07-28', birthdate_estimated = 1"
        f" WHERE person_id = {person}"
    )
    ward.shown(obs)
    equal(stage)
    assert number not in stage.said()
    counted = json.loads(unmatched("compare", "--json"))
    assert counted[0]["compared"] > 0
    assert counted[0]["sex"] == 0


@pytest.mark.long
def test_b3_a_change_in_the_passport_while_the_consumer_is_behind(scene: Scene) -> None:
    """A backlog of 18,000 rows of somebody else lies between the consumer and the hospital."""
    stage, ward = scene.stage, scene.ward
    first, second = new_id(), new_id()
    first_patient = ward.register(first)
    persons = [ward.patient(number, registered=False) for number in (first, second)]
    busy = ward.patient()
    for person in (*persons, busy):
        ward.obs(person)
    eventually(lambda: scene.shown_to(first_patient) == 1, "all came")
    scene.consumer.stop()
    [template] = ward.sql("SELECT MIN(obs_id) FROM obs WHERE person_id = %s", busy)
    columns = "person_id, concept_id, obs_datetime, date_created, creator, value_numeric"
    numbers = " UNION ALL ".join(f"SELECT {number}" for number in range(60))
    for person in persons:
        ward.obs(person)
    for _ in range(300):
        ward.run(
            f"INSERT INTO obs ({columns}, uuid) SELECT {columns}, UUID()"
            f" FROM obs, ({numbers}) n WHERE obs_id = {template[0]}"
        )
    end = ward.obs(busy, value_numeric=99)

    # Who is registered meanwhile is read ahead of the stream.
    scene.consumer = scene.new_consumer()
    again = new_id()
    stage.db["patients"].update_one({"nationalId": first}, {"$set": {"nationalId": again}})
    eventually(lambda: scene.shown_to(first_patient) == 0, "the id is another one's")
    stage.db["patients"].update_one({"nationalId": again}, {"$set": {"nationalId": first}})
    eventually(lambda: scene.shown_to(first_patient) == 2, "read ahead of the stream")
    assert ward.record(end) is None, "the consumer is still behind"
    stage.db["patients"].update_one({"nationalId": first}, {"$set": {"nationalId": again}})
    second_patient = ward.register(second)
    eventually(lambda: scene.shown_to(second_patient) == 2, "who registers has their records", 40)
    eventually(lambda: scene.shown_to(first_patient) == 0, "and who left has none", 40)
    ward.shown(end)
    equal(stage)
