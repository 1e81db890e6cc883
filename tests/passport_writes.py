"""Writes to `medicalrecords` as the Passport's own code makes them.

Its Mongoose sends what it has changed, under the record's _id alone: it looks at no field. These
commands are what Mongoose 8.24 was seen to send for the Passport's `MedicalRecord` model.
"""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.database import Database

Document = dict[str, Any]
Mongo = Database[Document]

# Mongoose writes `data` whole, in the order of its schema.
DATA = (
    "name",
    "details",
    "diagnosis",
    "diagnosed",
    "diagnosedDate",
    "date",
    "procedure",
    "doctor",
    "diagnosedBy",
    "hospital",
    "medicationName",
    "dosage",
    "frequency",
    "medicationStatus",
    "startDate",
    "endDate",
    "prescribedBy",
    "medications",
    "testName",
    "testDate",
    "result",
    "testStatus",
    "reason",
    "visitDate",
    "treatment",
    "imageUrl",
    "imageType",
    "description",
    "notes",
    "status",
)
ACTIVE_FOR = timedelta(hours=2)  # since syncDate


def opened(db: Mongo, record: ObjectId) -> Document:
    """Return a record as its `findById` has it in memory, with the defaults of its schema."""
    document = db.medicalrecords.find_one({"_id": record})
    assert document is not None
    document["data"].setdefault("medications", [])
    return document


def read(db: Mongo, record: ObjectId) -> None:
    """Show a record to somebody (getPatientMedicalRecords)."""
    save_read(db, opened(db, record))


def save_read(db: Mongo, document: Document) -> None:
    """Save the status that a medicine has by its age, if it has another one."""
    if document["type"] != "medication" or "syncDate" not in document:
        return
    is_active = datetime.now(UTC) - document["syncDate"] < ACTIVE_FOR
    status = "Active" if is_active else "Past"
    if document["data"].get("medicationStatus") == status:
        return
    document["data"]["medicationStatus"] = status
    fields = {"data.medicationStatus": status, "updatedAt": datetime.now(UTC)}
    update: Document = {"$set": fields}
    stored = db.medicalrecords.find_one({"_id": document["_id"]}) or {}
    if "medications" not in (stored.get("data") or {}):
        fields["data.medications"] = []
        update["$inc"] = {"__v": 1}
    db.medicalrecords.update_one({"_id": document["_id"]}, update)


def put(db: Mongo, record: ObjectId, doctor: str = "d0c", **data: Any) -> None:
    """Edit a record as a doctor does (updateMedicalRecord)."""
    document = opened(db, record)
    assert document["patientId"], "Mongoose refuses a record without a patient"
    save_put(db, document, doctor, **data)


def save_put(db: Mongo, document: Document, doctor: str = "d0c", **data: Any) -> None:
    """Save an edit of a record that was opened before."""
    save_read(db, document)
    edited = deepcopy(document["data"]) | data
    names = [name for name in DATA if name in document["data"]]
    names += [name for name in edited if name not in names]
    now = datetime.now(UTC)
    update: Document = {
        "$set": {
            "data": {name: edited[name] for name in names},
            "lastEditedAt": now,
            "updatedAt": now,
        }
    }
    if doctor not in document.get("editableBy", []):
        update["$push"] = {"editableBy": {"$each": [doctor]}}
        update["$inc"] = {"__v": 1}
    db.medicalrecords.update_one({"_id": document["_id"]}, update)


def delete(db: Mongo, record: ObjectId) -> None:
    """Delete a record as a doctor does (deleteMedicalRecord)."""
    opened(db, record)
    db.medicalrecords.find_one_and_delete({"_id": record})
