"""`patients.medicalHistory`: the record ids of each patient.

It is off unless `link_medical_history` is set, since the Passport's own code takes the field for
ids of another collection.
"""

from collections import defaultdict
from collections.abc import Mapping

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from destinations.mongo.fence import Fence


def link(owners: Mapping[ObjectId, str | None], fence: Fence) -> None:
    """Put each record's id into its owner's list, and take it out of every other.

    `owners` has the hex of ``patients._id`` by record id; None where a record is nobody's. The same
    again changes nothing, also after a crash in between.
    """
    records_of: dict[str | None, list[ObjectId]] = defaultdict(list)
    for record_id, owner in owners.items():
        records_of[owner].append(record_id)

    added: list[UpdateOne] = []
    pulled: list[UpdateMany] = []
    for owner, record_ids in records_of.items():
        patient_id = ObjectId(owner) if owner is not None else None
        elsewhere = {"medicalHistory": {"$in": record_ids}, "_id": {"$ne": patient_id}}
        pulled.append(UpdateMany(elsewhere, {"$pull": {"medicalHistory": {"$in": record_ids}}}))
        if patient_id is not None:
            listing = {"$addToSet": {"medicalHistory": {"$each": record_ids}}}
            added.append(UpdateOne({"_id": patient_id}, listing))
    fence.write([{"patients": [update]} for update in (*pulled, *added)])
