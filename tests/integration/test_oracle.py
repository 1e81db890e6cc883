"""The oracle itself: facts counted by hand in the real data, and that it sees every kind of
difference.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from tests import concepts_page, real_data
from tests.oracle.compare import compare, compare_with
from tests.oracle.expected import Expected, expected, load_mapping
from tests.oracle.facts import Facts, read
from tests.oracle.words import words
from tests.servers import Address, fresh_database

KIGALI = {
    "key": "kigali",
    "name": "Kigali Hospital",
    "timezone": "Africa/Kigali",
    "locales": ["en_GB", "en"],
    "provider_roles": [],
    "national_id_type": real_data.NATIONAL_ID_TYPE,
    "link_key": "a key of this test",
}
DUMP_PATIENTS = (7, 8)
Mongo = Database[dict[str, Any]]


@pytest.fixture(scope="module")
def connection(mysql_url: str) -> Iterator[Any]:
    with fresh_database(Address.parse("mariadb", mysql_url)) as server:
        assert server.database is not None
        real_data.load(server, server.database)
        with server.connect() as opened:
            yield opened


@pytest.fixture(scope="module")
def facts(connection: Any) -> Facts:
    return read(connection, KIGALI)


@pytest.fixture(scope="module")
def two(connection: Any, facts: Facts) -> Expected:
    """The dump's own two patients are registered, nobody else."""
    patients = {str(facts.people[person][1]): f"{person:024x}" for person in DUMP_PATIENTS}
    return expected(connection, KIGALI, patients, load_mapping())


def of_type(found: Expected, kind: str) -> list[dict[str, Any]]:
    return [record.content for record in found.records.values() if record.content["type"] == kind]


def test_who_has_an_id(facts: Facts) -> None:
    assert Counter(state for state, _ in facts.people.values()) == {
        "ok": 286,
        "invalid": 12,
        "ambiguous": 4,
        "not_patient": 6,
    }
    assert [person for person, (state, _) in facts.people.items() if state == "ambiguous"] == [
        1100,
        1101,
        1200,
        1201,
    ]
    assert all(
        person % 25 == 3 for person, (state, _) in facts.people.items() if state == "invalid"
    )
    assert facts.people[7][1] == "1198480000007002", "written with spaces at the hospital"


def test_16_live_coded_diagnoses_are_16_conditions(two: Expected) -> None:
    conditions = of_type(two, "condition")
    assert len(conditions) == 16
    assert Counter(one["data"]["status"] for one in conditions) == {
        "Presumed diagnosis": 13,
        "Confirmed diagnosis": 3,
    }
    assert {one["data"]["name"] for one in conditions} == {"Visit Diagnoses"}
    assert {one["data"]["description"] for one in conditions} <= {"Primary", "Secondary"}
    assert all(len(one["openmrsData"]["memberUuids"]) == 3 for one in conditions)


def test_vitals_are_tests_with_units(two: Expected) -> None:
    by_name = Counter(
        (one["data"]["testName"], one["data"]["result"].partition(" ")[2])
        for one in of_type(two, "test")
    )
    assert by_name == {
        ("Blood pressure", "mmHg"): 12,
        ("Pulse", "beats/min"): 12,
        ("Temperature (C)", "DEG C"): 12,
        ("Weight (kg)", "kg"): 12,
        ("Height (cm)", "cm"): 12,
        ("Arterial blood oxygen saturation (pulse oximeter)", "%"): 12,
        ("Respiratory rate", ""): 12,
    }


def test_every_row_of_the_dump_has_its_place(two: Expected) -> None:
    assert (len(two.rows), len(two.records), two.unmapped) == (220, 16 + 96 - 12 + 12, 0)
    assert len(of_type(two, "visit")) == 12
    assert {record.author.name for record in two.records.values()} == {"Super User"}


def test_the_hospitals_time_becomes_an_instant(two: Expected) -> None:
    row = two.rows["kigali/1"]
    assert (row["obs_datetime"], row["value_numeric"], row["voided"]) == (
        "2019-04-13T09:39:56",
        38.0,
        0,
    )
    record = next(one for one in two.records.values() if one.anchor == 1)
    assert record.content["openmrsData"]["obsDatetime"] == datetime(2019, 4, 13, 7, 39, 56)  # noqa: DTZ001
    assert record.content["data"]["result"] == "38 cm"


def test_the_page_of_concepts_tells_what_becomes_of_every_obs(facts: Facts) -> None:
    found = concepts_page.becomes(facts, KIGALI)
    assert sum(found.values()) == 58_020
    concepts_page.check("The sample database", found)


@pytest.fixture(scope="module")
def filled(connection: Any, two: Expected, mongo_url: str) -> Iterator[Mongo]:
    """MongoDB written by hand from what the oracle expects."""
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        database = client["oracle"]
        client.drop_database("oracle")
        for name, documents in by_hand(two).items():
            database[name].insert_many(documents)
        yield database
        client.drop_database("oracle")


def of_words(facts: Facts, row: dict[str, Any]) -> dict[str, Any]:
    said = words(row, facts, text := "as the hospital says it")
    value = {"text": text, "names": said.answer, "range": said.range, "computed": said.computed}
    return {"format": 2, "concept": {"names": said.question}, "value": value}


def by_hand(two: Expected) -> dict[str, list[dict[str, Any]]]:
    patients = [
        {"_id": ObjectId(id_), "nationalId": two.people[person][1]}
        for person, id_ in two.matched.items()
    ]
    user = {"_id": ObjectId(), "name": "Super User", "isActive": False}
    people = [
        {
            "_id": f"kigali/{person}",
            "hospital": "kigali",
            "personId": person,
            "state": state,
            "idHash": digits
            and hmac.new(b"a key of this test", digits.encode(), hashlib.sha256).hexdigest(),
            "patientId": patient,
        }
        for person, (state, digits, patient) in two.people.items()
    ]
    rows = [
        {
            "_id": key,
            "hospital": "kigali",
            "obsId": row["obs_id"],
            "personId": row["person_id"],
            "deleted": False,
            "row": row,
            **of_words(two.facts, row),
        }
        for key, row in two.rows.items()
    ]
    records = [
        {
            "_id": id_,
            **deepcopy(one.content),
            "createdBy": str(user["_id"]),
            "syncDate": one.synced,
            "createdAt": one.synced,
        }
        for id_, one in two.records.items()
    ]
    return {
        "patients": patients,
        "users": [user],
        "people": people,
        "observations": rows,
        "medicalrecords": records,
    }


def test_equal_documents_are_equal(connection: Any, filled: Mongo) -> None:
    found = compare({"kigali": connection}, filled, [KIGALI]).require_equal()
    assert (found.matched, found.rows, found.records) == (2, 220, 112)


def stranger(filled: Mongo, connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT uuid FROM obs WHERE person_id = 1010 ORDER BY obs_id LIMIT 1")
        return str(cursor.fetchone()[0])


Change = Callable[[Mongo, Any], object]
CHANGES: Mapping[str, tuple[Change, str]] = {
    "a row missing": (
        lambda db, _: db.observations.delete_one({"_id": "kigali/5"}),
        "observations kigali/5: missing",
    ),
    "a row altered": (
        lambda db, _: db.observations.update_one(
            {"_id": "kigali/5"}, {"$set": {"row.value_numeric": 1.5}}
        ),
        "observations kigali/5: value_numeric",
    ),
    "a row with another word in another language": (
        lambda db, _: db.observations.update_one(
            {"_id": "kigali/5"}, {"$set": {"concept.names.fr": "Pouls"}}
        ),
        "observations kigali/5: question",
    ),
    "a row with another bound": (
        lambda db, _: db.observations.update_one(
            {"value.range.source": "concept"}, {"$set": {"value.range.high": -1}}
        ),
        ": range",
    ),
    "a row of the release before": (
        lambda db, _: db.observations.update_one({"_id": "kigali/5"}, {"$unset": {"format": 1}}),
        "observations kigali/5: format",
    ),
    "a row of a stranger": (
        lambda db, _: db.observations.insert_one(
            {
                "_id": "kigali/301",
                "hospital": "kigali",
                "obsId": 301,
                "personId": 1010,
                "deleted": False,
                "row": {"person_id": 1010},
            }
        ),
        "who is not matched",
    ),
    "a record missing": (
        lambda db, _: db.medicalrecords.delete_one({"openmrsData.obsId": 13}),
        "medicalrecords kigali/13: missing (condition)",
    ),
    "a record altered": (
        lambda db, _: db.medicalrecords.update_one(
            {"openmrsData.obsId": 13}, {"$set": {"data.status": "?"}}
        ),
        "medicalrecords kigali/13: data.status",
    ),
    "another syncDate": (
        lambda db, _: db.medicalrecords.update_one(
            {"openmrsData.obsId": 13}, {"$set": {"syncDate": datetime(2025, 1, 1, tzinfo=UTC)}}
        ),
        "medicalrecords kigali/13: syncDate",
    ),
    "a voided obs still shown": (
        lambda db, _: db.medicalrecords.insert_one(
            {
                "patientId": f"{7:024x}",
                "type": "test",
                "data": {},
                "createdBy": "",
                "openmrsData": {
                    "hospitalId": "kigali",
                    "obsUuid": "x",
                    "obsId": 10,
                    "memberUuids": [],
                },
            }
        ),
        "not expected",
    ),
    "a removed record with data": (
        lambda db, _: db.medicalrecords.insert_one(
            {
                "patientId": "",
                "type": "test",
                "data": {"result": "1"},
                "removedAt": datetime(2025, 1, 1, tzinfo=UTC),
                "openmrsData": {"hospitalId": "kigali", "obsUuid": "x"},
            }
        ),
        "removed, but has data",
    ),
    "an author who is nobody": (
        lambda db, _: db.medicalrecords.update_one(
            {"openmrsData.obsId": 13}, {"$set": {"createdBy": "0" * 24}}
        ),
        "createdBy is no user",
    ),
    "an author who can log in": (
        lambda db, _: db.users.update_many({}, {"$set": {"isActive": True}}),
        "inactive",
    ),
    "a person's state": (
        lambda db, _: db.people.update_one({"_id": "kigali/1100"}, {"$set": {"state": "ok"}}),
        "people kigali/1100: state ok, expected ambiguous",
    ),
    "a person linked to somebody else": (
        lambda db, _: db.people.update_one(
            {"_id": "kigali/1010"}, {"$set": {"patientId": f"{7:024x}"}}
        ),
        "people kigali/1010: patientId",
    ),
    "a stranger's uuid anywhere": (
        lambda db, connection: db.auditlogs.insert_one({"details": stranger(db, connection)}),
        "who is not matched",
    ),
}


@pytest.mark.by_hand
@pytest.mark.parametrize("name", CHANGES)
def test_sees(
    connection: Any, two: Expected, filled: Mongo, mongo_database: Mongo, name: str
) -> None:
    for collection in filled.list_collection_names():
        mongo_database[collection].insert_many(filled[collection].find().to_list())
    change, words = CHANGES[name]
    change(mongo_database, connection)
    found = compare_with({"kigali": two}, mongo_database, [KIGALI]).differences
    assert any(words in one for one in found), found
    assert len(found) <= (124 if name == "an author who can log in" else 2)
