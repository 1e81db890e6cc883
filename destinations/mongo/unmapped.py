"""Lists the concepts that no rule of mapping.yaml knows, each with a rule that would know it."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.projection.obs import unmapped
from meaning.facts import codes
from meaning.rules import MappingRules

_KIND_BY_CLASS = {
    "Test": "test",
    "LabSet": "test",
    "Finding": "finding",
    "Symptom": "finding",
    "Symptom/Finding": "finding",
    "Misc Order": "order",
}
# The class of an answer is no proof, and words of a name are none. A person who knows the question
# may still take them for a hint of what it asks for.
_KIND_BY_ANSWER = {"Diagnosis": "condition", "Drug": "medication"}
_KIND_BY_WORDS = {
    "condition": re.compile(r"\b(diagnos[ie]s|conditions?)\b", re.IGNORECASE),
    "medication": re.compile(r"\b(medications?|drugs?|antiretrovirals?)\b", re.IGNORECASE),
    "test": re.compile(r"\b(tests?|labs?|laboratory|investigations?)\b", re.IGNORECASE),
    "visit": re.compile(r"\b(visits?|encounters?)\b", re.IGNORECASE),
}


@dataclass(slots=True)
class UnmappedConcept:
    """A concept whose question no rule knows.

    `obs` counts its live obs that have a value, `answers` these by the class of the coded answer.
    """

    concept: Document
    obs: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def rule(self) -> str:
        """Return a line for the `rules` of a hospital's mapping that says what they are.

        Its kind is a guess that a person must look at: nothing is ever decided by it.
        """
        known_codes = codes(self.concept.get("uuid", ""), self.concept.get("mappings", ()))
        ciel_codes = [code for code in known_codes if code.startswith("CIEL:")]
        rule: Document = {"kind": self._kind(), "mappings": (ciel_codes or list(known_codes))[:1]}
        if rule["kind"] in ("condition", "medication"):
            rule["asks"] = "which"
        return f"- {json.dumps(rule, ensure_ascii=False)}"

    def _kind(self) -> str:
        commonest = self.answers.most_common(1)
        answer_class = commonest[0][0] if commonest else ""
        kind = _KIND_BY_ANSWER.get(answer_class) or _KIND_BY_CLASS.get(
            self.concept.get("class", "")
        )
        if kind is not None:
            return kind
        name = self.concept.get("name") or ""
        return next((kind for kind, words in _KIND_BY_WORDS.items() if words.search(name)), "note")


def concepts(database: Mongo, hospital: str, rules: MappingRules) -> list[UnmappedConcept]:
    """Return the unmapped concepts of a hospital, the one with most obs first.

    Reads the whole mirror of the hospital. Raises Retry, NotReady or Fatal.
    """
    by_uuid: dict[str, UnmappedConcept] = {}
    by_person = [("hospital", 1), ("personId", 1)]
    with translate_errors():
        rows = database.observations.find({"hospital": hospital}).sort(by_person)
        for _, documents in groupby(rows, key=lambda row: int(row["personId"])):
            for row in unmapped(documents, rules):
                concept = row["concept"] or {}
                uuid = concept.get("uuid", "")
                counted = by_uuid.setdefault(uuid, UnmappedConcept(concept))
                counted.obs += 1
                if answer := row["value"].get("concept"):
                    counted.answers[answer["class"]] += 1
    return sorted(by_uuid.values(), key=lambda counted: -counted.obs)
