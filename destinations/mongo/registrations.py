"""Marks people to be read whole when their patient registers, is described anew or leaves.

A change stream on `patients` tells of it at once. One process watches it for all, and saves where
it is: another one goes on there, so that nothing is missed by who takes over.

A sweep over both collections finds what the stream did not tell, as after a restored backup. When
there is no place to go on from, it looks at everybody at once; else at PAGES pages every `sweep_s`
seconds, so that it costs the same however many people there are.
"""

import threading
import time
from itertools import islice
from typing import Any

import structlog
from pymongo.change_stream import ChangeStream
from pymongo.errors import OperationFailure

from destinations.mongo import keptedits
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.contradictions import Mode
from destinations.mongo.document import Document
from destinations.mongo.people import ask_for, hash_of_patient
from destinations.mongo.reports import contradicting_counts, unmatched_counts
from destinations.mongo.sweep import PAGE, Sweep
from destinations.mongo.watch_lease import RENEW_S, WatchLease
from passport import metrics
from passport.errors import Fatal, PassportError

PAGES = 10  # that the sweep looks at every `sweep_s` seconds
TURN_S = 1.0
AGAIN_S = 1.0

_DESCRIBED = ["dateOfBirth", "gender"]  # what a hospital's person is compared with
_READ = ["nationalId", *_DESCRIBED]  # what is read of a patient
_CONCERNING: list[Document] = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["insert", "replace", "delete"]}},
                *({f"updateDescription.updatedFields.{name}": {"$exists": True}} for name in _READ),
                {"updateDescription.removedFields": {"$in": _READ}},
            ]
        }
    },
    {
        "$project": {
            "operationType": 1,
            "documentKey": 1,
            "fullDocument.nationalId": 1,
            "updateDescription.removedFields": 1,
            **{f"updateDescription.updatedFields.{name}": 1 for name in _READ},
        }
    },
]

log = structlog.get_logger()


class Registrations:
    """A thread of its own from `start` to `stop`. Of those of all processes one watches."""

    def __init__(self, database: Mongo, link_key: bytes, sweep_s: float, mode: Mode) -> None:
        self._mode = mode
        self._db = database
        self._people = database.people
        self._patients = database.patients
        self._key = link_key
        self._lease = WatchLease(database)
        self._sweep = Sweep(database, link_key)
        self._is_behind = True  # Whether somebody may have been missed since the last watch.
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
        """Watch for as long as this process has the lease, or wait for it a moment."""
        left_there = self._lease.take()
        if left_there is None:
            metrics.UNMATCHED.clear()  # the one that watches counts them
            metrics.CONTRADICTING.clear()
            self._stop.wait(RENEW_S)
            return
        resume = left_there.get("resume")
        self._is_behind = resume is None
        self._sweep.begin_round()
        if resume is not None:
            self._sweep.patients = left_there["patients"]
            self._sweep.people = left_there["people"]
        try:
            # The stream is opened before the sweep: what registers in between is seen by one of
            # them.
            with self._patients.watch(
                _CONCERNING, max_await_time_ms=500, resume_after=resume
            ) as stream:
                self._watch(stream)
        except OperationFailure:
            # It may not be possible to go on there: the oplog doesn't reach back so far.
            self._lease.renew({"resume": None})
            raise

    def _watch(self, stream: ChangeStream[Document]) -> None:
        next_sweep = next_renewal = time.monotonic()
        pages = 0
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= next_renewal:
                if not self._lease.renew(self._progress(stream)):
                    return
                next_renewal = now + RENEW_S
            if now >= next_sweep:
                keptedits.forget_former_patients(self._db)
                keptedits.settle_late_writes(self._db)
                self._follow_settings()
                self._count()
                pages = PAGES
                next_sweep = now + self._sweep_s
            pages = self._look(pages)
            event = stream.try_next()
            if event is not None:
                self._mark_concerned(event)
            if not stream.alive:  # as when the collection was dropped
                self._lease.renew({"resume": None})
                return
        self._lease.renew(self._progress(stream))
        self._lease.release()

    def _progress(self, stream: ChangeStream[Document]) -> Document:
        """Return what the next one that watches must know, to go on where this one was."""
        resume = None if self._is_behind else stream.resume_token
        return {"resume": resume, "patients": self._sweep.patients, "people": self._sweep.people}

    def _look(self, pages: int) -> int:
        """Look at some of so many pages, or at everybody when behind. Return how many are left.

        Events of the stream and the lease wait meanwhile, so it ends after TURN_S seconds.
        """
        ends_at = time.monotonic() + TURN_S
        while (pages > 0 or self._is_behind) and time.monotonic() < ends_at:
            pages -= 1
            if self._sweep.look():
                self._is_behind = False
                return 0
        return pages

    def _count(self) -> None:
        counts = unmatched_counts(self._db)
        metrics.UNMATCHED.clear()
        for (hospital, state), people in counts.items():
            metrics.UNMATCHED.labels(hospital, state).set(people)
        metrics.CONTRADICTING.clear()
        for (hospital, field), people in contradicting_counts(self._db).items():
            metrics.CONTRADICTING.labels(hospital, field).set(people)

    def _follow_settings(self) -> None:
        """Mark people whose link follows another setting of `contradictions` than today's."""
        query: Document = {"state": "contradicting"}
        if self._mode == "ask":
            is_decided = {"decision.verdict": "link"}
            query = {"contradicts": {"$exists": True}, "state": "ok", "$nor": [is_decided]}
        people = self._people.find(query, {"_id": 1})
        while page := list(islice(people, PAGE)):
            ask_for(self._db, [person["_id"] for person in page])

    def _mark_concerned(self, event: Any) -> None:
        """Mark whoever is linked to the patient of an event, or has the id that the patient has."""
        patient = str(event["documentKey"]["_id"])
        if event["operationType"] == "delete":
            keptedits.forget_patient(self._db, patient)
        update = event.get("updateDescription") or {}
        updated = update.get("updatedFields") or {}
        changed = {*updated, *(update.get("removedFields") or ())}
        is_whole = event["operationType"] != "update"
        concerned: list[Document] = []
        if is_whole or "nationalId" in changed:
            id_hash = hash_of_patient(self._key, event.get("fullDocument") or updated)
            concerned.append({"patientId": patient, "idHash": {"$ne": id_hash}})
            if id_hash is not None:
                concerned.append({"idHash": id_hash, "patientId": {"$ne": patient}})
        is_another = event["operationType"] in ("replace", "delete")
        is_described_anew = self._mode != "off" and not changed.isdisjoint(_DESCRIBED)
        if is_another or is_described_anew:
            concerned += [{"patientId": patient}, {"candidateId": patient}]
        if not concerned:
            return
        # Also those marked before: whoever is just clearing that mark has not seen this change.
        mark = {"pending": {"$ifNull": ["$pending", "read"]}, "rev": {"$add": ["$rev", 1]}}
        self._people.update_many({"$or": concerned}, [{"$set": mark}])
