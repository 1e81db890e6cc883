"""The MongoDB client: its connection, its indexes, its bulk writes, and its errors.

An error of the client becomes one of ours, named by what helps. Its text is left out: it may quote
a patient's values.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, overload

from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)

from destinations.mongo.document import Document
from passport.errors import Fatal, NotReady, PassportError, Retry, without_text

Mongo = Database[Document]

# Documents that a find's first answer may have. The default is 101, then a second round trip.
ALL = 10_000
# A bulk write of so many operations goes in two halves in parallel.
HALVED = 400
DUPLICATE = 11000
# A document's own faults, by code.
REFUSED = {2: "invalid", 121: "invalid", 10334: "too_large", 17280: "too_large", 17419: "too_large"}
_DENIED = {13, 18, 8000}
_NO_REPLICA_SET = {20, 40573}
# The Passport has an index with the same keys or of the same name: then that one serves.
_OTHER_INDEX = {85, 86}

# "Is a string". A partial index by $type would not serve a query for one idHash.
TEXT = {"$gt": ""}
INDEXES: dict[str, list[IndexModel]] = {
    "people": [
        IndexModel([("idHash", ASCENDING)], partialFilterExpression={"idHash": TEXT}),
        IndexModel([("patientId", ASCENDING)], partialFilterExpression={"patientId": TEXT}),
        IndexModel([("candidateId", ASCENDING)], partialFilterExpression={"candidateId": TEXT}),
        IndexModel([("contradicts", ASCENDING)], sparse=True),
        IndexModel(
            [("hospital", ASCENDING)], name="pending", partialFilterExpression={"pending": TEXT}
        ),
        IndexModel([("hospital", ASCENDING), ("state", ASCENDING)]),
        IndexModel([("ended", ASCENDING)], partialFilterExpression={"ended": True}),
    ],
    "observations": [
        IndexModel([("hospital", ASCENDING), ("obsId", ASCENDING)]),
        IndexModel([("hospital", ASCENDING), ("personId", ASCENDING)]),
        IndexModel([("related", ASCENDING)], sparse=True),
    ],
    "keptedits": [
        IndexModel([("record", ASCENDING)]),
        IndexModel([("patientId", ASCENDING)]),
    ],
    "medicalrecords": [
        IndexModel([("patientId", ASCENDING), ("type", ASCENDING)]),
        IndexModel([("patientId", ASCENDING), ("createdAt", DESCENDING)]),
        IndexModel(
            [("patientId", ASCENDING), ("data.date", DESCENDING), ("_id", DESCENDING)],
            name="timeline",
        ),
        IndexModel([("createdBy", ASCENDING)]),
        IndexModel([("syncDate", ASCENDING)]),
        IndexModel([("openmrsData.obsId", ASCENDING)], sparse=True),
        IndexModel(
            [("openmrsData.hospitalId", ASCENDING), ("openmrsData.personId", ASCENDING)],
            name="persons",
            partialFilterExpression={"openmrsData.personId": {"$exists": True}},
        ),
        IndexModel(
            [("openmrsData.hospitalId", ASCENDING)],
            name="conflicts",
            partialFilterExpression={"openmrsData.pending": {"$exists": True}},
        ),
    ],
}


def connected(uri: str, database: str) -> tuple[MongoClient[Document], Mongo]:
    """Return a client, which the caller closes, and a database whose writes wait for a majority.

    Raises NotReady without a primary, Fatal when the URI can't be used or the server is no replica
    set.
    """
    try:
        client: MongoClient[Document] = MongoClient(
            uri,
            appname="openmrs-passport",
            serverSelectionTimeoutMS=3_000,
            connectTimeoutMS=3_000,
            socketTimeoutMS=30_000,
            retryWrites=True,
            tz_aware=True,
        )
    except (PyMongoError, ValueError) as error:
        raise Fatal(
            f"options.uri of the mongo destination is not usable ({without_text(error)})",
            hint="write it as mongodb://HOST:PORT/?replicaSet=NAME; `passport config show` shows "
            "what is set",
        ) from None
    try:
        with translate_errors():
            _require_replica_set(client)
    except BaseException:
        client.close()
        raise
    majority = WriteConcern(w="majority", wtimeout=10_000)
    return client, client.get_database(database, write_concern=majority)


def _require_replica_set(client: MongoClient[Document]) -> None:
    hello = client.admin.command("hello")
    is_router = hello.get("msg") == "isdbgrid"  # of shards, each of which is a replica set
    if "setName" not in hello and not is_router:
        raise Fatal(
            "the mongo destination is a standalone server: retried writes and change streams need "
            "a replica set",
            hint="start mongod with --replSet rs0, then run rs.initiate() in mongosh",
        )


def ensure_indexes(database: Mongo, tombstone_ttl_days: int) -> None:
    """Create the indexes that are missing. One of the Passport on the same keys is left as it is.

    MongoDB deletes a tombstone of `medicalrecords` after `tombstone_ttl_days`.
    """
    seconds = tombstone_ttl_days * 86_400
    tombstones = IndexModel(
        [("removedAt", ASCENDING)], name="tombstones", sparse=True, expireAfterSeconds=seconds
    )
    with translate_errors():
        for name, indexes in INDEXES.items():
            # One command for all is the usual case. If one of them is refused, each is tried alone.
            if not _create(database[name], indexes):
                for index in indexes:
                    _create(database[name], [index])
        if not _create(database.medicalrecords, [tombstones]):
            change = {"name": "tombstones", "expireAfterSeconds": seconds}
            database.command("collMod", "medicalrecords", index=change)


def _create(collection: Collection[Document], indexes: list[IndexModel]) -> bool:
    """Create indexes. Return False if there are others on the same keys or of the same name."""
    try:
        collection.create_indexes(indexes)
    except OperationFailure as error:
        if error.code not in _OTHER_INDEX:
            raise
        return False
    return True


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the client's errors, whose texts may quote values, into ours.

    They have no `origin`: a destination isn't told its name in the settings. The worker, which
    knows it, takes an error of a sink for that of its destination.
    """
    try:
        yield
    except PyMongoError as error:
        raise translate_error(error) from None


def translate_error(error: PyMongoError) -> PassportError:
    """Return Retry, NotReady or Fatal, by what helps."""
    code = error_code(error)
    if isinstance(error, ConnectionFailure) or error.timeout:
        return NotReady(
            f"MongoDB is not available ({without_text(error)})",
            hint="is mongod running and reachable? `passport check` tries it",
        )
    if code in _DENIED:
        return Fatal(
            f"MongoDB refused the mongo destination ({type(error).__name__} {code})",
            hint="check user and password in options.uri; the user needs readWrite on "
            "options.database",
        )
    if code in _NO_REPLICA_SET:
        return Fatal(
            "the mongo destination needs a replica set",
            hint="start mongod with --replSet rs0, then run rs.initiate() in mongosh",
        )
    if isinstance(error, ConfigurationError):
        return Fatal(
            f"options.uri of the mongo destination is not usable ({without_text(error)})",
            hint="correct it",
        )
    # Everything else (a step-down, a full disk, a write concern that isn't met) may pass, and
    # nothing is lost by asking again.
    return Retry(f"MongoDB did not take a command ({type(error).__name__} {code})", after=2)


def error_code(error: PyMongoError) -> int | None:
    """Return the server's code of an error; None if it isn't the server's."""
    if isinstance(error, BulkWriteError):
        # Its own code says no more than that a bulk write failed; that of its first write says why.
        write_errors = error.details.get("writeErrors") or [{}]
        if isinstance(code := write_errors[0].get("code"), int) and code:
            return code
    return error.code if isinstance(error, OperationFailure) else None


# Two threads serve a write beside something else, since a large write goes in two halves.
_threads = ThreadPoolExecutor(4, thread_name_prefix="mongo")

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
def in_parallel(first: Callable[[], A], second: Callable[[], B], /) -> tuple[A, B]: ...


@overload
def in_parallel(
    first: Callable[[], A], second: Callable[[], B], third: Callable[[], C], /
) -> tuple[A, B, C]: ...


def in_parallel(first: Callable[[], Any], /, *others: Callable[[], Any]) -> tuple[Any, ...]:
    """Call all of them at the same time and return their answers in order.

    `first` runs in the caller's thread. So several round trips to MongoDB take the time of one. If
    one raises, the others end first; then its error is raised.
    """
    futures = [_threads.submit(other) for other in others]
    try:
        answer = first()
    finally:
        wait(futures)
    return (answer, *(future.result() for future in futures))


class BulkResult(NamedTuple):
    """The result of an unordered bulk write.

    `matched` counts the documents that its updates and replacements found. `failed` has a word by
    index of the operation: "duplicate", or why MongoDB refuses the document.
    """

    matched: int
    failed: dict[int, str]


def bulk(collection: Collection[Document], operations: Sequence[Any]) -> BulkResult:
    """Write unordered, a large write in two halves in parallel.

    Raises Retry, NotReady or Fatal for anything that is not one document's own fault.
    """
    if len(operations) < HALVED:
        return _bulk(collection, operations)
    half = len(operations) // 2
    first, second = in_parallel(
        lambda: _bulk(collection, operations[:half]),
        lambda: _bulk(collection, operations[half:]),
    )
    failed = dict(first.failed)
    for index, reason in second.failed.items():
        failed[half + index] = reason
    return BulkResult(first.matched + second.matched, failed)


def _bulk(collection: Collection[Document], operations: Sequence[Any]) -> BulkResult:
    if not operations:
        return BulkResult(0, {})
    with translate_errors():
        try:
            result = collection.bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            failed = {}
            for write_error in error.details["writeErrors"]:
                reason = problem(write_error.get("code"))
                if reason is None:
                    raise
                failed[write_error["index"]] = reason
            if error.details.get("writeConcernErrors"):
                raise
            return BulkResult(int(error.details["nMatched"]), failed)
    return BulkResult(result.matched_count, {})


def problem(code: int | None) -> str | None:
    """Return the word for a document's own fault, None if the code is that of something else."""
    return "duplicate" if code == DUPLICATE else REFUSED.get(code or 0)
