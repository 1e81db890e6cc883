"""`medicalrecords`: written by compare-and-swap, so that of two writers the one that has seen less loses.

Read the records' `rev` first, then the links and the rows; write where `rev` is unchanged, else start again.
A record that doesn't exist has no `rev`. So whoever is about to change rows or a link in a way that may end a record
puts a claim (an empty tombstone) where it is missing: an insert by a writer that has seen less then fails.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import bson
from bson import ObjectId
from pymongo import InsertOne

from consumers.sinks.mongo import audit, changes
from consumers.sinks.mongo.changes import Change
from consumers.sinks.mongo.client import ALL, Document, Mongo, at_once, border, bulk
from consumers.sinks.mongo.mirror import MAX_BYTES
from consumers.sinks.mongo.people import Link, People
from consumers.sinks.mongo.placeholders import Signers
from consumers.sinks.mongo.records import NO_AUTHOR, Projected, first_id, projected
from consumers.sinks.mongo.rows import Applied, Head, Rows, connected
from consumers.sinks.mongo.rules import Mapping as Rules
from passport.errors import Retry
from passport.settings import Hospital

TRIES = 20
History = Callable[[Mapping[ObjectId, str | None]], None]


@dataclass(slots=True)
class Refreshed:
    """`refused`: obs _id -> why its record can't be stored. `unlinked`: people with rows who aren't matched now."""

    refused: dict[str, str] = field(default_factory=dict)
    unlinked: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Seen:
    """What one projection is made of: rows as they were, and to whom they belonged."""

    heads: dict[str, Head]
    documents: dict[str, Document]
    patients: dict[str, str | None]


class Records:
    """The records of one hospital."""

    def __init__(
        self,
        database: Mongo,
        hospital_id: str,
        hospital: Hospital,
        rules: Rules,
        people: People,
        rows: Rows,
        history: History | None = None,
    ) -> None:
        self._db = database
        self._id = hospital_id
        self._name = hospital.name
        self._rules = rules
        self._people = people
        self._rows = rows
        self._history = history
        self.signers = Signers(database, hospital_id, hospital)

    def refresh(self, seeds: Collection[str], links: Mapping[str, Link], known: Applied | None = None) -> Refreshed:
        """Makes the records of the rows `seeds` (_ids), and of all rows connected with them, what they should be.

        `links` and `known` are what the caller has just read: where they are not true any more, nothing is written.
        """
        result = Refreshed()
        if not seeds:
            return result
        documents = known.before | known.kept if known is not None else {}
        heads = connected(known.heads, seeds) if known is not None else self._rows.component(seeds)
        patients = {key: link.patient_id for key, link in links.items()}
        for _ in range(TRIES):
            seen = self._see(heads, documents, patients)
            if self._settle(seeds, seen, result):
                result.unlinked = {key for key, patient in seen.patients.items() if patient is None}
                return result
            heads, documents, patients = self._rows.component(seeds), seen.documents, {}
        raise Retry(f"hospital {self._id}: records changed all the time")

    def _see(self, heads: dict[str, Head], known: Mapping[str, Document], patients: Mapping[str, str | None]) -> _Seen:
        documents = {key: known[key] for key, head in heads.items() if key in known and _same(known[key], head)}
        if missing := heads.keys() - documents.keys():
            documents |= self._rows.documents(missing)
        people = {_person(document) for document in documents.values()}
        whose = {key: patients[key] for key in people if key in patients}
        return _Seen(heads, documents, whose | self._patients(people - whose.keys()))

    def _patients(self, people: Iterable[str]) -> dict[str, str | None]:
        keys = list(people)
        links = self._people.links(keys)
        return {key: links[key].patient_id if key in links else None for key in keys}

    def reserve(self, keys: Collection[str]) -> Mapping[str, Document]:
        """Puts claims where a record of the rows `keys` is missing as they are now. Returns these."""
        documents = self._rows.documents(keys)
        self._claim(self._showing(documents.values()))
        return documents

    def _settle(self, seeds: Iterable[str], seen: _Seen, result: Refreshed) -> bool:
        """One round; False when something else has changed meanwhile."""
        target, authors = self._project(seen)
        ids = {first_id(document) for document in seen.documents.values()} | target.keys()
        with border():
            cursor = self._db.medicalrecords.find({"_id": {"$in": list(ids)}}, batch_size=ALL)
            records = {found["_id"]: found for found in cursor}
        if not self._still(seeds, seen):
            return False
        due = self._due(ids, records, target, result)
        if due:
            self.signers.ensure(authors)
            audit.tell(self._db, due, self.signers.system, self._name, _now())
        written = self._write(due, target, result)
        self._claim(self._hidden(seen))
        if written and self._history is not None:
            self._history({key: target[key].document["patientId"] if key in target else None for key in records})
        return written

    def _project(self, seen: _Seen) -> tuple[dict[ObjectId, Projected], list[Document]]:
        self.signers.look_up(document.get("author") or NO_AUTHOR for document in seen.documents.values())
        authors: list[Document] = []

        def created_by(author: Document) -> str:
            authors.append(author)
            return self.signers.created_by(author)

        target: dict[ObjectId, Projected] = {}
        for person, documents in _by_person(seen.documents.values()).items():
            patient = seen.patients[person]
            if patient is not None:
                found = projected(documents, self._rules, self._id, self._name, patient, created_by)
                target |= {one.id: one for one in found}
        return target, authors

    def _showing(self, documents: Iterable[Document]) -> list[Projected]:
        """The records of rows, whoever's they are."""
        return [
            one
            for rows in _by_person(documents).values()
            for one in projected(rows, self._rules, self._id, self._name, "", _nobody)
        ]

    def _hidden(self, seen: _Seen) -> list[Projected]:
        """What there would be, were the rows' people matched."""
        return self._showing(one for one in seen.documents.values() if seen.patients[_person(one)] is None)

    def _claim(self, records: Iterable[Projected]) -> None:
        wanted = {one.id: one for one in records}
        if not wanted:
            return
        with border():
            found = self._db.medicalrecords.find({"_id": {"$in": list(wanted)}}, {"_id": 1}, batch_size=ALL)
            missing = wanted.keys() - {record["_id"] for record in found}
        uuids = {key: wanted[key].document["openmrsData"]["obsUuid"] for key in missing}
        claims = [changes.claim(key, self._id, uuid, _now()) for key, uuid in uuids.items()]
        bulk(self._db.medicalrecords, [InsertOne(claim) for claim in claims])  # one that is there now is as good

    def _still(self, seeds: Iterable[str], seen: _Seen) -> bool:
        patients, heads = at_once(partial(self._patients, seen.patients), partial(self._rows.component, seeds))
        return bool(patients == seen.patients and heads == seen.heads)

    def _due(
        self,
        ids: Iterable[ObjectId],
        records: Mapping[ObjectId, Document],
        target: Mapping[ObjectId, Projected],
        result: Refreshed,
    ) -> list[Change]:
        now, due = _now(), []
        for key in ids:
            change = changes.change(records.get(key), target.get(key), self._id, now)
            if change is not None and key in target and _too_large(change):
                result.refused[_anchor(self._id, target[key])] = "too_large"
            elif change is not None:
                due.append(change)
        return due

    def _write(self, due: Sequence[Change], target: Mapping[ObjectId, Projected], result: Refreshed) -> bool:
        """False when a record is not as it was read any more."""
        matched, failed = bulk(self._db.medicalrecords, [change.operation for change in due])
        for index, why in failed.items():
            if why != "duplicate" and due[index].id in target:
                result.refused[_anchor(self._id, target[due[index].id])] = why
        updates = [index for index, change in enumerate(due) if change.seen is not None]
        return "duplicate" not in failed.values() and matched + sum(index in failed for index in updates) == len(
            updates
        )


def _same(document: Document, head: Head) -> bool:
    return (document["version"], document["digest"]) == (head.version, head.digest)


def _person(document: Document) -> str:
    return f"{document['hospital']}/{document['personId']}"


def _by_person(documents: Iterable[Document]) -> dict[str, list[Document]]:
    rows: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        rows[_person(document)].append(document)
    return rows


def _nobody(_author: Document) -> str:
    return ""


def _too_large(change: Change) -> bool:
    fields = change.write.get("$set") or change.write
    texts = [*fields.values(), *fields.get("data", {}).values()]
    characters = sum(len(text) for text in texts if isinstance(text, str))
    return characters * 4 > MAX_BYTES and len(bson.encode(change.write)) > MAX_BYTES


def _anchor(hospital_id: str, one: Projected) -> str:
    return f"{hospital_id}/{one.document['openmrsData']['obsId']}"


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
