"""What operators ask of the Passport's database: read-only."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from consumers.sinks.mongo.client import Document, Mongo, border
from consumers.sinks.mongo.records import unmapped
from consumers.sinks.mongo.rules import Mapping


def unmatched(database: Mongo, hospital: str) -> Iterator[tuple[str, int, str]]:
    """(hospital, person_id, state) of people whose rows are not kept; state ``ok``: not registered in the Passport."""
    query = {"hospital": hospital, "patientId": None}
    with border():
        for found in database.people.find(query, {"personId": 1, "state": 1}).sort("_id", 1):
            yield hospital, found["personId"], found["state"]


def unmatched_counts(database: Mongo, hospital: str) -> dict[str, int]:
    """People whose rows are not kept, by state."""
    stages: list[Document] = [
        {"$match": {"hospital": hospital, "patientId": None}},
        {"$group": {"_id": "$state", "people": {"$sum": 1}}},
    ]
    with border():
        return {found["_id"]: found["people"] for found in database.people.aggregate(stages)}


def conflicts(database: Mongo, hospital: str) -> Iterator[tuple[str, str]]:
    """(hospital, record id) of records that a person has edited and the hospital has newer values for."""
    query = {"openmrsData.hospitalId": hospital, "openmrsData.pending": {"$exists": True}}
    with border():
        for found in database.medicalrecords.find(query, {"_id": 1}):
            yield hospital, str(found["_id"])


def unmapped_counts(database: Mongo, hospital: str, mapping: Mapping) -> Counter[tuple[str, str]]:
    """Live rows with a value that are in no record, by their concept's (uuid, name). Reads the whole mirror."""
    counts: Counter[tuple[str, str]] = Counter()
    with border():
        rows = database.observations.find({"hospital": hospital}).sort([("hospital", 1), ("personId", 1)])
        for _, documents in groupby(rows, key=lambda row: int(row["personId"])):
            concepts = (row["concept"] or {} for row in unmapped(documents, mapping))
            counts.update((concept.get("uuid", ""), concept.get("name", "")) for concept in concepts)
    return counts
