"""One writer at a time for each hospital: `fences`, and the transactions that look at it.

One document per hospital: ``{_id: "<hospital>", generation, session, writes}``. Whoever wants to
write a hospital takes its fence, which raises `generation`, and reads what it writes from after
that. Each write is a transaction that also changes the document, if it has still this generation.
So of two writers only the last one to take the fence can write, however long the other one was
frozen, and between which two of its calls. What it read since it took the fence is still true, but
for what the Passport itself writes.

A writer that is frozen inside a transaction holds what it wrote there for up to a minute. So the
document names the writer's session, and whoever takes the fence ends that session first.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import ReplaceOne, ReturnDocument, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import (
    BulkWriteError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from destinations.mongo.client import Mongo, error_code, problem, translate_errors
from passport.errors import Overtaken, Retry

TRIES = 20
WAIT_S = 0.005  # before a transaction is tried again that met a write of the Passport
TAKE_MS = 5_000  # how long the transaction of a writer before us may still take
_WRITE_CONFLICT = 112
_NO_SUCH_TRANSACTION = 251
_INTERRUPTED = 11601

# One change: the operations that belong together, by collection.
FencedChange = Mapping[str, Sequence[Any]]


@dataclass(slots=True)
class Written:
    """The result of some changes.

    `matched` counts, by collection, the documents that updates and replacements found. `failed` has
    by index of the change why MongoDB refuses one of its documents; nothing of it is written.
    `missed`: a guarded update has not found its document; nothing of its transaction is written.
    """

    matched: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    missed: bool = False


class _Refused(Exception):  # noqa: N818  # it never leaves this module
    """MongoDB refuses a document. The transaction is void."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class _Missed(Exception):  # noqa: N818
    """A guarded update has not found its document."""


class Fence:
    """The right to write some hospitals, for one thread at a time.

    Its methods raise Retry, NotReady or Fatal, and `write` raises Overtaken.
    """

    def __init__(self, database: Mongo, *hospitals: str) -> None:
        self._db = database
        self._fences = database.fences
        self._hospitals = hospitals
        self._generations: dict[str, int] = {}
        self._session: ClientSession | None = None

    def take(self) -> None:
        """Become the only writer. Whoever was it before can't write from now on.

        What is to be written has to be read after this.
        """
        with translate_errors():
            for hospital in self._hospitals:
                self._generations[hospital] = self._take(hospital)

    def write(self, changes: Sequence[FencedChange], *, guarded: str = "") -> Written:
        """Write the changes, all or none of them, if nobody has taken the fence since.

        What MongoDB refuses, such as a document that is too large, is left out. In the collection
        `guarded` every update has to find its document. Within a collection the operations have no
        order; collections are written in the order in which the first change names them.

        Takes the fence if it was never taken. Raises Overtaken, and has then written nothing.
        """
        if not changes:
            return Written()
        if not self._generations:
            self.take()
        try:
            with translate_errors():
                return Written(self._write_all(changes, guarded))
        except _Missed:
            return Written(missed=True)
        except _Refused as refused:
            if guarded and refused.problem == "duplicate":
                # Something is there that wasn't when the caller read.
                return Written(missed=True)
            if len(changes) == 1:
                return Written(failed={0: refused.problem})
        # One refused document makes a transaction void, and says nothing of the others.
        half = len(changes) // 2
        written = self.write(changes[:half], guarded=guarded)
        second = self.write(changes[half:], guarded=guarded)
        written.missed |= second.missed
        written.matched.update(second.matched)
        for index, reason in second.failed.items():
            written.failed[half + index] = reason
        return written

    def close(self) -> None:
        if self._session is not None:
            self._session.end_session()

    def _take(self, hospital: str) -> int:
        session = self._own_session()
        key = {"_id": hospital}
        before = self._fences.find_one(key)
        if before is not None and before["session"] != session.session_id["id"]:
            self._end(before["session"])
        taken = self._fences.find_one_and_update(
            key,
            {"$inc": {"generation": 1}, "$set": {"session": session.session_id["id"]}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            maxTimeMS=TAKE_MS,
        )
        return int(taken["generation"]) if taken else 0

    def _end(self, session_id: Any) -> None:
        try:
            self._db.client.admin.command("killSessions", [{"id": session_id}])
        except OperationFailure:
            # An account that may not do so waits until the transaction has reached its age.
            return

    def _own_session(self) -> ClientSession:
        if self._session is None:
            self._session = self._db.client.start_session()
        return self._session

    def _write_all(self, changes: Sequence[FencedChange], guarded: str) -> Counter[str]:
        """Return how many documents matched, by collection."""
        operations: dict[str, list[Any]] = {}
        for change in changes:
            for name, of_change in change.items():
                if of_change:
                    operations.setdefault(name, []).extend(of_change)
        for attempt in range(TRIES):
            try:
                return self._transaction(operations, guarded)
            except PyMongoError as error:
                # Other errors of a transaction, such as a server that is away, are for the caller.
                if error_code(error) not in (_WRITE_CONFLICT, _NO_SUCH_TRANSACTION, _INTERRUPTED):
                    raise
            time.sleep(WAIT_S * attempt * random.random())
        raise Retry("MongoDB: documents of a transaction changed all the time")

    def _transaction(self, operations: Mapping[str, Sequence[Any]], guarded: str) -> Counter[str]:
        matched: Counter[str] = Counter()
        session = self._own_session()
        session.start_transaction(write_concern=self._db.write_concern)
        try:
            self._touch(session)
            for name, bulk in operations.items():
                matched[name] = self._bulk(name, bulk, session)
            updates = [
                operation
                for operation in operations.get(guarded, ())
                if isinstance(operation, UpdateOne | ReplaceOne)
            ]
            if matched[guarded] < len(updates):
                raise _Missed
        except BaseException:
            session.abort_transaction()
            raise
        self._commit(session)
        return matched

    def _bulk(self, name: str, operations: Sequence[Any], session: ClientSession) -> int:
        """Return how many documents matched."""
        try:
            result = self._db[name].bulk_write(operations, ordered=False, session=session)
        except BulkWriteError as error:
            # The first error ends a transaction: there is no second one.
            [write_error] = error.details["writeErrors"]
            if reason := problem(write_error.get("code")):
                raise _Refused(reason) from None
            raise
        return result.matched_count

    def _commit(self, session: ClientSession) -> None:
        try:
            session.commit_transaction()
        except WriteConcernError as error:
            # Whoever ends our session interrupts the wait for a majority, not what is committed.
            if error.code != _INTERRUPTED:
                raise
            session.commit_transaction()

    def _touch(self, session: ClientSession) -> None:
        """Make this transaction one of the fence's holder, or raise Overtaken.

        The document has to change: an update that changes nothing meets no other one.
        """
        touches = [
            UpdateOne({"_id": hospital, "generation": generation}, {"$inc": {"writes": 1}})
            for hospital, generation in self._generations.items()
        ]
        result = self._fences.bulk_write(touches, session=session)
        if result.matched_count < len(touches):
            raise Overtaken(" and ".join(self._generations))
