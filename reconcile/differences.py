"""Compares what the Passport should hold with what it holds. Pure."""

from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from destinations.mongo.mirror import in_first_format
from destinations.mongo.record_update import PASSPORT_OWNED, edited
from reconcile.report import Differences

Document = dict[str, Any]

# Fields that the mirror keeps for itself: see docs/reference/records.md.
MIRROR_OWN = frozenset({"version", "digest", "related", "formerRecords"})


def rows(expected: Mapping[str, Document], mirror: Mapping[str, Document]) -> Differences:
    """Compare the mirror's documents of one person, by _id. Tombstones count as not there."""
    live = {key: row for key, row in mirror.items() if not row.get("deleted")}
    differences = Differences()
    differences.add("missing", (f"observations/{key}" for key in expected.keys() - live.keys()))
    differences.add("extra", (f"observations/{key}" for key in live.keys() - expected.keys()))
    for key in expected.keys() & live.keys():
        must_be = _content(expected[key])
        if "format" not in live[key]:
            # An earlier release wrote it. A consumer that starts reads such rows again by itself.
            must_be = in_first_format(must_be)
        if must_be != _content(live[key]):
            differences.add("different", [f"observations/{key}"])
    return differences


def _content(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in MIRROR_OWN}


def records(
    expected: Mapping[ObjectId, Document], stored: Mapping[ObjectId, Document]
) -> Differences:
    """Compare records by _id. One with patientId "" is a tombstone.

    What a person has deleted in the Passport stays deleted.
    """
    live = {key: record for key, record in stored.items() if record.get("patientId") != ""}
    differences = Differences()
    deleted = {key for key, record in stored.items() if "deletedAt" in record}
    missing = expected.keys() - live.keys() - deleted
    differences.add("missing", (f"medicalrecords/{key}" for key in missing))
    differences.extra_records |= live.keys() - expected.keys()
    differences.add("extra", (f"medicalrecords/{key}" for key in differences.extra_records))
    for key in expected.keys() & live.keys():
        if not states_the_same(expected[key], live[key]):
            differences.add("different", [f"medicalrecords/{key}"])
    return differences


def states_the_same(expected: Document, record: Document) -> bool:
    """Return whether a record states what the hospital says.

    What somebody has edited in the Passport is left to them.
    """
    data = dict(record.get("data") or {})
    openmrs = dict(record.get("openmrsData") or {})
    pending = openmrs.pop("pending", None)
    pending_type = openmrs.pop("pendingType", expected["type"])
    is_edited = edited(record)

    names = ["patientId", "createdBy"]
    if not is_edited:
        names.append("type")
    for name in names:
        if record.get(name) != expected[name]:
            return False
    if openmrs != expected["openmrsData"]:
        return False

    hospital_says: Document = expected["data"]
    if is_edited:
        # What the hospital says waits beside the edit, unless the edit says the same.
        return pending is None or (pending, pending_type) == (hospital_says, expected["type"])
    from_hospital = {name: value for name, value in data.items() if name not in PASSPORT_OWNED}
    return from_hospital == hospital_says


# The fields of a link that decide whose records these are. What they contradict in is only counted,
# and a link that was made before that was counted doesn't say it.
MATCHED_BY = frozenset({"state", "idHash", "patientId"})


def link(key: str, expected: Document, stored: Document | None, *, has_rows: bool) -> Differences:
    """Compare a person's link. People who are not matched, or have no rows, need no link."""
    differences = Differences()
    if stored is None:
        if expected["patientId"] and has_rows:
            differences.add("missing", [f"people/{key}"])
    elif any(stored.get(name) != value for name, value in expected.items() if name in MATCHED_BY):
        differences.add("different", [f"people/{key}"])
    return differences
