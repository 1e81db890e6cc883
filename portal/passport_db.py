"""What the portal reads of the Passport's MongoDB. Nothing is ever written."""

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
Place = tuple[str | None, ObjectId]  # of a record in its patient's timeline: data.date, _id

_NEWEST_FIRST = [("data.date", -1), ("_id", -1)]
_ORIGIN = ("hospitalId", "locationName", "encounterUuid", "interpretation")
_SHOWN = dict.fromkeys(
    ("type", "data", "createdBy", "createdAt", *(f"openmrsData.{name}" for name in _ORIGIN)), 1
)

_EMPTY: Document = {"data": {}}  # Mongoose leaves out what is empty


@dataclass(frozen=True, slots=True)
class Patient:
    """Somebody who is signed in: `id` is the hex of patients._id, `user` and `profile` their
    documents.
    """

    id: str
    user: Document
    profile: Document


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: of this type, on or after the day `since`, on or before `until`."""

    type: RecordType | None = None
    since: date | None = None
    until: date | None = None

    def query(self, patient_id: str) -> Document:
        days: Document = {"$gte": self.since.isoformat()} if self.since else {}
        if self.until and self.until < date.max:
            days["$lt"] = (self.until + timedelta(days=1)).isoformat()
        dated = {"data.date": days} if days else {}
        return {"patientId": patient_id, **({"type": self.type} if self.type else {}), **dated}


@dataclass(frozen=True, slots=True)
class AsOf:
    """One hospital's records are complete up to `at`; None when nothing has come from it yet."""

    name: str
    timezone: str
    at: datetime | None

    @property
    def late(self) -> bool:
        return self.at is None or datetime.now(UTC) - self.at > timedelta(minutes=10)


class PassportDb:
    """The collections, by user and patient. PyMongoError when MongoDB is away."""

    def __init__(self, database: Mongo, hospitals: Mapping[str, Hospital]) -> None:
        self.database = database
        self._hospitals = hospitals

    def patient(self, user_id: str) -> Patient | None:
        """The patient that an active user is; `user_id` is the hex of users._id."""
        user = self.database.users.find_one({"_id": ObjectId(user_id), "isActive": True})
        profile = user and self.database.patients.find_one({"user": user["_id"]})
        return Patient(str(profile["_id"]), user, profile) if user and profile else None

    def account(self, identifier: str) -> Document | None:
        """The user of an e-mail address or a national id's digits, active or not."""
        if "@" in identifier:
            return self.database.users.find_one({"email": identifier.lower()})
        digits = "".join(one for one in identifier if "0" <= one <= "9")
        found = (
            self.database.patients.find_one({"nationalId": digits}, {"user": 1}) if digits else None
        )
        return self.database.users.find_one({"_id": found["user"]}) if found else None

    def records(
        self, patient_id: str, wanted: Wanted, after: Place | None, limit: int
    ) -> list[Document]:
        """Newest first, from the one after `after`; `author` is the name of createdBy where `data`
        names no doctor.
        """
        found = [
            _EMPTY | one
            for one in islice(self._from(wanted.query(patient_id), after, limit), limit)
        ]
        names = self._names(
            {record["createdBy"] for record in found if not record["data"].get("doctor")}
        )
        return [record | {"author": names.get(record["createdBy"])} for record in found]

    def _from(self, shown: Document, after: Place | None, limit: int) -> Iterator[Document]:
        """Records without a date come last. One index serves each of these: see `timeline` of the
        mongo sink.
        """
        if after is None:
            return iter(self._find(shown, limit))
        day, key = after
        rest: list[Document] = [{"data.date": day, "_id": {"$lt": key}}]
        if day is not None:
            rest += [{"data.date": {"$lt": day}}, {"data.date": None}]
        return chain.from_iterable(self._find({"$and": [shown, one]}, limit) for one in rest)

    def _find(self, query: Document, limit: int) -> Iterable[Document]:
        return self.database.medicalrecords.find(query, _SHOWN, sort=_NEWEST_FIRST, limit=limit)

    def _names(self, users: Collection[str]) -> dict[str, str]:
        ids = [ObjectId(one) for one in users if ObjectId.is_valid(one)]
        found = self.database.users.find({"_id": {"$in": ids}}, {"name": 1}) if ids else ()
        return {str(user["_id"]): user["name"] for user in found}

    def as_of(self, patient_id: str) -> list[AsOf]:
        """One for each hospital that knows the patient, by name."""
        linked = self.database.people.distinct("hospital", {"patientId": patient_id})
        known = {name: self._hospitals[name] for name in linked if name in self._hospitals}
        progress = {
            one["_id"]: one["at_ms"]
            for one in self.database.progress.find({"_id": {"$in": list(known)}})
        }
        return [
            AsOf(hospital.name, hospital.timezone, _instant(progress.get(name)))
            for name, hospital in sorted(known.items(), key=lambda one: one[1].name)
        ]

    def contents(self, patient_id: str) -> tuple[str, set[ObjectId]]:
        """(tag, ids) of the patient's records."""
        states = self._states(patient_id)
        return _tag(states), {one["_id"] for one in decode_all(states)}

    def tag(self, patient_id: str) -> str:
        """Another one whenever any record of the patient's comes, changes or goes."""
        return _tag(self._states(patient_id))

    def _states(self, patient_id: str) -> bytes:
        """As MongoDB sends them: of 5,000 records decoding is what takes long."""
        shown, fields = {"patientId": patient_id}, {"rev": 1, "updatedAt": 1}
        found: Any = self.database.medicalrecords.find_raw_batches(
            shown, fields, sort=[("_id", 1)], batch_size=10_000
        )
        return b"".join(found)


def _tag(states: bytes) -> str:
    return blake2b(states, digest_size=12).hexdigest()


def _instant(at_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
