"""Marks people to be read whole when their patient registers, corrects an id or leaves.

A change stream on `patients` tells of it at once. A sweep over both collections finds what the
stream missed: at the start, after every interruption, and every `sweep_s` seconds.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import structlog
from bson import ObjectId

from destinations.mongo import keptedits
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import ask_for, hashed
from destinations.mongo.reports import unmatched_counts
from passport import metrics
from passport.errors import Fatal, PassportError

PAGE = 1_000  # documents that the sweep looks at together
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
        """Raise what ended the thread, if it has ended."""
        if self._fatal is not None:
            raise self._fatal

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with translate_errors():
                    self._follow()
            except Fatal as error:
                self._fatal = error
                return
            except PassportError as error:
                log.warning("registrations interrupted", reason=error.reason)
                self._stop.wait(AGAIN_S)
            except Exception as error:  # noqa: BLE001  # nobody sees a thread end: `check` says it
                self._fatal = Fatal(
                    f"the watch on registrations ended ({type(error).__name__})",
                    hint="start again; if it ends so again, this is a mistake of ours",
                )
                return

    def _follow(self) -> None:
        # The stream is opened before the sweep: what registers in between is seen by one of them.
        with self._patients.watch(_CONCERNING, max_await_time_ms=500) as stream:
            next_sweep = 0.0
            while not self._stop.is_set() and stream.alive:
                if time.monotonic() >= next_sweep:
                    self._sweep()
                    self._count()
                    next_sweep = time.monotonic() + self._sweep_s
                event = stream.try_next()
                if event is not None:
                    self._mark_concerned(event)

    def _sweep(self) -> None:
        """Compare `people` with `patients`, and mark whoever the stream has missed."""
        for keys in self._missed():
            ask_for(self._db, keys)
        for keys in self._outdated():
            ask_for(self._db, keys)
        for keys in self._left_over():
            ask_for(self._db, keys, "remove")
        keptedits.forget_former_patients(self._db)

    def _count(self) -> None:
        counts = unmatched_counts(self._db)
        metrics.UNMATCHED.clear()
        for (hospital, state), people in counts.items():
            metrics.UNMATCHED.labels(hospital, state).set(people)

    def _mark_concerned(self, event: Any) -> None:
        """Mark whoever is linked to the patient of an event, or has the id that the patient has."""
        patient = str(event["documentKey"]["_id"])
        if event["operationType"] == "delete":
            keptedits.forget_patient(self._db, patient)
        update = event.get("updateDescription") or {}
        fields = event.get("fullDocument") or update.get("updatedFields") or {}
        id_hash = self._hash(fields.get("nationalId"))
        concerned: list[Document] = [{"patientId": patient, "idHash": {"$ne": id_hash}}]
        if id_hash is not None:
            concerned.append({"idHash": id_hash, "patientId": {"$ne": patient}})
        # Also those marked before: whoever is just clearing that mark has not seen this change.
        mark = {"pending": {"$ifNull": ["$pending", "read"]}, "rev": {"$add": ["$rev", 1]}}
        self._people.update_many({"$or": concerned}, [{"$set": mark}])

    def _missed(self) -> Iterator[list[str]]:
        """Yield people whose id is now another patient's than the linked one's, page by page.

        Among them is whoever had an id that was nobody's.
        """
        patients = self._patients.find({"nationalId": {"$type": "string"}}, {"nationalId": 1})
        for page in _pages(patients):
            owners = {self._hash(patient["nationalId"]): str(patient["_id"]) for patient in page}
            query = {"idHash": {"$in": list(owners)}}
            people = self._people.find(query, {"idHash": 1, "patientId": 1})
            yield [
                person["_id"]
                for person in people
                if person["patientId"] != owners[person["idHash"]]
            ]

    def _outdated(self) -> Iterator[list[str]]:
        """Yield matched people whose patient is gone or has another id, page by page."""
        people = self._people.find(
            {"patientId": {"$type": "string"}}, {"idHash": 1, "patientId": 1}
        )
        for page in _pages(people):
            linked = [person["patientId"] for person in page]
            ids = [ObjectId(patient) for patient in linked if ObjectId.is_valid(patient)]
            hashes: dict[str, str | None] = {}
            for patient in self._patients.find({"_id": {"$in": ids}}, {"nationalId": 1}):
                hashes[str(patient["_id"])] = self._hash(patient.get("nationalId"))
            yield [
                person["_id"]
                for person in page
                if hashes.get(person["patientId"]) != person["idHash"]
            ]

    def _left_over(self) -> Iterator[list[str]]:
        """Yield people who have rows though their link has ended, page by page.

        The rows are of a writer that had not seen the end of the link, and died before it did.
        """
        people = self._people.find({"ended": True}, {"hospital": 1, "personId": 1})
        for page in _pages(people):
            keys: list[str] = []
            for person in page:
                query = {"hospital": person["hospital"], "personId": person["personId"]}
                if self._rows.find_one(query, {"_id": 1}):
                    keys.append(person["_id"])
            yield keys

    def _hash(self, national_id: Any) -> str | None:
        return hashed(self._key, national_id) if isinstance(national_id, str) else None


def _pages(cursor: Iterable[Document]) -> Iterator[list[Document]]:
    documents = iter(cursor)
    while page := list(islice(documents, PAGE)):
        yield page
