"""Recognises what the documented timestamp-based sync wrote into the Passport, so that nobody sees it beside ours."""

import re

from destinations.mongo.client import Document, Mongo, translate_errors
from passport.errors import Fatal

RECORDS: Document = {
    "openmrsData.obsUuid": {"$exists": False},
    "$or": [
        {"openmrsData.obsId": {"$exists": True}},
        {"data.procedure": re.compile("^Synced from OpenMRS")},
    ],
}
PROVIDER = re.compile(r"PROVIDER_(\d+)")


def count(database: Mongo) -> tuple[int, int]:
    """Records and doctors of the former sync. Looks at every record that names an obs."""
    with translate_errors():
        doctors = database.doctors.count_documents({"openmrsProviderUuid": PROVIDER})
        return database.medicalrecords.count_documents(RECORDS), doctors


def refuse(database: Mongo) -> None:
    """Fatal before our first row beside undecided records of the former sync: patients would see
    them twice.
    """
    with translate_errors():
        begun = database.observations.find_one({}, {"_id": 1}) is not None
        if begun or database.medicalrecords.find_one(RECORDS, {"_id": 1}) is None:
            return
    hint = "passport cut-over list   # then: passport cut-over adopt, and remove for what is left undecided"
    raise Fatal(
        "the Passport has records of the former sync: what becomes of them is not decided",
        hint=hint,
    )
