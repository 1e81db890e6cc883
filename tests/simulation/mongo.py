"""A MongoDB in memory: what `destinations/mongo` asks of one when it writes a hospital.

Documents are kept as BSON, so that a value comes back as the real server gives it. A transaction
sees the documents as they were at its first operation, and conflicts with whatever was written
since. A write outside of transactions waits for a transaction that has written the document.
`tests/integration/test_fake_mongo.py` asks it and the real server the same questions.
"""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bson
from bson.binary import Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, ExecutionTimeout, OperationFailure

from tests.simulation.world import World

Document = dict[str, Any]
Documents = dict[tuple[str, Any], bytes]  # BSON by collection and _id

OPTIONS: CodecOptions[Document] = CodecOptions(tz_aware=True)
TYPES = {"objectId": bson.ObjectId, "string": str}
WAITS = 200  # calls of others for which a write waits, before its time is over


class Server:
    """The documents, and the transactions that are open."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.documents: Documents = {}
        self.open: dict[bytes, Session] = {}
        self.watch: Callable[[], None] = lambda: None  # called after each commit
        self.client = Client(self)

    def database(self) -> "Database":
        return Database(self)

    def holder(self, key: tuple[str, Any]) -> "Session | None":
        """Return the open transaction that has written the document."""
        for session in self.open.values():
            if key in session.written:
                return session
        return None

    def committed(self, changes: Mapping[tuple[str, Any], bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.documents.pop(key, None)
            else:
                self.documents[key] = value
        self.watch()


class Client:
    """Stands in for MongoClient, and for its database `admin`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.admin = self

    def start_session(self) -> "Session":
        return Session(self._server)

    def command(self, name: str, argument: Sequence[Mapping[str, Any]]) -> Document:
        """Do killSessions, the only command that is asked for."""
        assert name == "killSessions"
        self._server.world.call(name)
        for session in argument:
            self._server.open.pop(bytes(session["id"]), None)
        return {"ok": 1.0}


class Session:
    """A session and its transaction, if one has begun."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.session_id = {"id": Binary(uuid.UUID(int=server.world.rng.getrandbits(128)).bytes, 4)}
        self.seen: Documents = {}
        self.written: dict[tuple[str, Any], bytes | None] = {}
        self._has_begun = False
        self._has_asked = False

    def start_transaction(self, **_: Any) -> None:
        self.seen, self.written = {}, {}
        self._has_begun, self._has_asked = True, False

    def commit_transaction(self) -> None:
        self._server.world.call("commit")
        has_begun, self._has_begun = self._has_begun, False
        if has_begun and self._has_asked:
            self._require_open()
            del self._server.open[bytes(self.session_id["id"])]
            self._server.committed(self.written)

    def abort_transaction(self) -> None:
        self.end_at_server()
        self._has_begun = False

    def end_at_server(self) -> None:
        """End the transaction, which its client learns from its next question."""
        self._server.open.pop(bytes(self.session_id["id"]), None)

    def end_session(self) -> None:
        self.abort_transaction()

    def view(self) -> Documents:
        """Return what the transaction sees. Its first question decides that."""
        if not self._has_asked:
            self._has_asked = True
            self.seen = dict(self._server.documents)
            self._server.open[bytes(self.session_id["id"])] = self
        self._require_open()
        view = dict(self.seen)
        for key, value in self.written.items():
            if value is None:
                view.pop(key, None)
            else:
                view[key] = value
        return view

    def write(self, key: tuple[str, Any], value: bytes | None) -> None:
        """Write a document. Raises WriteConflict, which ends the transaction."""
        server = self._server
        holder = server.holder(key)
        is_as_seen = server.documents.get(key) == self.seen.get(key)
        if holder not in (None, self) or not is_as_seen:
            self.end_at_server()
            raise failure(112, "WriteConflict")
        self.written[key] = value

    def _require_open(self) -> None:
        if bytes(self.session_id["id"]) not in self._server.open:
            raise failure(251, "NoSuchTransaction")


def failure(code: int, name: str) -> OperationFailure:
    labels = ["TransientTransactionError"]
    return OperationFailure(name, code, {"codeName": name, "errorLabels": labels})


class Database:
    def __init__(self, server: Server) -> None:
        self._server = server
        self.client = server.client
        self.write_concern = None

    def __getitem__(self, name: str) -> "Collection":
        return Collection(self._server, name)

    def __getattr__(self, name: str) -> "Collection":
        return Collection(self._server, name)


class Cursor:
    """The answer of a find, which is whole at once."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents

    def sort(self, name: str, direction: int) -> "Cursor":
        return Cursor(sorted(self._documents, key=lambda one: one[name], reverse=direction < 0))

    def limit(self, count: int) -> "Cursor":
        return Cursor(self._documents[:count])

    def __iter__(self) -> "Cursor":
        return self

    def __next__(self) -> Document:
        if not self._documents:
            raise StopIteration
        return self._documents.pop(0)


class BulkResult:
    def __init__(self) -> None:
        self.matched_count = 0


class Collection:
    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name

    def find(self, query: Document, fields: Document | None = None, **_: Any) -> Cursor:
        """Answer whole documents, whatever `fields` are asked for."""
        self._server.world.call(f"find {self.name}")
        return Cursor(self._found(self._server.documents, query))

    def find_one(self, query: Document, fields: Document | None = None) -> Document | None:
        return next(iter(self.find(query, fields)), None)

    def find_one_and_update(
        self, query: Document, update: Document, *, upsert: bool, **_: Any
    ) -> Document:
        """Answer the document as it is after the update."""
        self._server.world.call(f"find_one_and_update {self.name}")
        operation = UpdateOne(query, update, upsert=upsert)
        self._wait(query)
        changes: dict[tuple[str, Any], bytes | None] = {}
        self._do(operation, self._server.documents, changes.__setitem__)
        self._server.committed(changes)
        [document] = self._found(self._server.documents, query)
        return document

    def update_one(self, query: Document, update: Document, **options: Any) -> BulkResult:
        return self.bulk_write([UpdateOne(query, update, **options)])

    def bulk_write(
        self, operations: Sequence[Any], *, ordered: bool = True, session: Session | None = None
    ) -> BulkResult:
        """Write. Without a session all is tried, in a transaction the first error ends it."""
        self._server.world.call(f"bulk_write {self.name}")
        result = BulkResult()
        errors = []
        for index, operation in enumerate(operations):
            if session is None:
                self._wait(getattr(operation, "_filter", {}))
                view = self._server.documents
                changes: dict[tuple[str, Any], bytes | None] = {}
                write: Callable[[tuple[str, Any], bytes | None], None] = changes.__setitem__
            else:
                view, changes, write = session.view(), {}, session.write
            try:
                result.matched_count += self._do(operation, view, write)
            except DuplicateError:
                errors.append({"index": index, "code": 11000})
                if session is not None or ordered:
                    break
            if session is None:
                self._server.committed(changes)
        if errors and session is not None:
            session.end_at_server()
        if errors:
            raise BulkWriteError({"writeErrors": errors, "nMatched": result.matched_count})
        return result

    def _do(
        self,
        operation: Any,
        view: Documents,
        write: Callable[[tuple[str, Any], bytes | None], None],
    ) -> int:
        """Do one operation. Return how many documents it found."""
        if isinstance(operation, InsertOne):
            self._insert(operation._doc, view, write)
            return 0
        found = self._found(view, operation._filter)
        if isinstance(operation, DeleteMany | DeleteOne):
            for document in found:
                write((self.name, _hashable(document["_id"])), None)
            return 0
        if not isinstance(operation, UpdateMany):
            found = found[:1]
        for document in found:
            key = (self.name, _hashable(document["_id"]))
            if isinstance(operation, ReplaceOne):
                after = _encoded(operation._doc)
            else:
                after = bson.encode(updated(document, operation._doc, is_new=False))
            if after != view[key]:  # what changes nothing is no write
                write(key, after)
        if not found and getattr(operation, "_upsert", False):
            if isinstance(operation, ReplaceOne):
                self._insert(operation._doc, view, write)
                return 0
            born = {
                name: value
                for name, value in operation._filter.items()
                if not isinstance(value, dict)
            }
            self._insert(updated(born, operation._doc, is_new=True), view, write)
        return len(found)

    def _insert(
        self,
        document: Any,
        view: Documents,
        write: Callable[[tuple[str, Any], bytes | None], None],
    ) -> None:
        encoded = _encoded(document)
        decoded = bson.decode(encoded, OPTIONS)
        if "_id" not in decoded:
            decoded = {"_id": bson.ObjectId(), **decoded}
            encoded = bson.encode(decoded)
        key = (self.name, _hashable(decoded["_id"]))
        if key in view:
            raise DuplicateError
        write(key, encoded)

    def _found(self, view: Documents, query: Document) -> list[Document]:
        found = []
        for (name, _), encoded in list(view.items()):
            if name == self.name:
                document = bson.decode(encoded, OPTIONS)
                if matches(document, query):
                    found.append(document)
        return found

    def _wait(self, query: Document) -> None:
        """Wait until no transaction holds a document that the query finds."""
        for _ in range(WAITS):
            held = [
                document
                for document in self._found(self._server.documents, query)
                if self._server.holder((self.name, _hashable(document["_id"])))
            ]
            if not held:
                return
            if self._server.world.process is None:
                break
            self._server.world.call("wait")
        raise ExecutionTimeout("operation exceeded time limit", 50)


class DuplicateError(Exception):
    """A document with this _id is there."""


def _hashable(key: Any) -> Any:
    return bytes(key) if isinstance(key, Binary) else key


def _encoded(document: Any) -> bytes:
    if isinstance(document, RawBSONDocument):
        return document.raw
    return bson.encode(document)


# --- queries and updates


def values_at(document: Any, path: str) -> list[Any]:
    """Return what stands at a path: nothing, one value, or the elements of an array too."""
    value = document
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return []
        value = value[name]
    return [value, *value] if isinstance(value, list) else [value]


def matches(document: Document, query: Mapping[str, Any]) -> bool:
    for name, wanted in query.items():
        if name == "$or":
            if not any(matches(document, part) for part in wanted):
                return False
        elif name == "$and":
            if not all(matches(document, part) for part in wanted):
                return False
        elif not _fits(values_at(document, name), wanted):
            return False
    return True


def _fits(values: list[Any], wanted: Any) -> bool:
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        return all(_fits_operator(values, name, bound) for name, bound in wanted.items())
    if isinstance(wanted, re.Pattern):
        return any(isinstance(value, str) and wanted.search(value) for value in values)
    return wanted in values or (wanted is None and not values)


def _fits_operator(values: list[Any], name: str, bound: Any) -> bool:
    match name:
        case "$in":
            return any(_fits(values, wanted) for wanted in bound)
        case "$nin":
            return not any(_fits(values, wanted) for wanted in bound)
        case "$ne":
            return not _fits(values, bound)
        case "$exists":
            return bool(values) == bool(bound)
        case "$type":
            return any(isinstance(value, TYPES[bound]) for value in values)
        case "$gt" | "$lt" | "$lte" | "$gte":
            return any(_compares(value, name, bound) for value in values)
    raise NotImplementedError(name)


def _compares(value: Any, name: str, bound: Any) -> bool:
    if value is None or bound is None or isinstance(value, str) != isinstance(bound, str):
        return False
    match name:
        case "$gt":
            return bool(value > bound)
        case "$lt":
            return bool(value < bound)
        case "$gte":
            return bool(value >= bound)
    return bool(value <= bound)


def updated(document: Document, update: Mapping[str, Any], *, is_new: bool) -> Document:
    """Return the document after an update."""
    after = bson.decode(bson.encode(document), OPTIONS)
    for operator, fields in update.items():
        for path, value in fields.items():
            *parents, name = path.split(".")
            place = after
            for parent in parents:
                place = place.setdefault(parent, {})
            match operator:
                case "$set":
                    place[name] = value
                case "$setOnInsert":
                    if is_new:
                        place[name] = value
                case "$unset":
                    place.pop(name, None)
                case "$inc":
                    place[name] = place.get(name, 0) + value
                case "$max":
                    place[name] = max(place.get(name, value), value)
                case _:
                    raise NotImplementedError(operator)
    return after
