"""Lists the concepts that no rule of mapping.yaml shows, each with a rule that would show it."""

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.projection.mapping import MappingRules, codes
from destinations.mongo.projection.obs import unmapped

_TYPE_BY_CLASS = {
    "Diagnosis": "condition",
    "Symptom": "condition",
    "Symptom/Finding": "condition",
    "Drug": "medication",
    "MedSet": "medication",
    "Test": "test",
    "LabSet": "test",
}
_TYPE_BY_DATATYPE = {"Text": "visit", "Date": "visit", "Datetime": "visit", "Complex": "visit"}


@dataclass(slots=True)
class UnmappedConcept:
    """A concept, and how many live obs of it have a value and are in no record.

    `answers` counts them by the class of the coded answer.
    """

    concept: Document
    obs: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def rule(self) -> str:
        """Return a line for the `rules` of mapping.yaml that would show them.

        Its type is a guess that a person should look at.
        """
        known_codes = codes(self.concept.get("uuid", ""), self.concept.get("mappings", ()))
        ciel_codes = [code for code in known_codes if code.startswith("CIEL:")]
        chosen = (ciel_codes or list(known_codes))[:1]
        matcher = {"mappings": chosen} if chosen else {"names": [self.concept.get("name", "")]}
        return f"- {json.dumps({'type': self._type(), **matcher}, ensure_ascii=False)}"

    def _type(self) -> str:
        commonest = self.answers.most_common(1)
        answer_class = commonest[0][0] if commonest else ""
        return (
            _TYPE_BY_CLASS.get(answer_class)
            or _TYPE_BY_CLASS.get(self.concept.get("class", ""))
            or _TYPE_BY_DATATYPE.get(self.concept.get("datatype", ""))
            or "test"
        )


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
