"""Finds the obs that a record of the legacy sync was made of.

Such a record names an obs_id and no hospital. Its obs is the one with the same obs_id, concept,
person and times in exactly one hospital. Nothing is decided by a name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from bson import ObjectId

from destinations.mongo.client import Mongo
from destinations.mongo.document import Document
from destinations.mongo.people import patients_by_national_id
from openmrs.identity import Identities
from openmrs.load_budget import WaitingPace
from openmrs.load_share import LoadShare
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.wall_time import instant
from passport.settings import Settings

# So many obs are followed back to their first versions in one read.
FIRST_VERSIONS = 50
_FURTHEST = timedelta(hours=14)  # from UTC, of any time zone
_OBS = """SELECT obs_id, uuid, person_id, concept_id, voided, previous_version,
CAST(obs_datetime AS CHAR) AS at, CAST(date_created AS CHAR) AS created FROM obs"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An obs at a hospital that a record may have been made of.

    `row` has, beside its columns, ``first`` (the uuid of its first version) and ``born`` (when that
    was created). `reason` says why the obs is not to be shown, and is empty if it is.
    """

    hospital: str
    row: Document
    reason: str


class ObsMatcher:
    """Looks for candidates at all hospitals. Raises NotReady when one of them is away."""

    def __init__(self, database: Mongo, settings: Settings, sources: Mapping[str, Source]) -> None:
        self._db = database
        self._settings = settings
        self._sources = sources
        self._identities = {
            hospital_id: Identities(hospital_id, hospital)
            for hospital_id, hospital in settings.hospitals.items()
        }
        never = Event()
        self._paces = {
            hospital_id: WaitingPace(
                settings.hospitals[hospital_id].load_budget, never, share=LoadShare(source)
            )
            for hospital_id, source in sources.items()
        }

    def candidates(self, records: Sequence[Document]) -> dict[ObjectId, list[Candidate]]:
        """Return the candidates of all hospitals by record id."""
        candidates: dict[ObjectId, list[Candidate]] = {record["_id"]: [] for record in records}
        for hospital in self._settings.hospitals:
            for record_id, candidate in self._at(hospital, records):
                candidates[record_id].append(candidate)
        return candidates

    def _at(self, hospital: str, records: Sequence[Document]) -> list[tuple[ObjectId, Candidate]]:
        ids = sorted({obs_id(record) for record in records if obs_id(record) is not None})
        if not ids:
            return []
        # Short reads, one after the other: an ALTER at the hospital would wait for a longer one.
        source = self._sources[hospital]
        pace = self._paces[hospital]
        with source.read_at(ANY_POSITION) as reading:
            rows = {
                row["obs_id"]: row for row in reading.rows(f"{_OBS} WHERE obs_id IN %s", (ids,))
            }
        pace.spend(len(rows))
        fitting: list[tuple[Document, Document]] = []
        for record in records:
            row = rows.get(obs_id(record))
            if row is not None and fits(record, row):
                fitting.append((record, row))
        if not fitting:
            return []

        with source.read_at(ANY_POSITION) as reading:
            replaced = _replaced(reading, [row["obs_id"] for _, row in fitting])
            holders = self._holders(hospital, reading, {row["person_id"] for _, row in fitting})
        pace.spend(len(fitting))
        patients = patients_by_national_id(self._db.patients, list(holders))
        patients_by_person = {
            holders[national_id]: patient.patient_id for national_id, patient in patients.items()
        }

        zone = self._settings.hospitals[hospital].timezone
        candidates: list[tuple[ObjectId, Candidate]] = []
        for start in range(0, len(fitting), FIRST_VERSIONS):
            part = fitting[start : start + FIRST_VERSIONS]
            with source.read_at(ANY_POSITION) as reading:
                firsts = [_first_version(reading, row) for _, row in part]
            pace.spend(len(part))
            for (record, row), first in zip(part, firsts, strict=True):
                row["first"] = first["uuid"]
                row["born"] = instant(first["created"].replace(" ", "T"), zone)
                if row["voided"] or row["obs_id"] in replaced:
                    reason = "the obs is voided or replaced"
                elif patients_by_person.get(row["person_id"]) != record["patientId"]:
                    reason = "the obs is another patient's"
                else:
                    reason = ""
                candidates.append((record["_id"], Candidate(hospital, row, reason)))
        return candidates

    def _holders(
        self, hospital: str, reading: ConsistentRead, person_ids: set[int]
    ) -> dict[str, int]:
        """Return the person_id by national id, of those who have one."""
        if not person_ids:
            return {}
        persons = self._identities[hospital].read(reading, sorted(person_ids), "")
        return {
            person.national_id: person_id
            for person_id, person in persons.items()
            if person.national_id
        }


def obs_id(record: Document) -> Any:
    """Return the obs_id that a record names, None if it names none."""
    return (record.get("openmrsData") or {}).get("obsId")


def fits(record: Document, row: Document | None) -> bool:
    """Return whether a record of the legacy sync was made of an obs row.

    Obs, concept, person and times are the same then. The times may be off by a time zone, with
    summer time or without: the sync took wall times for those of its own machine.
    """
    written = record.get("openmrsData") or {}
    if row is None:
        return False
    for name, column in (
        ("obsId", "obs_id"),
        ("conceptId", "concept_id"),
        ("personId", "person_id"),
    ):
        if written.get(name) != row[column]:
            return False

    offsets: list[timedelta] = []
    for name, column in (("obsDatetime", "at"), ("dateCreated", "created")):
        if written.get(name):
            offsets.append(written[name] - _as_utc(row[column]))
    if not offsets:
        return False
    # All time zones are whole quarters of an hour from UTC. Both times were off by the same zone,
    # one of them perhaps in summer.
    of_a_zone = all(
        abs(offset) <= _FURTHEST and not offset % timedelta(minutes=15) for offset in offsets
    )
    return of_a_zone and max(offsets) - min(offsets) <= timedelta(hours=1)


def _as_utc(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


def _replaced(reading: ConsistentRead, ids: Sequence[int]) -> set[int]:
    """Return the obs_ids among `ids` that have a live successor."""
    if not ids:
        return set()
    sql = "SELECT previous_version AS old FROM obs WHERE voided = 0 AND previous_version IN %s"
    return {row["old"] for row in reading.rows(sql, (ids,))}


def _first_version(reading: ConsistentRead, row: Document) -> Document:
    """Return the first version of a row, as far as it is still there."""
    sql = f"{_OBS} WHERE obs_id IN %s AND person_id = %s"
    seen = {row["obs_id"]}
    while (earlier_id := row["previous_version"]) is not None and earlier_id not in seen:
        seen.add(earlier_id)
        earlier = reading.rows(sql, ([earlier_id], row["person_id"]))
        if not earlier:
            break
        row = earlier[0]
    return row
