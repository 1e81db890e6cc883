"""One change stream of `medicalrecords`, fanned out to everybody whose page is open.

What goes out says that something has changed, never what. The page then reads its records again,
with its own session. An event's id is the tag of the patient's records (`Patients.tag`), so that
a page that was away is told by comparing two tags.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from bson import ObjectId
from pymongo.errors import OperationFailure, PyMongoError

from passport.errors import without_text
from portal.patients import Document, Patients

log = structlog.get_logger()

_PIPELINE: list[Document] = [
    {"$match": {"operationType": {"$in": ["insert", "update", "replace", "delete"]}}},
    {
        "$project": {
            "documentKey": 1,
            "operationType": 1,
            "fullDocument.patientId": 1,
            "updateDescription.updatedFields.patientId": 1,
        }
    },
]
BEAT_S = 15.0


@dataclass(eq=False)
class OpenPage:
    """A page that somebody has open. `changed` holds the newest tag that it has not been told."""

    patient: str
    loop: asyncio.AbstractEventLoop
    changed: "asyncio.Queue[str | None]" = field(default_factory=lambda: asyncio.Queue(1))

    def tell(self, tag: str | None) -> None:
        """Tell the page a tag, from any thread. None ends its events."""
        with suppress(RuntimeError):  # the loop is closed: so is the page
            self.loop.call_soon_threadsafe(self._put, tag)

    def _put(self, tag: str | None) -> None:
        if self.changed.full():
            self.changed.get_nowait()
        self.changed.put_nowait(tag)


@dataclass
class _Watched:
    """A patient with open pages: the tag and the ids of their records, as last read."""

    tag: str
    ids: set[ObjectId]
    pages: set[OpenPage] = field(default_factory=set)


class LiveUpdates:
    """Tells open pages that their patient's records have changed. `up` is set while it can.

    One thread follows the change stream and notes whose records a change concerns. Another one
    reads these patients' tags. So a burst of changes is read once. All state is guarded by one
    lock, which is held over the reads that the state must agree with.
    """

    def __init__(self, patients: Patients, limit: int) -> None:
        self._patients = patients
        self._limit = limit
        self._watched: dict[str, _Watched] = {}  # by patient
        self._owners: dict[ObjectId, str] = {}  # patient by record
        self._changed: set[str] = set()  # patients whose tag is to be read
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._stop = threading.Event()
        self.up = threading.Event()
        self._resume_token: Any = None

    def start(self) -> None:
        for work in (self._follow, self._tell):
            threading.Thread(target=self._repeat, args=(work,), name="changes", daemon=True).start()

    def stop(self) -> None:
        """End the events of every open page."""
        self._stop.set()
        self._due.set()
        with self._lock:
            pages = [page for watched in self._watched.values() for page in watched.pages]
        for page in pages:
            page.tell(None)

    @property
    def count(self) -> int:
        """Return how many pages are open."""
        return sum(len(watched.pages) for watched in self._watched.values())

    def join(self, patient: str, seen: str, loop: asyncio.AbstractEventLoop) -> OpenPage | None:
        """Open a page that shows records with the tag `seen`.

        Return None if there are too many pages, or if changes can't be followed now.
        """
        page = OpenPage(patient, loop)
        with self._lock:
            if self._stop.is_set() or not self.up.is_set() or self.count >= self._limit:
                return None
            if patient not in self._watched:
                self._read(patient)
            watched = self._watched[patient]
            watched.pages.add(page)
        if watched.tag != seen:
            page.tell(watched.tag)
        return page

    def leave(self, page: OpenPage) -> None:
        with self._lock:
            watched = self._watched[page.patient]
            watched.pages.discard(page)
            if not watched.pages:
                del self._watched[page.patient]
                self._disown(page.patient, watched.ids)

    def _read(self, patient: str) -> bool:
        """Read a patient's tag and ids anew. Return whether the tag is another one."""
        tag, ids = self._patients.contents(patient)
        watched = self._watched.setdefault(patient, _Watched("", set()))
        self._disown(patient, watched.ids - ids)
        self._owners |= dict.fromkeys(ids, patient)
        is_another = watched.tag != tag
        watched.tag = tag
        watched.ids = ids
        return is_another

    def _disown(self, patient: str, ids: Iterable[ObjectId]) -> None:
        for key in ids:
            # Otherwise the record has moved to another patient, who has a page open too.
            if self._owners.get(key) == patient:
                del self._owners[key]

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except PyMongoError as error:
                log.warning("changes can't be followed now", error=without_text(error), after_s=1)
                self._due.set()
                self._stop.wait(1)

    def _follow(self) -> None:
        """Follow the changes from the last one that was seen."""
        try:
            changes = self._patients.database.medicalrecords.watch(
                _PIPELINE, resume_after=self._resume_token, max_await_time_ms=500
            )
            with changes:
                # Without a last change, anything may have changed: everybody is looked at.
                if self._resume_token is None:
                    self._note(None)
                self.up.set()
                while not self._stop.is_set():
                    if (change := changes.try_next()) is not None:
                        self._note(change)
                    self._resume_token = changes.resume_token
        except OperationFailure:
            # MongoDB may have forgotten the change that the token is about.
            self._resume_token = None
            raise
        finally:
            self.up.clear()

    def _note(self, change: Document | None) -> None:
        """Note whom a change concerns. None: perhaps everybody."""
        with self._lock:
            if change is None:
                self._changed |= self._watched.keys()
            else:
                self._changed |= _whose(change, self._owners) & self._watched.keys()
        self._due.set()

    def _tell(self) -> None:
        self._due.wait()
        self._due.clear()
        for patient in list(self._changed):
            with self._lock:
                if patient in self._watched and self._read(patient):
                    watched = self._watched[patient]
                    for page in watched.pages:
                        page.tell(watched.tag)
                self._changed.discard(patient)


def _whose(change: Document, owners: Mapping[ObjectId, str]) -> set[str]:
    """Return the patients that a change concerns: whose the record was, and whose it is now."""
    inserted = change.get("fullDocument") or {}
    updated = (change.get("updateDescription") or {}).get("updatedFields") or {}
    patients = {
        owners.get(change["documentKey"]["_id"]),
        inserted.get("patientId"),
        updated.get("patientId"),
    }
    return {patient for patient in patients if patient}


async def events(page: OpenPage, ends: float) -> AsyncIterator[bytes]:
    """Yield server-sent events until the session ends or the portal stops.

    `ends` is on the clock of the page's loop.
    """
    yield b"retry: 2000\n\n"
    while (left_s := ends - page.loop.time()) > 0:
        try:
            tag = await asyncio.wait_for(page.changed.get(), min(BEAT_S, left_s))
        except TimeoutError:
            yield b": still here\n\n"
            continue
        if tag is None:
            return
        yield f"id: {tag}\nevent: changed\ndata: records\n\n".encode()
