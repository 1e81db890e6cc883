"""Decides whose rows may be kept. A `people` document links a hospital's person to a patient.

``{_id: "<hospital>/<person_id>", hospital, personId, state, idHash, patientId, version, floor,
rev}`` and, while something is still to be done, ``pending``: ``read`` (read the person whole at the
hospital), ``move`` (all records to another patient) or ``remove`` (rows and records go). ``ended``:
the person was matched once and is not now. The newest version wins, by compare-and-swap on `rev`.

`state` is the hospital's word, or ``contradicting`` or ``refused`` where the link waits for an
operator, or was refused by one. Then ``candidateId`` is the patient who has the national id.
``contradicts`` names what the two say differently, and ``decision`` is what an operator decided.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from pymongo import InsertOne, UpdateOne
from pymongo.collection import Collection

from destinations.mongo.client import (
    ALL,
    TEXT,
    Mongo,
    in_parallel,
    translate_errors,
)
from destinations.mongo.contradictions import Mode, PassportPatient, link_fields
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from passport.errors import Retry
from passport.facts import Person

TRIES = 20

# The Passport makes an ObjectId of each patient, and reads no other. Somebody else's document with
# another _id is nobody to whom records could be shown.
IS_PATIENT: Document = {"_id": {"$type": "objectId"}}

LinkWrite = InsertOne[Document] | UpdateOne

_OPTIONAL = ("contradicts", "candidateId")  # fields that a document has only if they say something


@dataclass(frozen=True, slots=True)
class Link:
    """A person's document as it was read.

    `patient_id` is the hex of ``patients._id``, None for somebody who is not matched. `version` is
    that of the newest reading of the person. Rows below the version `floor` are stale.
    """

    key: str
    hospital: str
    person_id: int
    state: str
    patient_id: str | None
    version: str
    floor: str
    pending: str | None
    rev: int

    @classmethod
    def of(cls, document: Document) -> "Link":
        return cls(
            key=document["_id"],
            hospital=document["hospital"],
            person_id=document["personId"],
            state=document["state"],
            patient_id=document["patientId"],
            version=document["version"],
            floor=document["floor"],
            pending=document.get("pending"),
            rev=document["rev"],
        )


def hashed(link_key: bytes, national_id: str) -> str:
    """Return what is kept of a national id: its HMAC-SHA256, in hex."""
    return hmac.new(link_key, national_id.encode(), sha256).hexdigest()


def hash_of_patient(link_key: bytes, patient: Document) -> str | None:
    """Return the same of a document of `patients`; None if it has no national id."""
    national_id = patient.get("nationalId")
    return hashed(link_key, national_id) if isinstance(national_id, str) else None


def named_patient(document: Document) -> str | None:
    """Return the patient (hex of ``patients._id``) whom a person's national id names.

    The person is linked with them, or kept from it by a contradiction or a decision.
    """
    patient: str | None = document.get("candidateId") or document["patientId"]
    return patient


def patients_by_national_id(
    patients: Collection[Document], national_ids: Sequence[str]
) -> dict[str, PassportPatient]:
    """Return those who are registered, by national id."""
    if not national_ids:
        return {}
    query = {"nationalId": {"$in": national_ids}, **IS_PATIENT}
    fields = {"nationalId": 1, "dateOfBirth": 1, "gender": 1}
    with translate_errors():
        registered = patients.find(query, fields, batch_size=ALL)
        return {patient["nationalId"]: PassportPatient.of(patient) for patient in registered}


def ask_for(database: Mongo, keys: Iterable[str], pending: str = "read") -> int:
    """Mark people, by key, unless something is pending already. Return how many were marked."""
    query = {"_id": {"$in": list(keys)}, "pending": {"$exists": False}}
    update = {"$set": {"pending": pending}, "$inc": {"rev": 1}}
    with translate_errors():
        return database.people.update_many(query, update).modified_count


class People:
    """The links of all hospitals."""

    def __init__(self, database: Mongo, link_key: bytes, mode: Mode = "count") -> None:
        self._people = database.people
        self._patients = database.patients
        self._progress = database.progress
        self._key = link_key
        self._mode = mode

    def patients(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Return patients._id as it is now, by person key; None for who is not matched."""
        keys = list(keys)
        patients: dict[str, str | None] = dict.fromkeys(keys)
        for key, document in self._documents(keys).items():
            patients[key] = document["patientId"]
        return patients

    def knows(self, key: str) -> bool:
        """Return whether there is a document of this person."""
        with translate_errors():
            return self._people.find_one({"_id": key}, {"_id": 1}) is not None

    def evaluated(
        self, persons: Mapping[str, Person], fence: Fence
    ) -> tuple[dict[str, Link], set[str]]:
        """Bring links up to date with what the hospital and the Passport say of `persons` (by key).

        Returns the links, and the keys of those that were there before and are changed now.

        Goes round until nothing is left to change: so that a registration between reading
        `patients` and writing the link is seen here, and one after it finds the link. Where there
        was a link, it leaves its mark there.
        """
        keys = list(persons)
        national_ids = [
            person.national_id for person in persons.values() if person.national_id is not None
        ]
        changed: set[str] = set()
        for _ in range(TRIES):
            documents, patients = in_parallel(
                lambda: self._documents(keys),
                lambda: patients_by_national_id(self._patients, national_ids),
            )
            new = [person.hospital for key, person in persons.items() if key not in documents]
            with_erasures = self._with_erasures(new)
            changes: dict[str, LinkWrite] = {}
            for key, person in persons.items():
                change = self._change(person, documents.get(key), patients, with_erasures)
                if change is not None:
                    changes[key] = change
            if not changes:
                fence.write(list(_raised_versions(persons, documents)))
                return {key: Link.of(document) for key, document in documents.items()}, changed
            fence.write([{"people": [change]} for change in changes.values()])
            changed |= changes.keys() & documents.keys()
        raise Retry("people: links changed all the time")

    def settle(self, link: Link, fence: Fence, floor: str = "") -> Link | None:
        """Clear `pending` and raise the floor. Return the link as it is now.

        Returns None, and changes nothing, when the link has changed since it was read.
        """
        update: Document = {
            "$unset": {"pending": ""},
            "$inc": {"rev": 1},
            "$max": {"version": floor, "floor": floor},
        }
        still_as_read = {"_id": link.key, "rev": link.rev}
        if not fence.write([{"people": [UpdateOne(still_as_read, update)]}]).matched["people"]:
            return None
        return replace(link, pending=None, floor=max(link.floor, floor), rev=link.rev + 1)

    def ambiguous(self, hospital: str) -> list[int]:
        """Return the person_ids whose national id more than one patient of the hospital holds."""
        query = {"hospital": hospital, "state": "ambiguous"}
        with translate_errors():
            return [person["personId"] for person in self._people.find(query, {"personId": 1})]

    def wanted(self, hospital: str, limit: int) -> list[int]:
        """Return the person_ids of people with something pending, at most `limit` of them."""
        query = {"hospital": hospital, "pending": TEXT}
        with translate_errors():
            documents = self._people.find(query, {"personId": 1}).limit(limit)
            return [document["personId"] for document in documents]

    def _documents(self, keys: Sequence[str]) -> dict[str, Document]:
        if not keys:
            return {}
        with translate_errors():
            documents = self._people.find({"_id": {"$in": keys}}, batch_size=ALL)
            return {document["_id"]: document for document in documents}

    def _with_erasures(self, hospitals: Sequence[str]) -> set[str]:
        """Return those of the hospitals of which somebody was erased.

        Then a person without a document may be one of these, whose older rows were dropped.
        """
        if not hospitals:
            return set()
        query = {"_id": {"$in": list(set(hospitals))}, "erased": True}
        with translate_errors():
            return {hospital["_id"] for hospital in self._progress.find(query, {"_id": 1})}

    def expected_links(self, persons: Iterable[Person]) -> dict[int, Document]:
        """Return, by person_id, what the documents of these persons must say of their links.

        A field that is None may be absent.
        """
        persons = list(persons)
        national_ids = [person.national_id for person in persons if person.national_id is not None]
        patients = patients_by_national_id(self._patients, national_ids)
        documents = self._documents([person.key for person in persons])
        return {
            person.person_id: self._expected_link(person, documents.get(person.key), patients)
            for person in persons
        }

    def _expected_link(
        self, person: Person, document: Document | None, patients: Mapping[str, PassportPatient]
    ) -> Document:
        """Return what a person's document must say. `patients` are those by national id."""
        id_hash = None
        patient = None
        if person.state == "ok" and person.national_id is not None:
            id_hash = hashed(self._key, person.national_id)
            patient = patients.get(person.national_id)
        decision = document.get("decision") if document is not None else None
        return link_fields(person, patient, id_hash, decision, self._mode)

    def _change(
        self,
        person: Person,
        document: Document | None,
        patients: Mapping[str, PassportPatient],
        with_erasures: set[str],
    ) -> LinkWrite | None:
        """Return what makes a person's document what it should be, None when it is.

        `patients` are those of the Passport by national id.
        """
        fields = self._expected_link(person, document, patients)
        absent = [name for name in _OPTIONAL if fields[name] is None]
        present = {name: value for name, value in fields.items() if name not in absent}
        patient: str | None = fields["patientId"]

        if document is None:
            identity = {
                "_id": person.key,
                "hospital": person.hospital,
                "personId": person.person_id,
            }
            if patient is not None and person.hospital in with_erasures:
                present["pending"] = "read"
            return InsertOne(
                {**identity, **present, "version": person.version, "floor": "", "rev": 1}
            )

        is_equal = all(document.get(name) == value for name, value in fields.items())
        if person.version < document["version"] or is_equal:
            return None
        present["version"] = person.version
        if pending := _pending(document, patient):
            present["pending"] = pending
        if document["patientId"] != patient:
            present["ended"] = patient is None
        update: Document = {"$set": present, "$inc": {"rev": 1}}
        if absent:
            update["$unset"] = dict.fromkeys(absent, "")
        return UpdateOne({"_id": person.key, "rev": document["rev"]}, update)


def _raised_versions(
    persons: Mapping[str, Person], documents: Mapping[str, Document]
) -> Iterator[Document]:
    """Yield what stores that persons were read again, later, and said the same.

    So an older state that comes after it doesn't win. `rev` stays: nothing of the link changes.
    """
    for key, person in persons.items():
        if person.version > documents[key]["version"]:
            older = {"_id": key, "version": {"$lt": person.version}}
            yield {"people": [UpdateOne(older, {"$set": {"version": person.version}})]}


def _pending(document: Document, patient: str | None) -> str | None:
    """Return what is to be done after a change of the link to `patient`.

    What was to be done before stays, unless this outweighs it.
    """
    before, pending = document["patientId"], document.get("pending")
    if before == patient:
        return pending
    if patient is None:
        return "remove"
    return "move" if before is not None and pending in (None, "move") else "read"
