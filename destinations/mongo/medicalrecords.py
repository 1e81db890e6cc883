"""`medicalrecords`: written by compare-and-swap, so that of two writers the one that has seen less
loses.

Read the records' `rev` first, then the links and the rows; write where `rev` is unchanged, else
start again. A record that doesn't exist has no `rev`. So whoever is about to change rows or a link
in a way that may end a record puts a claim (an empty tombstone) where it is missing: an insert by a
writer that has seen less then fails.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import bson
from bson import ObjectId
from pymongo import InsertOne

from destinations.mongo import auditlogs as audit
from destinations.mongo import record_update as changes
from destinations.mongo.client import ALL, Document, Mongo, bulk, in_parallel, translate_errors
from destinations.mongo.mirror import MAX_BYTES
from destinations.mongo.observations import Applied, Head, Rows, connected
from destinations.mongo.people import Link, People
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.mapping import MappingRules
from destinations.mongo.projection.obs import NO_AUTHOR, Projected, first_id, projected
from destinations.mongo.record_update import Change
from passport.errors import Retry
from passport.settings import Hospital

TRIES = 20
History = Callable[[Mapping[ObjectId, str | None]], None]
Documents = Mapping[str, Document]
Patients = Mapping[str, str | None]


@dataclass(slots=True)
class Refreshed:
    """`refused`: obs _id -> why its record can't be stored. `unlinked`: people with rows who aren't
    matched now.
    """

    refused: dict[str, str] = field(default_factory=dict)
    unlinked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Begun:
    """A round's first half: the rows `seeds` and those connected with them as they are or soon will
    be, to whom they belong, what they show (`target`), and after that the records as they are."""

    seeds: frozenset[str]
    heads: dict[str, Head]
    documents: dict[str, Document]
    patients: dict[str, str | None]
    target: dict[ObjectId, Projected]
    authors: list[Document]
    records: dict[ObjectId, Document | None]


class Records:
    """The records of one hospital."""

    def __init__(
        self,
        database: Mongo,
        hospital_id: str,
        hospital: Hospital,
        rules: MappingRules,
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
        self.authors = Authors(database, hospital_id, hospital)

    def begin(self, links: Mapping[str, Link], known: Applied) -> Begun | None:
        """A round for the rows `known.kept`, which need not be stored yet: it ends only if all is
        as `known` says.
        """
        if not known.kept:
            return None
        heads, documents = connected(known.heads, known.kept), known.before | known.kept
        return self._begin(
            known.kept, heads, documents, {key: link.patient_id for key, link in links.items()}
        )

    def refresh(self, seeds: Collection[str], begun: Begun | None = None) -> Refreshed:
        """Makes the records of the rows `seeds` (_ids), and of all rows connected with them, what
        they should be.

        `begun` is a round for the same: where what it was made of is not true any more, nothing is
        written.
        """
        result = Refreshed()
        if not seeds:
            return result
        if begun is None or begun.seeds != set(seeds):
            begun = self._begin(seeds, self._rows.component(seeds), {}, {})
        for _ in range(TRIES):
            if self._settle(begun, result):
                result.unlinked = {
                    key for key, patient in begun.patients.items() if patient is None
                }
                return result
            begun = self._begin(seeds, self._rows.component(seeds), begun.documents, {})
        raise Retry(f"hospital {self._id}: records changed all the time")

    def _begin(
        self, seeds: Iterable[str], heads: dict[str, Head], known: Documents, links: Patients
    ) -> Begun:
        documents = {
            key: known[key]
            for key, head in heads.items()
            if key in known and _same(known[key], head)
        }
        if missing := heads.keys() - documents.keys():
            documents |= self._rows.documents(missing)
        people = {_person(document) for document in documents.values()}
        patients = {key: links[key] for key in people if key in links}
        patients |= self._people.patients(people - patients.keys())
        target, authors = self._project(documents, patients)
        ids = {first_id(document) for document in documents.values()} | target.keys()
        with translate_errors():
            found = self._db.medicalrecords.find({"_id": {"$in": list(ids)}}, batch_size=ALL)
            records = dict.fromkeys(ids) | {one["_id"]: one for one in found}
        return Begun(frozenset(seeds), heads, documents, patients, target, authors, records)

    def reserve(self, keys: Collection[str]) -> Mapping[str, Document]:
        """Puts claims where a record of the rows `keys` is missing as they are now. Returns these."""
        documents = self._rows.documents(keys)
        self._claim(documents.values())
        return documents

    def _settle(self, begun: Begun, result: Refreshed) -> bool:
        """Ends a round; False when something else has changed meanwhile."""
        asked = (
            partial(self._people.patients, begun.patients),
            partial(self._rows.component, begun.seeds),
        )
        (due, refused), patients, heads = in_parallel(partial(self._due, begun), *asked)
        if patients != begun.patients or heads != begun.heads:
            return False
        result.refused |= refused
        if due:
            self.authors.ensure(begun.authors)
            audit.tell(self._db, due, self.authors.system, self._name, _now())
        written = self._write(due, begun.target, result)
        self._claim(one for one in begun.documents.values() if begun.patients[_person(one)] is None)
        if written and self._history is not None:
            shown = {key: one.document["patientId"] for key, one in begun.target.items()}
            self._history(
                {key: shown.get(key) for key, record in begun.records.items() if record is not None}
            )
        return written

    def _project(
        self, documents: Documents, patients: Patients
    ) -> tuple[dict[ObjectId, Projected], list[Document]]:
        self.authors.look_up(document.get("author") or NO_AUTHOR for document in documents.values())
        authors: list[Document] = []

        def created_by(author: Document) -> str:
            authors.append(author)
            return self.authors.created_by(author)

        target: dict[ObjectId, Projected] = {}
        for person, rows in _by_person(documents.values()).items():
            patient = patients[person]
            if patient is not None:
                found = projected(rows, self._rules, self._id, self._name, patient, created_by)
                target |= {one.id: one for one in found}
        return target, authors

    def _claim(self, documents: Iterable[Document]) -> None:
        """Where there is no record yet that rows would show, were their people matched."""
        args = self._rules, self._id, self._name, "", _nobody
        wanted = {
            one.id: one for rows in _by_person(documents).values() for one in projected(rows, *args)
        }
        if not wanted:
            return
        with translate_errors():
            found = self._db.medicalrecords.find(
                {"_id": {"$in": list(wanted)}}, {"_id": 1}, batch_size=ALL
            )
            missing = wanted.keys() - {record["_id"] for record in found}
        uuids = {key: wanted[key].document["openmrsData"]["obsUuid"] for key in missing}
        claims = [changes.claim(key, self._id, uuid, _now()) for key, uuid in uuids.items()]
        bulk(
            self._db.medicalrecords, [InsertOne(claim) for claim in claims]
        )  # one that is there now is as good

    def _due(self, begun: Begun) -> tuple[list[Change], dict[str, str]]:
        """What is to be written, and why some of it can't be."""
        now, due, refused = _now(), list[Change](), dict[str, str]()
        for key, record in begun.records.items():
            new = begun.target.get(key)
            change = changes.change(record, new, self._id, now)
            if change is not None and new is not None and _too_large(change):
                refused[_anchor(self._id, new)] = "too_large"
            elif change is not None:
                due.append(change)
        return due, refused

    def _write(
        self, due: Sequence[Change], target: Mapping[ObjectId, Projected], result: Refreshed
    ) -> bool:
        """False when a record is not as it was read any more."""
        matched, failed = bulk(self._db.medicalrecords, [change.operation for change in due])
        for index, why in failed.items():
            if why != "duplicate" and due[index].id in target:
                result.refused[_anchor(self._id, target[due[index].id])] = why
        updates = [index for index, change in enumerate(due) if change.seen is not None]
        return "duplicate" not in failed.values() and matched + sum(
            index in failed for index in updates
        ) == len(updates)


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
