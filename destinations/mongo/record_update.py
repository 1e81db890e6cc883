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
    """One write to `medicalrecords`, which happens only if record `id` is still as it was read.

    `patient` says whose record it is or was. If the record isn't there, `seen` is None and `write`
    is the document; else `seen` is a query and `write` an update of what it finds.
    """

    id: ObjectId
    action: Action
    patient: str
    rev: int  # of the record after this change
    seen: Document | None
    write: Document

    @property
    def operation(self) -> InsertOne[Document] | UpdateOne:
        if self.seen is None:
            return InsertOne(self.write)
        return UpdateOne(self.seen, self.write)


def claim(key: ObjectId, hospital_id: str, uuid: str, now: datetime) -> Document:
    """Return an empty record that no reader sees.

    It takes the place of one that somebody might be about to insert.
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
    """Return what makes `old` into `new`, or into a tombstone if `new` is None.

    Returns None when there is nothing to do.
    """
    if new is None:
        return _removal(old, hospital_id, now) if old and old["patientId"] else None
    if old is None:
        return _insert(new)
    if not old["patientId"]:
        return _restoration(old, new)
    return _edited_update(old, new) if edited(old) else _update(old, new)


def edited(record: Document) -> bool:
    """Return whether a person has changed the record in the Passport."""
    edited_at = record.get("lastEditedAt")
    if edited_at is None:
        return False
    synced_at = record.get("syncDate")
    return synced_at is None or edited_at > synced_at


def applied(document: Document) -> str:
    """Return the digest of the hospital's values in a projected record."""
    values = bson.encode({"type": document["type"], "data": document["data"]})
    return blake2b(values, digest_size=9).hexdigest()


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
    """Return what fills a tombstone or a claim. The dates of a record of before are kept."""
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
    data = document["data"]
    if document["type"] == "medication":
        data = data | {"medicationStatus": "Active"}
    return document | {"data": data, "applied": applied(document)}


def _guarded(old: Document, action: Action, patient: str, update: Document) -> Change:
    # The Passport doesn't know `rev`. A person's edit of the record is seen by `lastEditedAt`.
    seen = {"_id": old["_id"], "rev": old["rev"], "lastEditedAt": old.get("lastEditedAt")}
    return Change(old["_id"], action, patient, old["rev"] + 1, seen, update)


def _update(old: Document, new: Projected) -> Change | None:
    """Return what brings a record up to date that nobody has edited. Only what differs is set."""
    changed = _differing(old, new.document, ("patientId", "type", "createdBy", "openmrsData"))
    old_data = old.get("data") or {}
    new_data = new.document["data"]
    for name, value in new_data.items():
        if old_data.get(name) != value:
            changed[f"data.{name}"] = value
    gone: Document = {}
    for name in old_data:
        if name not in new_data and name not in PASSPORT_OWNED:
            gone[f"data.{name}"] = ""
    if not changed and not gone:
        return None
    changed["applied"] = applied(new.document)
    return _changed(old, new, changed, gone)


def _edited_update(old: Document, new: Projected) -> Change | None:
    """Return what brings a record up to date that a person has edited: `data` stays as it is.

    Newer values of the hospital wait beside it, as ``openmrsData.pending``, for a decision.
    """
    document = new.document
    if applied(document) != old.get("applied"):
        openmrs_data = document["openmrsData"] | {"pending": document["data"]}
        document = document | {"openmrsData": openmrs_data}
    changed = _differing(old, document, ("patientId", "createdBy", "openmrsData"))
    return _changed(old, new, changed, {}) if changed else None


def _differing(old: Document, new: Document, names: tuple[str, ...]) -> Document:
    return {name: new[name] for name in names if old.get(name) != new[name]}


def _changed(old: Document, new: Projected, changed: Document, gone: Document) -> Change:
    update: Document = {"$set": changed, "$inc": {"rev": 1}}
    if gone:
        update["$unset"] = gone
    return _guarded(old, "update", new.document["patientId"], update)
