"""Projects one person's rows: mirror documents in, `medicalrecords` documents out. Pure.

The words (live, parent, first version, anchor) and every field are those of
docs/reference/records.md.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from bson import ObjectId

from destinations.mongo.document import Document
from destinations.mongo.projection.mapping import (
    Group,
    MappingRules,
    RecordType,
    Sense,
    Subject,
    codes,
)

CreatedBy = Callable[[Document], str]

NO_AUTHOR = {"name": "OpenMRS", "source": "none", "key": None}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Document = {}
_VALUE_TYPES = {"numeric": "numeric", "coded": "coded", "drug": "coded", "boolean": "coded"}
_TEST_STATUS = {"NORMAL": "Normal", "CRITICALLY_LOW": "Critical", "CRITICALLY_HIGH": "Critical"}


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
    mapping: MappingRules,
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
    for entry in _entries_in_order(rows, mapping):
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


def unmapped(documents: Iterable[Document], mapping: MappingRules) -> list[Document]:
    """Return one person's live rows that have a value and are in no record."""
    rows = {document["obsId"]: document for document in documents}
    return _sort_out(rows, mapping).unmapped


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
    """One record to be.

    `stating` are the rows whose values it states, by obs_id; `parts` its group's other members, by
    role. `panel` is the name of the panel that the anchor is in.
    """

    anchor: Document
    type: RecordType
    stating: list[Document]
    parts: dict[str, list[Document]] = field(default_factory=dict)
    panel: str | None = None
    group: Group | None = None


@dataclass(slots=True)
class _SortedOut:
    entries: list[_Entry] = field(default_factory=list)
    unmapped: list[Document] = field(default_factory=list)


def _entries_in_order(rows: dict[int, Document], mapping: MappingRules) -> list[_Entry]:
    """Return the entries by the anchors' obs_id."""
    entries = _sort_out(rows, mapping).entries
    return sorted(entries, key=lambda entry: int(entry.anchor["obsId"]))


def _sort_out(rows: dict[int, Document], mapping: MappingRules) -> _SortedOut:
    """Put each live row with a value into a group's record, into one of its own, or into none."""
    live = _live(rows)
    senses = {obs_id: mapping.sense(_subject(row)) for obs_id, row in live.items()}
    groups: dict[int, _Entry] = {}  # by the header's obs_id
    for obs_id, row in live.items():
        if group := senses[obs_id].heads:
            groups[obs_id] = _Entry(row, group.type, [], group=group)

    result = _SortedOut()
    for obs_id, row in sorted(live.items()):
        if row["value"]["kind"] == "none" or obs_id in groups:
            continue
        if not _join_group(row, live, groups):
            _stand_alone(row, live, senses, result)

    for entry in groups.values():
        if entry.stating:
            result.entries.append(entry)
            continue
        # Without a value row a group is no record. What its members say is shown nowhere.
        for part in entry.parts.values():
            result.unmapped += part
        if entry.anchor["value"]["kind"] != "none":
            result.unmapped.append(entry.anchor)
    return result


def _join_group(row: Document, live: dict[int, Document], groups: dict[int, _Entry]) -> bool:
    """Put the row into its group's record, as a value or a part. Return False if it has none."""
    entry = _header(row, live, groups) if groups else None
    if entry is None or entry.group is None:
        return False
    role = MappingRules.role(entry.group, _subject(row))
    if role is None:
        return False
    if role == "value":
        entry.stating.append(row)
    else:
        entry.parts.setdefault(role, []).append(row)
    return True


def _stand_alone(
    row: Document, live: dict[int, Document], senses: dict[int, Sense], result: _SortedOut
) -> None:
    """Make the row a record of its own, if a rule gives it a type."""
    record_type = senses[row["obsId"]].alone
    if record_type is None:
        result.unmapped.append(row)
        return
    panel: str | None = None
    parent = _parent(row, live)
    if parent is not None:
        sense = senses[parent["obsId"]]
        if sense.panel and not sense.heads:
            panel = _concept(parent).get("name")
    result.entries.append(_Entry(row, record_type, [row], panel=panel))


def _subject(row: Document) -> Subject:
    """Return what the mapping's matchers look at."""
    concept = _concept(row)
    answer = row["value"].get("concept")
    return Subject(
        name=concept.get("name") or "",
        concept_class=concept.get("class") or "",
        datatype=concept.get("datatype") or "",
        mappings=codes(concept.get("uuid") or "", concept.get("mappings") or ()),
        value_class=answer["class"] if answer else None,
        value_mappings=codes(answer["uuid"], answer["mappings"]) if answer else (),
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


def _parent(row: Document, live: dict[int, Document]) -> Document | None:
    return live.get(row["row"].get("obs_group_id"))


def _header(row: Document, live: dict[int, Document], groups: dict[int, _Entry]) -> _Entry | None:
    """Return the entry of the nearest header above the row."""
    seen = {row["obsId"]}
    above = _parent(row, live)
    while above is not None and above["obsId"] not in seen:
        if above["obsId"] in groups:
            return groups[above["obsId"]]
        seen.add(above["obsId"])
        above = _parent(above, live)
    return None


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
    shared = {
        "name": _concept(entry.anchor).get("name"),
        "details": text,
        "date": when,
        "doctor": author["name"],
        "hospital": hospital_name,
        "notes": row.get("comments") or entry.stating[0]["row"].get("comments"),
        "description": entry.panel,
    }
    match entry.type:
        case "condition":
            own = _condition(entry, text, when, author["name"])
        case "medication":
            own = _medication(entry, text, when, author["name"])
        case "test":
            own = _test(entry, when)
        case "visit":
            own = _visit(entry, text, when)
    return {name: value for name, value in (shared | own).items() if value}


def _condition(entry: _Entry, text: str, when: str, author: str) -> Document:
    parts = _parts(entry)
    return {
        "procedure": f"Synced from OpenMRS - {author}",
        "diagnosis": text,
        "diagnosed": when,
        "diagnosedDate": when,
        "diagnosedBy": author,
        "status": parts.get("certainty"),
        "description": parts.get("rank") or entry.panel,
    }


def _medication(entry: _Entry, text: str, when: str, author: str) -> Document:
    parts = _parts(entry)
    return {
        "medicationName": text,
        "dosage": parts.get("dosage"),
        "frequency": parts.get("frequency"),
        "startDate": parts.get("start") or when,
        "endDate": parts.get("endDate"),
        "description": parts.get("duration") or entry.panel,
        "prescribedBy": author,
    }


def _test(entry: _Entry, when: str) -> Document:
    row = entry.anchor["row"]
    interpretation = row.get("interpretation")
    return {
        "testName": _concept(entry.anchor).get("name"),
        "testDate": when,
        "result": _measured(entry.stating),
        "testStatus": _TEST_STATUS.get(interpretation, "Abnormal") if interpretation else None,
        "status": row.get("status"),
    }


def _visit(entry: _Entry, text: str, when: str) -> Document:
    encounter = entry.anchor.get("encounter") or _NOTHING
    date = encounter.get("written") or when
    return {"date": date, "reason": text, "visitDate": date}


def _parts(entry: _Entry) -> dict[str, str]:
    return {role: _measured(rows) for role, rows in entry.parts.items()}


def _openmrs_data(entry: _Entry, author: Document, hospital_id: str) -> Document:
    """Return `openmrsData`: where the record comes from. What is not known is left out."""
    anchor = entry.anchor
    row = anchor["row"]
    place = anchor.get("place") or _NOTHING
    encounter = anchor.get("encounter") or _NOTHING
    key = author["key"]
    is_provider = key and not key.startswith("user/")
    member_uuids: list[str] | None = None
    if entry.group:
        members = [*entry.stating]
        for part in entry.parts.values():
            members += part
        member_uuids = sorted(member["row"]["uuid"] for member in members)
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
        "memberUuids": member_uuids,
        "status": row.get("status"),
        "interpretation": row.get("interpretation"),
        "authorSource": author["source"],
    }
    return {name: value for name, value in fields.items() if value is not None and value != ""}
