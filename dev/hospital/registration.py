"""Who can be matched, and their registration in the Passport's MongoDB."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from random import Random
from typing import Any

from bson import ObjectId
from pymongo import ReplaceOne
from pymongo.database import Database

from dev.hospital import people
from dev.hospital.sql import Connection, fetch

REGISTERED = datetime(2025, 11, 1, 8, 0, tzinfo=UTC)
BLOOD = ("A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-")

_IDENTIFIERS = """
SELECT i.patient_id, REGEXP_REPLACE(i.identifier, '[^0-9]', '') AS digits, i.preferred,
       p.voided OR q.voided AS gone
FROM patient_identifier i
JOIN patient_identifier_type t ON t.patient_identifier_type_id = i.identifier_type
JOIN patient p ON p.patient_id = i.patient_id
JOIN person q ON q.person_id = i.patient_id
WHERE t.uuid = %s AND i.voided = 0
ORDER BY i.patient_id, i.preferred DESC, i.patient_identifier_id
"""


def registrable(connection: Connection) -> list[tuple[int, str]]:
    """(person_id, national id's digits) of the patients who have one valid id that nobody else here
    has.
    """
    chosen: dict[int, str] = {}
    unclear: set[int] = set()
    holders: Counter[str] = Counter()
    preferred: set[int] = set()
    for row in fetch(connection, _IDENTIFIERS, [people.NATIONAL_ID_TYPE]):
        patient, digits = int(row["patient_id"]), str(row["digits"])
        if row["gone"]:
            continue
        holders[digits] += 1
        if patient not in chosen:
            chosen[patient] = digits
            preferred |= {patient} if row["preferred"] else set()
        elif digits != chosen[patient] and (row["preferred"] or patient not in preferred):
            unclear.add(patient)
    return [
        (patient, digits)
        for patient, digits in chosen.items()
        if 10 <= len(digits) <= 16 and holders[digits] == 1 and patient not in unclear
    ]


def passport_patients(
    mongo_db: Database[dict[str, Any]], national_ids: Iterable[str]
) -> dict[str, ObjectId]:
    """Registers these people (10 to 16 digits each) in `users` and `patients`, in the shapes of the
    Passport's own schemas; the same digits always give the same documents. Returns national id ->
    patients._id."""
    users, patients, made = [], [], {}
    for digits in national_ids:
        user, patient = documents(digits)
        users.append(ReplaceOne({"_id": user["_id"]}, user, upsert=True))
        patients.append(ReplaceOne({"_id": patient["_id"]}, patient, upsert=True))
        made[digits] = patient["_id"]
    if made:
        mongo_db["users"].bulk_write(users, ordered=False)
        mongo_db["patients"].bulk_write(patients, ordered=False)
    return made


def documents(digits: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The user and the patient of one national id."""
    rng = Random(f"passport {digits}")
    woman = rng.random() < 0.5
    name = f"{rng.choice(people.WOMEN if woman else people.MEN)} {rng.choice(people.FAMILY)}"
    born = datetime(rng.randint(1938, 2020), rng.randint(1, 12), rng.randint(1, 28), tzinfo=UTC)
    stamps = {"createdAt": REGISTERED, "updatedAt": REGISTERED, "__v": 0}
    user = {
        "_id": _object_id("user", digits),
        "name": name,
        "email": f"p{digits}@passport.example.com",
        "password": "$2b$12${0:.21}.{0:.31}".format(
            hashlib.sha256(digits.encode()).hexdigest()
        ),  # fits no password
        "role": "patient",
        "isActive": True,
        "isEmailVerified": True,
        **stamps,
    }
    patient = {
        "_id": _object_id("patient", digits),
        "user": user["_id"],
        "nationalId": digits,
        "dateOfBirth": born,
        "gender": "female" if woman else "male",
        "contactNumber": f"+25078{rng.randrange(10**7):07d}",
        "address": rng.choice(("Kigali", "Huye", "Musanze", "Rubavu", "Rwamagana")),
        "emergencyContact": {
            "name": rng.choice(people.MEN),
            "relationship": "sibling",
            "phone": "+250780000000",
        },
        "bloodType": rng.choice((*BLOOD, None)),
        **{name: [] for name in _LISTS},
        "status": "active",
        **stamps,
    }
    return user, patient


_LISTS = (
    "allergies",
    "currentMedications",
    "medicalHistory",
    "medications",
    "testResults",
    "hospitalVisits",
    "assignedDoctors",
)


def _object_id(kind: str, digits: str) -> ObjectId:
    return ObjectId(hashlib.sha256(f"{kind} {digits}".encode()).digest()[:12])
