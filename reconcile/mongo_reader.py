"""Reads of the Passport's MongoDB what comparing and verifying need. Nothing is written here."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from bson import ObjectId

from destinations import mongo
from destinations.mongo import Options, progress
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import People, ask_for
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.sink import RulesByHospital
from passport import sink as sinks
from passport.facts import Person
from passport.settings import Settings
from passport.sink import Progress


@contextmanager
def opened(settings: Settings, destination: str) -> Iterator["MongoReader"]:
    """Open the database of a destination. Raises Fatal if it isn't a mongo one, and NotReady."""
    with mongo.opened(settings, destination) as (database, rules):
        options = sinks.options(destination, settings.destinations[destination])
        yield MongoReader(database, options, rules)


class MongoReader:
    """Reads one destination by hospital and person. Every method may raise Retry and Fatal."""

    def __init__(self, database: Mongo, options: Options, rules: RulesByHospital) -> None:
        self._db = database
        self._people = People(database, options.key, options.contradictions)
        self.rules = rules

    def authors(self, settings: Settings, hospital_id: str) -> Authors:
        """Return a hospital's authors, of which only `look_up` and `created_by` may be used."""
        return Authors(self._db, hospital_id, settings.hospitals[hospital_id])

    def progress(self, hospital: str) -> Progress | None:
        """Return how far the destination has applied a hospital's changes."""
        return progress.read(self._db, hospital)

    # --- persons

    def mirrored(self, hospital: str, after: int, to: int) -> set[int]:
        """Return the persons in (after, to] of whom the mirror has rows, or had them."""
        query = {"hospital": hospital, "personId": {"$gt": after, "$lte": to}}
        with translate_errors():
            return set(self._db.observations.distinct("personId", query))

    def linked(self, hospital: str) -> list[int]:
        """Return the persons whose link matches them with a patient, sorted."""
        query = {"hospital": hospital, "patientId": {"$type": "string"}}
        with translate_errors():
            links = self._db.people.find(query, {"personId": 1})
            return sorted(link["personId"] for link in links)

    def links(self, keys: Collection[str]) -> dict[str, Document]:
        """Return the documents of `people` by person key."""
        with translate_errors():
            links = self._db.people.find({"_id": {"$in": list(keys)}})
            return {link["_id"]: link for link in links}

    def expected_links(self, persons: Iterable[Person]) -> dict[int, Document]:
        """Return, by person_id, the fields that the documents in `people` must have."""
        return self._people.expected_links(persons)

    def ask_for(self, keys: Collection[str]) -> None:
        """Have the consumers read these persons whole. It is the only thing that is written."""
        ask_for(self._db, keys)

    # --- rows

    def mirror(self, hospital: str, person_ids: Collection[int]) -> dict[str, Document]:
        """Return the mirror's documents of these persons' rows by _id, tombstones too."""
        query = {"hospital": hospital, "personId": {"$in": list(person_ids)}}
        with translate_errors():
            documents = self._db.observations.find(query)
            return {document["_id"]: document for document in documents}

    def live_rows(self, hospital: str, person_ids: Collection[int]) -> Iterator[Document]:
        """Yield `personId` and `row` of each row of these persons that the mirror holds."""
        query = {"hospital": hospital, "personId": {"$in": list(person_ids)}, "deleted": False}
        with translate_errors():
            yield from self._db.observations.find(query, {"personId": 1, "row": 1})

    # --- records

    def records(
        self, hospital: str, keys: Collection[ObjectId], patients: Collection[str]
    ) -> dict[ObjectId, Document]:
        """Return the records with these _ids, and all of the hospital's that the patients see."""
        of_patients = {"patientId": {"$in": list(patients)}, "openmrsData.hospitalId": hospital}
        records = {}
        with translate_errors():
            for query in ({"_id": {"$in": list(keys)}}, of_patients):
                for record in self._db.medicalrecords.find(query):
                    records[record["_id"]] = record
        return records

    def shown(self, keys: Collection[ObjectId]) -> set[ObjectId]:
        """Return those of the records, by _id, that somebody sees."""
        query = {"_id": {"$in": list(keys)}, "patientId": {"$ne": ""}}
        with translate_errors():
            return {record["_id"] for record in self._db.medicalrecords.find(query, {"_id": 1})}

    def patients_with_records(self, hospital: str) -> set[str]:
        """Return the hex of patients._id of everybody who sees a record of the hospital."""
        stages: list[Document] = [
            {"$match": {"openmrsData.hospitalId": hospital, "patientId": {"$ne": ""}}},
            {"$group": {"_id": "$patientId"}},
        ]
        with translate_errors():
            return {group["_id"] for group in self._db.medicalrecords.aggregate(stages)}
