"""Writes `medicalrecords` by compare-and-swap: of two writers the one that has seen less loses.

Read the records' `rev` first, then the links and the rows; write where `rev` is unchanged, else
start again. A record that doesn't exist has no `rev`. So whoever is about to change rows or a link
in a way that may end a record puts a claim (an empty tombstone) where it is missing: an insert by a
writer that has seen less then fails.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

import bson
from bson import ObjectId
from pymongo import InsertOne

from destinations.mongo import auditlogs, keptedits, medical_history, record_update
from destinations.mongo.client import ALL, Mongo, bulk, in_parallel, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.mirror import MAX_BYTES
from destinations.mongo.observations import SLICE, Head, MirrorView, Observations
from destinations.mongo.people import People
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.mapping import MappingRules
from destinations.mongo.projection.obs import (
    NO_AUTHOR,
    Projected,
    places,
    projected,
    record_ids,
)
from destinations.mongo.record_update import Change
from passport.errors import Retry
from passport.settings import Hospital

TRIES = 20


@dataclass(slots=True)
class Refreshed:
    """The result of refreshing some rows' records.

    `refused` has the reason by the ``_id`` of a row whose record can't be stored. `unlinked` are
    the keys of people who have rows and are not matched now.
    """

    refused: dict[str, str] = field(default_factory=dict)
    unlinked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RecordRound:
    """All that one try to refresh records is based on, before anything of it is written.

    `rows` are the rows in question and all connected ones, with all their documents; `patients`
    says to whom they belong, by person key (None: not matched); `target` is what they show by that.
    `records` are the documents of now, read after all of this; None where there is none. `kept` has
    the documents of `keptedits` of those that are about to change hands.
    """

    rows: MirrorView
    patients: dict[str, str | None]
    target: dict[ObjectId, Projected]
    records: dict[ObjectId, Document | None]
    kept: dict[ObjectId, list[Document]]


class MedicalRecords:
    """The records of one hospital. Its methods raise Retry, NotReady or Fatal."""

    def __init__(
        self,
        database: Mongo,
        hospital_id: str,
        hospital: Hospital,
        rules: MappingRules,
        people: People,
        observations: Observations,
        *,
        link_medical_history: bool,
    ) -> None:
        self._db = database
        self._id = hospital_id
        self._name = hospital.name
        self._rules = rules
        self._people = people
        self._observations = observations
        self._link_medical_history = link_medical_history
        self.authors = Authors(database, hospital_id, hospital)

    def claim_missing(self, keys: Collection[str]) -> dict[str, Document]:
        """Put a claim where a record of the rows `keys`, as they are now, is missing.

        Called before the rows change, since the change may end these records. Returns the rows.
        """
        rows = self._observations.documents(keys)
        self._claim(rows.values())
        return rows

    def begin(
        self,
        rows: MirrorView,
        patients: Mapping[str, str | None],
        unexplained: Collection[ObjectId] = (),
    ) -> RecordRound:
        """Project rows, which need not be stored yet, and read the records of now.

        `patients` are the links that are known, by person key; others are read. `unexplained` are
        records that are read beside those that the rows name. Nothing is written.
        """
        documents: dict[str, Document] = {}
        for key, head in rows.heads.items():
            document = rows.documents.get(key)
            if document is not None and _is_in_state(document, head):
                documents[key] = document
        if missing_keys := rows.heads.keys() - documents.keys():
            documents |= self._observations.documents(missing_keys)

        people = {_person_key(document) for document in documents.values()}
        owners = {key: patients[key] for key in people if key in patients}
        owners |= self._people.patients(people - owners.keys())

        target = self._project(documents, owners)
        ids = {*unexplained, *target}
        for document in documents.values():
            ids |= record_ids(document)
        records: dict[ObjectId, Document | None] = dict.fromkeys(ids)
        with translate_errors():
            query = {"_id": {"$in": list(ids)}}
            for record in self._db.medicalrecords.find(query, batch_size=ALL):
                records[record["_id"]] = record

        # A uuid may be another row's by now: that row says what becomes of the record.
        others = self._rows_shown_by(records, target) - rows.heads.keys() - rows.seeds
        if others:
            heads = self._observations.connected_heads(others) | rows.heads
            rows = MirrorView(rows.seeds | others, heads, documents)
            return self.begin(rows, owners, unexplained)

        kept = keptedits.read(
            self._db,
            [
                key
                for key, record in records.items()
                if record_update.changes_hands(record, target.get(key))
            ],
        )
        view = MirrorView(rows.seeds, rows.heads, documents)
        return RecordRound(view, owners, target, records, kept)

    def refresh(
        self,
        seeds: Collection[str],
        begun: RecordRound | None = None,
        unexplained: Collection[ObjectId] = (),
    ) -> Refreshed:
        """Make the records of the rows `seeds`, and of all connected rows, what they should be.

        The records `unexplained` end, too, unless a row makes them. `begun` saves the first half of
        the first try. It is used only if it was begun for these rows, and nothing is written where
        anything that it is based on has changed since.
        """
        result = Refreshed()
        if not seeds and not unexplained:
            return result
        current = begun
        if current is None or not current.rows.seeds >= set(seeds):
            current = self._begin_again(seeds, {}, unexplained)
        for _ in range(TRIES):
            if self._finish(current, result):
                for key, patient in current.patients.items():
                    if patient is None:
                        result.unlinked.add(key)
                return result
            current = self._begin_again(seeds, current.rows.documents, unexplained)
        raise Retry(f"hospital {self._id}: records changed all the time")

    def unexplained(self, person_id: int, patient: str | None) -> Iterator[list[ObjectId]]:
        """Yield the records that may have no reason, slice by slice.

        They are shown to this patient (hex of patients._id), or say that they are of this person of
        the hospital, and the row that they show doesn't name them. So does no edited row: an edited
        obs keeps the record of its first version.
        """
        of_hospital = {"openmrsData.hospitalId": self._id}
        concerned: list[Document] = [{"openmrsData.personId": person_id, "patientId": {"$ne": ""}}]
        if patient is not None:
            concerned.append({"patientId": patient})
        query = {"$or": [of_hospital | condition for condition in concerned]}
        with translate_errors():
            shown = self._db.medicalrecords.find(query, {"openmrsData.obsId": 1}, batch_size=ALL)
            while records := list(islice(shown, SLICE)):
                keys = {record["_id"]: self._row_key(record) for record in records}
                named = self._observations.records_named(person_id, keys.values())
                yield [key for key, row in keys.items() if named.get(row) != key]

    def _row_key(self, record: Document) -> str:
        """Return the ``_id`` of the row that a record shows."""
        return f"{self._id}/{record['openmrsData'].get('obsId')}"

    def _rows_shown_by(
        self, records: Mapping[ObjectId, Document | None], target: Collection[ObjectId]
    ) -> set[str]:
        """Return the ``_id`` of each row that a record shows which is not in the target."""
        rows: set[str] = set()
        for key, record in records.items():
            if key not in target and record is not None and record["patientId"]:
                rows.add(self._row_key(record))
        return rows

    def _begin_again(
        self,
        seeds: Collection[str],
        documents: dict[str, Document],
        unexplained: Collection[ObjectId],
    ) -> RecordRound:
        heads = self._observations.connected_heads(seeds)
        return self.begin(MirrorView(frozenset(seeds), heads, documents), {}, unexplained)

    def _finish(self, current: RecordRound, result: Refreshed) -> bool:
        """Write what differs. Return False when anything else has changed meanwhile.

        The order is what makes the compare-and-swap safe. The records were read before this; links
        and rows are read after them; and a record is written only where it is still as read. So
        whoever changes a link or a row later finds the records of now, or their claims.
        """
        (changes, refused), patients, heads = in_parallel(
            lambda: self._changes(current),
            lambda: self._people.patients(current.patients),
            lambda: self._observations.connected_heads(current.rows.seeds),
        )
        if patients != current.patients or heads != current.rows.heads:
            return False
        result.refused |= refused

        # Users and audit entries come before the records: a crash in between leaves no record
        # without its author, and no change untold.
        if changes:
            self.authors.ensure(record.author for record in current.target.values())
            auditlogs.write(self._db, changes, self.authors.system, self._name, _now())
        # A crash in between leaves what is kept twice, and a record that keeps it no less.
        leaving = [change.leaves for change in changes if change.leaves is not None]
        keptedits.keep(self._db, leaving)
        written = self._write(changes, current.target, result)
        if written:
            obsolete = [change.obsolete for change in changes if change.obsolete is not None]
            keptedits.forget(self._db, obsolete)

        # Rows of somebody who is not matched are about to be removed. A writer that still takes
        # them for matched must not insert their records.
        documents = current.rows.documents.values()
        self._claim(row for row in documents if current.patients[_person_key(row)] is None)

        if written and self._link_medical_history:
            self._list_in_patients(current)
        return written

    def _project(
        self, documents: Mapping[str, Document], patients: Mapping[str, str | None]
    ) -> dict[ObjectId, Projected]:
        self.authors.look_up(row.get("author") or NO_AUTHOR for row in documents.values())
        target: dict[ObjectId, Projected] = {}
        for person, rows in _by_person(documents.values()).items():
            patient = patients[person]
            if patient is None:
                continue
            created_by = self.authors.created_by
            for record in projected(rows, self._rules, self._id, self._name, patient, created_by):
                target[record.id] = record
        return target

    def _claim(self, rows: Iterable[Document]) -> None:
        """Put a claim in each place where rows would show a record, were their people matched."""
        uuids: dict[ObjectId, str] = {}
        for person_rows in _by_person(rows).values():
            uuids |= places(person_rows, self._rules)
        if not uuids:
            return
        query = {"_id": {"$in": list(uuids)}}
        with translate_errors():
            records = self._db.medicalrecords.find(query, {"_id": 1}, batch_size=ALL)
            missing = uuids.keys() - {record["_id"] for record in records}
        claims = [record_update.claim(key, self._id, uuids[key], _now()) for key in missing]
        # A claim that is refused as a duplicate found a record there by now, which is as good.
        bulk(self._db.medicalrecords, [InsertOne(claim) for claim in claims])

    def _changes(self, current: RecordRound) -> tuple[list[Change], dict[str, str]]:
        """Return what is to be written, and why some of it can't be, by the _id of the anchor."""
        now = _now()
        changes: list[Change] = []
        refused: dict[str, str] = {}
        for key, record in current.records.items():
            target = current.target.get(key)
            kept = current.kept.get(key, ())
            change = record_update.change(record, target, kept, self._id, now)
            if change is None:
                continue
            if target is not None and _is_too_large(change):
                refused[_anchor(self._id, target)] = "too_large"
            else:
                changes.append(change)
        return changes, refused

    def _write(
        self,
        changes: Sequence[Change],
        target: Mapping[ObjectId, Projected],
        result: Refreshed,
    ) -> bool:
        """Write where the records are still as read. Return False when one of them is not."""
        written = bulk(self._db.medicalrecords, [change.operation for change in changes])
        for index, problem in written.failed.items():
            key = changes[index].id
            if problem != "duplicate" and key in target:
                result.refused[_anchor(self._id, target[key])] = problem
        expected_matches = 0
        for index, change in enumerate(changes):
            if change.seen is not None and index not in written.failed:
                expected_matches += 1
        return "duplicate" not in written.failed.values() and written.matched == expected_matches

    def _list_in_patients(self, current: RecordRound) -> None:
        owners: dict[ObjectId, str | None] = {}
        for key, record in current.records.items():
            if record is not None:
                target = current.target.get(key)
                owners[key] = target.document["patientId"] if target is not None else None
        medical_history.link(self._db, owners)


def _is_in_state(document: Document, head: Head) -> bool:
    return (document["version"], document["digest"]) == (head.version, head.digest)


def _person_key(document: Document) -> str:
    return f"{document['hospital']}/{document['personId']}"


def _by_person(documents: Iterable[Document]) -> dict[str, list[Document]]:
    rows: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        rows[_person_key(document)].append(document)
    return rows


def _is_too_large(change: Change) -> bool:
    """Return whether MongoDB would refuse the document. Short texts are not encoded to know it."""
    fields = change.write.get("$set") or change.write
    texts = [*fields.values(), *fields.get("data", {}).values()]
    characters = sum(len(text) for text in texts if isinstance(text, str))
    return characters * 4 > MAX_BYTES and len(bson.encode(change.write)) > MAX_BYTES


def _anchor(hospital_id: str, record: Projected) -> str:
    """Return the ``_id`` of the row that a record is named after."""
    return f"{hospital_id}/{record.document['openmrsData']['obsId']}"


def _now() -> datetime:
    """Return the time in the precision that BSON keeps: milliseconds."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
