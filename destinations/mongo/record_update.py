"""The difference between a record as it is and as it should be, as one guarded update. Pure.

Beside the Passport's own fields a record holds `rev` (grows with each of our writes), `applied`
(digest of what the hospital's values were when `data` was last set: newer ones differ from it) and,
on tombstones, `removedAt`.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

import bson
from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from destinations.mongo.document import Document
from destinations.mongo.projection.obs import Projected

Action = Literal["create", "update", "delete"]

PASSPORT_OWNED = frozenset({"medicationStatus"})  # within data; see docs/reference/records.md


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written where record `id` is still as read. `patient`: whose record it is or
    was.

    `seen` None: the record isn't there, and `write` is the document; else `write` is an update of
    what `seen` finds.
    """

    id: ObjectId
    action: Action
    patient: str
    rev: int  # of the record after this change
    seen: Document | None
    write: Document

    @property
    def operation(self) -> InsertOne[Document] | UpdateOne:
        return InsertOne(self.write) if self.seen is None else UpdateOne(self.seen, self.write)


def claim(key: ObjectId, hospital_id: str, uuid: str, now: datetime) -> Document:
    """An empty record, invisible to readers, in the place of one that might be about to be
    inserted.
    """
    return {
        "_id": key,
        "patientId": "",
        "data": {},
        "rev": 0,
        "removedAt": now,
        **_emptied(hospital_id, uuid),
    }


def change(
    old: Document | None, new: Projected | None, hospital_id: str, now: datetime
) -> Change | None:
    """What makes `old` into `new` (None: into a tombstone); None when there is nothing to do."""
    if new is None:
        return _removal(old, hospital_id, now) if old and old["patientId"] else None
    if old is None:
        return _insert(new)
    if not old["patientId"]:
        return _restoration(old, new)
    return _edited_update(old, new) if edited(old) else _update(old, new)


def edited(record: Document) -> bool:
    """Whether a person has changed the record in the Passport."""
    at, synced = record.get("lastEditedAt"), record.get("syncDate")
    return at is not None and (synced is None or at > synced)


def applied(document: Document) -> str:
    """Digest of the hospital's values in a projected record."""
    return blake2b(
        bson.encode({"type": document["type"], "data": document["data"]}), digest_size=9
    ).hexdigest()


def _emptied(hospital_id: str, uuid: str) -> Document:
    return {"openmrsData": {"hospitalId": hospital_id, "obsUuid": uuid}}


def _removal(old: Document, hospital_id: str, now: datetime) -> Change:
    emptied = _emptied(hospital_id, old["openmrsData"]["obsUuid"])
    update = {
        "$set": {"patientId": "", "data": {}, "removedAt": now, **emptied},
        "$unset": {"lastEditedAt": "", "applied": ""},
        "$inc": {"rev": 1},
    }
    return _guarded(old, "delete", old["patientId"], update)


def _insert(new: Projected) -> Change:
    document = {"_id": new.id, "rev": 1, **_born(new), **_fields(new)}
    return Change(new.id, "create", new.document["patientId"], 1, None, document)


def _restoration(old: Document, new: Projected) -> Change:
    """Of a tombstone or a claim; the dates of a record that was there before are kept."""
    fields = {name: value for name, value in _born(new).items() if name not in old} | _fields(new)
    update = {"$set": fields, "$unset": {"removedAt": "", "lastEditedAt": ""}, "$inc": {"rev": 1}}
    return _guarded(old, "create", new.document["patientId"], update)


def _born(new: Projected) -> Document:
    return {
        "editableBy": [],
        "syncDate": new.created,
        "createdAt": new.created,
        "updatedAt": new.created,
    }


def _fields(new: Projected) -> Document:
    document = new.document
    data = document["data"] | (
        {"medicationStatus": "Active"} if document["type"] == "medication" else {}
    )
    return document | {"data": data, "applied": applied(document)}


def _guarded(old: Document, action: Action, patient: str, update: Document) -> Change:
    seen = {"_id": old["_id"], "rev": old["rev"], "lastEditedAt": old.get("lastEditedAt")}
    return Change(old["_id"], action, patient, old["rev"] + 1, seen, update)


def _update(old: Document, new: Projected) -> Change | None:
    put = _differing(old, new.document, ("patientId", "type", "createdBy", "openmrsData"))
    have, want = old.get("data") or {}, new.document["data"]
    put |= {f"data.{key}": value for key, value in want.items() if have.get(key) != value}
    gone = {f"data.{key}": "" for key in have if key not in want and key not in PASSPORT_OWNED}
    if not put and not gone:
        return None
    put["applied"] = applied(new.document)
    return _changed(old, new, put, gone)


def _edited_update(old: Document, new: Projected) -> Change | None:
    document = new.document
    if applied(document) != old.get("applied"):
        document = document | {
            "openmrsData": document["openmrsData"] | {"pending": document["data"]}
        }
    put = _differing(old, document, ("patientId", "createdBy", "openmrsData"))
    return _changed(old, new, put, {}) if put else None


def _differing(old: Document, new: Document, names: tuple[str, ...]) -> Document:
    return {name: new[name] for name in names if old.get(name) != new[name]}


def _changed(old: Document, new: Projected, put: Document, gone: Document) -> Change:
    update: Document = {"$set": put, "$inc": {"rev": 1}} | ({"$unset": gone} if gone else {})
    return _guarded(old, "update", new.document["patientId"], update)
