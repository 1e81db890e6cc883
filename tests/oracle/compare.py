"""MongoDB as it is against what it must hold. Differences name keys and fields, never values."""

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from tests.oracle.expected import Expected, expected, load_mapping
from tests.oracle.facts import Settings
from tests.oracle.projection import Record
from tests.oracle.words import differing

Document = dict[str, Any]
SHOWN = 20
NAME_LENGTH = 50  # of users.name
THE_PASSPORTS = ("medicationStatus", "medications")  # fields of data
WAITING = ("contradicting", "refused")  # states of whom an operator decides


@dataclass
class Comparison:
    """Equal when there are no `differences`; the counters say that something was compared."""

    differences: list[str] = field(default_factory=list)
    matched: int = 0
    rows: int = 0
    records: int = 0
    unmapped: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        head = (
            f"{self.matched} people, {self.rows} rows,"
            f" {self.records} records: {len(self.differences)} differences"
        )
        return "\n  ".join([head, *self.differences[:SHOWN]])

    def require_equal(self) -> "Comparison":
        """Raise an AssertionError if there are differences, or if nothing was compared."""
        assert not self.differences, str(self)
        assert self.matched > 0, str(self)
        assert self.rows > 0, str(self)
        assert self.records > 0, str(self)
        return self


def compare(
    connections: Mapping[str, Any],
    db: Database[Document],
    settings: Sequence[Settings],
    mapping: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare MongoDB with the hospitals. `connections` go by the hospital's key.

    Nobody may write meanwhile.
    """
    patients = {
        str(one["nationalId"]): one
        for one in db["patients"].find({}, {"nationalId": 1, "dateOfBirth": 1, "gender": 1})
    }
    rules = mapping or load_mapping()
    wanted = {}
    for one in settings:
        key = one["key"]
        decided = db["people"].find({"hospital": key, "decision": {"$exists": True}})
        decisions = {doc["personId"]: doc["decision"] for doc in decided}
        wanted[key] = expected(connections[key], one, patients, rules, decisions)
    return compare_with(wanted, db, settings)


def compare_with(
    wanted: Mapping[str, Expected], db: Database[Document], settings: Sequence[Settings]
) -> Comparison:
    """Compare MongoDB with what is expected, which is already worked out."""
    naive: Database[Document] = db.with_options(db.codec_options.with_options(tz_aware=False))
    found = Comparison()
    for one in settings:
        want = wanted[one["key"]]
        found.matched += len(want.matched)
        found.rows += len(want.rows)
        found.records += len(want.records)
        found.unmapped += want.unmapped
        found.types.update(record.content["type"] for record in want.records.values())
        found.differences += people(naive, one, want)
        found.differences += mirror(naive, one, want)
        found.differences += records(naive, one, want)
    found.differences += leaks(naive, wanted)
    return found


# -- people


def people(db: Database[Document], settings: Settings, want: Expected) -> Iterator[str]:
    key = settings["key"]
    docs = {doc["_id"]: doc for doc in db["people"].find({"hospital": key})}
    with_rows = {row["person_id"] for row in want.rows.values()}
    for person, (state, digits, patient) in want.people.items():
        doc = docs.pop(f"{key}/{person}", None)
        if doc is None:
            if person in with_rows:
                yield f"people {key}/{person}: missing"
            continue
        if doc["state"] != state:
            yield f"people {key}/{person}: state {doc['state']}, expected {state}"
        if doc.get("pending"):
            yield f"people {key}/{person}: {doc['pending']} is still to be done"
        if _hex(doc.get("patientId")) != patient:
            yield f"people {key}/{person}: patientId"
        yield from waiting(f"people {key}/{person}", doc, want.contradicts[person])
        if bool(doc.get("idHash")) != (state == "ok" or state in WAITING):
            yield f"people {key}/{person}: idHash {'missing' if state == 'ok' else 'kept'}"
        elif (
            digits
            and "link_key" in settings
            and doc["idHash"] != _hash(settings["link_key"], digits)
        ):
            yield f"people {key}/{person}: idHash is another"
    for doc_id, doc in docs.items():
        if doc["state"] != "not_patient":
            yield f"people {doc_id}: state {doc['state']}, but the hospital has no such person"


def waiting(name: str, doc: Document, contradicts: list[str]) -> Iterator[str]:
    """Yield what is wrong with what a person's document says of an operator's decision."""
    # Who was read before this was compared doesn't say it.
    if "contradicts" in doc and doc["contradicts"] != contradicts:
        yield f"{name}: contradicts"
    if bool(doc.get("candidateId")) != (doc["state"] in WAITING):
        yield f"{name}: candidateId"


def _hash(link_key: str, digits: str) -> str:
    return hmac.new(link_key.encode(), digits.encode(), hashlib.sha256).hexdigest()


def _hex(value: Any) -> str | None:
    return str(value) if value else None


# -- the mirror


def mirror(db: Database[Document], settings: Settings, want: Expected) -> Iterator[str]:
    missing = dict(want.rows)
    for doc in db["observations"].find({"hospital": settings["key"]}):
        doc_id, row = doc["_id"], doc.get("row") or {}
        if row and row["person_id"] not in want.matched:
            yield f"observations {doc_id}: a row of person {row['person_id']}, who is not matched"
        if doc["deleted"]:
            if doc_id in want.rows:
                yield f"observations {doc_id}: deleted, but the hospital has it"
                del missing[doc_id]
            continue
        expected_row = missing.pop(doc_id, None)
        if expected_row is None:
            yield f"observations {doc_id}: not in the hospital"
            continue
        if row != expected_row:
            yield f"observations {doc_id}: {_fields(row, expected_row)}"
        if (doc["obsId"], doc["personId"]) != (expected_row["obs_id"], expected_row["person_id"]):
            yield f"observations {doc_id}: obsId, personId"
        for name in differing(doc, expected_row, want.facts):
            yield f"observations {doc_id}: {name}"
    yield from (f"observations {doc_id}: missing" for doc_id in missing)


def _fields(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str:
    absent = object()
    differing = []
    for name in sorted(set(one) | set(other)):
        here, there = one.get(name, absent), other.get(name, absent)
        if isinstance(here, dict) and isinstance(there, dict):
            differing.append(_fields(here, there, f"{prefix}{name}."))
        elif here != there:
            word = "missing " if here is absent else "extra " if there is absent else ""
            differing.append(f"{word}{prefix}{name}")
    return ", ".join(filter(None, differing))


# -- the records


def records(db: Database[Document], settings: Settings, want: Expected) -> Iterator[str]:
    key = settings["key"]
    live: dict[ObjectId, Document] = {}
    deleted: set[ObjectId] = set()  # by a doctor, in the Passport
    for doc in db["medicalrecords"].find({"openmrsData.hospitalId": key}):
        if doc.get("removedAt") is None and doc["patientId"] != "":
            live[doc["_id"]] = doc
        else:
            yield from tombstone(doc)
            if doc.get("deletedAt") is not None:
                deleted.add(doc["_id"])
    yield from twice(key, live)
    by_uuid = {doc["openmrsData"].get("obsUuid"): doc for doc in live.values()}
    authors = Authors(db, key)
    for record in want.records.values():
        uuid = record.content["openmrsData"]["obsUuid"]
        if record.id in deleted:
            continue
        doc = by_uuid.get(uuid, {}) if record.archived else live.get(record.id, {})
        if not doc:
            other = ", although another _id has its uuid" if uuid in by_uuid else ""
            yield f"medicalrecords {key}/{record.anchor}: missing ({record.content['type']}){other}"
            continue
        live.pop(doc["_id"], None)
        if what := one_record(doc, record):
            yield f"medicalrecords {key}/{record.anchor}: {what}"
        if what := authors.wrong(doc["createdBy"], record):
            yield f"medicalrecords {key}/{record.anchor}: createdBy {what}"
    for doc in live.values():
        yield (
            f"medicalrecords {doc['_id']} (obs {key}/{doc['openmrsData'].get('obsId')},"
            f" {doc['type']}): not expected"
        )


def one_record(doc: Document, record: Record) -> str:
    """Return the names of the fields that differ, or "" if none does."""
    openmrs = dict(doc["openmrsData"])
    data = {name: value for name, value in doc["data"].items() if name not in THE_PASSPORTS}
    want, kind = dict(record.content), doc["type"]
    if doc.get("lastEditedAt"):
        # A doctor has edited it. What the hospital says waits beside it, if that is something else.
        data = openmrs.pop("pending", want["data"])
        kind = openmrs.pop("pendingType", want["type"])
    have = {
        "patientId": doc["patientId"],
        "type": kind,
        "data": data,
        "openmrsData": openmrs,
    }
    if record.synced is not None and not record.archived:
        have |= {"syncDate": doc.get("syncDate"), "createdAt": doc.get("createdAt")}
        want |= {"syncDate": record.synced, "createdAt": record.synced}
    return _fields(have, want)


def tombstone(doc: Document) -> Iterator[str]:
    """Yield what is wrong with a removed record, which no reader finds and which is empty."""
    if doc["patientId"] != "":
        yield f"medicalrecords {doc['_id']}: removed, but found by patientId"
    if doc["data"]:
        yield f"medicalrecords {doc['_id']}: removed, but has data"
    names = {"hospitalId", "obsUuid"}
    if doc.get("deletedAt") is not None:
        names |= {"personId", "pending"}
        if doc["openmrsData"].get("pending"):
            yield f"medicalrecords {doc['_id']}: deleted, but has values of the hospital"
    if extra := set(doc["openmrsData"]) - names:
        yield (
            f"medicalrecords {doc['_id']}: removed, but openmrsData has {', '.join(sorted(extra))}"
        )
    if doc.get("removedAt") is None and doc.get("deletedAt") is None:
        yield f"medicalrecords {doc['_id']}: removed, without removedAt"


def twice(key: str, live: Mapping[ObjectId, Document]) -> Iterator[str]:
    """Yield the obs that are in more than one record."""
    seen: Counter[str] = Counter()
    for doc in live.values():
        seen.update({doc["openmrsData"].get("obsUuid"), *doc["openmrsData"].get("memberUuids", ())})
    yield from (
        f"obs {uuid} of {key}: in {times} records" for uuid, times in seen.items() if times > 1
    )


class Authors:
    """The users that `createdBy` names. Each bears the author's name and can't log in."""

    def __init__(self, db: Database[Document], hospital: str) -> None:
        self.users = {str(user["_id"]): user for user in db["users"].find()}
        self.doctors = {str(doctor["user"]): doctor for doctor in db["doctors"].find()}
        self.hospital = hospital
        self.by_key: dict[str | None, str] = {}

    def wrong(self, user_id: str, record: Record) -> str:
        """Return what is wrong, or "" if nothing is."""
        user = self.users.get(user_id)
        if user is None:
            return "is no user"
        one = self.by_key.setdefault(record.author.key, user_id)
        if one != user_id:
            return "differs from that of other records of the same author"
        if user.get("isActive") is not False:
            return "" if user_id in self.doctors else "is neither inactive nor a doctor"
        return (
            "bears another name"
            if record.author.key and user["name"] != signed(record.author.name)
            else ""
        )


def signed(name: str) -> str:
    """Return an author's name as `users` takes it, in 2 to 50 characters."""
    shown = re.sub(r"\s+", " ", name).strip()[:NAME_LENGTH].strip()
    return shown if len(shown) > 1 else f"OpenMRS {shown}".strip()


# -- nothing of anybody else


def leaks(db: Database[Document], wanted: Mapping[str, Expected]) -> Iterator[str]:
    """No obs uuid and no national id of a person who is not matched, in any document but the
    Passport's own.
    """
    forbidden: dict[str, str] = {}
    for key, want in wanted.items():
        for row in want.facts.obs.values():
            if row["person_id"] not in want.matched:
                forbidden[row["uuid"]] = f"obs {key}/{row['obs_id']}"
        for person, (_, digits, patient) in want.people.items():
            if digits and not patient:
                forbidden[digits] = f"the national id of {key}/{person}"
    for name in db.list_collection_names():
        if name in ("patients", "users"):
            continue
        for doc in db[name].find():
            if doc.get("removedAt") is not None:
                continue
            for text in texts(doc):
                if text in forbidden:
                    yield f"{name} {doc['_id']}: holds {forbidden[text]}, who is not matched"


def texts(value: Any) -> Iterator[str]:
    """Yield all strings in a document, its keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
