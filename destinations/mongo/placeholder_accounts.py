"""Who signs a record: the Passport's doctor of a provider where there is one, else a placeholder of
ours.

Placeholders have deterministic _ids, can't sign in (inactive, unverified, a password hash that no
password has) and pass the Passport's own schemas. A placeholder that somebody has taken over
(another e-mail) is left as it is.
"""

import os
import time
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import InsertOne, UpdateOne

from destinations.mongo.client import Document, Mongo, bulk, translate_errors
from passport.errors import Fatal
from passport.settings import Hospital, PlaceholderHospital

MEMORY_S = 60.0  # how long a doctor that was linked meanwhile may go unnoticed
_BCRYPT = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)


@dataclass(slots=True)
class _Signer:
    """A known author. `name`: as our placeholder has it, None when it isn't there or isn't ours."""

    user: ObjectId
    linked: bool
    exists: bool
    name: str | None
    read_at: float


class Authors:
    """The users._id of one hospital's authors. Reads first (`look_up`), names then (`created_by`),
    creates last.
    """

    def __init__(self, database: Mongo, hospital_id: str, hospital: Hospital) -> None:
        self._db = database
        self._id = hospital_id
        self._hospital = hospital
        self._known: dict[str, _Signer] = {}
        self._present = False
        self.hospital = _hospital_id(hospital_id, hospital.passport_hospital)
        self.system = identity("user", hospital_id, "system")

    def look_up(self, authors: Iterable[Document]) -> None:
        """Reads what the Passport knows of authors that are not fresh in memory."""
        stale = time.monotonic() - MEMORY_S
        keys = {author["key"] for author in authors if author["key"]}
        keys -= {key for key, signer in self._known.items() if signer.read_at > stale}
        if not keys:
            return
        ours = {identity("user", self._id, key): key for key in keys}
        others = {"$nin": list(ours), "$type": "objectId"}
        query = {
            "openmrsProviderUuid": {"$in": list(keys)},
            "hospital": self.hospital,
            "user": others,
        }
        with translate_errors():
            linked = list(
                self._db.doctors.find(query, {"user": 1, "openmrsProviderUuid": 1}).sort("_id", -1)
            )
            users = list(self._db.users.find({"_id": {"$in": list(ours)}}, {"name": 1, "email": 1}))
        now = time.monotonic()
        for user, key in ours.items():
            self._known[key] = _Signer(user, linked=False, exists=False, name=None, read_at=now)
        for found in users:
            name = found.get("name") if found.get("email") == email(found["_id"]) else None
            self._known[ours[found["_id"]]] = _Signer(
                found["_id"], linked=False, exists=True, name=name, read_at=now
            )
        for doctor in linked:
            signer = _Signer(doctor["user"], linked=True, exists=True, name=None, read_at=now)
            self._known[doctor["openmrsProviderUuid"]] = signer

    def forget(self) -> None:
        """The next `look_up` reads everything anew."""
        self._known.clear()

    def created_by(self, author: Document) -> str:
        """Hex of the author's users._id, after `look_up`; nobody: the hospital's own user."""
        return str(self._known[author["key"]].user if author["key"] else self.system)

    def ensure(self, authors: Iterable[Document]) -> None:
        """Creates the placeholders that `authors` sign with, and gives those of ours their newest
        name.
        """
        self.ensure_hospital()
        written = {author["key"]: author["name"] for author in authors if author["key"]}
        names = {key: display_name(name) for key, name in written.items()}
        missing = {key: name for key, name in names.items() if not self._known[key].exists}
        self._create(missing)
        self._rename(
            {key: name for key, name in names.items() if self._known[key].name not in (None, name)}
        )

    def ensure_hospital(self) -> None:
        """The hospital's document and its own user. Fatal when the configured hospital isn't in the
        Passport.
        """
        if self._present:
            return
        if isinstance(self._hospital.passport_hospital, str):
            self._require_hospital()
        else:
            self._insert("hospitals", [self._hospital_document(self._hospital.passport_hospital)])
        self._insert("users", [_user(self.system, f"OpenMRS {self._hospital.name}", "hospital")])
        self._present = True

    def _require_hospital(self) -> None:
        with translate_errors():
            if self._db.hospitals.find_one({"_id": self.hospital}, {"_id": 1}) is None:
                raise Fatal(
                    f"hospitals.{self._id}.passport_hospital: the Passport has no hospital {self.hospital}",
                    hint=f"set it to the _id of one in its hospitals, or remove hospitals.{self._id}.passport_hospital",
                )

    def _create(self, missing: dict[str, str]) -> None:
        """The doctor first: where the user is there, all is."""
        if not missing:
            return
        users = {key: identity("user", self._id, key) for key in missing}
        self._insert("doctors", [self._doctor(key, user) for key, user in users.items()])
        self._insert("users", [_user(users[key], name, "doctor") for key, name in missing.items()])
        for key, name in missing.items():
            self._known[key].exists, self._known[key].name = True, name

    def _rename(self, names: dict[str, str]) -> None:
        updates = []
        for key, name in names.items():
            user = self._known[key].user
            change = {"$set": {"name": name, "updatedAt": datetime.now(UTC)}}
            updates.append(UpdateOne({"_id": user, "email": email(user)}, change))
            self._known[key].name = name
        bulk(self._db.users, updates)

    def _insert(self, collection: str, documents: list[Document]) -> None:
        _, failed = bulk(self._db[collection], [InsertOne(document) for document in documents])
        if not failed:
            return
        wanted = {documents[index]["_id"] for index in failed}
        with translate_errors():
            there = {
                found["_id"]
                for found in self._db[collection].find({"_id": {"$in": list(wanted)}}, {"_id": 1})
            }
        if wanted - there:
            raise Fatal(
                f"hospital {self._id}: a placeholder can't be added to {collection}: "
                "its e-mail, hospitalId or licenseNumber is in use, or a validator of the Passport refuses it",
                hint=f"look for licenseNumber OPENMRS-{self._id.upper()}* in {collection}, "
                f"or set hospitals.{self._id}.passport_hospital",
            )

    def _doctor(self, key: str, user: ObjectId) -> Document:
        now = datetime.now(UTC)
        provider = {} if key.startswith("user/") else {"openmrsProviderUuid": key}
        return {
            "_id": identity("doctor", self._id, key),
            "user": user,
            "licenseNumber": f"OPENMRS-{self._id}-{user}".upper(),
            "specialization": "General Practice",
            "hospital": self.hospital,
            "patients": [],
            **provider,
            "isActive": False,
            "createdAt": now,
            "updatedAt": now,
        }

    def _hospital_document(self, given: PlaceholderHospital) -> Document:
        now = datetime.now(UTC)
        return {
            "_id": self.hospital,
            "user": self.system,
            "name": self._hospital.name,
            "address": given.address,
            "contact": given.contact,
            "licenseNumber": (given.licence or f"OPENMRS-{self._id}").upper(),
            "doctors": [],
            "patients": [],
            "status": "inactive",
            "createdAt": now,
            "updatedAt": now,
        }


def identity(kind: str, hospital_id: str, key: str) -> ObjectId:
    """The _id of a placeholder."""
    return ObjectId(sha256(f"{kind}/{hospital_id}/{key}".encode()).digest()[:12])


def email(user: ObjectId) -> str:
    """Of a placeholder: example.org is reserved, nothing is ever delivered there."""
    return f"openmrs.{user}@example.org"


def display_name(name: str) -> str:
    """2 to 50 characters, as users.name wants it."""
    clipped = " ".join(name.split())[:50].strip()
    return clipped if len(clipped) >= 2 else f"OpenMRS {clipped}".strip()


def unknown_password() -> str:
    """A well-formed bcrypt hash of random salt and digest: nobody knows a password for it."""
    salt, digest = (
        b64encode(os.urandom(size)).rstrip(b"=").translate(_BCRYPT).decode() for size in (16, 23)
    )
    return f"$2b$12${salt}{digest}"


def _user(user: ObjectId, name: str, role: str) -> Document:
    now = datetime.now(UTC)
    return {
        "_id": user,
        "name": display_name(name),
        "email": email(user),
        "password": unknown_password(),
        "role": role,
        "isActive": False,
        "isEmailVerified": False,
        "createdAt": now,
        "updatedAt": now,
    }


def _hospital_id(hospital_id: str, given: str | PlaceholderHospital) -> ObjectId:
    if not isinstance(given, str):
        return identity("hospital", hospital_id, "")
    try:
        return ObjectId(given)
    except InvalidId:
        raise Fatal(
            f"hospitals.{hospital_id}.passport_hospital is not an _id of the Passport's hospitals",
            hint="24 hexadecimal digits, as in db.hospitals.find({}, {name: 1})",
        ) from None
