"""`users`, `doctors`, `hospitals`: the accounts of the authors of records.

An author is the Passport's doctor of a provider where there is one, else a placeholder account of
ours. Placeholders have deterministic _ids, can't sign in (inactive, unverified, a password hash
that no password has) and pass the Passport's own schemas. A placeholder that somebody has taken
over (it has another e-mail then) is left as it is.
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

from destinations.mongo.client import Mongo, bulk, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from passport.errors import Fatal
from passport.settings import Hospital, PlaceholderHospital

MEMORY_S = 60.0  # how long a doctor who was linked meanwhile may go unnoticed
# From the alphabet of base64 to that of bcrypt.
_BCRYPT = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)


@dataclass(slots=True)
class _Account:
    """The account of one author, as it was read at `read_at` (monotonic seconds).

    `name` is that of our placeholder; None when the account isn't there or isn't ours.
    """

    user: ObjectId
    exists: bool
    name: str | None
    read_at: float


class Authors:
    """The ``users._id`` of one hospital's authors.

    First they are read (`look_up`), then used (`created_by`), and last created (`ensure`). An
    author is what a mirror document has as ``author``: ``{name, source, key}``.
    """

    def __init__(self, database: Mongo, hospital_id: str, hospital: Hospital) -> None:
        self._db = database
        self._id = hospital_id
        self._hospital = hospital
        self._accounts: dict[str, _Account] = {}  # by the author's key
        self._hospital_exists = False
        self.hospital = _hospital_id(hospital_id, hospital.passport_hospital)
        self.system = identity("user", hospital_id, "system")

    def look_up(self, authors: Iterable[Document]) -> None:
        """Read what the Passport knows of authors who are not fresh in memory."""
        stale = time.monotonic() - MEMORY_S
        keys = {author["key"] for author in authors if author["key"]}
        keys -= {key for key, account in self._accounts.items() if account.read_at > stale}
        if not keys:
            return
        placeholders = {identity("user", self._id, key): key for key in keys}
        linked_by_the_passport = {
            "openmrsProviderUuid": {"$in": list(keys)},
            "hospital": self.hospital,
            "user": {"$nin": list(placeholders), "$type": "objectId"},
        }
        fields = {"user": 1, "openmrsProviderUuid": 1}
        with translate_errors():
            doctors = list(self._db.doctors.find(linked_by_the_passport, fields).sort("_id", -1))
            query = {"_id": {"$in": list(placeholders)}}
            users = list(self._db.users.find(query, {"name": 1, "email": 1}))

        # The later loop wins: a placeholder that isn't there, one that is, and before both the
        # doctor of the Passport (of several, the one with the lowest _id).
        now = time.monotonic()
        for user_id, key in placeholders.items():
            self._accounts[key] = _Account(user_id, exists=False, name=None, read_at=now)
        for user in users:
            is_ours = user.get("email") == email(user["_id"])
            name = user.get("name") if is_ours else None
            key = placeholders[user["_id"]]
            self._accounts[key] = _Account(user["_id"], exists=True, name=name, read_at=now)
        for doctor in doctors:
            account = _Account(doctor["user"], exists=True, name=None, read_at=now)
            self._accounts[doctor["openmrsProviderUuid"]] = account

    def forget(self) -> None:
        """Let the next `look_up` read everything anew."""
        self._accounts.clear()

    def created_by(self, author: Document) -> str:
        """Return the hex of the author's ``users._id``, after `look_up`.

        Where nobody is known as the author, it is the hospital's own user.
        """
        return str(self._accounts[author["key"]].user if author["key"] else self.system)

    def ensure(self, authors: Iterable[Document], fence: Fence) -> None:
        """Create the missing placeholders of `authors`, and give our others their newest name.

        Each author has been looked up before. A placeholder that is created is the same whoever
        creates it. A name is not: a writer that is overtaken may know an older one.
        """
        self.ensure_hospital()
        names = {author["key"]: display_name(author["name"]) for author in authors if author["key"]}
        missing: dict[str, str] = {}
        renamed: dict[str, str] = {}
        for key, name in names.items():
            account = self._accounts[key]
            if not account.exists:
                missing[key] = name
            elif account.name is not None and account.name != name:
                renamed[key] = name
        self._create(missing)
        self._rename(renamed, fence)

    def ensure_hospital(self) -> None:
        """Create the hospital's document and its own user where they are missing.

        Raises Fatal when the settings name a hospital that the Passport doesn't have.
        """
        if self._hospital_exists:
            return
        passport_hospital = self._hospital.passport_hospital
        if isinstance(passport_hospital, str):
            self._require_hospital()
        else:
            self._insert("hospitals", [self._hospital_document(passport_hospital)])
        self._insert("users", [_user(self.system, f"OpenMRS {self._hospital.name}", "hospital")])
        self._hospital_exists = True

    def _require_hospital(self) -> None:
        with translate_errors():
            if self._db.hospitals.find_one({"_id": self.hospital}, {"_id": 1}) is None:
                setting = f"hospitals.{self._id}.passport_hospital"
                raise Fatal(
                    f"{setting}: the Passport has no hospital {self.hospital}",
                    hint=f"set it to the _id of one in its hospitals, or remove {setting}",
                )

    def _create(self, missing: dict[str, str]) -> None:
        """Insert doctors and users, by key and name.

        The doctor comes first: where the user is there, all is, also after a crash in between.
        """
        if not missing:
            return
        users = {key: identity("user", self._id, key) for key in missing}
        self._insert("doctors", [self._doctor(key, user) for key, user in users.items()])
        self._insert("users", [_user(users[key], name, "doctor") for key, name in missing.items()])
        for key, name in missing.items():
            self._accounts[key].exists = True
            self._accounts[key].name = name

    def _rename(self, names: dict[str, str], fence: Fence) -> None:
        updates = []
        for key, name in names.items():
            user = self._accounts[key].user
            still_ours = {"_id": user, "email": email(user)}
            change = {"$set": {"name": name, "updatedAt": datetime.now(UTC)}}
            updates.append({"users": [UpdateOne(still_ours, change)]})
        fence.write(updates)
        for key, name in names.items():
            self._accounts[key].name = name

    def _insert(self, collection: str, documents: list[Document]) -> None:
        """Insert documents that may be there already. Raises Fatal when another is in their way."""
        _, failed = bulk(self._db[collection], [InsertOne(document) for document in documents])
        if not failed:
            return
        refused = {documents[index]["_id"] for index in failed}
        with translate_errors():
            query = {"_id": {"$in": list(refused)}}
            present = {found["_id"] for found in self._db[collection].find(query, {"_id": 1})}
        if refused - present:
            raise Fatal(
                f"hospital {self._id}: a placeholder can't be added to {collection}: its e-mail, "
                "hospitalId or licenseNumber is in use, or a validator of the Passport refuses it",
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

    def _hospital_document(self, placeholder: PlaceholderHospital) -> Document:
        now = datetime.now(UTC)
        return {
            "_id": self.hospital,
            "user": self.system,
            "name": self._hospital.name,
            "address": placeholder.address,
            "contact": placeholder.contact,
            "licenseNumber": (placeholder.licence or f"OPENMRS-{self._id}").upper(),
            "doctors": [],
            "patients": [],
            "status": "inactive",
            "createdAt": now,
            "updatedAt": now,
        }


def identity(kind: str, hospital_id: str, key: str) -> ObjectId:
    """Return the _id of a placeholder; `kind` is user, doctor or hospital."""
    return ObjectId(sha256(f"{kind}/{hospital_id}/{key}".encode()).digest()[:12])


def email(user: ObjectId) -> str:
    """Return the e-mail of a placeholder. Nothing is ever delivered to example.org."""
    return f"openmrs.{user}@example.org"


def display_name(name: str) -> str:
    """Return a name of 2 to 50 characters, as ``users.name`` wants it."""
    clipped = " ".join(name.split())[:50].strip()
    return clipped if len(clipped) >= 2 else f"OpenMRS {clipped}".strip()


def unknown_password() -> str:
    """Return a well-formed bcrypt hash of random salt and digest: nobody has a password for it."""
    return f"$2b$12${_random_text(16)}{_random_text(23)}"


def _random_text(size: int) -> str:
    """Return `size` random bytes as bcrypt writes them."""
    return b64encode(os.urandom(size)).rstrip(b"=").translate(_BCRYPT).decode()


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


def _hospital_id(hospital_id: str, passport_hospital: str | PlaceholderHospital) -> ObjectId:
    if not isinstance(passport_hospital, str):
        return identity("hospital", hospital_id, "")
    try:
        return ObjectId(passport_hospital)
    except InvalidId:
        raise Fatal(
            f"hospitals.{hospital_id}.passport_hospital is not an _id of the Passport's hospitals",
            hint="24 hexadecimal digits, as in db.hospitals.find({}, {name: 1})",
        ) from None
