"""Writes `medicalrecords`: what the rows show, where nobody has changed the record meanwhile.

Only the holder of the hospital's fence writes rows, links and, beside the Passport itself, records.
What doctors do is told by a record's `rev` and `lastEditedAt`: a record is written only where both
are as they were read; else everything is read again. A change and its audit entry are written
together.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import bson
from bson import ObjectId
from pymongo import InsertOne

from destinations.mongo import auditlogs, keptedits, medical_history, record_update
from destinations.mongo.client import ALL, Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence, FencedChange
from destinations.mongo.mirror import MAX_BYTES
from destinations.mongo.observations import SLICE, Head, MirrorView, Observations
from destinations.mongo.people import People
from destinations.mongo.placeholder_accounts import Authors
from destinations.mongo.projection.obs import NO_AUTHOR, Projected, projected, record_ids
from destinations.mongo.record_update import Change
from meaning.rules import MappingRules
from passport.errors import Retry
from passport.settings import Hospital

TRIES = 20


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


class LookedAt(NamedTuple):
    """A slice of a person's records. No row explains the `unexplained` ones, so far as was seen."""

    unexplained: list[ObjectId]
    is_full: bool


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
        fence: Fence,
        *,
        link_medical_history: bool,
    ) -> None:
        self._db = database
        self._id = hospital_id
        self._name = hospital.name
        self._rules = rules
        self._people = people
        self._observations = observations
        self._fence = fence
        self._link_medical_history = link_medical_history
        self.authors = Authors(database, hospital_id, hospital)

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
    ) -> dict[str, str]:
        """Make the records of the rows `seeds`, and of all connected rows, what they should be.

        The records `unexplained` end, too, unless a row makes them. `begun` saves the first half of
        the first try, if it was begun for these rows. Returns the reason by the ``_id`` of each row
        whose record can't be stored.
        """
        refused: dict[str, str] = {}
        if not seeds and not unexplained:
            return refused
        current = begun
        if current is None or not current.rows.seeds >= set(seeds):
            current = self._begin_again(seeds, {}, unexplained)
        for _ in range(TRIES):
            if self._finish(current, refused):
                return refused
            current = self._begin_again(seeds, current.rows.documents, unexplained)
        raise Retry(f"hospital {self._id}: records changed all the time")

    def look_for_unexplained(self, person_id: int, patient: str | None) -> Iterator[LookedAt]:
        """Look for records that may have no reason, slice by slice.

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
            shown = self._db.medicalrecords.find(query, {"openmrsData.obsId": 1}, batch_size=SLICE)
            while records := list(islice(shown, SLICE)):
                keys = {record["_id"]: self._row_key(record) for record in records}
                named = self._observations.records_named(person_id, keys.values())
                unexplained = [key for key, row in keys.items() if named.get(row) != key]
                yield LookedAt(unexplained, len(records) == SLICE)

    def _row_key(self, record: Document) -> str:
        """Return the ``_id`` of the row that a record shows, and is named after."""
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

    def _finish(self, current: RecordRound, refused: dict[str, str]) -> bool:
        """Write what differs. Return False when somebody has changed a record meanwhile.

        What can't be stored is added to `refused`.
        """
        changes, too_large = self._changes(current)
        refused |= too_large
        # Users come before the records: a crash in between leaves no record without its author.
        if changes:
            authors = (record.author for record in current.target.values())
            self.authors.ensure(authors, self._fence)
        written = self._write(changes, current.target, refused)
        if not written:
            self._restore_tombstones(change for change in changes if change.seen is None)
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
                refused[self._row_key(target.document)] = "too_large"
            else:
                changes.append(change)
        return changes, refused

    def _write(
        self,
        changes: Sequence[Change],
        target: Mapping[ObjectId, Projected],
        refused: dict[str, str],
    ) -> bool:
        """Write where the records are still as read. Return False when one of them is not."""
        now = _now()
        moves = keptedits.moves(self._db, changes)
        operations: list[FencedChange] = [
            {
                "auditlogs": [auditlogs.beside(change, self.authors.system, self._name, now)],
                "medicalrecords": [change.operation],
                "keptedits": moved,
            }
            for change, moved in zip(changes, moves, strict=True)
        ]
        written = self._fence.write(operations, guarded="medicalrecords")
        for index, problem in written.failed.items():
            key = changes[index].id
            if problem != "duplicate" and key in target:
                refused[self._row_key(target[key].document)] = problem
        return not written.missed and "duplicate" not in written.failed.values()

    def _restore_tombstones(self, inserts: Iterable[Change]) -> None:
        """Put a tombstone where a record that is to be inserted was before.

        Only the audit entries still know it. If the last one says that we had hidden the record,
        MongoDB has deleted its tombstone since. Else the record was shown when it went: somebody
        has deleted it in the Passport, and the hospital must not bring it back.
        """
        inserts = list(inserts)
        last = auditlogs.last_entries(self._db, [change.id for change in inserts])
        tombstones: list[FencedChange] = []
        for change in inserts:
            if change.id not in last:
                continue
            rev, action = last[change.id]
            tombstone = record_update.tombstone(
                change, rev, self._id, _now(), is_deleted=action != "delete"
            )
            tombstones.append({"medicalrecords": [InsertOne(tombstone)]})
        self._fence.write(tombstones)

    def _list_in_patients(self, current: RecordRound) -> None:
        owners: dict[ObjectId, str | None] = {}
        for key, record in current.records.items():
            if record is not None:
                target = current.target.get(key)
                owners[key] = target.document["patientId"] if target is not None else None
        medical_history.link(owners, self._fence)


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


def _now() -> datetime:
    """Return the time in the precision that BSON keeps: milliseconds."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
