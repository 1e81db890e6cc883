"""One change stream of `medicalrecords`, fanned out to everybody whose page is open.

What goes out says that something has changed, never what: the page reads it again, with its own
session. An event's id is the tag of the patient's records (PassportDb.tag), so that a page that was
away is told by comparing two tags.
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
from portal.passport_db import Document, PassportDb

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
class Stream:
    """One open page. `changed` holds the newest tag that it has not been told."""

    patient: str
    loop: asyncio.AbstractEventLoop
    changed: "asyncio.Queue[str | None]" = field(default_factory=lambda: asyncio.Queue(1))

    def tell(self, tag: str | None) -> None:
        """From any thread; None ends it."""
        with suppress(RuntimeError):  # the loop is closed: so is the page
            self.loop.call_soon_threadsafe(self._put, tag)

    def _put(self, tag: str | None) -> None:
        if self.changed.full():
            self.changed.get_nowait()
        self.changed.put_nowait(tag)


@dataclass
class _Watched:
    tag: str
    ids: set[ObjectId]
    streams: set[Stream] = field(default_factory=set)


class Live:
    """`up`: the change stream is open. All state is guarded by one lock, held over the reads that
    it must agree with.

    One thread follows the changes and notes whose records they concern, another one reads these
    patients' tags: what comes in a burst is read once.
    """

    def __init__(self, db: PassportDb, limit: int) -> None:
        self._db, self._limit = db, limit
        self._watched: dict[str, _Watched] = {}
        self._owners: dict[ObjectId, str] = {}
        self._dirty: set[str] = set()
        self._lock = threading.Lock()
        self._due, self._stop, self.up = threading.Event(), threading.Event(), threading.Event()
        self._token: Any = None

    def start(self) -> None:
        for work in (self._follow, self._tell):
            threading.Thread(target=self._again, args=(work,), name="changes", daemon=True).start()

    def stop(self) -> None:
        """Ends every open stream."""
        self._stop.set()
        self._due.set()
        with self._lock:
            streams = [stream for watched in self._watched.values() for stream in watched.streams]
        for stream in streams:
            stream.tell(None)

    @property
    def count(self) -> int:
        return sum(len(watched.streams) for watched in self._watched.values())

    def join(self, patient: str, seen: str, loop: asyncio.AbstractEventLoop) -> Stream | None:
        """A page whose records had the tag `seen`; None when there are too many, or changes can't
        be seen now.
        """
        stream = Stream(patient, loop)
        with self._lock:
            if self._stop.is_set() or not self.up.is_set() or self.count >= self._limit:
                return None
            if patient not in self._watched:
                self._read(patient)
            watched = self._watched[patient]
            watched.streams.add(stream)
        if watched.tag != seen:
            stream.tell(watched.tag)
        return stream

    def leave(self, stream: Stream) -> None:
        with self._lock:
            watched = self._watched[stream.patient]
            watched.streams.discard(stream)
            if not watched.streams:
                del self._watched[stream.patient]
                self._disown(stream.patient, watched.ids)

    def _read(self, patient: str) -> bool:
        """Reads a patient's tag; whether it is another one."""
        tag, ids = self._db.contents(patient)
        known = self._watched.setdefault(patient, _Watched("", set()))
        self._disown(patient, known.ids - ids)
        self._owners |= dict.fromkeys(ids, patient)
        changed, known.tag, known.ids = known.tag != tag, tag, ids
        return changed

    def _disown(self, patient: str, ids: Iterable[ObjectId]) -> None:
        for key in ids:
            if self._owners.get(key) == patient:  # else it has moved to somebody who watches, too
                del self._owners[key]

    def _again(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except PyMongoError as error:
                log.warning("changes can't be followed now", error=without_text(error), after_s=1)
                self._due.set()
                self._stop.wait(1)

    def _follow(self) -> None:
        """From the last change seen on; where MongoDB has forgotten that one, everybody is looked
        at.
        """
        try:
            changes = self._db.database.medicalrecords.watch(
                _PIPELINE, resume_after=self._token, max_await_time_ms=500
            )
            with changes:
                if self._token is None:
                    self._note(None)
                self.up.set()
                while not self._stop.is_set():
                    if (change := changes.try_next()) is not None:
                        self._note(change)
                    self._token = changes.resume_token
        except OperationFailure:
            self._token = None
            raise
        finally:
            self.up.clear()

    def _note(self, change: Document | None) -> None:
        """Whom a change concerns; None: perhaps everybody."""
        with self._lock:
            concerned = set(self._watched) if change is None else _whose(change, self._owners)
            self._dirty |= concerned & self._watched.keys()
        self._due.set()

    def _tell(self) -> None:
        self._due.wait()
        self._due.clear()
        for patient in list(self._dirty):
            with self._lock:
                if patient in self._watched and self._read(patient):
                    watched = self._watched[patient]
                    for stream in watched.streams:
                        stream.tell(watched.tag)
                self._dirty.discard(patient)


def _whose(change: Document, owners: Mapping[ObjectId, str]) -> set[str]:
    """Whose record the change concerns: whose it was, and whose it is now."""
    full = change.get("fullDocument") or {}
    updated = (change.get("updateDescription") or {}).get("updatedFields") or {}
    found = (
        owners.get(change["documentKey"]["_id"]),
        full.get("patientId"),
        updated.get("patientId"),
    )
    return {one for one in found if one}


async def events(stream: Stream, ends: float) -> AsyncIterator[bytes]:
    """Server-sent events until the session `ends` (of the loop's clock) or the portal stops."""
    yield b"retry: 2000\n\n"
    while (left := ends - stream.loop.time()) > 0:
        try:
            tag = await asyncio.wait_for(stream.changed.get(), min(BEAT_S, left))
        except TimeoutError:
            yield b": still here\n\n"
            continue
        if tag is None:
            return
        yield f"id: {tag}\nevent: changed\ndata: records\n\n".encode()
