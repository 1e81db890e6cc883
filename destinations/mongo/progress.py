"""Keeps `progress`: how far a hospital's changes are applied, and what its last verify found.

One document per hospital: ``{_id: "<hospital>", offset, version, at_ms, rereads, verified,
erased}``. The last says that somebody of the hospital was erased once, not who.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from pymongo import UpdateOne

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from passport.sink import Progress


def read(database: Mongo, hospital: str) -> Progress | None:
    """Return how far the destination is with a hospital; None when it has nothing of it."""
    with translate_errors():
        document = database.progress.find_one({"_id": hospital})
    if not document:
        return None
    return Progress(
        hospital,
        int(document["offset"]),  # plain numbers, since events are made of them, and no bson.Int64
        document["version"],
        int(document["at_ms"]),
        document.get("rereads", []),
    )


def store(progress: Progress, passport_hospital: str, fence: Fence) -> None:
    """Store how far the destination is, for us and as the Passport shows it for its hospital.

    The version never goes back.
    """
    last_sync = datetime.fromtimestamp(progress.at_ms / 1000, UTC)
    status = UpdateOne(
        {"hospitalId": passport_hospital}, {"$set": {"lastSyncTime": last_sync}}, upsert=True
    )
    fields = {"offset": progress.offset, "at_ms": progress.at_ms, "rereads": progress.rereads}
    update = {"$set": fields, "$max": {"version": progress.version}}
    own = UpdateOne({"_id": progress.hospital}, update, upsert=True)
    fence.write([{"syncstatus": [status], "progress": [own]}])


def store_erased(database: Mongo, hospitals: Sequence[str]) -> None:
    """Store that somebody of these hospitals is erased."""
    with translate_errors():
        query = {"_id": {"$in": list(hospitals)}}
        database.progress.update_many(query, {"$set": {"erased": True}})


def read_verified(database: Mongo, hospital: str) -> Document | None:
    """Return what the last whole verify of a hospital found: ``{at, equal}``, or None."""
    with translate_errors():
        document = database.progress.find_one({"_id": hospital}, {"verified": 1})
    return (document or {}).get("verified")


def store_verified(database: Mongo, hospital: str, verified: Document) -> None:
    """Store what a whole verify of a hospital has found, for `status` and the operators' page."""
    with translate_errors():
        database.progress.update_one({"_id": hospital}, {"$set": {"verified": verified}})
