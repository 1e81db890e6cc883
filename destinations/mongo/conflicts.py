"""Records that a person has edited in the Passport and for which the hospital has newer values:
listed and resolved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from bson import ObjectId

from destinations.mongo import auditlogs as audit
from destinations.mongo.client import Document, Mongo, translate_errors
from destinations.mongo.people import ask_for
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.record_update import PASSPORT_OWNED, Change, applied
from passport.errors import Fatal, Retry
from passport.settings import Hospital

Keep = Literal["passport", "hospital"]
_PENDING = {"openmrsData.pending": {"$exists": True}}


@dataclass(frozen=True, slots=True)
class Conflict:
    """`fields`: names within `data` that differ. `ours`, `theirs`: their values in the Passport and
    at the hospital.
    """

    id: str
    hospital: str
    type: str
    edited_at: datetime | None
    fields: tuple[str, ...]
    ours: dict[str, Any]
    theirs: dict[str, Any]


def listed(database: Mongo, hospital: str) -> Iterator[Conflict]:
    """Of one hospital, oldest edit first."""
    with translate_errors():
        for found in database.medicalrecords.find(
            {"openmrsData.hospitalId": hospital} | _PENDING
        ).sort("lastEditedAt"):
            yield _conflict(found)


def one(database: Mongo, record: str) -> Conflict:
    """By the hex of its _id. Fatal when there is no such conflict."""
    return _conflict(_found(database, record))


def resolve(database: Mongo, hospital: Hospital, record: str, keep: Keep) -> None:
    """Keeps one side: `passport` until the hospital says something else again, `hospital` from now
    on.

    Fatal when there is no such conflict; Retry when the record has just changed.
    """
    old = _found(database, record)
    openmrs = old["openmrsData"]
    update = _kept(old) if keep == "passport" else _taken(old)
    seen = {"_id": old["_id"], "rev": old["rev"], "lastEditedAt": old["lastEditedAt"]}
    change = Change(old["_id"], "update", old["patientId"], old["rev"] + 1, seen, update)
    user = Authors(database, openmrs["hospitalId"], hospital).system
    audit.tell(database, [change], user, hospital.name, datetime.now(UTC))
    with translate_errors():
        if not database.medicalrecords.update_one(seen, update).matched_count:
            raise Retry(f"record {record} has just been changed")
        if keep == "hospital":  # its type too may be another: that comes with the next projection
            ask_for(database, [f"{openmrs['hospitalId']}/{openmrs['personId']}"])


def _kept(old: Document) -> Document:
    digest = applied({"type": old["type"], "data": old["openmrsData"]["pending"]})
    return {"$set": {"applied": digest}, "$unset": {"openmrsData.pending": ""}, "$inc": {"rev": 1}}


def _taken(old: Document) -> Document:
    theirs = old["openmrsData"]["pending"]
    owned = {name: value for name, value in old["data"].items() if name in PASSPORT_OWNED}
    put = {"data": theirs | owned, "applied": applied({"type": old["type"], "data": theirs})}
    return {
        "$set": put,
        "$unset": {"openmrsData.pending": "", "lastEditedAt": ""},
        "$inc": {"rev": 1},
    }


def _found(database: Mongo, record: str) -> Document:
    key = ObjectId(record) if ObjectId.is_valid(record) else None
    with translate_errors():
        found = database.medicalrecords.find_one({"_id": key, "patientId": {"$ne": ""}} | _PENDING)
    if found is None:
        raise Fatal(f"there is no conflict {record!r}", hint="passport conflicts list")
    return found


def _conflict(found: Document) -> Conflict:
    ours, theirs = found["data"], found["openmrsData"]["pending"]
    fields = sorted(
        name
        for name in (ours.keys() | theirs.keys()) - PASSPORT_OWNED
        if ours.get(name) != theirs.get(name)
    )
    return Conflict(
        str(found["_id"]),
        found["openmrsData"]["hospitalId"],
        found["type"],
        found.get("lastEditedAt"),
        tuple(fields),
        {name: ours.get(name) for name in fields},
        {name: theirs.get(name) for name in fields},
    )
