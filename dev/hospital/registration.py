"""Who can be matched, and their registration in the Passport's MongoDB."""

import hashlib
import re
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
EMPTY_LISTS = (
    "allergies",
    "currentMedications",
    "medicalHistory",
    "medications",
    "testResults",
    "hospitalVisits",
    "assignedDoctors",
)

_IDENTIFIERS = """
SELECT i.patient_id, i.identifier, i.preferred, p.voided OR q.voided AS gone
FROM patient_identifier i
JOIN patient_identifier_type t ON t.patient_identifier_type_id = i.identifier_type
JOIN patient p ON p.patient_id = i.patient_id
JOIN person q ON q.person_id = i.patient_id
WHERE t.uuid = %s AND i.voided = 0
ORDER BY i.patient_id, i.preferred DESC, i.patient_identifier_id
"""


def registrable(connection: Connection) -> list[tuple[int, str]]:
    """Return (person_id, digits of the national id) of the patients who can be matched.

    They have one valid national id, which nobody else in this hospital has.
    """
    chosen: dict[int, str] = {}
    has_preferred: set[int] = set()
    unclear: set[int] = set()
    holders: Counter[str] = Counter()
    # Preferred ones come first.
    for row in fetch(connection, _IDENTIFIERS, [people.NATIONAL_ID_TYPE]):
        if row["gone"]:
            continue
        patient = int(row["patient_id"])
        digits = re.sub("[^0-9]", "", row["identifier"])
        holders[digits] += 1
        if patient not in chosen:
            chosen[patient] = digits
            if row["preferred"]:
                has_preferred.add(patient)
        elif digits != chosen[patient] and (row["preferred"] or patient not in has_preferred):
            unclear.add(patient)
    able = []
    for patient, digits in chosen.items():
        is_valid = 10 <= len(digits) <= 16
        if is_valid and holders[digits] == 1 and patient not in unclear:
            able.append((patient, digits))
    return able


def passport_patients(
    mongo_db: Database[dict[str, Any]], national_ids: Iterable[str]
) -> dict[str, ObjectId]:
    """Register these people (10 to 16 digits each) in the Passport; return `patients._id` by id.

    Their documents in `users` and `patients` have the shapes of the Passport's own schemas. The
    same digits always give the same documents.
    """
    users = []
    patients = []
    patient_ids = {}
    for digits in national_ids:
        user, patient = documents(digits)
        users.append(ReplaceOne({"_id": user["_id"]}, user, upsert=True))
        patients.append(ReplaceOne({"_id": patient["_id"]}, patient, upsert=True))
        patient_ids[digits] = patient["_id"]
    if patient_ids:
        mongo_db["users"].bulk_write(users, ordered=False)
        mongo_db["patients"].bulk_write(patients, ordered=False)
    return patient_ids


def documents(digits: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the documents of the user and of the patient with this national id.

    The patient is the citizen who has it. If nobody has, year of birth and gender are those that
    the id tells, as far as it tells any.
    """
    rng = Random(f"passport {digits}")
    woman = rng.random() < 0.5
    year = rng.randint(1938, 2020)
    told = people.year_and_gender(digits)
    if told is not None:
        year = told[0]
        woman = told[1] == "F"
    name = f"{rng.choice(people.WOMEN if woman else people.MEN)} {rng.choice(people.FAMILY)}"
    born = datetime(year, rng.randint(1, 12), rng.randint(1, 28), tzinfo=UTC)
    citizen = people.citizen_of(digits)
    if citizen is not None:
        name = f"{citizen.given} {citizen.family}"
        born = datetime(citizen.born.year, citizen.born.month, citizen.born.day, tzinfo=UTC)
    digest = hashlib.sha256(digits.encode()).hexdigest()
    stamps = {"createdAt": REGISTERED, "updatedAt": REGISTERED, "__v": 0}
    user = {
        "_id": _object_id("user", digits),
        "name": name,
        "email": f"p{digits}@passport.example.com",
        "password": f"$2b$12${digest[:21]}.{digest[:31]}",  # fits no password
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
        **{name: [] for name in EMPTY_LISTS},
        "status": "active",
        **stamps,
    }
    return user, patient


def _object_id(kind: str, digits: str) -> ObjectId:
    return ObjectId(hashlib.sha256(f"{kind} {digits}".encode()).digest()[:12])
