"""`patients.medicalHistory`: the record ids of each patient. Off unless `link_medical_history` is
set, since the Passport's own code takes the field for ids of another collection."""

from collections import defaultdict
from collections.abc import Mapping

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from destinations.mongo.client import Mongo, bulk


def link(database: Mongo, owners: Mapping[ObjectId, str | None]) -> None:
    """Each record id is in its owner's list (None: nobody's) and in no other. Idempotent: also
    after a crash.
    """
    owned: dict[str | None, list[ObjectId]] = defaultdict(list)
    for record, owner in owners.items():
        owned[owner].append(record)
    added, pulled = [], []
    for owner, ids in owned.items():
        whose = ObjectId(owner) if owner is not None else None
        elsewhere = {"medicalHistory": {"$in": ids}, "_id": {"$ne": whose}}
        pulled.append(UpdateMany(elsewhere, {"$pull": {"medicalHistory": {"$in": ids}}}))
        if whose is not None:
            added.append(
                UpdateOne({"_id": whose}, {"$addToSet": {"medicalHistory": {"$each": ids}}})
            )
    bulk(database.patients, [*pulled, *added])
