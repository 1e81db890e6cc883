"""A row's document in `observations`: its columns as published, and what they mean. Pure.

``_id`` "<hospital>/<obs_id>", ``version``, ``digest`` (of the content, to tell what needs no
writing), ``deleted``, ``related`` (the ``_id`` of each row that this one names, or once named, as
its group or previous version; absent without), ``formerRecords`` (the ``_id`` of each record that
was named after this row under an earlier uuid; absent without), ``row``, ``created`` and ``at``
(instants), ``concept``, ``value``, ``author``, ``place``, ``encounter``, and of a row that a merge
has brought from somebody else ``first``: the ``record`` that its first version names, ``created``,
``rows`` (earlier versions, also in ``related``) and ``persons``. ``moment`` (also in ``related``)
is what the two numbers of a blood pressure without a group share; absent from other rows.

A tombstone (``deleted``) keeps only what others need to know of it: the columns of IDENTITY,
``created``, and instead of its uuid the ``record`` that it names as a first version: the row may be
of somebody now of whom nothing is kept.

A name has ``names`` beside it: what else it is called, by locale. What is called the same there
isn't repeated, so ``names`` is absent where the name says it all. ``value.range`` are the bounds of
a number (absent without), ``value.computed`` is its interpretation where the hospital states none.
``format`` is FORMAT. A document of an earlier release has none of these; `in_first_format` returns
another one as that release would have written it.
"""

from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from destinations.mongo.document import Document
from destinations.mongo.projection.obs import first_created, first_id, record_id
from meaning.facts import codes
from meaning.reading import measures_pressure
from passport.errors import Reject
from passport.event import Row
from passport.facts import (
    Author,
    Concept,
    Encounter,
    FirstVersion,
    Names,
    Observation,
    Place,
    ReferenceRange,
    Value,
)

FORMAT = 2  # of a document with names and ranges; those of the first format say none
IDENTITY = ("obs_id", "person_id", "obs_group_id", "previous_version", "date_created")
MAX_BYTES = 15_000_000  # MongoDB takes 16 MiB, the command around it included


class SealedDocument(dict[str, Any]):
    """A document that keeps the BSON of its content.

    So the content is encoded once, for the digest and for the write. `head` are the fields before
    the content, which the digest leaves out.
    """

    __slots__ = ("encoded", "head")

    def __init__(self, head: Document, content: Document, encoded: bytes) -> None:
        super().__init__(content | head)
        self.head, self.encoded = head, encoded

    @property
    def written(self) -> RawBSONDocument:
        """Return the document as it is sent."""
        # A BSON document is its length in 4 bytes, the fields, and a zero byte.
        fields = bson.encode(self.head)[4:-1] + self.encoded[4:]
        return RawBSONDocument((len(fields) + 4).to_bytes(4, "little") + fields)

    def with_head(self, fields: Document) -> "SealedDocument":
        """Return the same document with other or further fields before the content."""
        return SealedDocument(self.head | fields, self, self.encoded)


def document(observation: Observation) -> SealedDocument:
    """Return the mirror document of a row.

    Raises Reject, ``too_large`` or ``invalid``, when BSON can't hold it.
    """
    content: Document = {
        "hospital": observation.hospital,
        "obsId": observation.obs_id,
        "personId": observation.person.person_id,
        "deleted": observation.deleted,
        "created": instant(observation.created),
    }
    if observation.deleted:
        content |= _identity(observation.row) | {
            "record": record_id(observation.hospital, observation.row["uuid"])
        }
    else:
        content |= _meaning(observation)
    return sealed(observation.key, observation.version, content)


def tombstone(row: Document, version: str) -> SealedDocument:
    """Return what is kept of a mirror document whose row is gone."""
    content = {
        "hospital": row["hospital"],
        "obsId": row["obsId"],
        "personId": row["personId"],
        "deleted": True,
        "created": first_created(row),
        **_identity(row["row"]),
        "record": first_id(row),
    }
    return sealed(row["_id"], version, content)


def sealed(key: str, version: str, content: Document) -> SealedDocument:
    """Return a document with its content encoded. Raises Reject when BSON can't hold it."""
    try:
        encoded = bson.encode(content)
    except (bson.errors.BSONError, OverflowError, UnicodeError):
        raise Reject("invalid") from None
    if len(encoded) > MAX_BYTES:
        raise Reject("too_large")
    digest = blake2b(encoded, digest_size=9).hexdigest()
    head: Document = {"_id": key, "version": version, "digest": digest}
    rows = related(content["hospital"], content["row"])
    if first := content.get("first"):
        rows = list(dict.fromkeys([*rows, *first["rows"]]))
    if moment := content.get("moment"):
        # No row has this _id: rows that name it are connected by it.
        rows = [*rows, moment]
    if rows:
        head["related"] = rows
    return SealedDocument(head, content, encoded)


def related(hospital: str, row: Row) -> list[str]:
    """Return the ``_id`` of each row that `row` names: its group and its previous version."""
    named = (row.get("obs_group_id"), row.get("previous_version"))
    return [f"{hospital}/{obs_id}" for obs_id in dict.fromkeys(named) if obs_id is not None]


def instant(at: datetime | None) -> datetime | None:
    """Return an instant in the precision that BSON keeps: milliseconds."""
    if at is None or at.microsecond % 1000 == 0:
        return at
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _identity(row: Row) -> Document:
    return {"row": {name: row[name] for name in IDENTITY if name in row}}


def _meaning(observation: Observation) -> Document:
    meaning: Document = {
        "format": FORMAT,
        "row": observation.row,
        "at": instant(observation.at),
        "concept": observation.concept and _concept(observation.concept),
        "value": _value(observation.value),
        "author": _author(observation.author),
        "place": observation.place and _place(observation.place),
        "encounter": observation.encounter and _encounter(observation.encounter),
    }
    if observation.first is not None:
        meaning["first"] = _first(observation.hospital, observation.first)
    if (moment := _moment(observation)) is not None:
        meaning["moment"] = moment
    return meaning


def _moment(observation: Observation) -> str | None:
    """Return what a number of a blood pressure without a group shares with the other one.

    Both are named by their encounter and time. None if it is no such number.
    """
    row = observation.row
    if observation.concept is None or row.get("obs_group_id") is not None:
        return None
    encounter_id = row.get("encounter_id")
    if encounter_id is None or not _measures_pressure(observation.concept):
        return None
    person_id = observation.person.person_id
    return f"{observation.hospital}/{person_id}/{encounter_id}@{row['obs_datetime']}"


@lru_cache(4096)
def _measures_pressure(concept: Concept) -> bool:
    return measures_pressure(codes(concept.uuid, concept.mappings))


def _first(hospital: str, first: FirstVersion) -> Document:
    """Return what is kept of the first version: no uuid, since it is that of somebody else."""
    return {
        "record": record_id(hospital, first.uuid),
        "created": instant(first.created),
        "rows": [f"{hospital}/{obs_id}" for obs_id in first.rows],
        "persons": list(first.persons),
    }


# Few concepts, authors, places and encounters make many rows: their documents are made once. Nobody
# changes them.
@lru_cache(4096)
def _concept(concept: Concept) -> Document:
    document = _bare_concept(concept)
    if names := _other_names(concept.name, concept.names):
        document["names"] = names
    return document


@lru_cache(4096)
def _answer(concept: Concept) -> Document:
    """Return the concept of an answer, whose names are those of the value."""
    return _bare_concept(concept)


def _bare_concept(concept: Concept) -> Document:
    return {
        "id": concept.concept_id,
        "uuid": concept.uuid,
        "name": concept.name,
        "datatype": concept.datatype,
        "class": concept.concept_class,
        "units": concept.units,
        "mappings": list(concept.mappings),
    }


def _value(value: Value) -> Document:
    document = {
        "kind": value.kind,
        "text": value.text,
        "number": value.number,
        "modifier": value.modifier,
        "concept": value.concept and _answer(value.concept),
        "at": instant(value.at),
    }
    if names := _other_names(value.text, value.names):
        document["names"] = names
    if value.reference_range is not None:
        document["range"] = _range(value.reference_range)
    if value.interpretation is not None and value.interpretation.source == "range":
        document["computed"] = value.interpretation.code
    return document


def _other_names(name: str, names: Names) -> Document:
    """Return the names, by locale, that are not `name` itself."""
    return {locale: other for locale, other in names if other != name}


@lru_cache(4096)
def _range(reference_range: ReferenceRange) -> Document:
    """Return the bounds that there are, and which table they are from."""
    bounds = {
        "lowAbsolute": reference_range.low_absolute,
        "lowCritical": reference_range.low_critical,
        "low": reference_range.low_normal,
        "high": reference_range.high_normal,
        "highCritical": reference_range.high_critical,
        "highAbsolute": reference_range.high_absolute,
    }
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    return known | {"source": reference_range.source}


def in_first_format(document: Document) -> Document:
    """Return a document's content without what the first format doesn't have."""
    older = _without(document, "format", "moment")
    if document.get("concept"):
        older["concept"] = _without(document["concept"], "names")
    if "value" in document:
        older["value"] = _without(document["value"], "names", "range", "computed")
    return older


def _without(part: Document, *names: str) -> Document:
    return {name: value for name, value in part.items() if name not in names}


@lru_cache(4096)
def _author(author: Author) -> Document:
    return {"name": author.name, "source": author.source, "key": author.key}


@lru_cache(4096)
def _place(place: Place) -> Document:
    return {"id": place.location_id, "uuid": place.uuid, "name": place.name}


@lru_cache(4096)
def _encounter(encounter: Encounter) -> Document:
    visit = encounter.visit_uuid and {"uuid": encounter.visit_uuid, "type": encounter.visit_type}
    return {
        "id": encounter.encounter_id,
        "uuid": encounter.uuid,
        "type": encounter.type,
        "written": encounter.written,
        "at": instant(encounter.at),
        "visit": visit,
    }
