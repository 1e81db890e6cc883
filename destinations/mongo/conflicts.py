"""Lists and resolves conflicts.

A conflict is a record that a person has edited in the Passport and for which the hospital has newer
values, or one that a person has deleted there although the hospital has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from bson import ObjectId

from destinations.mongo import auditlogs
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import ask_for
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.record_update import PASSPORT_OWNED, Change, applied, stated
from passport.errors import Fatal, Retry
from passport.settings import Hospital

Keep = Literal["passport", "hospital"]
_PENDING = {"openmrsData.pending": {"$exists": True}}


@dataclass(frozen=True, slots=True)
class Conflict:
    """One record that waits for a decision; `id` is the hex of its _id.

    `type` is ``deleted`` of a record that was deleted in the Passport.

    `fields` are the names within `data` that differ, and ``type`` if the record's type does. `ours`
    and `theirs` are their values in the Passport and at the hospital.
    """

    id: str
    hospital: str
    type: str
    edited_at: datetime | None
    fields: tuple[str, ...]
    ours: dict[str, Any]
    theirs: dict[str, Any]


def of_hospital(hospital: str) -> Document:
    """Return the query for the records of a hospital that wait for a decision."""
    return {"openmrsData.hospitalId": hospital} | _PENDING


def listed(database: Mongo, hospital: str) -> Iterator[Conflict]:
    """Yield the conflicts of one hospital, the oldest edit first."""
    with translate_errors():
        for record in database.medicalrecords.find(of_hospital(hospital)).sort("lastEditedAt"):
            yield _conflict(record)


def one(database: Mongo, record_id: str) -> Conflict:
    """Return the conflict of a record, by the hex of its _id. Raises Fatal when there is none."""
    return _conflict(_read(database, record_id))


def resolve(database: Mongo, hospital: Hospital, record_id: str, keep: Keep) -> None:
    """Keep one side: `passport` until the hospital says something else again, or `hospital`.

    Raises Fatal when there is no such conflict, Retry when the record has just changed.
    """
    record = _read(database, record_id)
    if "deletedAt" in record:
        _resolve_deleted(database, record, keep)
        return
    openmrs = record["openmrsData"]
    update = _keep_passport(record) if keep == "passport" else _keep_hospital(record)
    seen = {"_id": record["_id"], "rev": record["rev"], "lastEditedAt": record["lastEditedAt"]}
    change = Change(record["_id"], "update", record["patientId"], record["rev"] + 1, seen, update)
    user = Authors(database, openmrs["hospitalId"], hospital).system
    auditlogs.write(database, [change], user, hospital.name, datetime.now(UTC))
    with translate_errors():
        if not database.medicalrecords.update_one(seen, update).matched_count:
            raise Retry(f"record {record_id} has just been changed")
        if keep == "hospital":
            # Its author may be another too. That comes with the next projection.
            ask_for(database, [f"{openmrs['hospitalId']}/{openmrs['personId']}"])


def _resolve_deleted(database: Mongo, record: Document, keep: Keep) -> None:
    """Keep a record deleted for good, or let it be shown again when its person is read."""
    openmrs = record["openmrsData"]
    decided = {"openmrsData.pending": ""}
    update: Document = {"$unset": decided}
    if keep == "hospital":
        as_hidden = {"deletedAt": "", "openmrsData.personId": ""}
        update = {"$unset": decided | as_hidden, "$set": {"removedAt": datetime.now(UTC)}}
    seen = {"_id": record["_id"], "rev": record["rev"], "deletedAt": record["deletedAt"]}
    with translate_errors():
        if not database.medicalrecords.update_one(seen, update).matched_count:
            raise Retry(f"record {record['_id']} has just been changed")
        if keep == "hospital":
            ask_for(database, [f"{openmrs['hospitalId']}/{openmrs['personId']}"])


def _keep_passport(record: Document) -> Document:
    """Return the update that takes the hospital's values of now for seen."""
    return {
        "$set": _as_stated(record),
        "$unset": {"openmrsData.pending": "", "openmrsData.pendingType": ""},
        "$inc": {"rev": 1},
    }


def _keep_hospital(record: Document) -> Document:
    """Return the update that puts the hospital's values in place of the edit."""
    openmrs = record["openmrsData"]
    owned = {name: value for name, value in record["data"].items() if name in PASSPORT_OWNED}
    fields = {"data": openmrs["pending"] | owned, "type": _their_type(record)}
    return {
        "$set": fields | _as_stated(record),
        "$unset": {"openmrsData.pending": "", "openmrsData.pendingType": "", "lastEditedAt": ""},
        "$inc": {"rev": 1},
    }


def _as_stated(record: Document) -> Document:
    """Return the fields that tell the hospital's values of now from newer ones and from edits."""
    theirs = record["openmrsData"]["pending"]
    document = {"type": _their_type(record), "data": theirs}
    return {"applied": applied(document), "stated": stated(theirs)}


def _their_type(record: Document) -> str:
    """Return the type that the hospital's values make the record. Older releases kept none."""
    return str(record["openmrsData"].get("pendingType", record["type"]))


def _read(database: Mongo, record_id: str) -> Document:
    key = ObjectId(record_id) if ObjectId.is_valid(record_id) else None
    query = {"_id": key} | _PENDING
    with translate_errors():
        record = database.medicalrecords.find_one(query)
    if record is None:
        raise Fatal(f"there is no conflict {record_id!r}", hint="passport conflicts list")
    return record


def _conflict(record: Document) -> Conflict:
    if "deletedAt" in record:
        hospital = record["openmrsData"]["hospitalId"]
        return Conflict(str(record["_id"]), hospital, "deleted", record["deletedAt"], (), {}, {})
    ours = record["data"] | {"type": record["type"]}
    theirs = record["openmrsData"]["pending"] | {"type": _their_type(record)}
    names = (ours.keys() | theirs.keys()) - PASSPORT_OWNED
    fields = sorted(name for name in names if ours.get(name) != theirs.get(name))
    return Conflict(
        id=str(record["_id"]),
        hospital=record["openmrsData"]["hospitalId"],
        type=record["type"],
        edited_at=record.get("lastEditedAt"),
        fields=tuple(fields),
        ours={name: ours.get(name) for name in fields},
        theirs={name: theirs.get(name) for name in fields},
    )
