"""The MongoDB client: how it connects, which indexes it needs, and its errors reduced to their
remedy.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

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

from passport.errors import Fatal, NotReady, PassportError, Retry, without_text

Document = dict[str, Any]
Mongo = Database[Document]

ALL = (
    10_000  # answers of a find in its first reply, where the default is 101 and a second round trip
)
HALVED = 400  # operations of a bulk write from which on mongod gets it in two halves, at once
DUPLICATE = 11000
REFUSED = {2: "invalid", 121: "invalid", 10334: "too_large", 17280: "too_large", 17419: "too_large"}
_DENIED = {13, 18, 8000}
_NO_REPLICA_SET = {20, 40573}
_OTHER_INDEX = {85, 86}  # the Passport has one with the same keys or name: then that one serves

TEXT = {"$gt": ""}  # not $type: an index of that kind does not serve {idHash: ...}
INDEXES: dict[str, list[IndexModel]] = {
    "people": [
        IndexModel([("idHash", ASCENDING)], partialFilterExpression={"idHash": TEXT}),
        IndexModel([("patientId", ASCENDING)], partialFilterExpression={"patientId": TEXT}),
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
            [("openmrsData.hospitalId", ASCENDING)],
            name="conflicts",
            partialFilterExpression={"openmrsData.pending": {"$exists": True}},
        ),
    ],
}


def connected(uri: str, database: str) -> tuple[MongoClient[Document], Mongo]:
    """A client whose writes wait for a majority. NotReady without a primary; Fatal without a
    replica set.
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
            hint="write it as mongodb://HOST:PORT/?replicaSet=NAME; `passport config show` shows what is set",
        ) from None
    try:
        with translate_errors():
            _require_replica_set(client)
    except BaseException:
        client.close()
        raise
    return client, client.get_database(
        database, write_concern=WriteConcern(w="majority", wtimeout=10_000)
    )


def _require_replica_set(client: MongoClient[Document]) -> None:
    hello = client.admin.command("hello")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise Fatal(
            "the mongo destination is a standalone server: retried writes and change streams need a replica set",
            hint="start mongod with --replSet rs0, then run rs.initiate() in mongosh",
        )


def ensure_indexes(database: Mongo, tombstone_ttl_days: int) -> None:
    """Creates what is missing; an index of the Passport on the same keys is left as it is."""
    seconds = tombstone_ttl_days * 86_400
    ttl = IndexModel(
        [("removedAt", ASCENDING)], name="tombstones", sparse=True, expireAfterSeconds=seconds
    )
    with translate_errors():
        for name, indexes in INDEXES.items():
            if not _create(database[name], indexes):
                for index in indexes:
                    _create(database[name], [index])
        if not _create(database.medicalrecords, [ttl]):
            change = {"name": "tombstones", "expireAfterSeconds": seconds}
            database.command("collMod", "medicalrecords", index=change)


def _create(collection: Collection[Document], indexes: list[IndexModel]) -> bool:
    """False when there are others on the same keys or of the same name."""
    try:
        collection.create_indexes(indexes)
    except OperationFailure as error:
        if error.code not in _OTHER_INDEX:
            raise
        return False
    return True


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turns the client's errors, whose texts may quote values, into ours."""
    try:
        yield
    except PyMongoError as error:
        raise translate_error(error) from None


def translate_error(error: PyMongoError) -> PassportError:
    """Retry, NotReady or Fatal, by what helps."""
    code = _code(error)
    if isinstance(error, ConnectionFailure) or error.timeout:
        hint = "is mongod running and reachable? `passport check` tries it"
        return NotReady(f"MongoDB is not available ({without_text(error)})", hint=hint)
    if code in _DENIED:
        hint = (
            "check user and password in options.uri; the user needs readWrite on options.database"
        )
        return Fatal(
            f"MongoDB refused the mongo destination ({type(error).__name__} {code})", hint=hint
        )
    if code in _NO_REPLICA_SET:
        hint = "start mongod with --replSet rs0, then run rs.initiate() in mongosh"
        return Fatal("the mongo destination needs a replica set", hint=hint)
    if isinstance(error, ConfigurationError):
        return Fatal(
            f"options.uri of the mongo destination is not usable ({without_text(error)})",
            hint="correct it",
        )
    # Everything else (a step-down, disk full, write concern not met) may pass, and nothing is lost
    # by asking again.
    return Retry(f"MongoDB did not take a command ({type(error).__name__} {code})", after=2)


def _code(error: PyMongoError) -> int | None:
    details = getattr(error, "details", None) or {}
    first = (details.get("writeErrors") or [{}])[0] if isinstance(error, BulkWriteError) else {}
    code = first.get("code") or getattr(error, "code", None)
    return code if isinstance(code, int) else None


_beside = ThreadPoolExecutor(
    4, thread_name_prefix="mongo"
)  # a write beside something else takes two


def in_parallel(first: Callable[[], Any], *others: Callable[[], Any]) -> list[Any]:
    """The answers of all, in order; one round trip's wait instead of one each. Raises what one
    raised, all ended.
    """
    futures = [_beside.submit(one) for one in others]
    try:
        answer = first()
    finally:
        wait(futures)
    return [answer, *(future.result() for future in futures)]


def bulk(collection: Collection[Document], operations: Sequence[Any]) -> tuple[int, dict[int, str]]:
    """An unordered bulk write: (documents matched, {index of the operation: "duplicate" or why
    Mongo refuses it}).

    Raises Retry or Fatal for anything that is not one document's own fault.
    """
    if len(operations) < HALVED:
        return _bulk(collection, operations)
    half = len(operations) // 2
    (matched, failed), (more, others) = in_parallel(
        partial(_bulk, collection, operations[:half]), partial(_bulk, collection, operations[half:])
    )
    return matched + more, failed | {half + index: why for index, why in others.items()}


def _bulk(
    collection: Collection[Document], operations: Sequence[Any]
) -> tuple[int, dict[int, str]]:
    if not operations:
        return 0, {}
    with translate_errors():
        try:
            return collection.bulk_write(operations, ordered=False).matched_count, {}
        except BulkWriteError as error:
            failed = {
                one["index"]: _refusal(one.get("code")) for one in error.details["writeErrors"]
            }
            if error.details.get("writeConcernErrors") or "" in failed.values():
                raise
            return int(error.details["nMatched"]), failed


def _refusal(code: int | None) -> str:
    return "duplicate" if code == DUPLICATE else REFUSED.get(code or 0, "")
