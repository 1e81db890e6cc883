"""Answers operators' questions about a hospital from the Passport's database. It only reads."""

from collections.abc import Iterator

from destinations.mongo import conflicts, progress
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from passport.sink import Progress


class Reports:
    """A hospital's numbers. Its methods raise Retry, NotReady or Fatal."""

    def __init__(self, database: Mongo) -> None:
        self._db = database

    def progress(self, hospital: str) -> Progress | None:
        """Return how far the destination is with the hospital; None when it has nothing of it."""
        return progress.read(self._db, hospital)

    def counts(self, hospital: str) -> dict[str, int]:
        """Return the numbers of `stored` rows, `matched` and `unmatched` people and `conflicts`.

        `contradicting` people, matched or not, have another year of birth or sex in the Passport.
        """
        ours = {"hospital": hospital}
        with translate_errors():
            return {
                "stored": self._db.observations.count_documents(ours | {"deleted": False}),
                "matched": self._db.people.count_documents(ours | {"patientId": {"$ne": None}}),
                "unmatched": self._db.people.count_documents(ours | {"patientId": None}),
                "contradicting": self._db.people.count_documents(
                    ours | {"contradicts": {"$exists": True}}
                ),
                "conflicts": self._db.medicalrecords.count_documents(
                    conflicts.of_hospital(hospital)
                ),
            }

    def unmatched_by(self, hospital: str) -> dict[str, int]:
        """Return the number of people whose rows are not kept, by state."""
        with translate_errors():
            counts = unmatched_counts(self._db, hospital=hospital)
        return {state: people for (_, state), people in counts.items()}

    def verified(self, hospital: str) -> Document | None:
        """Return what the last whole verify found, ``{at, equal}``; None before the first."""
        return progress.read_verified(self._db, hospital)


def unmatched(database: Mongo, hospital: str) -> Iterator[tuple[str, int, str]]:
    """Yield (hospital, person_id, state) of people whose rows are not kept.

    Somebody in state ``ok`` is not registered in the Passport.
    """
    query = {"hospital": hospital, "patientId": None}
    with translate_errors():
        people = database.people.find(query, {"personId": 1, "state": 1}).sort("_id", 1)
        for person in people:
            yield hospital, person["personId"], person["state"]


def unmatched_counts(database: Mongo, **ours: str) -> dict[tuple[str, str], int]:
    """Return the number of people whose rows are not kept, by (hospital, state).

    `ours` narrows it, as in ``hospital="kigali"``. The client's errors are not translated.
    """
    hospital_and_state = {"hospital": "$hospital", "state": "$state"}
    stages: list[Document] = [
        {"$match": ours | {"patientId": None}},
        {"$group": {"_id": hospital_and_state, "people": {"$sum": 1}}},
    ]
    counts: dict[tuple[str, str], int] = {}
    for group in database.people.aggregate(stages):
        counts[group["_id"]["hospital"], group["_id"]["state"]] = group["people"]
    return counts


def contradicting_counts(database: Mongo, **ours: str) -> dict[tuple[str, str], int]:
    """Return the number of people by (hospital, field) that hospital and Passport say differently.

    Somebody counts who is linked all the same. The client's errors are not translated.
    """
    hospital_and_field = {"hospital": "$hospital", "field": "$contradicts"}
    stages: list[Document] = [
        {"$match": ours | {"contradicts": {"$exists": True}}},
        {"$unwind": "$contradicts"},
        {"$group": {"_id": hospital_and_field, "people": {"$sum": 1}}},
    ]
    counts: dict[tuple[str, str], int] = {}
    for group in database.people.aggregate(stages):
        counts[group["_id"]["hospital"], group["_id"]["field"]] = group["people"]
    return counts
