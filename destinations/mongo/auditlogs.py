"""`auditlogs`: one entry for each change of a record's content, without any of the content.

An entry is written with the change that it tells of, or before it, under an _id that names what was
changed and its `rev`: a crash leaves no change untold, and trying again tells nothing twice.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from destinations.mongo.client import Mongo, bulk, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.record_update import Action, Change

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
        entry = database.auditlogs.find_one({"_id": entry_id(record, rev)}, {"patient": 1})
    return str(entry["patient"]) if entry is not None else None


def beside(change: Change, user: ObjectId, hospital_name: str, now: datetime) -> UpdateOne:
    """Return what writes the entry of a change in the same transaction, unless it is there."""
    document = entry(change, user, hospital_name, now)
    return UpdateOne({"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True)


def entry(change: Change, user: ObjectId, hospital_name: str, now: datetime) -> Document:
    """Return the entry of a change."""
    details = f"Record {change.id} {_DONE[change.action]} from OpenMRS of {hospital_name}"
    key = entry_id(change.id, change.rev)
    return shaped(key, user, _object_id(change.patient), change.action, details, now)


def entry_id(changed: ObjectId | str, rev: int) -> ObjectId:
    """Return the _id of the entry that tells how a document got this `rev`."""
    return ObjectId(sha256(f"{changed}/{rev}".encode()).digest()[:12])


def shaped(
    key: ObjectId,
    user: ObjectId,
    patient: ObjectId | str,
    action: Action,
    details: str,
    now: datetime,
) -> Document:
    """Return an entry of ours in the Passport's own shape."""
    return {
        "_id": key,
        "user": user,
        "patient": patient,
        "accessType": "regular",
        "action": action,
        "details": details[:1000],
        "accessTime": now,
        "userAgent": AGENT,
    }


@lru_cache(4096)
def _object_id(patient: str) -> ObjectId | str:
    """Return ``patients._id``. Releases before this one took one that is no ObjectId, too."""
    return ObjectId(patient) if ObjectId.is_valid(patient) else patient
