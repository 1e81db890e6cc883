"""What the legacy sync wrote before is found again at the hospitals: shown once, or gone."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from destinations.mongo.placeholder_accounts import identity
from dev import hospital as generator
from dev.hospital import corrections
from legacy_import.matching import fits
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import Ward, equal, eventually, new_id

Document = dict[str, Any]
LONG_AGO = {"date_created": "2025-11-06 10:31:00"}
SYNCED = datetime(2025, 11, 6, 10, 35, tzinfo=UTC)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE)
        for number, key in enumerate(("kigali", "huye"))
    ]
    with opened(tmp_path_factory.mktemp("cut-over"), *hospitals) as stage:
        for hospital in hospitals:
            with hospital.connect() as connection:
                generator.create(connection, seed=71, patients=6, visits=1)
        stage.grant()
        yield stage


@pytest.fixture(scope="module")
def kigali(stage: Stage) -> Ward:
    return Ward(stage, "kigali")


def former(ward: Ward, obs: int, patient: str, *, off_h: int = 0, **changes: Any) -> ObjectId:
    """The obs as the legacy sync would have written it, its machine `off_h` hours from UTC."""
    names = "obs_id, concept_id, person_id, obs_datetime, date_created"
    [row] = ward.sql(f"SELECT {names} FROM obs WHERE obs_id = %s", obs)
    times = [one.replace(tzinfo=UTC) + timedelta(hours=off_h) for one in row[3:]]
    said = dict(
        zip(
            ("obsId", "conceptId", "personId", "obsDatetime", "dateCreated"),
            (*row[:3], *times),
            strict=True,
        )
    )
    document = {
        "patientId": patient,
        "type": "condition",
        "data": {
            "name": "Pulse",
            "details": "72",
            "procedure": "Synced from OpenMRS - Dr. Jane Smith",
        },
        "createdBy": str(ObjectId()),
        "editableBy": [],
        "syncDate": SYNCED,
        "openmrsData": {**said, "creatorName": "Jane Smith", "valueType": "numeric"},
        "createdAt": SYNCED,
        "updatedAt": SYNCED,
    }
    key: ObjectId = ward.stage.db["medicalrecords"].insert_one({**document, **changes}).inserted_id
    history = {"$push": {"medicalHistory": key}}
    ward.stage.db["patients"].update_one({"_id": ObjectId(patient)}, history)
    return key


def edited() -> Document:
    return {
        "data": {"name": "Pulse", "details": "about 70"},
        "lastEditedAt": SYNCED + timedelta(days=1),
    }


def becomes(stage: Stage) -> dict[str, str]:
    found = stage.run("cut-over", "list", "--json")
    assert found.returncode == 0, found.stderr
    return {one["id"]: one["becomes"] for one in json.loads(found.stdout)}


def checked(stage: Stage) -> Document:
    found = stage.run("check", "--json")
    [told] = [
        one
        for one in json.loads(found.stdout)
        if one["name"] == "destination passport: former sync"
    ]
    return dict(told)


def doctor(stage: Stage, user_id: int, email: str) -> ObjectId:
    user, now = ObjectId(), datetime.now(UTC)
    shape = {
        "name": "Dr. Jane Smith",
        "password": f"$2b$10${'a' * 21}u{'a' * 31}",
        "role": "doctor",
        "isActive": True,
    }
    stage.db["users"].insert_one(
        {"_id": user, **shape, "email": email, "createdAt": now, "updatedAt": now}
    )
    one = {
        "user": user,
        "licenseNumber": f"PROVIDER_{user_id}",
        "specialization": "General Practice",
    }
    one |= {
        "hospital": identity("hospital", "kigali", ""),
        "openmrsProviderUuid": f"PROVIDER_{user_id}",
    }
    key: ObjectId = (
        stage.db["doctors"].insert_one({**one, "patients": [], "isActive": True}).inserted_id
    )
    return key


def reading(stage: Stage) -> None:
    """Once: each reader has found its place, and so made the topic."""
    if not stage.roles:
        for reader in stage.readers().values():
            reader.says("reading the binlog")


def test_it_is_adopted_before_the_first_start_and_nothing_is_ever_doubled(
    stage: Stage, kigali: Ward
) -> None:
    digits, other = new_id(), new_id()
    patient, stranger = kigali.register(digits), kigali.register(other)
    person = kigali.patient(digits, registered=False)
    plain, changed, voided = (
        kigali.obs(person, value_numeric=value, **LONG_AGO) for value in (71, 72, 73)
    )
    _, diagnosis, *_ = kigali.diagnosis(person)
    kigali.do(corrections.void, voided)
    keys = {
        former(kigali, plain, patient, off_h=2): "adopted",
        former(kigali, changed, patient, **edited()): "adopted",
        former(kigali, diagnosis, patient): "adopted",
        former(kigali, voided, patient): "removed (the obs is voided or replaced)",
        former(kigali, plain, stranger): "removed (the obs is another patient's)",
    }
    assert becomes(stage) == {str(key): what for key, what in keys.items()}
    told = checked(stage)
    assert (told["ok"], told["detail"], told["remedy"]) == (
        False,
        "5 records and 0 doctors of it",
        "passport cut-over list, then adopt",
    )
    reading(stage)
    refused = stage.run("consume", "--destination", "passport", "--until-caught-up")
    assert refused.returncode == 1
    assert "passport cut-over list" in refused.stderr
    assert stage.db["observations"].find_one() is None
    done = stage.run("cut-over", "adopt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3 record adopted, 2 record removed"
    assert becomes(stage) == {}
    assert checked(stage)["ok"] is True
    assert stage.db["medicalrecords"].count_documents({"patientId": stranger}) == 0
    stage.role("consume", "--destination", "passport")
    kigali.shown(changed)
    equal(stage, 90)
    assert sorted(one["openmrsData"]["obsId"] for one in kigali.records(person)) == [
        plain,
        changed,
        diagnosis - 1,
    ]
    record = kigali.shown(changed)
    assert record["data"]["details"] == "about 70", "a person's edit stays"
    [conflict] = json.loads(stage.run("conflicts", "list", "--json").stdout)
    assert conflict["id"] == str(record["_id"])
    assert (
        json.loads(stage.run("conflicts", "show", conflict["id"], "--reveal").stdout)["theirs"][
            "details"
        ]
        == "72"
    )
    assert "72" not in stage.run("conflicts", "show", conflict["id"]).stdout.replace(
        conflict["id"], ""
    )
    assert stage.run("conflicts", "resolve", conflict["id"], "--keep", "hospital").returncode == 0
    kigali.shown(changed, details="72")
    assert [one for one in stage.db["patients"].find() if one["medicalHistory"]] == []
    equal(stage)


@pytest.fixture
def consumer(stage: Stage) -> Role | None:
    """At work, also when this test comes first."""
    if any("consume" in role.words for role in stage.roles):
        return None
    reading(stage)
    consumer = stage.role("consume", "--destination", "passport")
    eventually(stage.db["people"].find_one, "it has begun")  # beside what comes now it would not
    return consumer


@pytest.mark.usefixtures("consumer")
def test_it_is_adopted_afterwards_too(stage: Stage, kigali: Ward) -> None:
    digits = new_id()
    patient = kigali.register(digits)
    person = kigali.patient(digits, registered=False)
    plain, changed = (kigali.obs(person, **LONG_AGO) for _ in range(2))
    unmapped = kigali.obs(person, "832", value_coded=kigali.concept("false"))
    kigali.shown(plain)
    kigali.shown(changed)
    eventually(
        lambda: stage.db["observations"].find_one({"_id": f"kigali/{unmapped}"}),
        "the last one came",
    )
    for obs, changes in ((plain, {}), (changed, edited()), (unmapped, {})):
        former(kigali, obs, patient, **changes)
    assert sorted(becomes(stage).values()) == [
        "adopted",
        "adopted",
        "removed (no rule shows the obs)",
    ]
    assert stage.run("cut-over", "adopt").returncode == 0
    assert len(kigali.records(person)) == 2
    eventually(
        lambda: "pending" in kigali.shown(changed)["openmrsData"],
        "the edit is in conflict with the hospital",
    )
    assert kigali.shown(changed)["data"]["details"] == "about 70"
    equal(stage)


@pytest.mark.usefixtures("consumer")
def test_what_cannot_be_told_is_listed_and_goes_when_asked(stage: Stage, kigali: Ward) -> None:
    huye, person = Ward(stage, "huye"), 12
    for ward in (kigali, huye):
        ward.obs(person, obs_id=9_300_001, date_created="2025-03-04 10:06:00")
    patient = kigali.register(new_id())
    both = former(kigali, 9_300_001, patient)
    none = former(kigali, 9_300_001, patient)
    stage.db["medicalrecords"].update_one({"_id": none}, {"$set": {"openmrsData.obsId": 9_999_999}})
    status = (
        stage.db["syncstatus"]
        .insert_one({"hospitalId": str(ObjectId()), "lastSyncTime": SYNCED})
        .inserted_id
    )
    assert becomes(stage) == {
        str(both): "undecided (obs of several hospitals fit)",
        str(none): "undecided (no obs is this one)",
        str(status): "undecided (of no hospital of the settings)",
    }
    assert stage.run("cut-over", "adopt").stdout.strip() == "nothing to do"
    assert stage.run("cut-over", "remove", str(none)).stdout.strip() == "1 record removed"
    assert stage.run("cut-over", "remove").returncode == 0
    assert becomes(stage) == {}
    equal(stage)


@pytest.mark.usefixtures("consumer")
def test_its_doctors_sign_again_if_somebody_took_them_over_and_go_else(
    stage: Stage, kigali: Ward
) -> None:
    person = kigali.patient()
    obs = kigali.obs(person, creator=6)
    before = kigali.shown(obs)["createdBy"]
    mine = doctor(stage, 6, "jane.smith@hospital.rw")
    automatic = doctor(stage, 4, "provider4@openmrs.auto")
    assert becomes(stage) == {
        str(mine): "adopted",
        str(automatic): "removed (a login that nobody has taken over)",
    }
    assert stage.run("cut-over", "adopt").returncode == 0
    assert becomes(stage) == {}
    user = str((stage.db["doctors"].find_one({"_id": mine}) or {})["user"])
    assert user != before
    assert stage.db["users"].count_documents({"email": {"$regex": "openmrs.auto$"}}) == 0
    eventually(lambda: kigali.shown(obs)["createdBy"] == user, "signed anew", 90)
    stage.db["doctors"].delete_one({"_id": mine})
    stage.db["users"].update_one({"_id": ObjectId(user)}, {"$set": {"isActive": False}})


@pytest.mark.parametrize(
    ("obs_off", "created_off", "fitting"),
    [
        (0, 0, True),
        (-2, -2, True),
        (5.75, 5.75, True),
        (-2, -1, True),
        (0, 2, False),
        (24, 24, False),
        (0.1, 0.1, False),
    ],
)
def test_times_may_be_off_by_a_zone(obs_off: float, created_off: float, fitting: bool) -> None:
    row = {
        "obs_id": 1,
        "concept_id": 2,
        "person_id": 3,
        "at": "2025-03-04 10:05:00",
        "created": "2025-03-04 10:06:00",
    }
    at, created = (
        datetime.fromisoformat(row[name]).replace(tzinfo=UTC) for name in ("at", "created")
    )  # type: ignore[arg-type]
    said = {"obsId": 1, "conceptId": 2, "personId": 3, "obsDatetime": at + timedelta(hours=obs_off)}
    said["dateCreated"] = created + timedelta(hours=created_off)
    assert fits({"openmrsData": said}, row) is fitting
    assert not fits({"openmrsData": {**said, "conceptId": 4}}, row)
    assert not fits({"openmrsData": {"obsId": 1, "conceptId": 2, "personId": 3}}, row)
