"""Reads of the Passport's MongoDB what the portal shows: accounts, records, and how late they are.

Nothing is ever written.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Literal

from bson import ObjectId, decode_all
from pymongo.database import Database

from passport.settings import Hospital

Document = dict[str, Any]
Mongo = Database[Document]
RecordType = Literal["condition", "medication", "test", "visit", "image"]

# Where a record stands in its patient's timeline: (data.date, _id).
TimelinePlace = tuple[str | None, ObjectId]

LATE = timedelta(minutes=10)
NEWEST_FIRST = [("data.date", -1), ("_id", -1)]
RECORD_FIELDS = {
    "type": 1,
    "data": 1,
    "createdBy": 1,
    "createdAt": 1,
    "openmrsData.hospitalId": 1,
    "openmrsData.locationName": 1,
    "openmrsData.encounterUuid": 1,
    "openmrsData.interpretation": 1,
}


@dataclass(frozen=True, slots=True)
class Patient:
    """Somebody who is signed in.

    `id` is the hex of patients._id. `user` and `profile` are their documents in `users` and
    `patients`.
    """

    id: str
    user: Document
    profile: Document


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """The records that are asked for: of this type, from the day `since` to the day `until`."""

    type: RecordType | None = None
    since: date | None = None
    until: date | None = None

    def query(self, patient_id: str) -> Document:
        """Return the MongoDB query for these records of one patient."""
        query: Document = {"patientId": patient_id}
        if self.type:
            query["type"] = self.type
        days: Document = {}
        if self.since:
            days["$gte"] = self.since.isoformat()
        # data.date may have a time after the day, so the last day ends where the next one begins.
        if self.until and self.until < date.max:
            days["$lt"] = (self.until + timedelta(days=1)).isoformat()
        if days:
            query["data.date"] = days
        return query


@dataclass(frozen=True, slots=True)
class AsOf:
    """One hospital's records are complete up to `at`. None: nothing has come from it yet."""

    name: str
    timezone: str
    at: datetime | None

    @property
    def late(self) -> bool:
        return self.at is None or datetime.now(UTC) - self.at > LATE


class Patients:
    """Reads the collections, by user and by patient. Raises PyMongoError when MongoDB is away."""

    def __init__(self, database: Mongo, hospitals: Mapping[str, Hospital]) -> None:
        self.database = database
        self._hospitals = hospitals

    def patient(self, user_id: str) -> Patient | None:
        """Return the patient that an active user is. `user_id` is the hex of users._id."""
        user = self.database.users.find_one({"_id": ObjectId(user_id), "isActive": True})
        if user is None:
            return None
        profile = self.database.patients.find_one({"user": user["_id"]})
        if profile is None:
            return None
        return Patient(str(profile["_id"]), user, profile)

    def account(self, identifier: str) -> Document | None:
        """Return the user of an e-mail address or of a national id's digits, active or not."""
        if "@" in identifier:
            return self.database.users.find_one({"email": identifier.lower()})
        digits = "".join(letter for letter in identifier if "0" <= letter <= "9")
        if not digits:
            return None
        profile = self.database.patients.find_one({"nationalId": digits}, {"user": 1})
        if profile is None:
            return None
        return self.database.users.find_one({"_id": profile["user"]})

    def records(
        self, patient_id: str, record_filter: RecordFilter, after: TimelinePlace | None, limit: int
    ) -> list[Document]:
        """Return up to `limit` records, newest first, beginning with the one after `after`.

        Each has an `author`: the name of the user in createdBy, or None where `data` names a
        doctor.
        """
        query = record_filter.query(patient_id)
        documents = islice(self._from(query, after, limit), limit)
        # Mongoose leaves out `data` when it is empty.
        empty: Document = {"data": {}}
        records = [empty | document for document in documents]
        names = self._names(
            {record["createdBy"] for record in records if not record["data"].get("doctor")}
        )
        return [record | {"author": names.get(record["createdBy"])} for record in records]

    def as_of(self, patient_id: str) -> list[AsOf]:
        """Return how late each hospital is that knows the patient, sorted by its name."""
        linked = self.database.people.distinct("hospital", {"patientId": patient_id})
        hospitals = {id_: self._hospitals[id_] for id_ in linked if id_ in self._hospitals}
        at_ms = {}
        for progress in self.database.progress.find({"_id": {"$in": list(hospitals)}}):
            at_ms[progress["_id"]] = progress["at_ms"]
        return [
            AsOf(hospital.name, hospital.timezone, _instant(at_ms.get(id_)))
            for id_, hospital in sorted(hospitals.items(), key=lambda item: item[1].name)
        ]

    def contents(self, patient_id: str) -> tuple[str, set[ObjectId]]:
        """Return the tag of a patient's records, see `tag`, and their ids."""
        states = self._record_states(patient_id)
        return _tag(states), {state["_id"] for state in decode_all(states)}

    def tag(self, patient_id: str) -> str:
        """Return a text that changes whenever a record of the patient comes, changes or goes."""
        return _tag(self._record_states(patient_id))

    def _from(self, query: Document, after: TimelinePlace | None, limit: int) -> Iterator[Document]:
        # Records without a date come last. The rest of the timeline is asked for in up to three
        # questions, because the index `timeline` of the mongo destination serves each of them, and
        # would not serve one question with $or.
        if after is None:
            return iter(self._find(query, limit))
        day, key = after
        rest: list[Document] = [{"data.date": day, "_id": {"$lt": key}}]
        if day is not None:
            rest.append({"data.date": {"$lt": day}})
            rest.append({"data.date": None})
        return chain.from_iterable(self._find({"$and": [query, part]}, limit) for part in rest)

    def _find(self, query: Document, limit: int) -> Iterable[Document]:
        return self.database.medicalrecords.find(
            query, RECORD_FIELDS, sort=NEWEST_FIRST, limit=limit
        )

    def _names(self, user_ids: Collection[str]) -> dict[str, str]:
        ids = [ObjectId(user_id) for user_id in user_ids if ObjectId.is_valid(user_id)]
        if not ids:
            return {}
        users = self.database.users.find({"_id": {"$in": ids}}, {"name": 1})
        return {str(user["_id"]): user["name"] for user in users}

    def _record_states(self, patient_id: str) -> bytes:
        # As MongoDB sends them: with 5,000 records it is decoding that takes long.
        batches: Any = self.database.medicalrecords.find_raw_batches(
            {"patientId": patient_id},
            {"rev": 1, "updatedAt": 1},
            sort=[("_id", 1)],
            batch_size=10_000,
        )
        return b"".join(batches)


def _tag(states: bytes) -> str:
    return blake2b(states, digest_size=12).hexdigest()


def _instant(at_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
