"""`auditlogs`: one entry for each change of a record's content, without any of the content.

A change and its entry are one transaction. The entry's _id names what was changed and its `rev`, so
that the last entry of a record says how it ended, even if the record isn't there any more.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from bson import ObjectId
from pymongo import InsertOne, ReplaceOne

from destinations.mongo.client import ALL, Mongo, bulk, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.record_update import Action, Change

AGENT = "openmrs-passport"  # as `userAgent`: what tells our entries from the Passport's
REVS_AT_ONCE = 16  # entries of a record that are looked for together
_DONE = {"create": "created", "update": "updated", "delete": "removed"}


def write(
    database: Mongo, changes: Iterable[Change], user: ObjectId, hospital_name: str, now: datetime
) -> None:
    """Write the entries of `changes`, as done by the hospital's own user `user`.

    An entry that is there already is left. Raises Retry, NotReady or Fatal.
    """
    entries = [entry(change, user, hospital_name, now) for change in changes]
    bulk(database.auditlogs, [InsertOne(document) for document in entries])


def beside(
    change: Change, user: ObjectId, hospital_name: str, now: datetime
) -> InsertOne[Document] | ReplaceOne[Document]:
    """Return what writes the entry of a change in the same transaction.

    An entry of a record that was there before refuses the insert of that record. Any other entry of
    this `rev` is of a change that didn't happen.
    """
    document = entry(change, user, hospital_name, now)
    if change.seen is None:
        return InsertOne(document)
    return ReplaceOne({"_id": document["_id"]}, document, upsert=True)


def last_entries(
    database: Mongo, records: Collection[ObjectId]
) -> dict[ObjectId, tuple[int, Action]]:
    """Return `rev` and action of the last entry of each of these records that has one."""
    last: dict[ObjectId, tuple[int, Action]] = {}
    left = set(records)
    first_rev = 1
    while left:
        entries: dict[ObjectId, tuple[ObjectId, int]] = {}
        for record in left:
            for rev in range(first_rev, first_rev + REVS_AT_ONCE):
                entries[entry_id(record, rev)] = (record, rev)
        with translate_errors():
            query = {"_id": {"$in": list(entries)}}
            for document in database.auditlogs.find(query, {"action": 1}, batch_size=ALL):
                record, rev = entries[document["_id"]]
                if record not in last or last[record][0] < rev:
                    last[record] = (rev, document["action"])
        first_rev += REVS_AT_ONCE
        # Each change has the next `rev`. So these may have more entries.
        left = {record for record in left if record in last and last[record][0] == first_rev - 1}
    return last


def patient_of(database: Mongo, record: ObjectId, rev: int) -> str | None:
    """Return whose record it was (hex of ``patients._id``) at the change that gave it this `rev`.

    None if there is no such entry any more.
    """
    with translate_errors():
        entry = database.auditlogs.find_one({"_id": entry_id(record, rev)}, {"patient": 1})
    return str(entry["patient"]) if entry is not None else None


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
