"""What the documented sync wrote before: its records are found again at the hospitals, and become
ours or go.

Its records name an obs_id and no hospital: the obs is the one with the same obs_id, concept, person
and times in exactly one hospital. Nothing is decided by a name.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bson import MinKey, ObjectId

from destinations.mongo import auditlogs
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.legacy_records import PROVIDER, RECORDS
from destinations.mongo.people import ask_for, patients_by_national_id
from destinations.mongo.placeholder_accounts import Authors, identity
from destinations.mongo.projection.obs import record_id
from destinations.mongo.record_update import Change, edited
from openmrs import lookup_queries as names
from openmrs.identity import Identities
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.wall_time import instant
from passport.settings import Settings

PAGE = 1_000
ADOPTED, REMOVED, UNDECIDED = "adopted", "removed", "undecided"
AUTOMATIC = re.compile(r"@openmrs\.auto$")
HISTORIES = ("medicalHistory", "medications", "testResults", "hospitalVisits")
NEVER = "0" * 18  # as `applied`: nothing that the hospital says was ever shown
_FURTHEST = timedelta(hours=14)
_OBS = "SELECT obs_id, uuid, person_id, concept_id, voided, previous_version, CAST(obs_datetime AS CHAR) AS at,"
_OBS += " CAST(date_created AS CHAR) AS created FROM obs "


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind`: record, doctor or status. `becomes` begins with ADOPTED, REMOVED or UNDECIDED, then
    why.

    `document` is what was found; `key` what it is adopted as: a record's _id, or a doctor's
    provider; `row`: the obs.
    """

    kind: str
    id: str
    becomes: str
    document: Document
    hospital: str | None = None
    obs_id: int | None = None
    key: Any = None
    row: Document | None = None

    @property
    def outcome(self) -> str:
        return self.becomes.partition(" ")[0]


class Former:
    """All of it, page by page. Use as a context. NotReady when a hospital is away: without all
    nothing is certain.
    """

    def __init__(self, database: Mongo, settings: Settings) -> None:
        self._db = database
        self._settings = settings
        hospitals = settings.hospitals.items()
        self._authors = {name: Authors(database, name, one) for name, one in hospitals}
        self._sources = {name: Source(name, one.mysql) for name, one in hospitals}
        self._identities = {name: Identities(name, one) for name, one in hospitals}

    def __enter__(self) -> "Former":
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources.values():
            source.close()

    def found(self) -> Iterator[Finding]:
        for page in self._pages():
            yield from page
        yield from self._doctors()
        yield from self._statuses()

    def adopt(self) -> dict[str, int]:
        """Does what `found` says, but for the undecided. How many of each outcome."""
        return self._do(finding for finding in self.found() if finding.outcome != UNDECIDED)

    def remove(self, ids: Sequence[str] | None) -> dict[str, int]:
        """The undecided, or those of them with these ids, go."""
        chosen = (
            one
            for one in self.found()
            if one.outcome == UNDECIDED and (ids is None or one.id in ids)
        )
        return self._do(chosen)

    def _do(self, findings: Iterable[Finding]) -> dict[str, int]:
        done: Counter[str] = Counter()
        for one in findings:
            act = self._adopt_record if one.kind == "record" else self._adopt_doctor
            if one.outcome == ADOPTED:
                act(one)
            if one.kind != "doctor" or one.outcome != ADOPTED:
                self._delete(one)
            done[f"{one.kind} {'adopted' if one.outcome == ADOPTED else 'removed'}"] += 1
        return dict(done)

    # --- records

    def _pages(self) -> Iterator[list[Finding]]:
        after = MinKey()
        while page := self._page(after):
            after = page[-1]["_id"]
            candidates: dict[ObjectId, list[tuple[str, Document, str]]] = defaultdict(list)
            for hospital in self._settings.hospitals:
                for key, row, why in self._at(hospital, page):
                    candidates[key].append((hospital, row, why))
            yield [self._finding(record, candidates[record["_id"]]) for record in page]

    def _page(self, after: Any) -> list[Document]:
        with translate_errors():
            return list(
                self._db.medicalrecords.find({"_id": {"$gt": after}, **RECORDS})
                .sort("_id")
                .limit(PAGE)
            )

    def _at(
        self, hospital: str, records: Sequence[Document]
    ) -> Iterator[tuple[ObjectId, Document, str]]:
        """(record, its obs at the hospital, why it is not to be shown or "")."""
        ids = sorted({one["openmrsData"]["obsId"] for one in records if _obs_id(one) is not None})
        if not ids:
            return
        zone = self._settings.hospitals[hospital].timezone
        with self._sources[hospital].read_at(ANY_POSITION) as reading:
            rows = {
                row["obs_id"]: row for row in reading.rows(f"{_OBS} WHERE obs_id IN %s", (ids,))
            }
            fitting = [
                (one, rows[_obs_id(one)]) for one in records if fits(one, rows.get(_obs_id(one)))
            ]
            replaced = _replaced(reading, [row["obs_id"] for _, row in fitting])
            owners = self._owners(hospital, reading, {row["person_id"] for _, row in fitting})
            for record, row in fitting:
                first = _first(reading, row)
                row |= {
                    "first": first["uuid"],
                    "born": instant(first["created"].replace(" ", "T"), zone),
                }
                gone = (
                    "the obs is voided or replaced"
                    if row["voided"] or row["obs_id"] in replaced
                    else ""
                )
                other = (
                    ""
                    if owners.get(row["person_id"]) == record["patientId"]
                    else "the obs is another patient's"
                )
                yield record["_id"], row, gone or other

    def _owners(
        self, hospital: str, reading: ConsistentRead, person_ids: set[int]
    ) -> dict[int, str]:
        """Hex of patients._id by person_id."""
        if not person_ids:
            return {}
        persons = self._identities[hospital].read(reading, sorted(person_ids), "")
        ids = {one.national_id: number for number, one in persons.items() if one.national_id}
        patients = patients_by_national_id(self._db.patients, list(ids))
        return {ids[national_id]: patient for national_id, patient in patients.items()}

    def _finding(
        self, record: Document, candidates: Sequence[tuple[str, Document, str]]
    ) -> Finding:
        told = partial(
            Finding, "record", str(record["_id"]), document=record, obs_id=_obs_id(record)
        )
        if len(candidates) != 1:
            why = "no obs is this one" if not candidates else "obs of several hospitals fit"
            return told(f"{UNDECIDED} ({why})")
        hospital, row, why = candidates[0]
        if why:
            return told(f"{REMOVED} ({why})", hospital=hospital)
        ours = self._ours(record["patientId"], hospital, row["uuid"])
        if ours is None and self._mirrored(hospital, row["obs_id"]):
            outcome = UNDECIDED if edited(record) else REMOVED
            return told(f"{outcome} (no rule shows the obs)", hospital=hospital)
        key = ours["_id"] if ours is not None else record_id(hospital, row["first"])
        return told(ADOPTED, hospital=hospital, key=key, row=row)

    def _ours(self, patient: str, hospital: str, uuid: str) -> Document | None:
        """The record of ours that states the obs."""
        states = [{"openmrsData.obsUuid": uuid}, {"openmrsData.memberUuids": uuid}]
        with translate_errors():
            return self._db.medicalrecords.find_one(
                {"patientId": patient, "openmrsData.hospitalId": hospital, "$or": states}
            )

    def _mirrored(self, hospital: str, obs_id: int) -> bool:
        with translate_errors():
            key = {"_id": f"{hospital}/{obs_id}", "deleted": False}
            return self._db.observations.find_one(key, {"_id": 1}) is not None

    def _adopt_record(self, one: Finding) -> None:
        """Ours is there: it gets a person's edit. Else the record gets our _id; the next projection
        does the rest.
        """
        row, record = one.row or {}, one.document
        with translate_errors():
            if (
                self._db.medicalrecords.find_one(
                    {"_id": one.key, "patientId": {"$ne": ""}}, {"_id": 1}
                )
                is None
            ):
                named = {
                    **record["openmrsData"],
                    "hospitalId": one.hospital,
                    "obsUuid": row["uuid"],
                }
                own = {
                    "syncDate": row["born"],
                    "createdAt": row["born"],
                    "rev": 0,
                    "applied": NEVER,
                }
                ours = {**record, "_id": one.key, "openmrsData": named, **own}
                self._db.medicalrecords.replace_one(
                    {"_id": one.key, "patientId": ""}, ours, upsert=True
                )
            elif edited(record):
                mine = {"_id": one.key, "lastEditedAt": {"$exists": False}}
                kept = {
                    name: record[name]
                    for name in ("data", "type", "lastEditedAt", "editableBy")
                    if name in record
                }
                # With that `applied` the hospital's values count as newer: whoever decides sees
                # both.
                self._db.medicalrecords.update_one(
                    mine, {"$set": kept | {"applied": NEVER}, "$inc": {"rev": 1}}
                )
        ask_for(self._db, [f"{one.hospital}/{row['person_id']}"])

    def _delete(self, one: Finding) -> None:
        key = one.document["_id"]
        if one.kind == "record":
            self._tell(one)
        with translate_errors():
            if one.kind == "record":
                lists = dict.fromkeys(HISTORIES, key)
                self._db.patients.update_many(
                    {"$or": [{name: key} for name in HISTORIES]}, {"$pull": lists}
                )
                self._db.medicalrecords.delete_one({"_id": key})
            elif one.kind == "status":
                self._db.syncstatus.delete_one({"_id": key})
            else:
                self._db.hospitals.update_many({"doctors": key}, {"$pull": {"doctors": key}})
                self._db.patients.update_many(
                    {"assignedDoctors": key}, {"$pull": {"assignedDoctors": key}}
                )
                self._db.doctors.delete_one({"_id": key})
                self._db.users.delete_one({"_id": one.document["user"], "email": AUTOMATIC})

    def _tell(self, one: Finding) -> None:
        if one.hospital is None or not ObjectId.is_valid(one.document["patientId"]):
            return
        authors, action = (
            self._authors[one.hospital],
            "update" if one.outcome == ADOPTED else "delete",
        )
        authors.ensure_hospital()
        change = Change(one.document["_id"], action, one.document["patientId"], 0, None, {})  # type: ignore[arg-type]
        auditlogs.write(
            self._db,
            [change],
            authors.system,
            self._settings.hospitals[one.hospital].name,
            datetime.now(UTC),
        )

    # --- doctors and statuses

    def _doctors(self) -> Iterator[Finding]:
        with translate_errors():
            doctors = list(self._db.doctors.find({"openmrsProviderUuid": PROVIDER}))
            users = {
                one["_id"]: one
                for one in self._db.users.find({"_id": {"$in": [one["user"] for one in doctors]}})
            }
        for doctor in doctors:
            user = users.get(doctor["user"], {})
            yield self._doctor(
                doctor, taken_over=bool(user) and not AUTOMATIC.search(user.get("email", ""))
            )

    def _doctor(self, doctor: Document, *, taken_over: bool) -> Finding:
        told = partial(Finding, "doctor", str(doctor["_id"]), document=doctor)
        if not taken_over:
            return told(f"{REMOVED} (a login that nobody has taken over)")
        hospital = next(
            (name for name, one in self._authors.items() if one.hospital == doctor["hospital"]),
            None,
        )
        number = PROVIDER.fullmatch(doctor["openmrsProviderUuid"])
        key = self._author(hospital, int(number[1])) if hospital and number else None
        if key is None:
            return told(
                f"{UNDECIDED} (no such user at a hospital of the settings)", hospital=hospital
            )
        return told(ADOPTED, hospital=hospital, key=key)

    def _author(self, hospital: str, user_id: int) -> str | None:
        with self._sources[hospital].read_at(ANY_POSITION) as reading:
            user = names.users(reading, [user_id]).get(user_id)
            if user is None or user.person_id is None:
                return None
            return (
                names.staff(reading, [user.person_id])[user.person_id].provider_uuid
                or f"user/{user.uuid}"
            )

    def _adopt_doctor(self, one: Finding) -> None:
        """From now on they sign what their provider says, also what is there: its people are read
        again.
        """
        hospital = one.hospital or ""
        placeholder = str(identity("user", hospital, one.key))
        signed = {
            "openmrsData.hospitalId": hospital,
            "createdBy": placeholder,
            "patientId": {"$ne": ""},
        }
        with translate_errors():
            self._db.doctors.update_one(
                {"_id": one.document["_id"]}, {"$set": {"openmrsProviderUuid": one.key}}
            )
            persons = self._db.medicalrecords.distinct("openmrsData.personId", signed)
        ask_for(self._db, [f"{hospital}/{person}" for person in persons])

    def _statuses(self) -> Iterator[Finding]:
        ours = [str(one.hospital) for one in self._authors.values()]
        with translate_errors():
            for found in list(self._db.syncstatus.find({"hospitalId": {"$nin": ours}})):
                why = f"{UNDECIDED} (of no hospital of the settings)"
                yield Finding("status", str(found["_id"]), why, document=found)


def fits(record: Document, row: Document | None) -> bool:
    """Whether a record of the former sync was made of an obs row: the same obs, concept, person and
    times.

    Its times may be off by a zone, summer time or not: it took wall times for those of its own
    machine.
    """
    said = record.get("openmrsData") or {}
    if row is None or any(said.get(name) != row[column] for name, column in _IDS.items()):
        return False
    offs = [said[name] - _as_utc(row[column]) for name, column in _TIMES.items() if said.get(name)]
    within = all(abs(off) <= _FURTHEST and not off % timedelta(minutes=15) for off in offs)
    return bool(offs) and within and max(offs) - min(offs) <= timedelta(hours=1)


def _as_utc(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


_IDS = {"obsId": "obs_id", "conceptId": "concept_id", "personId": "person_id"}
_TIMES = {"obsDatetime": "at", "dateCreated": "created"}


def _obs_id(record: Document) -> Any:
    return (record.get("openmrsData") or {}).get("obsId")


def _replaced(reading: ConsistentRead, ids: Sequence[int]) -> set[int]:
    """Those with a live successor."""
    if not ids:
        return set()
    sql = "SELECT previous_version AS old FROM obs WHERE voided = 0 AND previous_version IN %s"
    return {row["old"] for row in reading.rows(sql, (ids,))}


def _first(reading: ConsistentRead, row: Document) -> Document:
    """The first version of a row, as far as it is there."""
    seen = {row["obs_id"]}
    while (older := row["previous_version"]) is not None and older not in seen:
        seen.add(older)
        found = reading.rows(
            f"{_OBS} WHERE obs_id IN %s AND person_id = %s", ([older], row["person_id"])
        )
        if not found:
            break
        row = found[0]
    return row
