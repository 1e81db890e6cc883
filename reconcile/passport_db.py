"""What this stage reads of the Passport's MongoDB; it writes nothing there."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from bson import ObjectId

from destinations import mongo
from destinations.mongo import Options, progress
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import hashed, patients_by_national_id
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.mapping import MappingRules
from passport import sink as sinks
from passport.facts import Person
from passport.settings import Settings


@contextmanager
def opened(settings: Settings, destination: str) -> Iterator["PassportDb"]:
    """Fatal when the destination isn't a mongo one; NotReady."""
    with mongo.opened(settings, destination) as (database, rules):
        yield PassportDb(
            database, sinks.options(destination, settings.destinations[destination]), rules
        )


class PassportDb:
    """The collections, by hospital and person."""

    def __init__(self, database: Mongo, given: Options, rules: MappingRules) -> None:
        self._db = database
        self._options = given
        self.rules = rules

    def authors(self, settings: Settings, hospital_id: str) -> Authors:
        """Used for `look_up` and `created_by` alone, which only read."""
        return Authors(self._db, hospital_id, settings.hospitals[hospital_id])

    def progress(self, hospital: str) -> tuple[str, int, int] | None:
        """Version, source time (Unix ms) and next offset: up to there the destination has applied
        the changes.
        """
        applied = progress.read(self._db, hospital)
        return (applied.version, applied.at_ms, applied.offset) if applied else None

    def mirrored(self, hospital: str, after: int, to: int) -> set[int]:
        """Persons in (after, to] of whose rows the mirror knows."""
        with translate_errors():
            return set(
                self._db.observations.distinct(
                    "personId", {"hospital": hospital, "personId": {"$gt": after, "$lte": to}}
                )
            )

    def linked(self, hospital: str) -> list[int]:
        """Persons who are matched, by their link; sorted."""
        query = {"hospital": hospital, "patientId": {"$type": "string"}}
        with translate_errors():
            return sorted(
                found["personId"] for found in self._db.people.find(query, {"personId": 1})
            )

    def links(self, keys: Collection[str]) -> dict[str, Document]:
        with translate_errors():
            return {
                found["_id"]: found for found in self._db.people.find({"_id": {"$in": list(keys)}})
            }

    def patients(self, persons: Iterable[Person]) -> dict[str, str]:
        """Hex of patients._id by person key, of those who are registered."""
        ids = {
            person.national_id: person.key
            for person in persons
            if person.state == "ok" and person.national_id
        }
        patients = patients_by_national_id(self._db.patients, list(ids))
        return {ids[national_id]: patient for national_id, patient in patients.items()}

    def link(self, person: Person, patient: str | None) -> Document:
        """The fields of the `people` document that must be there."""
        national_id = person.national_id if person.state == "ok" else None
        id_hash = hashed(self._options.key, national_id) if national_id else None
        return {"state": person.state, "patientId": patient, "idHash": id_hash}

    def mirror(self, hospital: str, person_ids: Collection[int]) -> dict[str, Document]:
        """Documents of the persons' rows by _id, tombstones too."""
        query = {"hospital": hospital, "personId": {"$in": list(person_ids)}}
        with translate_errors():
            return {found["_id"]: found for found in self._db.observations.find(query)}

    def live_rows(self, hospital: str, person_ids: Collection[int]) -> Iterator[Document]:
        """`personId` and `row` of each row of the persons that the mirror holds."""
        query = {"hospital": hospital, "personId": {"$in": list(person_ids)}, "deleted": False}
        with translate_errors():
            yield from self._db.observations.find(query, {"personId": 1, "row": 1})

    def records(
        self, hospital: str, keys: Collection[ObjectId], patients: Collection[str]
    ) -> dict[ObjectId, Document]:
        """The records with these _ids, and all of the hospital's that the patients are shown."""
        shown = {"patientId": {"$in": list(patients)}, "openmrsData.hospitalId": hospital}
        with translate_errors():
            by_id = self._db.medicalrecords.find({"_id": {"$in": list(keys)}})
            found = {record["_id"]: record for record in by_id}
            return found | {record["_id"]: record for record in self._db.medicalrecords.find(shown)}

    def shown_to(self, hospital: str) -> set[str]:
        """patients._id (hex) of everybody who is shown a record of the hospital."""
        stages: list[Document] = [
            {"$match": {"openmrsData.hospitalId": hospital, "patientId": {"$ne": ""}}},
            {"$group": {"_id": "$patientId"}},
        ]
        with translate_errors():
            return {found["_id"] for found in self._db.medicalrecords.aggregate(stages)}
