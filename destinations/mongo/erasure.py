"""Erases what is left of somebody who has left the Passport, of all that this project writes.

The hospitals are asked who holds the national id, or held it, and which observations are theirs: a
tombstone names no more than an observation. What is found by others is deleted last, so that an
erasure that was interrupted can go on.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import Any

from bson import ObjectId
from pymongo import DeleteMany, UpdateMany

from destinations.mongo import progress
from destinations.mongo.auditlogs import AGENT
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from destinations.mongo.people import hashed
from destinations.mongo.projection.obs import record_id
from openmrs.identity import Identities
from openmrs.load_budget import PageSize, WaitingPace
from openmrs.load_share import LoadShare
from openmrs.national_id import read_national_id
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from passport.errors import Fatal, NotReady, TooSlow
from passport.kafka import Record
from passport.settings import Hospital, Settings

HOLDERS = """SELECT i.patient_identifier_id, i.patient_id, i.identifier FROM patient_identifier i
    JOIN patient_identifier_type t ON t.patient_identifier_type_id = i.identifier_type
    WHERE t.uuid = %s AND i.patient_identifier_id > %s
    ORDER BY i.patient_identifier_id LIMIT %s"""
IDENTIFIERS_AT_ONCE = 10_000
DELETED_AT_ONCE = 2_000
# Digits are compared as text: anybody may have parked so many of them that they make no number.
PERSON_OR_PATIENT_ID = re.compile(rb'"(?:person|patient)_id"\s*:\s*\[?\s*"?0*([0-9]+)')


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of somebody at one hospital: who holds the national id, and their observations.

    `observations` are the uuids of their rows of obs, by obs_id.
    """

    hospital: str
    persons: frozenset[int]
    observations: dict[int, str]

    def concern(self, letter: Record) -> bool:
        """Return whether a dead letter is about one of them.

        It may name the person or the observation's uuid, or have the obs_id in its key.
        """
        value = letter.value or b""
        key = (letter.key or b"").decode(errors="replace")
        hospital = dict(letter.headers).get("_dlq.hospital", b"").decode(errors="replace")
        if hospital == self.hospital:
            person_ids = {str(person_id).encode() for person_id in self.persons}
            if not person_ids.isdisjoint(PERSON_OR_PATIENT_ID.findall(value)):
                return True
            if any(key.endswith(f"/{hospital}/{obs_id}") for obs_id in self.observations):
                return True
        return any(uuid.encode() in value for uuid in self.observations.values())


class Erasure:
    """The erasure of one national id (10 to 16 digits) from one database.

    Opening it asks all hospitals. Raises Fatal while the Passport has that patient. Raises NotReady
    while nothing is certain: a hospital is away, or a consumer has yet to see that the patient has
    left.
    """

    def __init__(
        self, database: Mongo, settings: Settings, link_key: bytes, national_id: str
    ) -> None:
        self._db = database
        self._settings = settings
        self._id = national_id
        self._hash = hashed(link_key, national_id)
        with translate_errors():
            if database.patients.find_one({"nationalId": national_id}, {"_id": 1}) is not None:
                raise Fatal(
                    "the Passport still has a patient with this national id",
                    hint="delete the account in the Passport (its users and patients), "
                    "then: passport erase",
                )
        self.traces = [self._at(hospital_id) for hospital_id in settings.hospitals]
        self._people = [
            f"{traces.hospital}/{person_id}"
            for traces in self.traces
            for person_id in traces.persons
        ]
        with translate_errors():
            self._require_unlinked()
            self._former_patients, self._records = self._find_shown_records()
            self._entries = self._find_entries()

    def concerns(self, letter: Record) -> bool:
        """Return whether a dead letter is about the person, at any hospital."""
        return any(traces.concern(letter) for traces in self.traces)

    def queries(self) -> Iterator[tuple[str, str, Document]]:
        """Yield (kind, collection, query) in the order in which they may be deleted."""
        rows: list[Document] = [
            {"hospital": traces.hospital, "personId": {"$in": list(traces.persons)}}
            for traces in self.traces
        ]
        patient_ids = ["", *map(str, self._former_patients)]
        records = {"_id": {"$in": self._records}, "patientId": {"$in": patient_ids}}
        yield "records", "medicalrecords", records
        # An $or must not be empty, and no row has the _id None.
        yield "rows", "observations", {"$or": [*rows, {"_id": None}]}
        yield "kept edits", "keptedits", {"patientId": {"$in": patient_ids}}
        entries = [{"patient": {"$in": self._former_patients}}, {"_id": {"$in": self._entries}}]
        yield "audit entries", "auditlogs", {"userAgent": AGENT, "$or": entries}
        people = [{"_id": {"$in": self._people}}, {"idHash": self._hash}]
        yield "people", "people", {"patientId": None, "$or": people}

    def count(self) -> dict[str, int]:
        """Return how many documents of each kind `run` would delete."""
        with translate_errors():
            return {
                kind: self._db[name].count_documents(query) for kind, name, query in self.queries()
            }

    def run(self, fence: Fence) -> dict[str, int]:
        """Delete. Return how many documents of each kind are deleted.

        `fence` is that of all hospitals, taken before this was opened. Raises Overtaken when a
        consumer has taken one of them since: then open another erasure, which finds what is left.
        """
        numbers: dict[str, int] = {}
        # Who registers again has no link by then, and their older rows are here no more: from now
        # on a new link at one of these hospitals has its person read whole.
        progress.store_erased(
            self._db, [traces.hospital for traces in self.traces if traces.persons]
        )
        for kind, name, query in self.queries():
            with translate_errors():
                keys = [document["_id"] for document in self._db[name].find(query, {"_id": 1})]
            for start in range(0, len(keys), DELETED_AT_ONCE):
                deletion = DeleteMany({"_id": {"$in": keys[start : start + DELETED_AT_ONCE]}})
                fence.write([{name: [deletion]}])
            numbers[kind] = len(keys)
        listing = {"medicalHistory": {"$in": self._records}}
        fence.write([{"patients": [UpdateMany(listing, {"$pull": listing})]}])
        return numbers

    def _at(self, hospital_id: str) -> Traces:
        """Ask a hospital who holds the national id, or held it when their link was made."""
        hospital = self._settings.hospitals[hospital_id]
        with closing(Source(hospital_id, hospital.mysql)) as source:
            holders = self._holders(source, hospital)
            query = {"hospital": hospital_id, "idHash": self._hash}
            with translate_errors():
                linked = self._db.people.find(query, {"personId": 1})
                holders.update(person["personId"] for person in linked)
            if not holders:
                return Traces(hospital_id, frozenset(), {})
            with source.read_at(ANY_POSITION) as reading:
                people = Identities(hospital_id, hospital).read(reading, sorted(holders), "")
                # Who has another id by now is somebody else, who once bore this one by mistake.
                persons = frozenset(
                    person_id
                    for person_id, person in people.items()
                    if person.national_id in (None, self._id)
                )
                return Traces(hospital_id, persons, _observations(reading, persons))

    def _holders(self, source: Source, hospital: Hospital) -> set[int]:
        """Return who holds the national id, from all identifiers that the hospital has.

        They are read in pages: an ALTER at the hospital would wait for a longer read.
        """
        pace = WaitingPace(hospital.load_budget, Event(), share=LoadShare(source))
        size = PageSize(IDENTIFIERS_AT_ONCE)
        holders: set[int] = set()
        after = -1
        is_last = False
        while not is_last:
            limit = size.rows
            try:
                with source.read_at(ANY_POSITION, longest_s=size.longest_s) as reading:
                    rows = reading.rows(HOLDERS, (hospital.national_id_type, after, limit))
            except TooSlow:
                size.ended()
                continue
            size.answered(reading.worked_s)
            pace.spend(len(rows))
            holders.update(
                row["patient_id"] for row in rows if read_national_id(row["identifier"]) == self._id
            )
            is_last = len(rows) < limit
            if rows:
                after = rows[-1]["patient_identifier_id"]
        return holders

    def _require_unlinked(self) -> None:
        is_the_person = {"$or": [{"_id": {"$in": self._people}}, {"idHash": self._hash}]}
        is_unfinished = {"$or": [{"patientId": {"$ne": None}}, {"pending": {"$exists": True}}]}
        query = {"$and": [is_the_person, is_unfinished]}
        if self._db.people.find_one(query, {"_id": 1}) is not None:
            raise NotReady(
                "the consumers have yet to remove the records of a patient who has left",
                hint="it takes seconds while `passport consume` runs; "
                "passport status says whether it does",
            )

    def _find_shown_records(self) -> tuple[list[Any], list[ObjectId]]:
        """Return the patients under whom their records were shown, and all of those records.

        These are ``patients._id`` that no patient has any more. Our audit entries know them.
        """
        records = {
            str(record_id(traces.hospital, uuid))
            for traces in self.traces
            for uuid in traces.observations.values()
        }
        entries = self._audit_entries({"record": {"$in": list(records)}})
        patients = {entry["patient"] for entry in entries}
        existing = self._db.patients.find({"_id": {"$in": list(patients)}}, {"_id": 1})
        former_patients = list(patients - {patient["_id"] for patient in existing})
        for entry in self._audit_entries({"patient": {"$in": former_patients}}):
            records.add(entry["record"])
        return former_patients, [ObjectId(text) for text in records if ObjectId.is_valid(text)]

    def _find_entries(self) -> list[ObjectId]:
        """Return our audit entries about records that were theirs at last, whoever's before.

        A merge of two patients moves records from one account to the other.
        """
        records = [str(key) for key in self._records]
        entries = list(self._audit_entries({"record": {"$in": records}}))
        last_patients = {entry["record"]: entry["patient"] for entry in entries}
        return [
            entry["_id"]
            for entry in entries
            if last_patients[entry["record"]] in self._former_patients
        ]

    def _audit_entries(self, query: Document) -> Iterator[Document]:
        """Yield our audit entries that fit, the oldest first.

        Each has the hex of the `record` that it is about.
        """
        record = {"$substrCP": ["$details", len("Record "), 24]}
        stages: list[Document] = [
            {"$match": {"userAgent": AGENT}},
            {"$set": {"record": record}},
            {"$match": query},
            {"$sort": {"accessTime": 1}},
            {"$project": {"patient": 1, "record": 1}},
        ]
        yield from self._db.auditlogs.aggregate(stages)


def _observations(reading: ConsistentRead, persons: frozenset[int]) -> dict[int, str]:
    if not persons:
        return {}
    rows = reading.rows("SELECT obs_id, uuid FROM obs WHERE person_id IN %s", (sorted(persons),))
    return {row["obs_id"]: row["uuid"] for row in rows}
