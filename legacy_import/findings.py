"""Finds what the legacy sync wrote, and decides what becomes of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from bson import MinKey, ObjectId

from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.legacy_records import PROVIDER, RECORDS
from destinations.mongo.projection.obs import record_id
from destinations.mongo.record_update import edited
from legacy_import.matching import Candidate, ObsMatcher, obs_id
from openmrs import lookup_queries
from openmrs.read import ANY_POSITION, Source
from passport.settings import Settings

PAGE = 1_000  # records that are looked at together
AUTOMATIC = re.compile(r"@openmrs\.auto$")  # the e-mail of a login that the legacy sync made

Kind = Literal["record", "doctor", "status"]


class Fate(StrEnum):
    """The fate of something that the legacy sync wrote."""

    ADOPTED = "adopted"
    REMOVED = "removed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class LegacyFinding:
    """One document that the legacy sync wrote.

    `document` is what was found, `id` the hex of its _id. `reason` says why it is not adopted. An
    adopted record becomes ours under the _id `key`, as that of the obs `row` of the hospital; an
    adopted doctor gets the provider `key`.
    """

    kind: Kind
    id: str
    fate: Fate
    document: Document
    reason: str = ""
    hospital: str | None = None
    obs_id: int | None = None
    key: Any = None
    row: Document | None = None

    @property
    def becomes(self) -> str:
        """Return the fate with its reason, as ``removed (the obs is voided or replaced)``."""
        return f"{self.fate} ({self.reason})" if self.reason else str(self.fate)


class LegacyFinder:
    """Walks over all that the legacy sync wrote and says what becomes of it.

    Raises NotReady when a hospital is away: without all of them nothing is certain.
    """

    def __init__(
        self,
        database: Mongo,
        settings: Settings,
        sources: Mapping[str, Source],
        passport_hospitals: Mapping[str, ObjectId],
    ) -> None:
        self._db = database
        self._sources = sources
        self._matcher = ObsMatcher(database, settings, sources)
        self._passport_hospitals = passport_hospitals  # _id in the Passport, by hospital

    def findings(self) -> Iterator[LegacyFinding]:
        """Yield records, then doctors, then statuses. Each page is read when it is asked for."""
        yield from self._records()
        yield from self._doctors()
        yield from self._statuses()

    def _records(self) -> Iterator[LegacyFinding]:
        after: Any = MinKey()
        while records := self._page_of_records(after):
            after = records[-1]["_id"]
            candidates = self._matcher.candidates(records)
            findings = [self._record(record, candidates[record["_id"]]) for record in records]
            yield from findings

    def _page_of_records(self, after: Any) -> list[Document]:
        query = {"_id": {"$gt": after}, **RECORDS}
        with translate_errors():
            return list(self._db.medicalrecords.find(query).sort("_id").limit(PAGE))

    def _record(self, record: Document, candidates: Sequence[Candidate]) -> LegacyFinding:
        undecided = LegacyFinding(
            kind="record",
            id=str(record["_id"]),
            fate=Fate.UNDECIDED,
            document=record,
            obs_id=obs_id(record),
        )
        if not candidates:
            return replace(undecided, reason="no obs is this one")
        if len(candidates) > 1:
            return replace(undecided, reason="obs of several hospitals fit")

        [candidate] = candidates
        finding = replace(undecided, hospital=candidate.hospital)
        if candidate.reason:
            return replace(finding, fate=Fate.REMOVED, reason=candidate.reason)
        row = candidate.row
        ours = self._our_record(record["patientId"], candidate.hospital, row["uuid"])
        if ours is None and self._is_mirrored(candidate.hospital, row["obs_id"]):
            # The obs is there, and the mapping shows nothing of it. An edit is not thrown away.
            fate = Fate.UNDECIDED if edited(record) else Fate.REMOVED
            return replace(finding, fate=fate, reason="no rule shows the obs")
        key = ours["_id"] if ours is not None else record_id(candidate.hospital, row["first"])
        return replace(finding, fate=Fate.ADOPTED, key=key, row=row)

    def _our_record(self, patient: str, hospital: str, uuid: str) -> Document | None:
        """Return the record of ours that states the obs with this uuid."""
        states_it = [{"openmrsData.obsUuid": uuid}, {"openmrsData.memberUuids": uuid}]
        query = {"patientId": patient, "openmrsData.hospitalId": hospital, "$or": states_it}
        with translate_errors():
            return self._db.medicalrecords.find_one(query)

    def _is_mirrored(self, hospital: str, obs_id: int) -> bool:
        query = {"_id": f"{hospital}/{obs_id}", "deleted": False}
        with translate_errors():
            return self._db.observations.find_one(query, {"_id": 1}) is not None

    def _doctors(self) -> Iterator[LegacyFinding]:
        with translate_errors():
            doctors = list(self._db.doctors.find({"openmrsProviderUuid": PROVIDER}))
            user_ids = [doctor["user"] for doctor in doctors]
            found = self._db.users.find({"_id": {"$in": user_ids}})
            users = {user["_id"]: user for user in found}
        for doctor in doctors:
            yield self._doctor(doctor, users.get(doctor["user"]))

    def _doctor(self, doctor: Document, user: Document | None) -> LegacyFinding:
        finding = LegacyFinding(
            kind="doctor", id=str(doctor["_id"]), fate=Fate.REMOVED, document=doctor
        )
        if user is None or AUTOMATIC.search(user.get("email", "")):
            return replace(finding, reason="a login that nobody has taken over")

        hospital: str | None = None
        for hospital_id, passport_hospital in self._passport_hospitals.items():
            if passport_hospital == doctor["hospital"]:
                hospital = hospital_id
                break
        key: str | None = None
        number = PROVIDER.fullmatch(doctor["openmrsProviderUuid"])
        if hospital is not None and number is not None:
            key = self._author_key(hospital, int(number[1]))
        if key is None:
            reason = "no such user at a hospital of the settings"
            return replace(finding, fate=Fate.UNDECIDED, reason=reason, hospital=hospital)
        return replace(finding, fate=Fate.ADOPTED, hospital=hospital, key=key)

    def _author_key(self, hospital: str, user_id: int) -> str | None:
        """Return the key that a user of OpenMRS has as an author, None if there is no such user."""
        with self._sources[hospital].read_at(ANY_POSITION) as reading:
            user = lookup_queries.users(reading, [user_id]).get(user_id)
            if user is None or user.person_id is None:
                return None
            staff = lookup_queries.staff(reading, [user.person_id])[user.person_id]
            return staff.provider_uuid or f"user/{user.uuid}"

    def _statuses(self) -> Iterator[LegacyFinding]:
        ours = [str(passport_hospital) for passport_hospital in self._passport_hospitals.values()]
        with translate_errors():
            statuses = list(self._db.syncstatus.find({"hospitalId": {"$nin": ours}}))
        for status in statuses:
            yield LegacyFinding(
                kind="status",
                id=str(status["_id"]),
                fate=Fate.UNDECIDED,
                document=status,
                reason="of no hospital of the settings",
            )
