"""Recognises what the documented timestamp-based sync wrote into the Passport.

A patient must not see its records beside ours. The package `legacy_import` takes them over.
"""

import re

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
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
    """Return how many records and doctors of the legacy sync there are.

    Looks at every record that names an obs.
    """
    with translate_errors():
        doctors = database.doctors.count_documents({"openmrsProviderUuid": PROVIDER})
        return database.medicalrecords.count_documents(RECORDS), doctors


def refuse_undecided(database: Mongo) -> None:
    """Raise Fatal if our first row would come beside undecided records of the legacy sync.

    Patients would see them twice. Once there is a row of ours, nothing is asked any more.
    """
    with translate_errors():
        has_rows = database.observations.find_one({}, {"_id": 1}) is not None
        if has_rows or database.medicalrecords.find_one(RECORDS, {"_id": 1}) is None:
            return
    raise Fatal(
        "the Passport has records of the legacy sync: what becomes of them is not decided",
        hint="passport cut-over list   # then: passport cut-over adopt, "
        "and remove for what is left undecided",
    )
