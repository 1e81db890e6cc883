"""Counts the records that other rules would change, before these are used.

The mirror has every row that a record is made of, as the hospital said it. So the records are made
twice, by the rules of now and by the others, and nothing is asked of a hospital.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from bson import ObjectId

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.projection.obs import live_rows, projected
from meaning.facts import codes
from meaning.reading import BLOOD_PRESSURE, read
from meaning.rules import MappingRules
from meaning.suggest import own_code

NO_RECORD = "no record"


class Change(NamedTuple):
    """What becomes of the records of a concept: kinds, with their state, before and after."""

    concept: str
    code: str
    before: str
    after: str


@dataclass(slots=True)
class Counted:
    """The records that change in one way, and the hospital's persons whose they are."""

    records: int = 0
    persons: set[int] = field(default_factory=set)


def changes(
    database: Mongo, hospital: str, before: MappingRules, after: MappingRules
) -> dict[Change, Counted]:
    """Return how many records would change in which way, and whose.

    Reads the whole mirror of the hospital. Raises Retry, NotReady or Fatal.
    """
    counted: dict[Change, Counted] = defaultdict(Counted)
    by_person = [("hospital", 1), ("personId", 1)]
    with translate_errors():
        rows = database.observations.find({"hospital": hospital}).sort(by_person)
        for person_id, group in groupby(rows, key=lambda row: int(row["personId"])):
            for change in changes_of_person(list(group), hospital, before, after):
                counted[change].records += 1
                counted[change].persons.add(person_id)
    return dict(counted)


def changes_of_person(
    documents: Sequence[Document], hospital: str, before: MappingRules, after: MappingRules
) -> Iterator[Change]:
    """Yield a change for each record of one person that would be another one, come or go."""
    if _says(documents, before) == _says(documents, after):
        return  # so are most, and records cost more than facts
    concepts = {document["obsId"]: document.get("concept") or {} for document in documents}
    old = _records(documents, before, hospital)
    new = _records(documents, after, hospital)
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            record = new[key] if key in new else old[key]
            concept = concepts[record["openmrsData"]["obsId"]]
            known_by = codes(concept.get("uuid") or "", concept.get("mappings") or ())
            name = concept.get("name") or ""
            yield Change(name, own_code(known_by), _kind(old.get(key)), _kind(new.get(key)))


def _says(documents: Iterable[Document], rules: MappingRules) -> list[tuple[object, ...]]:
    """Return what the live rows say, without the rule that decided."""
    facts = read(live_rows(documents, rules), rules)
    return sorted(
        (
            fact.anchor,
            fact.stating,
            fact.kind,
            fact.state,
            sorted(fact.parts.items()),
            fact.panel or 0,
            fact.is_question,
            fact.rule == BLOOD_PRESSURE,
            fact.kind == "note" and not rules.other_notes,
        )
        for fact in facts
    )


def _records(
    documents: Iterable[Document], rules: MappingRules, hospital: str
) -> dict[ObjectId, Document]:
    """Return the records by _id. Whose they are and who wrote them is the same for all rules."""
    made = projected(documents, rules, hospital, "", "", lambda _: "")
    return {record.id: record.document for record in made}


def _kind(record: Document | None) -> str:
    if record is None:
        return NO_RECORD
    data = record["openmrsData"]
    kind = str(data.get("kind") or record["type"]).replace("_", " ")
    state = data.get("state")
    return f"{kind}, {state.replace('_', ' ')}" if state else kind
