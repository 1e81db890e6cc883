"""What operators ask of the Passport's database."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from destinations.mongo import progress
from destinations.mongo.client import Document, Mongo, translate_errors
from destinations.mongo.projection.mapping import MappingRules, codes
from destinations.mongo.projection.obs import unmapped
from passport.sink import Progress


class Reports:
    """A hospital's numbers. Needs no more than to read."""

    def __init__(self, database: Mongo) -> None:
        self._db = database

    def progress(self, hospital: str) -> Progress | None:
        """Return how far the destination is with the hospital; None when it has nothing of it."""
        return progress.read(self._db, hospital)

    def counts(self, hospital: str) -> dict[str, int]:
        """`stored` rows, `matched` and `unmatched` people, `conflicts`."""
        ours = {"hospital": hospital}
        with translate_errors():
            return {
                "stored": self._db.observations.count_documents(ours | {"deleted": False}),
                "matched": self._db.people.count_documents(ours | {"patientId": {"$ne": None}}),
                "unmatched": self._db.people.count_documents(ours | {"patientId": None}),
                "conflicts": self._db.medicalrecords.count_documents(_conflicting(hospital)),
            }

    def unmatched_by(self, hospital: str) -> dict[str, int]:
        """People whose rows are not kept, by state."""
        with translate_errors():
            return {
                state: people
                for (_, state), people in unmatched_counts(self._db, hospital=hospital).items()
            }

    def verified(self, hospital: str) -> Document | None:
        """Return what the last whole verify found, ``{at, equal}``; None before the first."""
        return progress.read_verified(self._db, hospital)


def unmatched(database: Mongo, hospital: str) -> Iterator[tuple[str, int, str]]:
    """(hospital, person_id, state) of people whose rows are not kept; state ``ok``: not registered
    in the Passport.
    """
    query = {"hospital": hospital, "patientId": None}
    with translate_errors():
        for found in database.people.find(query, {"personId": 1, "state": 1}).sort("_id", 1):
            yield hospital, found["personId"], found["state"]


def unmatched_counts(database: Mongo, **ours: str) -> dict[tuple[str, str], int]:
    """People whose rows are not kept, by hospital and state; errors are the client's own."""
    by = {"hospital": "$hospital", "state": "$state"}
    stages: list[Document] = [
        {"$match": ours | {"patientId": None}},
        {"$group": {"_id": by, "people": {"$sum": 1}}},
    ]
    return {
        (one["_id"]["hospital"], one["_id"]["state"]): one["people"]
        for one in database.people.aggregate(stages)
    }


def _conflicting(hospital: str) -> Document:
    return {"openmrsData.hospitalId": hospital, "openmrsData.pending": {"$exists": True}}


@dataclass(slots=True)
class Unmapped:
    """Live obs with a value that are in no record, of one concept. `answers`: by class of the coded
    answer.
    """

    concept: Document
    obs: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def rule(self) -> str:
        """A line for the `rules` of mapping.yaml that would show them; its type is a guess to be
        looked at.
        """
        known = codes(self.concept.get("uuid", ""), self.concept.get("mappings", ()))
        ciel = [code for code in known if code.startswith("CIEL:")] or list(known[:1])
        by = {"mappings": ciel[:1]} if ciel else {"names": [self.concept.get("name", "")]}
        return f"- {json.dumps({'type': self._type(), **by}, ensure_ascii=False)}"

    def _type(self) -> str:
        answer = next(iter(self.answers.most_common(1)), ("", 0))[0]
        fitting = _BY_CLASS.get(answer) or _BY_CLASS.get(self.concept.get("class", ""))
        return fitting or _BY_DATATYPE.get(self.concept.get("datatype", ""), "test")


_BY_CLASS = {
    "Diagnosis": "condition",
    "Symptom": "condition",
    "Symptom/Finding": "condition",
    "Drug": "medication",
    "MedSet": "medication",
    "Test": "test",
    "LabSet": "test",
}
_BY_DATATYPE = {"Text": "visit", "Date": "visit", "Datetime": "visit", "Complex": "visit"}


def unmapped_concepts(database: Mongo, hospital: str, mapping: MappingRules) -> list[Unmapped]:
    """By concept, most obs first. Reads the whole mirror of the hospital."""
    found: dict[str, Unmapped] = {}
    with translate_errors():
        rows = database.observations.find({"hospital": hospital}).sort(
            [("hospital", 1), ("personId", 1)]
        )
        for _, documents in groupby(rows, key=lambda row: int(row["personId"])):
            for row in unmapped(documents, mapping):
                concept = row["concept"] or {}
                one = found.setdefault(concept.get("uuid", ""), Unmapped(concept))
                one.obs += 1
                one.answers.update(
                    [answer["class"]] if (answer := row["value"].get("concept")) else ()
                )
    return sorted(found.values(), key=lambda one: -one.obs)
