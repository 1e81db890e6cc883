"""Removes documents of the legacy sync, and first what refers to them.

So a removal that was interrupted finds the document again. All raise Retry, NotReady or Fatal.
"""

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from legacy_import.findings import AUTOMATIC

# Fields of `patients` that may list a record's _id.
HISTORIES = ("medicalHistory", "medications", "testResults", "hospitalVisits")


def remove_record(database: Mongo, record: Document) -> None:
    key = record["_id"]
    in_any_list = {"$or": [{name: key} for name in HISTORIES]}
    with translate_errors():
        database.patients.update_many(in_any_list, {"$pull": dict.fromkeys(HISTORIES, key)})
        database.medicalrecords.delete_one({"_id": key})


def remove_doctor(database: Mongo, doctor: Document) -> None:
    """Remove a doctor, and the login if nobody has taken it over."""
    key = doctor["_id"]
    with translate_errors():
        database.hospitals.update_many({"doctors": key}, {"$pull": {"doctors": key}})
        database.patients.update_many({"assignedDoctors": key}, {"$pull": {"assignedDoctors": key}})
        database.doctors.delete_one({"_id": key})
        database.users.delete_one({"_id": doctor["user"], "email": AUTOMATIC})


def remove_status(database: Mongo, status: Document) -> None:
    with translate_errors():
        database.syncstatus.delete_one({"_id": status["_id"]})
