"""Who registers with the Passport, corrects an id or leaves: marks the people concerned, so that
they are read whole.

A change stream on `patients` tells at once, a sweep over both collections what it missed: at the
start, after every interruption and every `sweep_s` seconds.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import structlog
from bson import ObjectId

from destinations.mongo.client import Document, Mongo, translate_errors
from destinations.mongo.people import ask_for, hashed
from destinations.mongo.reports import unmatched_counts
from passport import metrics
from passport.errors import Fatal, PassportError

PAGE = 1_000
AGAIN_S = 1.0

_CONCERNING: list[Document] = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["insert", "replace", "delete"]}},
                {"updateDescription.updatedFields.nationalId": {"$exists": True}},
                {"updateDescription.removedFields": "nationalId"},
            ]
        }
    },
    {
        "$project": {
            "operationType": 1,
            "documentKey": 1,
            "fullDocument.nationalId": 1,
            "updateDescription.updatedFields.nationalId": 1,
        }
    },
]

log = structlog.get_logger()


class Registrations:
    """A thread of its own from `start` to `stop`; any number of processes may run one."""

    def __init__(self, database: Mongo, link_key: bytes, sweep_s: float) -> None:
        self._db = database
        self._people = database.people
        self._patients = database.patients
        self._rows = database.observations
        self._key = link_key
        self._sweep_s = sweep_s
        self._stop = threading.Event()
        self._fatal: Fatal | None = None
        self._thread = threading.Thread(target=self._run, name="registrations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._fatal is not None:
            raise self._fatal

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with translate_errors():
                    self._follow()
            except PassportError as error:
                if isinstance(error, Fatal):
                    self._fatal = error
                    return
                log.warning("registrations interrupted", reason=error.reason)
                self._stop.wait(AGAIN_S)
            except Exception as error:  # noqa: BLE001  # a thread's end is seen by nobody: `check` tells it
                hint = "start again; if it ends so again, this is a mistake of ours"
                self._fatal = Fatal(
                    f"the watch on registrations ended ({type(error).__name__})", hint=hint
                )
                return

    def _follow(self) -> None:
        # The stream is opened before the sweep: what registers in between is seen by one of them.
        with self._patients.watch(_CONCERNING, max_await_time_ms=500) as stream:
            due = 0.0
            while not self._stop.is_set() and stream.alive:
                if time.monotonic() >= due:
                    self._sweep()
                    self._count()
                    due = time.monotonic() + self._sweep_s
                event = stream.try_next()
                if event is not None:
                    self._concerned(event)

    def _sweep(self) -> int:
        """Compares `people` with `patients`; returns how many had to be marked."""
        read = sum(
            ask_for(self._db, ids) for found in (self._missed(), self._outdated()) for ids in found
        )
        return read + sum(ask_for(self._db, ids, "remove") for ids in self._left_over())

    def _count(self) -> None:
        found = unmatched_counts(self._db)
        metrics.UNMATCHED.clear()
        for (hospital, state), people in found.items():
            metrics.UNMATCHED.labels(hospital, state).set(people)

    def _concerned(self, event: Any) -> None:
        patient = str(event["documentKey"]["_id"])
        source = (
            event.get("fullDocument")
            or (event.get("updateDescription") or {}).get("updatedFields")
            or {}
        )
        id_hash = self._hash(source.get("nationalId"))
        concerned: list[Document] = [{"patientId": patient, "idHash": {"$ne": id_hash}}]
        if id_hash is not None:
            concerned.append({"idHash": id_hash, "patientId": {"$ne": patient}})
        # Also those marked before: whoever is just clearing that mark has not seen this change.
        mark = {"pending": {"$ifNull": ["$pending", "read"]}, "rev": {"$add": ["$rev", 1]}}
        self._people.update_many({"$or": concerned}, [{"$set": mark}])

    def _missed(self) -> Iterator[list[str]]:
        """People whose id is now another patient's than the linked one, or somebody's who was
        nobody's.
        """
        patients = self._patients.find({"nationalId": {"$type": "string"}}, {"nationalId": 1})
        for page in _pages(patients):
            owners = {self._hash(patient["nationalId"]): str(patient["_id"]) for patient in page}
            found = self._people.find(
                {"idHash": {"$in": list(owners)}}, {"idHash": 1, "patientId": 1}
            )
            yield [
                person["_id"] for person in found if person["patientId"] != owners[person["idHash"]]
            ]

    def _outdated(self) -> Iterator[list[str]]:
        """Matched people whose patient is gone or has another id."""
        people = self._people.find(
            {"patientId": {"$type": "string"}}, {"idHash": 1, "patientId": 1}
        )
        for page in _pages(people):
            ids = [
                ObjectId(person["patientId"])
                for person in page
                if ObjectId.is_valid(person["patientId"])
            ]
            found = self._patients.find({"_id": {"$in": ids}}, {"nationalId": 1})
            hashes = {
                str(patient["_id"]): self._hash(patient.get("nationalId")) for patient in found
            }
            yield [
                person["_id"]
                for person in page
                if hashes.get(person["patientId"]) != person["idHash"]
            ]

    def _left_over(self) -> Iterator[list[str]]:
        """People whose link has ended, with rows: of a writer that had not seen it, and died before
        it did.
        """
        for page in _pages(self._people.find({"ended": True}, {"hospital": 1, "personId": 1})):
            yield [
                person["_id"]
                for person in page
                if self._rows.find_one(
                    {"hospital": person["hospital"], "personId": person["personId"]}, {"_id": 1}
                )
            ]

    def _hash(self, national_id: Any) -> str | None:
        return hashed(self._key, national_id) if isinstance(national_id, str) else None


def _pages(cursor: Iterable[Document]) -> Iterator[list[Document]]:
    documents = iter(cursor)
    while page := list(islice(documents, PAGE)):
        yield page
