"""Whether MongoDB holds only what the Passport's own Mongoose schemas take.

The schemas in tests/schemas are MongoDB's dialect of JSON Schema ($jsonSchema); the server itself
does the checking.
"""

import json
from pathlib import Path
from typing import Any

from pymongo.database import Database

Document = dict[str, Any]
Mongo = Database[Document]

SCHEMAS = {
    file.name.removesuffix(".json"): json.loads(file.read_text())
    for file in Path(__file__).parent.glob("schemas/*.json")
}
PASSPORT = (
    "users",
    "patients",
    "doctors",
    "hospitals",
    "medicalrecords",
    "auditlogs",
    "syncstatus",
)
UNIQUE = {
    "users": ("email",),
    "patients": ("user", "nationalId"),
    "doctors": ("licenseNumber",),
    "hospitals": ("licenseNumber", "hospitalId"),
    "syncstatus": ("hospitalId",),
}
OURS = {
    "$or": [{"rev": {"$exists": True}}, {"openmrsData.hospitalId": {"$exists": True}}]
}  # doctors write their own
TOMBSTONE = {"$or": [{"removedAt": {"$exists": True}}, {"deletedAt": {"$exists": True}}]}


def check(database: Mongo) -> int:
    """Checks every document of every Passport collection; returns their number. AssertionError with
    the faults.
    """
    faults = [fault for name in PASSPORT for fault in _misshapen(database, name)]
    faults += [
        fault
        for name, fields in UNIQUE.items()
        for field in fields
        for fault in _doubles(database, name, field)
    ]
    faults += _dangling(database)
    assert not faults, "\n".join(faults[:20])
    return sum(database[name].count_documents({}) for name in PASSPORT)


def _misshapen(database: Mongo, name: str) -> list[str]:
    if name != "medicalrecords":
        return _against(database, name, name, {})
    live = _against(database, name, name, {"$nor": [TOMBSTONE], **OURS})
    return live + _against(database, name, "medicalrecords.tombstone", TOMBSTONE)


def _against(database: Mongo, name: str, schema: str, query: Document) -> list[str]:
    wrong = database[name].find(
        {"$and": [query, {"$nor": [{"$jsonSchema": SCHEMAS[schema]}]}]}, {"_id": 1}
    )
    return [
        f"{name} {found['_id']}: {_why(database, name, schema, found['_id'])}" for found in wrong
    ]


def _why(database: Mongo, name: str, schema: str, key: Any) -> str:
    """The fields at fault, asked of the server one by one."""
    document = database[name].find_one({"_id": key}) or {}
    fields = SCHEMAS[schema]["properties"]
    wrong = [
        field
        for field in document
        if field not in fields
        or database[name].find_one(
            {"_id": key, "$nor": [{"$jsonSchema": {"properties": {field: fields[field]}}}]},
            {"_id": 1},
        )
    ]
    return ", ".join(
        wrong
        + [f"{field} missing" for field in SCHEMAS[schema]["required"] if field not in document]
    )


def _doubles(database: Mongo, name: str, field: str) -> list[str]:
    stages: list[Document] = [
        {"$match": {field: {"$exists": True}}},
        {"$group": {"_id": f"${field}", "count": {"$sum": 1}}},
        {"$match": {"count": {"$gt": 1}}},
    ]
    return [f"{name}.{field} is not unique" for _ in database[name].aggregate(stages)]


def _dangling(database: Mongo) -> list[str]:
    """References that Mongoose populates to null."""
    users = {str(found["_id"]) for found in database.users.find({}, {"_id": 1})}
    patients = {str(found["_id"]) for found in database.patients.find({}, {"_id": 1})}
    hospitals = {found["_id"] for found in database.hospitals.find({}, {"_id": 1})}
    faults = []
    for record in database.medicalrecords.find(
        {"patientId": {"$ne": ""}}, {"patientId": 1, "createdBy": 1}
    ):
        faults += (
            []
            if record["createdBy"] in users
            else [f"medicalrecords {record['_id']}: createdBy is nobody"]
        )
        faults += (
            []
            if record["patientId"] in patients
            else [f"medicalrecords {record['_id']}: patientId is nobody"]
        )
    for doctor in database.doctors.find({}, {"user": 1, "hospital": 1}):
        if str(doctor["user"]) not in users or doctor["hospital"] not in hospitals:
            faults.append(f"doctors {doctor['_id']}: user or hospital is nobody")
    for entry in database.auditlogs.find({}, {"user": 1}):
        faults += (
            [] if str(entry["user"]) in users else [f"auditlogs {entry['_id']}: user is nobody"]
        )
    return faults
