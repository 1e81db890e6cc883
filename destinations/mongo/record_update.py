"""The difference between a record as it is and as it should be, as one guarded update. Pure.

Beside the Passport's own fields a record holds `rev` (grows with each of our writes), `applied`
(digest of what the hospital's values were when `data` was last set: newer ones differ from it),
`stated` (the same field by field, so that a person's words are told from the hospital's) and, on
tombstones, `removedAt`, or `deletedAt` if a person has deleted the record in the Passport.

What the Passport owns of a record belongs to one patient. When the record is hidden, or becomes
another patient's, it goes into `keptedits` and waits there for the record's return.
"""

import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal
from zlib import crc32

import bson
from bson import ObjectId
from pymongo import InsertOne, UpdateOne

from destinations.mongo.document import Document
from destinations.mongo.projection.obs import Projected

Action = Literal["create", "update", "delete"]

# Fields within data that the Passport writes by itself, most of them when somebody merely reads a
# record: see docs/reference/records.md.
PASSPORT_OWNED = frozenset({"medicationStatus", "medications"})
_UNTOUCHED: tuple[Any, ...] = ("Active", [])  # their values before the Passport has written them

# As a record's `applied`: nothing that the hospital says was ever shown. So the hospital's values
# count as newer than an edit, and whoever decides sees both.
NEVER_APPLIED = "0" * 18

_CHECKSUM = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Change:
    """One write to `medicalrecords`, which happens only if record `id` is still as it was read.

    `patient` says whose record it is or was. If the record isn't there, `seen` is None and `write`
    is the document; else `seen` is a query and `write` an update of what it finds.

    Two documents of `keptedits` may belong to it, in the same transaction. `leaves` is stored.
    `obsolete` is deleted, since it is part of the record now, or out of date.
    """

    id: ObjectId
    action: Action
    patient: str
    rev: int  # of the record after this change
    seen: Document | None
    write: Document
    leaves: Document | None = None
    obsolete: Document | None = None

    @property
    def operation(self) -> InsertOne[Document] | UpdateOne:
        if self.seen is None:
            return InsertOne(self.write)
        return UpdateOne(self.seen, self.write)


def tombstone(
    insert: Change, rev: int, hospital_id: str, now: datetime, *, is_deleted: bool
) -> Document:
    """Return a tombstone for the place of a record that is to be inserted, and was there before.

    `is_deleted` says that a person has deleted the record in the Passport. Then it is a conflict,
    and isn't shown again before somebody decides so.
    """
    openmrs = insert.write["openmrsData"]
    document: Document = {
        "_id": insert.id,
        "patientId": "",
        "data": {},
        "editableBy": [],
        "rev": rev,
        "openmrsData": {"hospitalId": hospital_id, "obsUuid": openmrs["obsUuid"]},
    }
    if is_deleted:
        document["openmrsData"] |= {"personId": openmrs["personId"], "pending": {}}
        return document | {"deletedAt": now}
    return document | {"removedAt": now}


def change(
    old: Document | None,
    new: Projected | None,
    kept: Iterable[Document],
    hospital_id: str,
    now: datetime,
) -> Change | None:
    """Return what makes `old` into `new`, or into a tombstone if `new` is None.

    `kept` are the documents of `keptedits` of this record. Returns None when there is nothing to
    do.
    """
    kept = list(kept)
    if new is None:
        return _removal(old, kept, hospital_id, now) if old and old["patientId"] else None
    if old is not None and "deletedAt" in old:
        return None
    returned = _of_patient(kept, new.document["patientId"], new.merged)
    if old is None or not old["patientId"]:
        # What is kept outlives a tombstone. So a record that begins again goes on after it.
        rev = 1 + max([old["rev"] if old else 0, *(document["rev"] for document in kept)])
        if old is None:
            return _insert(new, returned, rev)
        return _restoration(old, new, returned, rev)
    has_moved = old["patientId"] != new.document["patientId"]
    if has_moved and old["openmrsData"].get("personId") not in new.merged:
        return _handover(old, new, returned)
    return _edited_update(old, new) if edited(old) else _update(old, new)


def edited(record: Document) -> bool:
    """Return whether a person has changed the record in the Passport.

    The Passport dates each edit. Wherever our values take an edit's place, we remove that date. So
    no clock is asked: that of a hospital may be ahead of the Passport's.
    """
    return record.get("lastEditedAt") is not None


def changes_hands(old: Document | None, new: Projected | None) -> bool:
    """Return whether a record is shown to somebody else after a change, or to nobody."""
    before = old["patientId"] if old is not None else ""
    after = new.document["patientId"] if new is not None else ""
    return bool(before != after)


def applied(document: Document) -> str:
    """Return the digest of the hospital's values in a projected record."""
    values = bson.encode({"type": document["type"], "data": document["data"]})
    return blake2b(values, digest_size=9).hexdigest()


def stated(data: Mapping[str, Any]) -> bytes:
    """Return what tells the hospital's fields of `data`: 4 bytes of each, in no useful order."""
    return b"".join(_checksum(name, value) for name, value in data.items())


def _checksum(name: str, value: Any) -> bytes:
    return _CHECKSUM.pack(crc32(f"{name}={value}".encode()))


# --- what the Passport owns


def owned(record: Document) -> Document | None:
    """Return what the Passport owns of a record that leaves its patient, None if that is nothing.

    Of `data` these are the fields that a person has written: a hidden record keeps nothing of the
    hospital's. Records of an older release don't know which ones. Of these all are kept.
    """
    openmrs = record["openmrsData"]
    is_edited = edited(record)
    data: Document = {}
    for name, value in record["data"].items():
        if name in PASSPORT_OWNED:
            if value not in _UNTOUCHED:
                data[name] = value
        elif is_edited and not _is_stated(name, value, record.get("stated")):
            data[name] = value
    editable_by = record.get("editableBy") or []
    if not (data or editable_by or is_edited):
        return None
    kept: Document = {
        "_id": f"{record['_id']}/{record['patientId']}",
        "record": record["_id"],
        "patientId": record["patientId"],
        "hospital": openmrs["hospitalId"],
        "personId": openmrs.get("personId"),
        "rev": record["rev"] + 1,
        "data": data,
        "editableBy": editable_by,
        "lastEditedAt": record.get("lastEditedAt"),
    }
    if is_edited:
        kept |= {"type": record["type"], "applied": record.get("applied", NEVER_APPLIED)}
    return kept


def _is_stated(name: str, value: Any, checksums: bytes | None) -> bool:
    """Return whether this field is as the hospital had it when we last set `data`."""
    if checksums is None:
        return False
    wanted = _checksum(name, value)
    places = range(0, len(checksums), _CHECKSUM.size)
    return any(checksums[place : place + _CHECKSUM.size] == wanted for place in places)


def _of_patient(
    kept: Iterable[Document], patient: str, merged: Collection[int] = ()
) -> Document | None:
    """Return what was kept of the record when `patient` last saw it.

    Else what was kept when somebody saw it whom the hospital has merged into this person since.
    """
    of_merged: Document | None = None
    for document in kept:
        if document["patientId"] == patient:
            return document
        if document["personId"] in merged:
            of_merged = document
    return of_merged


def _with_owned(new: Projected, kept: Document | None) -> Document:
    """Return the fields of a record that is shown again, with what was kept of it."""
    fields = _fields(new)
    if kept is None:
        return fields
    fields["data"] = fields["data"] | kept["data"]
    fields["editableBy"] = kept["editableBy"]
    if kept["lastEditedAt"] is None:
        return fields
    fields |= {"lastEditedAt": kept["lastEditedAt"], "type": kept["type"]}
    if kept["applied"] != fields["applied"]:
        fields["openmrsData"] = _with_pending(new.document)
    fields["applied"] = kept["applied"]
    return fields


def _with_pending(document: Document) -> Document:
    """Return `openmrsData` with the hospital's values, which wait there for a decision."""
    openmrs: Document = document["openmrsData"]
    return openmrs | {"pending": document["data"], "pendingType": document["type"]}


# --- the changes


def _removal(old: Document, kept: Iterable[Document], hospital_id: str, now: datetime) -> Change:
    update = {
        "$set": {
            "patientId": "",
            "data": {},
            "editableBy": [],
            "openmrsData": {"hospitalId": hospital_id, "obsUuid": old["openmrsData"]["obsUuid"]},
            "removedAt": now,
        },
        "$unset": {"lastEditedAt": "", "applied": "", "stated": ""},
        "$inc": {"rev": 1},
    }
    patient = old["patientId"]
    leaves = owned(old)
    # A crash may have left something of the time before.
    obsolete = _of_patient(kept, patient) if leaves is None else None
    rev = old["rev"] + 1
    return Change(old["_id"], "delete", patient, rev, _as_read(old), update, leaves, obsolete)


def _insert(new: Projected, returned: Document | None, rev: int) -> Change:
    document = {"_id": new.id, "rev": rev, **_born(new), **_with_owned(new, returned)}
    patient = new.document["patientId"]
    return Change(new.id, "create", patient, rev, None, document, obsolete=returned)


def _restoration(old: Document, new: Projected, returned: Document | None, rev: int) -> Change:
    """Return what fills a tombstone. The dates of a record of before are kept."""
    fields = {name: value for name, value in _born(new).items() if name not in old}
    fields |= _with_owned(new, returned) | {"rev": rev}
    update = _set_and_unset(fields, ("removedAt", "lastEditedAt"))
    patient = new.document["patientId"]
    return Change(old["_id"], "create", patient, rev, _as_read(old), update, obsolete=returned)


def _handover(old: Document, new: Projected, returned: Document | None) -> Change:
    """Return what makes the record of one patient that of another.

    What the Passport owns of it stays behind, but for the status of a medicine, which only says how
    old it is.
    """
    rev = old["rev"] + 1
    fields: Document = {"editableBy": [], **_with_owned(new, returned), "rev": rev}
    status = old["data"].get("medicationStatus")
    if status is not None and new.document["type"] == "medication":
        returned_data = returned["data"] if returned is not None else {}
        fields["data"] = fields["data"] | {"medicationStatus": status} | returned_data
    update = _set_and_unset(fields, ("lastEditedAt",))
    patient = new.document["patientId"]
    leaves = owned(old)
    return Change(old["_id"], "update", patient, rev, _as_read(old), update, leaves, returned)


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
        is_past = document["openmrsData"].get("state") == "past"
        data = data | {"medicationStatus": "Past" if is_past else "Active"}
    return document | {
        "data": data,
        "applied": applied(document),
        "stated": stated(document["data"]),
    }


def _set_and_unset(fields: Document, gone: Iterable[str]) -> Document:
    """Return an update that sets `fields` and unsets those of `gone` that are not among them."""
    update: Document = {"$set": fields}
    if unset := {name: "" for name in gone if name not in fields}:
        update["$unset"] = unset
    return update


def _as_read(old: Document) -> Document:
    """Return the query that finds a record only as long as it is as it was read."""
    # The Passport doesn't know `rev`. A person's edit of the record is seen by `lastEditedAt`.
    return {"_id": old["_id"], "rev": old["rev"], "lastEditedAt": old.get("lastEditedAt")}


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
    changed["stated"] = stated(new_data)
    return _changed(old, new, changed, gone)


def _edited_update(old: Document, new: Projected) -> Change | None:
    """Return what brings a record up to date that a person has edited: `data` stays as it is.

    Newer values of the hospital wait beside it, as ``openmrsData.pending``, for a decision.
    """
    document = new.document
    if applied(document) != old.get("applied"):
        document = document | {"openmrsData": _with_pending(document)}
    changed = _differing(old, document, ("patientId", "createdBy", "openmrsData"))
    if "stated" not in old and applied(document) == old.get("applied"):
        # A record of an older release.
        changed["stated"] = stated(document["data"])
    return _changed(old, new, changed, {}) if changed else None


def _differing(old: Document, new: Document, names: tuple[str, ...]) -> Document:
    return {name: new[name] for name in names if old.get(name) != new[name]}


def _changed(old: Document, new: Projected, changed: Document, gone: Document) -> Change:
    update: Document = {"$set": changed, "$inc": {"rev": 1}}
    if gone:
        update["$unset"] = gone
    patient = new.document["patientId"]
    return Change(old["_id"], "update", patient, old["rev"] + 1, _as_read(old), update)
