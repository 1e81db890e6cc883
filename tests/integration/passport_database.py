"""The Passport's MongoDB in a database of a test's own, and what a hospital writes into it."""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from bson import ObjectId
from msgspec.structs import replace
from pymongo import MongoClient

from destinations.mongo.sink import MongoSink
from passport.facts import Observation, Person
from passport.sink import Outcome, connect
from tests import observations as make
from tests.observations import obs, patient, person
from tests.servers import fresh_name

Document = dict[str, Any]
LINK_KEY = "only for tests, 32 characters up"
CANARY = "canary-7f3a"


class Passport:
    """A database of its own, with sinks that write it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = MongoClient[Document](url, tz_aware=True)
        self.db = self.client[fresh_name()]
        self.sinks: list[MongoSink] = []

    def sink(self, hospital: Document | None = None, **options: Any) -> MongoSink:
        given_ = {"uri": self.url, "database": self.db.name, "link_key": LINK_KEY, **options}
        settings = make.settings(given_, **(hospital or {}))
        self.sinks.append(cast("MongoSink", connect("passport", settings)))
        return self.sinks[-1]

    def register(self, national_id: str = "1199080012345678") -> str:
        return str(self.db.patients.insert_one(patient(national_id)).inserted_id)

    def shown(self, patient_id: str | None = None) -> list[Document]:
        query = {"patientId": patient_id} if patient_id else {"patientId": {"$ne": ""}}
        return list(self.db.medicalrecords.find(query).sort("openmrsData.obsId", 1))

    def details(self, patient_id: str | None = None) -> list[str]:
        return [record["data"]["details"] for record in self.shown(patient_id)]

    def state(self) -> Document:
        """What must be the same whatever the way: rows, and records that are shown."""
        rows = {row.pop("_id"): row for row in self.db.observations.find({}, {"related": 0})}
        records = {
            one.pop("_id"): one
            for one in self.db.medicalrecords.find({"patientId": {"$ne": ""}}, {"rev": 0})
        }
        return {"rows": rows, "records": records}

    def everything(self) -> str:
        return repr({name: list(self.db[name].find()) for name in self.db.list_collection_names()})

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
        self.client.drop_database(self.db.name)
        self.client.close()


def diagnosis(at: int, first: int = 3) -> list[Observation]:
    """A header, its diagnosis and its certainty: one record."""
    return [
        obs(first, at, make.VISIT_DIAGNOSES, make.NO_VALUE),
        obs(first + 1, at, make.DIAGNOSIS, make.coded(make.MALARIA), row=2, obs_group_id=first),
        obs(first + 2, at, make.CERTAINTY, make.coded(make.CONFIRMED), row=3, obs_group_id=first),
    ]


def as_read(who: Person, rows: Sequence[Observation]) -> list[Observation]:
    """The rows as a read of the whole person gives them: at who's version."""
    return [replace(row, person=who, version=who.version, origin="person") for row in rows]


def read_whole(sink: MongoSink, who: Person, rows: Sequence[Observation]) -> Outcome:
    """As the worker does for a person that `wanted` names: rows at who's version, then what else
    there is goes.
    """
    return sink.write(as_read(who, rows)).__iadd__(
        sink.retain(who, [row.obs_id for row in rows], who.version)
    )


def one(collection: Any, key: Any = None) -> Document:
    found: Document = collection.find_one({"_id": key} if key else {})
    return found


def story() -> list[Observation]:
    """Events of one hospital in order: groups, edits, voids, purges, a merge, a moved member."""
    other = person(2, "1199080012340000")
    return [
        obs(1, 10),
        *diagnosis(11),
        obs(6, 12, make.CHIEF_COMPLAINT, make.text("cough"), who=other),
        obs(7, 13, make.UNKNOWN, make.text("blue")),
        obs(8, 14, value=make.number(80), previous_version=1),
        obs(1, 14, voided=True, row=2),
        obs(5, 15, make.CERTAINTY, make.coded(make.CONFIRMED), voided=True, obs_group_id=3),
        obs(6, 16, make.CHIEF_COMPLAINT, make.text("cough"), who=person()),
        obs(4, 17, make.DIAGNOSIS, make.coded(make.MALARIA), obs_group_id=None),
        obs(3, 18, make.VISIT_DIAGNOSES, make.NO_VALUE, deleted=True),
        obs(9, 19, make.PANEL, make.NO_VALUE),
        obs(10, 19, obs_group_id=9, row=2),
        obs(7, 20, make.UNKNOWN, make.text("blue"), deleted=True),
        obs(8, 21, value=make.number(81), previous_version=1, comments="again"),
    ]


def empty(passport: Passport) -> None:
    if not passport.sinks:
        passport.sink()
    for name in ("observations", "medicalrecords", "people", "patients", "auditlogs"):
        passport.db[name].delete_many({})
    keys = {"1199080012345678": ObjectId("a" * 24), "1199080012340000": ObjectId("b" * 24)}
    passport.db.patients.insert_many(
        [patient(number) | {"_id": key} for number, key in keys.items()]
    )


def interposed(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, other: Callable[[], object]
) -> list[int]:
    """Lets `other` happen once just before the first call of target.name; the list tells how often
    it was called.
    """
    calls: list[int] = []
    method = getattr(target, name)

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            other()
        return method(*args, **options)

    monkeypatch.setattr(target, name, call)
    return calls


def operations(passport: Passport, act: Callable[[], Any]) -> int:
    def total() -> int:
        return int(passport.client.admin.command("serverStatus")["network"]["numRequests"])

    time.sleep(0.05)
    idle = -total() + total()
    before = total()
    act()
    return total() - before - idle
