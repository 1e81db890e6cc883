"""Writes `keptedits`: what the Passport owns of a record while its patient doesn't see it.

A doctor's edit belongs to one patient. When the record is hidden (voided at the hospital, an
identifier that two patients hold) or becomes another patient's, the edit can stay neither in the
record nor in its tombstone: readers of the Passport get every field of what they find. It waits
here, where none of them looks, and goes back into the record when that returns to the same patient.

``{_id: "<record>/<patient>", record, patientId, hospital, personId, rev, data, editableBy,
lastEditedAt}``, of an edited record also ``type`` and ``applied``. `data` has what a person or the
Passport itself has written, and nothing that the hospital has. A document stays until the record
returns, the patient leaves the Passport, or somebody is erased.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import DeleteOne, ReplaceOne

from destinations.mongo import auditlogs, record_update
from destinations.mongo.client import ALL, Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.record_update import Change

# A request of the Passport that began before a record was hidden has ended long before.
LATE = timedelta(days=1)

KeptEditMove = ReplaceOne[Any] | DeleteOne


def read(database: Mongo, records: Collection[ObjectId]) -> dict[ObjectId, list[Document]]:
    """Return what is kept of these records, by record. Each patient has a document of their own."""
    kept: dict[ObjectId, list[Document]] = {}
    with translate_errors():
        query = {"record": {"$in": list(records)}}
        for document in database.keptedits.find(query, batch_size=ALL):
            kept.setdefault(document["record"], []).append(document)
    return kept


def moves(database: Mongo, changes: Sequence[Change]) -> list[list[KeptEditMove]]:
    """Return, for each change of a record, what stores and deletes kept edits together with it.

    Nothing is stored for patients who have left the Passport.
    """
    leaving = {change.leaves["patientId"] for change in changes if change.leaves is not None}
    patients = _registered(database, leaving)
    moved: list[list[KeptEditMove]] = []
    for change in changes:
        of_change: list[KeptEditMove] = []
        kept = change.leaves
        if kept is not None and kept["patientId"] in patients:
            of_change.append(ReplaceOne({"_id": kept["_id"]}, kept, upsert=True))
        if change.obsolete is not None:
            of_change.append(DeleteOne({"_id": change.obsolete["_id"]}))
        moved.append(of_change)
    return moved


def settle_late_writes(database: Mongo) -> None:
    """Empty tombstones into which the Passport has written since.

    Its code reads a record, and writes what has changed under the `_id` alone. If the record is
    hidden in between, the status of a medicine, or a doctor's whole edit, comes into the tombstone.
    Such an edit is kept as one of the patient who saw the record until then.

    An earlier release that is used again leaves `stated` in its tombstones.
    """
    recent = datetime.now(UTC) - LATE
    with translate_errors():
        written = {"$or": [{"data": {"$ne": {}}}, {"stated": {"$exists": True}}]}
        query = {"removedAt": {"$gt": recent}, **written}
        for tombstone in database.medicalrecords.find(query):
            if tombstone.get("lastEditedAt") is not None:
                _keep_late_edit(database, tombstone)
            still_hidden = {
                "_id": tombstone["_id"],
                "removedAt": tombstone["removedAt"],
                "lastEditedAt": tombstone.get("lastEditedAt"),
            }
            emptied = {
                "$set": {"data": {}, "editableBy": []},
                "$unset": {"lastEditedAt": "", "stated": ""},
            }
            database.medicalrecords.update_one(still_hidden, emptied)


def _keep_late_edit(database: Mongo, tombstone: Document) -> None:
    """Keep an edit that came into a tombstone, with all of its `data`.

    What of it is the hospital's isn't known any more.
    """
    patient = auditlogs.patient_of(database, tombstone["_id"], tombstone["rev"])
    if patient is None or not _registered(database, {patient}):
        return
    record = tombstone | {"patientId": patient}
    kept = record_update.owned(record)
    if kept is not None:
        kept["rev"] = tombstone["rev"]
        database.keptedits.replace_one({"_id": kept["_id"]}, kept, upsert=True)


def forget_patient(database: Mongo, patient: str) -> None:
    """Delete what is kept of a patient (hex of ``patients._id``) who has left the Passport."""
    with translate_errors():
        database.keptedits.delete_many({"patientId": patient})


def forget_former_patients(database: Mongo) -> None:
    """Delete what is kept of everybody who isn't in `patients` any more."""
    with translate_errors():
        patients = set(database.keptedits.distinct("patientId"))
    for patient in patients - _registered(database, patients):
        forget_patient(database, patient)


def _registered(database: Mongo, patients: Collection[str]) -> set[str]:
    """Return those of the patients (hex of ``patients._id``) whom the Passport has."""
    if not patients:
        return set()
    ids = [ObjectId(patient) for patient in patients if ObjectId.is_valid(patient)]
    with translate_errors():
        documents = database.patients.find({"_id": {"$in": ids}}, {"_id": 1}, batch_size=ALL)
        return {str(document["_id"]) for document in documents}
