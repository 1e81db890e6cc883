"""Makes records and doctors of the legacy sync ours."""

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.people import ask_for
from destinations.mongo.placeholder_accounts import identity
from destinations.mongo.record_update import NEVER_APPLIED, edited
from legacy_import.findings import LegacyFinding

EDITED_FIELDS = ("data", "type", "lastEditedAt", "editableBy")


def adopt_record(database: Mongo, finding: LegacyFinding) -> None:
    """Give a record our _id; the next projection does the rest.

    If our own record of the obs is there already, it gets the edit that a person made in the
    other. The other one stays: it is removed after this. Raises Retry, NotReady or Fatal.
    """
    row = finding.row or {}
    visible = {"_id": finding.key, "patientId": {"$ne": ""}}
    with translate_errors():
        if database.medicalrecords.find_one(visible, {"_id": 1}) is None:
            record = _as_ours(finding, row)
            tombstone = {"_id": finding.key, "patientId": ""}
            database.medicalrecords.replace_one(tombstone, record, upsert=True)
        elif edited(finding.document):
            document = finding.document
            edit = {name: document[name] for name in EDITED_FIELDS if name in document}
            update = {"$set": edit | {"applied": NEVER_APPLIED}, "$inc": {"rev": 1}}
            not_edited = {"_id": finding.key, "lastEditedAt": {"$exists": False}}
            database.medicalrecords.update_one(not_edited, update)
    ask_for(database, [f"{finding.hospital}/{row['person_id']}"])


def _as_ours(finding: LegacyFinding, row: Document) -> Document:
    record = finding.document
    of_our_obs = {"hospitalId": finding.hospital, "obsUuid": row["uuid"]}
    return {
        **record,
        "_id": finding.key,
        "openmrsData": record["openmrsData"] | of_our_obs,
        "syncDate": row["born"],
        "createdAt": row["born"],
        "rev": 0,
        "applied": NEVER_APPLIED,
    }


def adopt_doctor(database: Mongo, finding: LegacyFinding) -> None:
    """Let a doctor be the author of what their provider says, from now on and of what is there.

    People with records of the placeholder are read again. Raises Retry, NotReady or Fatal.
    """
    hospital = finding.hospital or ""
    placeholder = identity("user", hospital, finding.key)
    by_placeholder = {
        "openmrsData.hospitalId": hospital,
        "createdBy": str(placeholder),
        "patientId": {"$ne": ""},
    }
    link = {"$set": {"openmrsProviderUuid": finding.key}}
    with translate_errors():
        database.doctors.update_one({"_id": finding.document["_id"]}, link)
        person_ids = database.medicalrecords.distinct("openmrsData.personId", by_placeholder)
    ask_for(database, [f"{hospital}/{person_id}" for person_id in person_ids])
