"""Erases what is left of somebody who has left the Passport, of all that this project writes.

The hospitals are asked who holds the national id, or held it, and which observations are theirs: a
tombstone names no more than an observation. What is found by others is deleted last, so that an
erasure that was interrupted can go on.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from destinations.mongo.auditlogs import AGENT
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import hashed
from destinations.mongo.projection.obs import record_id
from openmrs.identity import Identities, digits
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from passport.errors import Fatal, NotReady
from passport.kafka import Record
from passport.settings import Settings

_HOLDERS = """SELECT i.patient_id, i.identifier FROM patient_identifier i JOIN patient_identifier_type t
ON t.patient_identifier_type_id = i.identifier_type WHERE t.uuid = %s"""
_OWNER = re.compile(rb'"(?:person|patient)_id": ?(\d+)')


@dataclass(frozen=True, slots=True)
class Traces:
    """Of one hospital: whoever has the national id, and the uuid by obs_id of each of their
    observations there.
    """

    hospital: str
    persons: frozenset[int]
    observations: dict[int, str]

    def concern(self, letter: Record) -> bool:
        """Whether a dead letter is about one of them: by its person, its observation, or the obs_id
        in its key.
        """
        value, key = letter.value or b"", (letter.key or b"").decode(errors="replace")
        if dict(letter.headers).get("_dlq.hospital", b"").decode(errors="replace") == self.hospital:
            named = {int(number) for number in _OWNER.findall(value)}
            if named & self.persons or key.endswith(
                tuple(f"/{self.hospital}/{one}" for one in self.observations)
            ):
                return True
        return any(uuid.encode() in value for uuid in self.observations.values())


class Erasure:
    """Of one national id (10 to 16 digits), from one database. Fatal while the Passport has that
    patient; NotReady when a hospital is away or a consumer has yet to see that the patient has
    left: nothing is certain then.
    """

    def __init__(
        self, database: Mongo, settings: Settings, link_key: bytes, national_id: str
    ) -> None:
        self._db, self._settings = database, settings
        self._id, self._hash = national_id, hashed(link_key, national_id)
        with translate_errors():
            if database.patients.find_one({"nationalId": national_id}, {"_id": 1}) is not None:
                hint = "delete the account in the Passport (its users and patients), then: passport erase"
                raise Fatal("the Passport still has a patient with this national id", hint=hint)
        self.traces = [self._at(name) for name in settings.hospitals]
        self._people = [f"{one.hospital}/{person}" for one in self.traces for person in one.persons]
        with translate_errors():
            self._require_unlinked()
            self._left, self._records = self._known()

    def concerns(self, letter: Record) -> bool:
        return any(one.concern(letter) for one in self.traces)

    def queries(self) -> Iterator[tuple[str, str, Document]]:
        """(what, collection, which documents), in the order in which they may go."""
        theirs = [
            {"hospital": one.hospital, "personId": {"$in": list(one.persons)}}
            for one in self.traces
        ]
        shown = ["", *map(str, self._left)]
        yield (
            "records",
            "medicalrecords",
            {"_id": {"$in": self._records}, "patientId": {"$in": shown}},
        )
        yield "rows", "observations", {"$or": [*theirs, {"_id": None}]}
        yield "audit entries", "auditlogs", {"patient": {"$in": self._left}, "userAgent": AGENT}
        known = [{"_id": {"$in": self._people}}, {"idHash": self._hash}]
        yield "people", "people", {"patientId": None, "$or": known}

    def run(self, *, dry_run: bool) -> dict[str, int]:
        """How many documents of each sort are deleted, or would be."""
        done: dict[str, int] = {}
        with translate_errors():
            for what, collection, query in self.queries():
                of = self._db[collection]
                done[what] = (
                    of.count_documents(query) if dry_run else of.delete_many(query).deleted_count
                )
            if not dry_run:
                listing = {"medicalHistory": {"$in": self._records}}
                self._db.patients.update_many(listing, {"$pull": listing})
        return done

    def _at(self, hospital_id: str) -> Traces:
        hospital = self._settings.hospitals[hospital_id]
        with (
            closing(Source(hospital_id, hospital.mysql)) as source,
            source.read_at(ANY_POSITION) as reading,
        ):
            held = reading.rows(_HOLDERS, (hospital.national_id_type,))
            holders = {row["patient_id"] for row in held if digits(row["identifier"]) == self._id}
            linked = {"hospital": hospital_id, "idHash": self._hash}
            with translate_errors():
                holders |= {
                    one["personId"] for one in self._db.people.find(linked, {"personId": 1})
                }
            known = (
                Identities(hospital_id, hospital).read(reading, sorted(holders), "")
                if holders
                else {}
            )
            # Who has another id by now is somebody else, who once bore this one by mistake.
            persons = frozenset(
                one for one, who in known.items() if who.national_id in (None, self._id)
            )
            return Traces(hospital_id, persons, _observations(reading, persons))

    def _require_unlinked(self) -> None:
        mine = {"$or": [{"_id": {"$in": self._people}}, {"idHash": self._hash}]}
        unfinished = {"$or": [{"patientId": {"$ne": None}}, {"pending": {"$exists": True}}]}
        if self._db.people.find_one({"$and": [mine, unfinished]}, {"_id": 1}) is not None:
            hint = "it takes seconds while `passport consume` runs; passport status says whether it does"
            raise NotReady(
                "the consumers have yet to remove the records of a patient who has left", hint=hint
            )

    def _known(self) -> tuple[list[Any], list[ObjectId]]:
        """patients._id that nobody has any more and under which their records were shown, and all
        of those records.
        """
        pairs = [(one.hospital, uuid) for one in self.traces for uuid in one.observations.values()]
        records = {str(record_id(*pair)) for pair in pairs}
        patients = {one["patient"] for one in self._told({"record": {"$in": list(records)}})}
        there = {
            one["_id"]
            for one in self._db.patients.find({"_id": {"$in": list(patients)}}, {"_id": 1})
        }
        left = list(patients - there)
        also = {one["record"] for one in self._told({"patient": {"$in": left}})}
        return left, [ObjectId(one) for one in records | also if ObjectId.is_valid(one)]

    def _told(self, query: Document) -> Iterator[Document]:
        """Our audit entries that fit, with the hex of the `record` that each tells of."""
        record = {"$substrCP": ["$details", len("Record "), 24]}
        stages: list[Document] = [
            {"$match": {"userAgent": AGENT}},
            {"$set": {"record": record}},
            {"$match": query},
        ]
        yield from self._db.auditlogs.aggregate(
            [*stages, {"$project": {"patient": 1, "record": 1}}]
        )


def _observations(reading: ConsistentRead, persons: frozenset[int]) -> dict[int, str]:
    if not persons:
        return {}
    rows = reading.rows("SELECT obs_id, uuid FROM obs WHERE person_id IN %s", (sorted(persons),))
    return {row["obs_id"]: row["uuid"] for row in rows}
