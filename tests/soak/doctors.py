"""Doctors who edit records in the Passport all the time, as its own code does."""

import contextlib
import threading
from typing import Any

from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import PyMongoError

from tests import passport_writes

Mongo = Database[dict[str, Any]]


class Notes:
    """The last note that a doctor has written into each record, none like another one."""

    def __init__(self, db: Mongo) -> None:
        self._db = db
        self._last: dict[ObjectId, str] = {}
        self.edits = 0

    def write(self, record: ObjectId) -> bool:
        """Edit a record. Return False if it isn't shown any more.

        Raises PyMongoError. Then nobody knows whether the edit was stored, so it is none that could
        be lost.
        """
        note = f"edit {self.edits + 1}"
        self._last.pop(record, None)
        try:
            passport_writes.put(self._db, record, notes=note)
        except AssertionError:
            return False
        self.edits += 1
        self._last[record] = note
        return True

    def forget(self) -> None:
        """Leave out all that was written until now."""
        self._last.clear()

    def lost(self) -> list[str]:
        """Return the records whose last note is neither shown nor kept for their return."""
        kept: dict[ObjectId, set[Any]] = {}
        for document in self._db["keptedits"].find({"record": {"$in": list(self._last)}}):
            kept.setdefault(document["record"], set()).add(document["data"].get("notes"))
        shown = {
            document["_id"]: document["data"].get("notes")
            for document in self._db["medicalrecords"].find({"_id": {"$in": list(self._last)}})
        }
        return [
            f"medicalrecords {record}: a doctor's edit is lost"
            for record, note in self._last.items()
            if shown.get(record) != note and note not in kept.get(record, ())
        ]


class Doctors(threading.Thread):
    """So many edits a second, of records that they find by chance."""

    def __init__(self, db: Mongo, edits_per_s: float) -> None:
        super().__init__(daemon=True)
        self._db = db
        self._pause_s = 1 / edits_per_s
        self._stop_asked = threading.Event()
        self.notes = Notes(db)

    def run(self) -> None:
        while not self._stop_asked.wait(self._pause_s):
            # MongoDB may be what was broken.
            with contextlib.suppress(PyMongoError):
                record = some_record(self._db)
                if record is not None:
                    self.notes.write(record)

    def end(self) -> None:
        self._stop_asked.set()
        self.join(60)
        assert not self.is_alive()


def some_record(db: Mongo) -> ObjectId | None:
    """Return a record that a patient sees, None if thirty of the collection are hidden."""
    chosen = [
        {"$sample": {"size": 30}},
        {"$match": {"patientId": {"$ne": ""}}},
        {"$limit": 1},
        {"$project": {"_id": 1}},
    ]
    for document in db["medicalrecords"].aggregate(chosen):
        found: ObjectId = document["_id"]
        return found
    return None
