"""`auditlogs`: one entry for each change of a record's content, without any of the content.

Entries are written before the change that they tell of, under an _id that names record and `rev`: a
crash between the two leaves no change untold, and trying again tells nothing twice.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from destinations.mongo.client import Mongo, bulk, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.record_update import Change

AGENT = "openmrs-passport"  # as `userAgent`: what tells our entries from the Passport's
_DONE = {"create": "created", "update": "updated", "delete": "removed"}


def write(
    database: Mongo, changes: Iterable[Change], user: ObjectId, hospital_name: str, now: datetime
) -> None:
    """Write the entries of `changes`, as done by the hospital's own user `user`.

    An entry that is there already is left. Raises Retry, NotReady or Fatal.
    """
    entries = [entry(change, user, hospital_name, now) for change in changes]
    bulk(database.auditlogs, [InsertOne(document) for document in entries])


def patient_of(database: Mongo, record: ObjectId, rev: int) -> str | None:
    """Return whose record it was (hex of ``patients._id``) at the change that gave it this `rev`.

    None if there is no such entry any more.
    """
    with translate_errors():
        entry = database.auditlogs.find_one({"_id": _entry_id(record, rev)}, {"patient": 1})
    return str(entry["patient"]) if entry is not None else None


def beside(change: Change, user: ObjectId, hospital_name: str, now: datetime) -> UpdateOne:
    """Return what writes the entry of a change in the same transaction, unless it is there."""
    document = entry(change, user, hospital_name, now)
    return UpdateOne({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)


def entry(change: Change, user: ObjectId, hospital_name: str, now: datetime) -> Document:
    """Return the entry of a change in the Passport's own shape."""
    record = str(change.id)
    return {
        "_id": _entry_id(change.id, change.rev),
        "user": user,
        "patient": _object_id(change.patient),
        "accessType": "regular",
        "action": change.action,
        "details": f"Record {record} {_DONE[change.action]} from OpenMRS of {hospital_name}"[:1000],
        "accessTime": now,
        "userAgent": AGENT,
    }


def _entry_id(record: ObjectId, rev: int) -> ObjectId:
    return ObjectId(sha256(f"{record}/{rev}".encode()).digest()[:12])


@lru_cache(4096)
def _object_id(patient: str) -> ObjectId | str:
    """Return ``patients._id``. Releases before this one took one that is no ObjectId, too."""
    return ObjectId(patient) if ObjectId.is_valid(patient) else patient
