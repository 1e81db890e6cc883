"""What the Passport should hold against what it holds. Pure."""

from collections.abc import Mapping
from typing import Any

from bson import ObjectId

from destinations.mongo.record_update import PASSPORT_OWNED, edited
from reconcile.report import Differences

Document = dict[str, Any]

MIRROR_OWN = frozenset({"version", "digest", "related"})  # see docs/reference/records.md


def rows(wanted: Mapping[str, Document], there: Mapping[str, Document]) -> Differences:
    """Mirror documents by _id, all of one person; tombstones count as not there."""
    found = Differences()
    live = {key: document for key, document in there.items() if not document.get("deleted")}
    found.add("missing", (f"observations/{key}" for key in wanted.keys() - live.keys()))
    found.add("extra", (f"observations/{key}" for key in live.keys() - wanted.keys()))
    both = wanted.keys() & live.keys()
    found.add(
        "different",
        (f"observations/{key}" for key in both if _content(wanted[key]) != _content(live[key])),
    )
    return found


def _content(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in MIRROR_OWN}


def records(wanted: Mapping[ObjectId, Document], there: Mapping[ObjectId, Document]) -> Differences:
    """Records by _id; one with patientId "" is a tombstone."""
    found = Differences()
    shown = {key: record for key, record in there.items() if record.get("patientId") != ""}
    found.add("missing", (f"medicalrecords/{key}" for key in wanted.keys() - shown.keys()))
    found.add("extra", (f"medicalrecords/{key}" for key in shown.keys() - wanted.keys()))
    both = wanted.keys() & shown.keys()
    found.add(
        "different", (f"medicalrecords/{key}" for key in both if not same(wanted[key], shown[key]))
    )
    return found


def same(wanted: Document, record: Document) -> bool:
    """Whether a record states what the hospital says. What a person has edited in the Passport is
    left to them.
    """
    data, openmrs = dict(record.get("data") or {}), dict(record.get("openmrsData") or {})
    pending = openmrs.pop("pending", None)
    names = ("patientId", "createdBy") if edited(record) else ("patientId", "createdBy", "type")
    if any(record.get(name) != wanted[name] for name in names) or openmrs != wanted["openmrsData"]:
        return False
    hospital_says: Document = wanted["data"]
    if edited(record):
        return pending is None or pending == hospital_says
    return {
        name: value for name, value in data.items() if name not in PASSPORT_OWNED
    } == hospital_says


def link(key: str, wanted: Document, there: Document | None, *, has_rows: bool) -> Differences:
    """A person's link. Of who is not matched, or has no rows, none is needed."""
    found = Differences()
    if there is None:
        found.add("missing", [f"people/{key}"] if wanted["patientId"] and has_rows else [])
    elif any(there.get(name) != value for name, value in wanted.items()):
        found.add("different", [f"people/{key}"])
    return found
