"""Lists the concepts that no rule of the mapping knows, with what is seen of them in the mirror."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.projection.obs import unmapped
from meaning.facts import codes
from meaning.rules import MappingRules
from meaning.suggest import Question


@dataclass(slots=True)
class UnmappedConcept:
    """A concept whose question no rule knows.

    `obs` counts its live obs that have a value, `answers` these by the class of the coded answer.
    `groups` has the names of the headers that they stand under.
    """

    concept: Document
    obs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    groups: set[str] = field(default_factory=set)

    @property
    def question(self) -> Question:
        """The concept as it is compared with known ones."""
        return Question(
            name=self.concept.get("name") or "",
            concept_class=self.concept.get("class") or "",
            datatype=self.concept.get("datatype") or "",
            codes=codes(self.concept.get("uuid") or "", self.concept.get("mappings") or ()),
            sets=tuple(sorted(self.groups)),
            answers=tuple(sorted(self.answers)),
        )


def concepts(database: Mongo, hospital: str, rules: MappingRules) -> list[UnmappedConcept]:
    """Return the unmapped concepts of a hospital, the one with most obs first.

    Reads the whole mirror of the hospital. Raises Retry, NotReady or Fatal.
    """
    by_uuid: dict[str, UnmappedConcept] = {}
    by_person = [("hospital", 1), ("personId", 1)]
    with translate_errors():
        rows = database.observations.find({"hospital": hospital}).sort(by_person)
        for _, group in groupby(rows, key=lambda row: int(row["personId"])):
            documents = {document["obsId"]: document for document in group}
            for row in unmapped(documents.values(), rules):
                concept = row["concept"] or {}
                uuid = concept.get("uuid", "")
                counted = by_uuid.setdefault(uuid, UnmappedConcept(concept))
                counted.obs += 1
                answer = row["value"].get("concept")
                if answer and answer["class"]:
                    counted.answers[answer["class"]] += 1
                header = documents.get(row["row"].get("obs_group_id"), {}).get("concept")
                if header:
                    counted.groups.add(header["name"])
    return sorted(by_uuid.values(), key=lambda counted: -counted.obs)
