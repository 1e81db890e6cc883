"""Projects one person's rows: mirror documents in, `medicalrecords` documents out. Pure.

The words (live, parent, first version, anchor) and every field are those of
docs/reference/records.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

from bson import ObjectId

from destinations.mongo.document import Document
from meaning.facts import Fact, Kind, Row, State, Subject, codes
from meaning.interpretation import status_of
from meaning.reading import BLOOD_PRESSURE, read
from meaning.rules import MappingRules

CreatedBy = Callable[[Document], str]

NO_AUTHOR = {"name": "OpenMRS", "source": "none", "key": None}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Document = {}
_VALUE_TYPES = {"numeric": "numeric", "coded": "coded", "drug": "coded", "boolean": "coded"}

RecordType = Literal["condition", "medication", "test", "visit"]
# The Passport has four types for what we know. Other kinds are shown as the type whose pages say
# them best: a question with its answer as a test, what happened on a day as a visit. A kind that is
# missing here is in no record.
_TYPES: Mapping[Kind, RecordType] = {
    "condition": "condition",
    "allergy": "condition",
    "medication": "medication",
    "test": "test",
    "finding": "test",
    "family_history": "test",
    "note": "test",
    "visit": "visit",
    "order": "visit",
    "vaccination": "visit",
}
_HEADINGS: Mapping[Kind, str] = {
    "finding": "Finding",
    "family_history": "Family history",
    "note": "Other notes",
}
_STATES: Mapping[State, str] = {"past": "Past", "suspected": "Suspected"}
_YES = "CIEL:1065"
_ONLY_DECIDING = frozenset({"present", "revised"})


class Projected(NamedTuple):
    """A record as it should be.

    `document` is without the Passport-owned fields. `created` is for `syncDate` and `createdAt` of
    an insert. `author` is the mirror document's. `merged` are the hospital's person_ids of whom it
    was before they were merged into its person.
    """

    id: ObjectId
    document: Document
    created: datetime
    author: Document
    merged: tuple[int, ...] = ()


def projected(
    documents: Iterable[Document],
    rules: MappingRules,
    hospital_id: str,
    hospital_name: str,
    patient_id: str,
    created_by: CreatedBy,
) -> list[Projected]:
    """Return the records of one person's mirror documents (all of them, or whole groups).

    `patient_id` is the hex of ``patients._id``; `created_by` gives the hex of a ``users._id`` for a
    mirror document's `author`.
    """
    rows = {document["obsId"]: document for document in documents}
    records: dict[ObjectId, Projected] = {}
    for entry in _entries_in_order(rows, rules):
        anchor = entry.anchor
        first = _first_version(anchor, rows)
        key = first_id(first)
        author = _author(entry)
        document = {
            "patientId": patient_id,
            "type": entry.type,
            "data": _data(entry, author, hospital_name),
            "createdBy": created_by(author),
            "openmrsData": _openmrs_data(entry, author, hospital_id),
        }
        created = first_created(first) or anchor.get("created") or anchor.get("at") or _EPOCH
        merged = tuple(first["first"]["persons"]) if "first" in first else ()
        records[key] = Projected(key, document, created, author, merged)
    return list(records.values())


def live_rows(documents: Iterable[Document], rules: MappingRules) -> list[Row]:
    """Return one person's live rows as the rules look at them."""
    rows = {document["obsId"]: document for document in documents}
    return _rows(_live(rows), rows, rules)


def record_type(fact: Fact, rules: MappingRules) -> RecordType | None:
    """Return the type of the record that a fact is shown as; None if it is in no record."""
    if fact.kind == "note" and not rules.other_notes:
        return None
    return _TYPES.get(fact.kind)


def unmapped(documents: Iterable[Document], rules: MappingRules) -> list[Document]:
    """Return one person's live rows that no rule knows, and those that are parts of nothing."""
    rows = {document["obsId"]: document for document in documents}
    live = _live(rows)
    facts = read(_rows(live, rows, rules), rules)
    return [
        live[key]
        for fact in facts
        if not fact.understood or fact.kind == "detail"
        for key in fact.stating
    ]


@lru_cache(16_384)
def record_id(hospital_id: str, uuid: str) -> ObjectId:
    """Return the _id of the record whose anchor's first version has this uuid."""
    return ObjectId(sha256(f"{hospital_id}/{uuid}".encode()).digest()[:12])


def first_id(row: Document) -> ObjectId:
    """Return the _id of the record that a mirror document names as the anchor's first version."""
    if "first" in row:
        first: ObjectId = row["first"]["record"]
        return first
    return row.get("record") or record_id(row["hospital"], row["row"]["uuid"])


def record_ids(row: Document) -> set[ObjectId]:
    """Return the _id of each record that a mirror document names, or once named."""
    return {first_id(row), *row.get("formerRecords", ())}


def first_created(row: Document) -> datetime | None:
    """Return when a mirror document, as the anchor's first version, was written down."""
    created: datetime | None = (row.get("first") or row).get("created")
    return created


# --- which rows make which record


@dataclass(slots=True)
class _Entry:
    """One record to be: a fact, and the rows of it as documents."""

    fact: Fact
    type: RecordType
    anchor: Document
    stating: list[Document]
    parts: dict[str, list[Document]]
    panel: str | None


def _entries_in_order(rows: dict[int, Document], rules: MappingRules) -> list[_Entry]:
    """Return the entries by the anchors' obs_id."""
    live = _live(rows)
    entries: list[_Entry] = []
    for fact in read(_rows(live, rows, rules), rules):
        type_of_record = record_type(fact, rules)
        if type_of_record is None:
            continue
        entries.append(
            _Entry(
                fact=fact,
                type=type_of_record,
                anchor=live[fact.anchor],
                stating=[live[key] for key in fact.stating],
                parts={role: [live[key] for key in keys] for role, keys in fact.parts.items()},
                panel=None if fact.panel is None else _concept(live[fact.panel]).get("name"),
            )
        )
    return sorted(entries, key=lambda entry: int(entry.anchor["obsId"]))


def _rows(live: dict[int, Document], rows: dict[int, Document], rules: MappingRules) -> list[Row]:
    """Return the live ones of all `rows` as the rules look at them."""
    # Of a purged version nobody knows any more when it was written.
    kept = {obs_id: row for obs_id, row in rows.items() if not row["deleted"]}
    return [
        Row(
            key=obs_id,
            subject=_subject(row, rules),
            parent=row["row"].get("obs_group_id"),
            first=_first_version(row, kept)["obsId"] if _is_edited(row) else None,
            moment=row.get("moment"),
        )
        for obs_id, row in live.items()
    ]


def _is_edited(row: Document) -> bool:
    return row["row"].get("previous_version") is not None


def _subject(row: Document, rules: MappingRules) -> Subject:
    """Return what the rules look at."""
    concept = _concept(row)
    value = row["value"]
    answer = value.get("concept")
    return Subject(
        name=concept.get("name") or "",
        concept_class=concept.get("class") or "",
        datatype=concept.get("datatype") or "",
        mappings=codes(concept.get("uuid") or "", concept.get("mappings") or ()),
        value=value["kind"],
        value_class=answer["class"] if answer else None,
        value_mappings=codes(answer["uuid"], answer["mappings"]) if answer else (),
        said=rules.said(value["kind"], value["text"]),
    )


def _live(rows: dict[int, Document]) -> dict[int, Document]:
    """Return the rows that are neither gone nor voided, and that no such row has replaced."""
    standing = {
        obs_id: row
        for obs_id, row in rows.items()
        if not row["deleted"] and not row["row"]["voided"]
    }
    replaced = {row["row"].get("previous_version") for row in standing.values()}
    return {obs_id: row for obs_id, row in standing.items() if obs_id not in replaced}


def _first_version(row: Document, rows: dict[int, Document]) -> Document:
    """Return the first version of a row as far as it is known; the row itself in a circle."""
    seen = {row["obsId"]}
    first = row
    while (earlier := rows.get(first["row"].get("previous_version"))) is not None:
        if earlier["obsId"] in seen:
            return row
        seen.add(earlier["obsId"])
        first = earlier
    return first


# --- what a record says


def _concept(row: Document) -> Document:
    return row.get("concept") or _NOTHING


def _author(entry: _Entry) -> Document:
    """Return the anchor's author; if nobody is known, that of the first row whose value it is."""
    author = entry.anchor.get("author") or NO_AUTHOR
    if author["source"] != "none":
        return author
    return entry.stating[0].get("author") or NO_AUTHOR


def _measured(rows: Sequence[Document]) -> str:
    """Return the rows' texts, numbers with their units."""
    return "; ".join(_with_units(row) for row in rows)


def _with_units(row: Document) -> str:
    text = row["value"]["text"]
    units = _concept(row).get("units")
    if units and row["value"]["kind"] == "numeric":
        return f"{text} {units}"
    return str(text)


def _data(entry: _Entry, author: Document, hospital_name: str) -> dict[str, str]:
    """Return `data`: what all types of records have, and over it what this one has."""
    row = entry.anchor["row"]
    when = row["obs_datetime"]
    text = "; ".join(stating["value"]["text"] for stating in entry.stating)
    answer = None
    if entry.fact.is_question:
        answer = text if _says_more_than_yes(entry.stating[0]) else None
        text = _concept(entry.stating[0]).get("name") or text
    shared = {
        "name": _concept(entry.anchor).get("name"),
        "details": text,
        "date": when,
        "doctor": author["name"],
        "hospital": hospital_name,
        "notes": row.get("comments") or entry.stating[0]["row"].get("comments"),
    }
    match entry.fact.kind:
        case "condition":
            own = _condition(entry, text, when, author["name"])
            own["status"] = own["status"] or answer or _STATES.get(entry.fact.state)
        case "allergy":
            own = _allergy(entry, text, when, author["name"])
        case "medication":
            own = _medication(entry, text, when, author["name"])
        case "vaccination":
            own = _vaccination(entry, f"{text}: {answer}" if answer else text, when)
        case "visit" | "order":
            own = _visit(entry, text, when)
        case _:
            own = _test(entry, text, when)
    return {name: value for name, value in (shared | own).items() if value}


def _says_more_than_yes(row: Document) -> bool:
    """Return whether an answer to a question that is stated itself is worth telling."""
    answer = row["value"].get("concept")
    if answer is not None and _YES in codes(answer["uuid"], answer["mappings"]):
        return False
    return bool(row["value"]["text"] != "Yes")


def _condition(entry: _Entry, text: str, when: str, author: str) -> Document:
    diagnosed = _part(entry, "start") or when
    return {
        "procedure": f"Synced from OpenMRS - {author}",
        "diagnosis": text,
        "diagnosed": diagnosed,
        "diagnosedDate": diagnosed,
        "diagnosedBy": author,
        "status": _part(entry, "certainty"),
        "description": _description(entry, _part(entry, "rank"), ("rank", "certainty", "start")),
    }


def _allergy(entry: _Entry, text: str, when: str, author: str) -> Document:
    """Return a condition that can't be read as one: its title begins with the word."""
    none_known = entry.fact.state == "none_known"
    return _condition(entry, text, when, author) | {
        "name": "Allergy",
        "diagnosis": "No known allergies" if none_known else f"Allergy: {text}",
        "description": _description(entry, None, ("start",)),
    }


def _medication(entry: _Entry, text: str, when: str, author: str) -> Document:
    own_fields = ("dosage", "frequency", "start", "endDate", "duration")
    return {
        "medicationName": text,
        "dosage": _part(entry, "dosage"),
        "frequency": _part(entry, "frequency"),
        "startDate": _part(entry, "start") or when,
        "endDate": _part(entry, "endDate"),
        "description": _description(entry, _part(entry, "duration"), own_fields),
        "prescribedBy": author,
        "status": _STATES.get(entry.fact.state),
    }


def _test(entry: _Entry, text: str, when: str) -> Document:
    """Return a result, or what is shown as one: a finding, a note, the family's history."""
    row = entry.anchor["row"]
    name = _concept(entry.anchor).get("name")
    result = text if entry.fact.is_question else _measured(entry.stating)
    own = {}
    if entry.fact.rule == BLOOD_PRESSURE:
        name = "Blood pressure"
        numbers = [stating["value"]["text"] for stating in entry.stating]
        units = _concept(entry.anchor).get("units")
        result = "/".join(numbers) + (f" {units}" if units else "")
        own = {"name": name, "details": "/".join(numbers)}
    return own | {
        "testName": name,
        "testDate": when,
        "result": result,
        "testStatus": status_of(row.get("interpretation")),
        "status": row.get("status"),
        "description": _description(entry, _HEADINGS.get(entry.fact.kind), ()),
    }


def _visit(entry: _Entry, text: str, when: str) -> Document:
    encounter = entry.anchor.get("encounter") or _NOTHING
    date = encounter.get("written") or when
    reason = text
    if entry.fact.kind == "order":  # the name of a test is no reason why somebody came
        reason = f"{_concept(entry.anchor).get('name')}: {text}"
    return {
        "date": date,
        "reason": reason,
        "visitDate": date,
        "description": _description(entry, None, ()),
    }


def _vaccination(entry: _Entry, text: str, when: str) -> Document:
    date = _part(entry, "start") or when
    return {
        "date": date,
        "reason": f"Vaccination: {text}",
        "visitDate": date,
        "description": _description(entry, None, ("start",)),
    }


def _part(entry: _Entry, role: str) -> str | None:
    rows = entry.parts.get(role)
    return _measured(rows) if rows else None


def _description(entry: _Entry, first: str | None, told: Collection[str]) -> str:
    """Return the panel or what else is to come first, and the parts that have no field, in words.

    `told` are the roles that have one.
    """
    texts = [first or entry.panel or ""]
    for role, rows in sorted(entry.parts.items()):
        if role not in told and role not in _ONLY_DECIDING:
            texts += [f"{_concept(row).get('name')}: {_with_units(row)}" for row in rows]
    return "; ".join(text for text in texts if text)


def _openmrs_data(entry: _Entry, author: Document, hospital_id: str) -> Document:
    """Return `openmrsData`: where the record comes from. What is not known is left out."""
    anchor = entry.anchor
    row = anchor["row"]
    place = anchor.get("place") or _NOTHING
    encounter = anchor.get("encounter") or _NOTHING
    key = author["key"]
    is_provider = key and not key.startswith("user/")
    members = [*entry.stating]
    for part in entry.parts.values():
        members += part
    is_alone = members == [anchor]
    fields = {
        "obsId": anchor["obsId"],
        "conceptId": row["concept_id"],
        "personId": anchor["personId"],
        "obsDatetime": anchor.get("at"),
        "dateCreated": anchor.get("created"),
        "creatorName": author["name"],
        "locationName": place.get("name"),
        "encounterUuid": encounter.get("uuid"),
        "providerUuid": key if is_provider else None,
        "valueType": _VALUE_TYPES.get(entry.stating[0]["value"]["kind"], "text"),
        "hospitalId": hospital_id,
        "obsUuid": row["uuid"],
        "memberUuids": None if is_alone else sorted(one["row"]["uuid"] for one in members),
        "status": row.get("status"),
        "interpretation": row.get("interpretation"),
        "authorSource": author["source"],
        "kind": entry.fact.kind if entry.fact.kind != entry.type else None,
        "state": entry.fact.state if entry.fact.state != "present" else None,
    }
    return {name: value for name, value in fields.items() if value is not None and value != ""}
