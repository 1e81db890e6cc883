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
    "openmrsData.obsId": 1,
    "openmrsData.obsUuid": 1,
    "openmrsData.memberUuids": 1,
}
ROW_FIELDS = {
    "hospital": 1,
    "row.uuid": 1,
    "row.obs_group_id": 1,
    "concept.name": 1,
    "concept.names": 1,
    "value.text": 1,
    "value.names": 1,
    "value.range": 1,
    "value.computed": 1,
}
GROUP_STEPS = 3  # how deep a record's members may lie in groups; few forms have a second level


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
        doctor. Its `rows` are the mirror's rows of the obs that make it, and of the panel that it
        is part of: they know its words in other languages.
        """
        query = record_filter.query(patient_id)
        documents = islice(self._from(query, after, limit), limit)
        # Mongoose leaves out `data` when it is empty.
        empty: Document = {"data": {}}
        records = [empty | document for document in documents]
        names = self._names(
            {record["createdBy"] for record in records if not record["data"].get("doctor")}
        )
        rows = _RowsOfRecords(self.database, records).read()
        return [
            record | {"author": names.get(record["createdBy"]), "rows": rows[record["_id"]]}
            for record in records
        ]

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


class _RowsOfRecords:
    """Reads the mirror's rows of some records, all together in few questions.

    That are one for the anchors, one for the groups above them, and one for each level of groups
    below, up to GROUP_STEPS. A row is taken only if the record names its uuid.
    """

    def __init__(self, database: Mongo, records: Iterable[Document]) -> None:
        self._database = database
        self._found: dict[ObjectId, list[Document]] = {}
        self._left: dict[ObjectId, set[str]] = {}  # uuids of members that aren't found yet
        self._anchors: dict[str, list[Document]] = {}  # records by the _id of their anchor's row
        for record in records:
            origin = record.get("openmrsData") or {}
            self._found[record["_id"]] = []
            self._left[record["_id"]] = set(origin.get("memberUuids") or ())
            if origin.get("obsUuid"):
                key = f"{origin.get('hospitalId')}/{origin.get('obsId')}"
                self._anchors.setdefault(key, []).append(record)

    def read(self) -> dict[ObjectId, list[Document]]:
        """Return the rows by the record's _id."""
        above: dict[str, set[ObjectId]] = {}  # records by the _id of the group they are in
        groups: dict[str, set[ObjectId]] = {}  # records whose members may be in this group
        for row in self._rows({"_id": {"$in": list(self._anchors)}}):
            for record in self._anchors[row["_id"]]:
                if row["row"]["uuid"] != record["openmrsData"]["obsUuid"]:
                    continue
                key = record["_id"]
                self._take(row, key)
                groups.setdefault(row["_id"], set()).add(key)
                is_named_by_record = record["data"].get("description") or self._left[key]
                if row["row"].get("obs_group_id") is not None and is_named_by_record:
                    above.setdefault(_group_of(row), set()).add(key)
        if above:
            for row in self._rows({"_id": {"$in": list(above)}}):
                for key in above[row["_id"]]:
                    self._take(row, key)
                groups.setdefault(row["_id"], set()).update(above[row["_id"]])
        for _ in range(GROUP_STEPS):
            groups = self._groups_below(groups)
        return self._found

    def _groups_below(self, groups: Mapping[str, set[ObjectId]]) -> dict[str, set[ObjectId]]:
        """Take the members of these groups that records lack still. Return the groups below."""
        unfinished = [group for group, keys in groups.items() if any(map(self._left.get, keys))]
        below: dict[str, set[ObjectId]] = {}
        if not unfinished:
            return below
        for row in self._rows({"related": {"$in": unfinished}}):
            for key in groups.get(_group_of(row), ()):
                if row["row"]["uuid"] in self._left[key]:
                    self._take(row, key)
                below.setdefault(row["_id"], set()).add(key)
        return below

    def _take(self, row: Document, key: ObjectId) -> None:
        self._found[key].append(row)
        self._left[key].discard(row["row"]["uuid"])

    def _rows(self, query: Document) -> Iterable[Document]:
        return self._database.observations.find(query | {"deleted": False}, ROW_FIELDS)


def _group_of(row: Document) -> str:
    return f"{row['hospital']}/{row['row'].get('obs_group_id')}"


def _tag(states: bytes) -> str:
    return blake2b(states, digest_size=12).hexdigest()


def _instant(at_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None
