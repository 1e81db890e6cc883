"""What the Passport shows of one person's rows: mirror documents in, `medicalrecords` documents
out. Pure.

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
_NOWHERE: Document = {}
_VALUE_TYPES = {"numeric": "numeric", "coded": "coded", "drug": "coded", "boolean": "coded"}
_TEST_STATUS = {"NORMAL": "Normal", "CRITICALLY_LOW": "Critical", "CRITICALLY_HIGH": "Critical"}


class Projected(NamedTuple):
    """`document` without the Passport-owned fields; `created` is for `syncDate` and `createdAt` of
    an insert.
    """

    id: ObjectId
    document: Document
    created: datetime
    author: Document


def projected(
    documents: Iterable[Document],
    mapping: MappingRules,
    hospital_id: str,
    hospital_name: str,
    patient_id: str,
    created_by: CreatedBy,
) -> list[Projected]:
    """The records of one person's mirror documents (all of them, or whole groups).

    `created_by` gives the hex of a users._id for a mirror document's `author`.
    """
    rows = {document["obsId"]: document for document in documents}
    found: dict[ObjectId, Projected] = {}
    for entry in sorted(
        _sorted_out(rows, mapping).entries, key=lambda entry: int(entry.anchor["obsId"])
    ):
        first = _first_version(entry.anchor, rows)
        key = first_id(first)
        author = _author(entry)
        document = {
            "patientId": patient_id,
            "type": entry.type,
            "data": _data(entry, author, hospital_name),
            "createdBy": created_by(author),
            "openmrsData": _openmrs_data(entry, author, hospital_id),
        }
        created = (
            first.get("created") or entry.anchor.get("created") or entry.anchor.get("at") or _EPOCH
        )
        found[key] = Projected(key, document, created, author)
    return list(found.values())


def places(documents: Iterable[Document], mapping: MappingRules) -> dict[ObjectId, str]:
    """Return the records that one person's mirror documents show: the anchor's uuid by record id."""
    rows = {document["obsId"]: document for document in documents}
    uuids: dict[ObjectId, str] = {}
    entries = _sorted_out(rows, mapping).entries
    for entry in sorted(entries, key=lambda entry: int(entry.anchor["obsId"])):
        uuids[first_id(_first_version(entry.anchor, rows))] = entry.anchor["row"]["uuid"]
    return uuids


def unmapped(documents: Iterable[Document], mapping: MappingRules) -> list[Document]:
    """One person's live rows with a value that are in no record."""
    return _sorted_out({document["obsId"]: document for document in documents}, mapping).unmapped


@lru_cache(16_384)
def record_id(hospital_id: str, uuid: str) -> ObjectId:
    """Of the record whose anchor's first version has this uuid."""
    return ObjectId(sha256(f"{hospital_id}/{uuid}".encode()).digest()[:12])


def first_id(row: Document) -> ObjectId:
    """Of the record that a mirror document names, should it be the anchor's first version."""
    return row.get("record") or record_id(row["hospital"], row["row"]["uuid"])


@dataclass(slots=True)
class _Entry:
    """One record to be. `stating`: the rows whose values it states, by obs_id; `parts`: its group's
    other members.
    """

    anchor: Document
    type: RecordType
    stating: list[Document]
    parts: dict[str, list[Document]] = field(default_factory=dict)
    panel: str | None = None
    group: Group | None = None


@dataclass(slots=True)
class _Sorted:
    entries: list[_Entry] = field(default_factory=list)
    unmapped: list[Document] = field(default_factory=list)


def _sorted_out(rows: dict[int, Document], mapping: MappingRules) -> _Sorted:
    live = _live(rows)
    senses = {obs_id: mapping.sense(_subject(row)) for obs_id, row in live.items()}
    groups: dict[int, _Entry] = {}
    for obs_id, row in live.items():
        if group := senses[obs_id].heads:
            groups[obs_id] = _Entry(row, group.type, [], group=group)
    result = _Sorted()
    for obs_id, row in sorted(live.items()):
        if (
            row["value"]["kind"] != "none"
            and obs_id not in groups
            and not _joined(row, live, groups)
        ):
            _alone(row, live, senses, result)
    for entry in groups.values():
        _close(entry, result)
    return result


def _joined(row: Document, live: dict[int, Document], groups: dict[int, _Entry]) -> bool:
    """Whether the row belongs to a group's record, as its value or as a part; then it is put there."""
    entry = _header(row, live, groups) if groups else None
    if entry is None or entry.group is None:
        return False
    role = MappingRules.role(entry.group, _subject(row))
    if role == "value":
        entry.stating.append(row)
    elif role is not None:
        entry.parts.setdefault(role, []).append(row)
    return role is not None


def _close(entry: _Entry, result: _Sorted) -> None:
    if entry.stating:
        result.entries.append(entry)
        return
    result.unmapped += [row for part in entry.parts.values() for row in part]
    if entry.anchor["value"]["kind"] != "none":
        result.unmapped.append(entry.anchor)


def _alone(
    row: Document, live: dict[int, Document], senses: dict[int, Sense], result: _Sorted
) -> None:
    type_ = senses[row["obsId"]].alone
    if type_ is None:
        result.unmapped.append(row)
        return
    parent = _parent(row, live)
    in_panel = (
        parent is not None and senses[parent["obsId"]].panel and not senses[parent["obsId"]].heads
    )
    panel = _concept(parent).get("name") if parent is not None and in_panel else None
    result.entries.append(_Entry(row, type_, [row], panel=panel))


def _subject(row: Document) -> Subject:
    concept, answer = _concept(row), row["value"].get("concept")
    return Subject(
        concept.get("name") or "",
        concept.get("class") or "",
        concept.get("datatype") or "",
        codes(concept.get("uuid") or "", concept.get("mappings") or ()),
        answer["class"] if answer else None,
        codes(answer["uuid"], answer["mappings"]) if answer else (),
    )


def _live(rows: dict[int, Document]) -> dict[int, Document]:
    standing = {
        obs_id: row
        for obs_id, row in rows.items()
        if not row["deleted"] and not row["row"]["voided"]
    }
    replaced = {row["row"].get("previous_version") for row in standing.values()}
    return {obs_id: row for obs_id, row in standing.items() if obs_id not in replaced}


def _first_version(row: Document, rows: dict[int, Document]) -> Document:
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
    """Of the nearest header above the row."""
    seen = {row["obsId"]}
    above = _parent(row, live)
    while above is not None and above["obsId"] not in seen:
        if above["obsId"] in groups:
            return groups[above["obsId"]]
        seen.add(above["obsId"])
        above = _parent(above, live)
    return None


def _concept(row: Document) -> Document:
    return row.get("concept") or _NOWHERE


def _author(entry: _Entry) -> Document:
    own = entry.anchor.get("author") or NO_AUTHOR
    return own if own["source"] != "none" else entry.stating[0].get("author") or NO_AUTHOR


def _measured(rows: Sequence[Document]) -> str:
    """The rows' texts, numbers with their units."""
    return "; ".join(_with_units(row) for row in rows)


def _with_units(row: Document) -> str:
    text, units = row["value"]["text"], _concept(row).get("units")
    return f"{text} {units}" if units and row["value"]["kind"] == "numeric" else str(text)


def _data(entry: _Entry, author: Document, hospital_name: str) -> dict[str, str]:
    anchor = entry.anchor["row"]
    text = "; ".join(row["value"]["text"] for row in entry.stating)
    when = anchor["obs_datetime"]
    shared = {
        "name": _concept(entry.anchor).get("name"),
        "details": text,
        "date": when,
        "doctor": author["name"],
        "hospital": hospital_name,
        "notes": anchor.get("comments") or entry.stating[0]["row"].get("comments"),
        "description": entry.panel,
    }
    own = _OWN[entry.type](entry, text, when, author["name"])
    return {key: value for key, value in (shared | own).items() if value}


def _condition(entry: _Entry, text: str, when: str, author: str) -> Document:
    part = _parts(entry)
    return {
        "procedure": f"Synced from OpenMRS - {author}",
        "diagnosis": text,
        "diagnosed": when,
        "diagnosedDate": when,
        "diagnosedBy": author,
        "status": part.get("certainty"),
        "description": part.get("rank") or entry.panel,
    }


def _medication(entry: _Entry, text: str, when: str, author: str) -> Document:
    part = _parts(entry)
    return {
        "medicationName": text,
        "dosage": part.get("dosage"),
        "frequency": part.get("frequency"),
        "startDate": part.get("start") or when,
        "endDate": part.get("endDate"),
        "description": part.get("duration") or entry.panel,
        "prescribedBy": author,
    }


def _test(entry: _Entry, _text: str, when: str, _author: str) -> Document:
    anchor = entry.anchor["row"]
    interpretation = anchor.get("interpretation")
    return {
        "testName": _concept(entry.anchor).get("name"),
        "testDate": when,
        "result": _measured(entry.stating),
        "testStatus": _TEST_STATUS.get(interpretation, "Abnormal") if interpretation else None,
        "status": anchor.get("status"),
    }


def _visit(entry: _Entry, text: str, when: str, _author: str) -> Document:
    date = (entry.anchor.get("encounter") or _NOWHERE).get("written") or when
    return {"date": date, "reason": text, "visitDate": date}


_OWN: dict[RecordType, Callable[[_Entry, str, str, str], Document]] = {
    "condition": _condition,
    "medication": _medication,
    "test": _test,
    "visit": _visit,
}


def _parts(entry: _Entry) -> dict[str, str]:
    return {name: _measured(rows) for name, rows in entry.parts.items()}


def _openmrs_data(entry: _Entry, author: Document, hospital_id: str) -> Document:
    row, key = entry.anchor["row"], author["key"]
    members = [*entry.stating, *(member for part in entry.parts.values() for member in part)]
    fields = {
        "obsId": entry.anchor["obsId"],
        "conceptId": row["concept_id"],
        "personId": entry.anchor["personId"],
        "obsDatetime": entry.anchor.get("at"),
        "dateCreated": entry.anchor.get("created"),
        "creatorName": author["name"],
        "locationName": (entry.anchor.get("place") or _NOWHERE).get("name"),
        "encounterUuid": (entry.anchor.get("encounter") or _NOWHERE).get("uuid"),
        "providerUuid": key if key and not key.startswith("user/") else None,
        "valueType": _VALUE_TYPES.get(entry.stating[0]["value"]["kind"], "text"),
        "hospitalId": hospital_id,
        "obsUuid": row["uuid"],
        "memberUuids": sorted(member["row"]["uuid"] for member in members) if entry.group else None,
        "status": row.get("status"),
        "interpretation": row.get("interpretation"),
        "authorSource": author["source"],
    }
    return {name: value for name, value in fields.items() if value is not None and value != ""}
