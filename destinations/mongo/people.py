"""Whose rows may be kept: one `people` document per hospital's person, the link to a patient of the
Passport.

``{_id: "<hospital>/<person_id>", hospital, personId, state, idHash, patientId, version, floor,
rev}`` and, while something is still to be done, ``pending``: ``read`` (read the person whole at the
hospital), ``move`` (all records to another patient) or ``remove`` (rows and records go). ``ended``:
was matched once, is not now. The newest version wins, by compare-and-swap on `rev`.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

from pymongo import InsertOne, UpdateOne
from pymongo.collection import Collection

from destinations.mongo.client import (
    ALL,
    TEXT,
    Document,
    Mongo,
    bulk,
    in_parallel,
    translate_errors,
)
from passport.errors import Retry
from passport.facts import Person

TRIES = 20


@dataclass(frozen=True, slots=True)
class Link:
    """A person's document as read. `patient_id` None: not matched. Rows below the version `floor`
    are stale.
    """

    key: str
    hospital: str
    person_id: int
    state: str
    patient_id: str | None
    floor: str
    pending: str | None
    rev: int

    @classmethod
    def of(cls, found: Document) -> "Link":
        who = (found["_id"], found["hospital"], found["personId"])
        return cls(
            *who,
            found["state"],
            found["patientId"],
            found["floor"],
            found.get("pending"),
            found["rev"],
        )


def hashed(link_key: bytes, national_id: str) -> str:
    """What is kept of an id: HMAC-SHA256, hex."""
    return hmac.new(link_key, national_id.encode(), sha256).hexdigest()


def patients_by_national_id(
    patients: Collection[Document], national_ids: Sequence[str]
) -> dict[str, str]:
    """Return the hex of ``patients._id`` by national id, of those who are registered."""
    if not national_ids:
        return {}
    query = {"nationalId": {"$in": national_ids}}
    with translate_errors():
        registered = patients.find(query, {"nationalId": 1}, batch_size=ALL)
        return {patient["nationalId"]: str(patient["_id"]) for patient in registered}


def ask_for(database: Mongo, keys: Iterable[str], pending: str = "read") -> int:
    """Marks people, by key, unless something is pending already; how many."""
    query = {"_id": {"$in": list(keys)}, "pending": {"$exists": False}}
    with translate_errors():
        found = database.people.update_many(
            query, {"$set": {"pending": pending}, "$inc": {"rev": 1}}
        )
    return found.modified_count


class People:
    """The links of all hospitals."""

    def __init__(self, database: Mongo, link_key: bytes) -> None:
        self._people = database.people
        self._patients = database.patients
        self._key = link_key

    def patients(self, keys: Iterable[str]) -> dict[str, str | None]:
        """patients._id as it is now, by person key; None: not matched."""
        return dict.fromkeys(keys) | {
            key: found["patientId"] for key, found in self._known(keys).items()
        }

    def evaluated(self, persons: Mapping[str, Person]) -> tuple[dict[str, Link], set[str]]:
        """The links of `persons` (by key), brought up to date with what the hospital and the
        Passport say; and the keys of those that were changed here.

        Goes round until nothing is left to change: so that a registration between reading
        `patients` and writing the link is seen here, and one after it finds the link. Where there
        was a link, it leaves its mark there.
        """
        changed: set[str] = set()
        for _ in range(TRIES):
            known, patients = in_parallel(
                partial(self._known, persons), partial(self._registered, persons.values())
            )
            due = {
                key: self._change(person, known.get(key), patients)
                for key, person in persons.items()
            }
            changes = {key: change for key, change in due.items() if change is not None}
            if not changes:
                return {key: Link.of(found) for key, found in known.items()}, changed
            bulk(self._people, list(changes.values()))
            changed |= changes.keys() & known.keys()
        raise Retry("people: links changed all the time")

    def settle(self, link: Link, floor: str = "") -> Link | None:
        """Clears `pending` and raises the floor; None when the link has changed since it was read."""
        update: Document = {
            "$unset": {"pending": ""},
            "$inc": {"rev": 1},
            "$max": {"version": floor, "floor": floor},
        }
        # no findAndModify, of which MongoDB keeps the document's image for as long as its session
        with translate_errors():
            found = self._people.update_one({"_id": link.key, "rev": link.rev}, update)
        settled = replace(link, pending=None, floor=max(link.floor, floor), rev=link.rev + 1)
        return settled if found.matched_count else None

    def ambiguous(self, hospital: str) -> list[int]:
        """Return the person_ids whose national id more than one patient of the hospital holds."""
        query = {"hospital": hospital, "state": "ambiguous"}
        with translate_errors():
            return [person["personId"] for person in self._people.find(query, {"personId": 1})]

    def wanted(self, hospital: str, limit: int) -> list[int]:
        """Persons with something pending, `limit` of them."""
        query = {"hospital": hospital, "pending": TEXT}
        with translate_errors():
            return [
                found["personId"]
                for found in self._people.find(query, {"personId": 1}).limit(limit)
            ]

    def _known(self, persons: Iterable[str]) -> dict[str, Document]:
        if not (keys := list(persons)):
            return {}
        with translate_errors():
            return {
                found["_id"]: found
                for found in self._people.find({"_id": {"$in": keys}}, batch_size=ALL)
            }

    def _registered(self, persons: Iterable[Person]) -> dict[str, str]:
        """patients._id by national id."""
        ids = [person.national_id for person in persons if person.national_id is not None]
        return patients_by_national_id(self._patients, ids)

    def _change(self, person: Person, known: Document | None, patients: Mapping[str, str]) -> Any:
        national_id = person.national_id if person.state == "ok" else None
        patient = patients.get(national_id) if national_id is not None else None
        id_hash = hashed(self._key, national_id) if national_id is not None else None
        told: Document = {"state": person.state, "idHash": id_hash, "patientId": patient}
        if known is None:
            who = {"_id": person.key, "hospital": person.hospital, "personId": person.person_id}
            return InsertOne(who | told | {"version": person.version, "floor": "", "rev": 1})
        if person.version < known["version"] or all(
            known[name] == value for name, value in told.items()
        ):
            return None
        pending = _pending(known, patient)
        told |= {"version": person.version} | ({"pending": pending} if pending else {})
        told |= {"ended": patient is None} if known["patientId"] != patient else {}
        return UpdateOne(
            {"_id": person.key, "rev": known["rev"]}, {"$set": told, "$inc": {"rev": 1}}
        )


def _pending(known: Document, patient: str | None) -> str | None:
    """What is to be done after a change; what still was, stays, unless this outweighs it."""
    before, pending = known["patientId"], known.get("pending")
    if before == patient:
        return pending
    if patient is None:
        return "remove"
    return "move" if before is not None and pending in (None, "move") else "read"
