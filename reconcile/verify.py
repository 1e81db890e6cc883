"""Proves that the Passport holds what the hospitals hold. Writes nothing unless asked to.

Persons are compared in batches. The hospital's side of a batch is read in short reads, one after
the other. Whatever differs is looked at again when the destination has caught up: what is on its
way is no difference.

There are two levels. At level record everything is compared: links, the mirror of the rows, and the
records. At level mirror the first look goes by a hash of each person's rows, and only persons who
differ by that are compared. That is several times as fast, and blind for records.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from bson import ObjectId

from cdc import backfill
from openmrs.load_budget import WaitingPace
from openmrs.load_share import LoadShare
from openmrs.read import Source
from passport.errors import NotReady, Retry
from passport.settings import Settings
from reconcile import mongo_reader
from reconcile.by_content import ByContent, ByPerson
from reconcile.by_hash import ByHash
from reconcile.caught_up import PAUSE_S
from reconcile.look_again import PATIENCE, Behind, LookAgain, Patience
from reconcile.mongo_reader import MongoReader
from reconcile.persons import (
    EVERYBODY,
    PERSONS_AT_ONCE,
    count_patients,
    in_parts,
    persons_with_rows,
    walk,
)
from reconcile.report import Compared, Differences, Level, Report

AGAIN_AT_ONCE = 50

OnProgress = Callable[[int, int], None]
"""Is called with the number of persons who are compared, and of about how many."""


def verify(
    settings: Settings,
    destination: str,
    *,
    hospitals: Sequence[str] | None = None,
    persons: tuple[int, int] = EVERYBODY,
    level: Level = "record",
    repair: bool = False,
    progress: OnProgress = lambda compared, total: None,
    patience: Patience = PATIENCE,
    persons_at_once: int = PERSONS_AT_ONCE,
) -> Report:
    """Compare hospitals with a destination, all of them if `hospitals` is None.

    `persons` are the first and the last person_id to compare. With `repair`, every destination is
    asked to read whoever differs whole. That also removes the records that no row explains, which
    is waited for as long as `patience` lets a destination catch up. Raises NotReady (whose hint
    says how to go on where it was interrupted), Retry, Fatal.
    """
    hospital_ids = list(settings.hospitals if hospitals is None else hospitals)
    for hospital_id in hospital_ids:
        settings.hospital(hospital_id)
    report = Report(level)
    compared_before = 0
    with mongo_reader.opened(settings, destination) as mongo:
        for hospital_id in hospital_ids:
            verification = _Verification(
                settings,
                hospital_id,
                mongo,
                persons,
                level,
                patience,
                persons_at_once,
                _after(compared_before, progress),
            )
            report.add(hospital_id, *verification.run(repair=repair))
            compared_before += report.hospitals[hospital_id].persons
    return report


def _after(before: int, progress: OnProgress) -> OnProgress:
    """Return a progress that goes on after `before` persons of the hospitals before."""
    return lambda compared, total: progress(before + compared, before + total)


class _FirstLook(Protocol):
    """A level of verifying: how everybody is looked at the first time."""

    def look(self, person_ids: Sequence[int]) -> ByPerson:
        """Return what differs of these persons, and count them as compared."""


class _RecordLevel:
    def __init__(self, by_content: ByContent, compared: Compared) -> None:
        self._by_content = by_content
        self._compared = compared

    def look(self, person_ids: Sequence[int]) -> ByPerson:
        both_ends = self._by_content.read(person_ids)
        both_ends.count_into(self._compared)
        return both_ends.differences()


class _MirrorLevel:
    def __init__(self, by_hash: ByHash, by_content: ByContent) -> None:
        self._by_hash = by_hash
        self._by_content = by_content

    def look(self, person_ids: Sequence[int]) -> ByPerson:
        suspects = sorted(self._by_hash.differing(self._by_content.lookups, person_ids))
        return self._by_content.read(suspects).differences() if suspects else {}


@dataclass(slots=True)
class _Findings:
    """The differences by person, and the `strays`.

    Strays are patients who see records though no person of theirs is there: hex of patients._id.
    """

    persons: ByPerson = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.persons or self.strays)


class _Verification:
    """Verifies one hospital."""

    def __init__(
        self,
        settings: Settings,
        hospital_id: str,
        mongo: MongoReader,
        persons: tuple[int, int],
        level: Level,
        patience: Patience,
        persons_at_once: int,
        progress: OnProgress,
    ) -> None:
        self._settings = settings
        self._id = hospital_id
        self._mongo = mongo
        self._persons = persons
        self._level = level
        self._persons_at_once = persons_at_once
        self._patience = patience
        self._progress = progress
        self._compared = Compared()

        hospital = settings.hospitals[hospital_id]
        never = Event()
        self._source = Source(hospital_id, hospital.mysql)
        pace = WaitingPace(hospital.load_budget, never, share=LoadShare(self._source))
        self._by_content = ByContent(settings, self._source, mongo, pace)
        self._again = LookAgain(settings, self._source, mongo, patience, never, polled_too=True)
        self._first_look: _FirstLook
        if level == "mirror":
            by_hash = ByHash(self._source, mongo, pace, self._compared)
            self._first_look = _MirrorLevel(by_hash, self._by_content)
        else:
            self._first_look = _RecordLevel(self._by_content, self._compared)

    def run(self, *, repair: bool) -> tuple[Compared, Differences, set[ObjectId]]:
        """Return what was compared, and what differs when the destination has caught up.

        Also returns the records, by _id, that were extra and are removed.
        """
        removed: set[ObjectId] = set()
        try:
            findings = self._confirmed(self._look_at_everybody())
            differences = Differences()
            for of_person in findings.persons.values():
                differences.merge(of_person)
            stray_records = self._records_of(findings.strays)
            differences.extra_records |= stray_records.keys()
            differences.add("extra", (f"medicalrecords/{key}" for key in stray_records))
            person_ids = self._whom_to_read(findings)
            if repair and person_ids and not self._compared.behind:
                backfill.persons(self._id, self._settings, person_ids)
                self._compared.asked = len(person_ids)
                removed = self._wait_for_removal(differences.extra_records)
                self._compared.removed = len(removed)
        finally:
            self._source.close()
        return self._compared, differences, removed

    def _wait_for_removal(self, records: set[ObjectId]) -> set[ObjectId]:
        """Return those of the records, by _id, that go while there is patience for it.

        Nothing is removed here, since the consumers alone write records: they do it while they read
        a person whole.
        """
        deadline = time.monotonic() + self._patience.caught_up_s
        while (shown := self._mongo.shown(records)) and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        return records - shown

    def _look_at_everybody(self) -> _Findings:
        findings = _Findings()
        if self._level == "record" and self._persons == EVERYBODY:
            findings.strays = self._mongo.patients_with_records(self._id)
        done_to = self._persons[0] - 1
        try:
            total = count_patients(self._source, self._persons)
            for batch in walk(
                self._source,
                self._mongo,
                persons_with_rows,
                persons=self._persons,
                at_once=self._persons_at_once,
            ):
                for person_ids in in_parts(batch.person_ids, self._persons_at_once):
                    findings.persons |= self._first_look.look(person_ids)
                done_to = batch.to
                compared = self._compared.persons
                self._progress(compared, max(total, compared))
        except Retry as error:
            raise self._interrupted(error, done_to, len(findings.persons)) from None
        findings.strays -= self._by_content.patients
        return findings

    def _interrupted(self, error: Retry, done_to: int, differing: int) -> NotReady:
        """Return the error that says how far verifying came, and how to go on."""
        level = " --level mirror" if self._level == "mirror" else ""
        command = f"passport verify{level} --hospital {self._id} --from-person {done_to + 1}"
        return NotReady(
            f"{error.reason}; {self._compared.persons} people up to {done_to} were compared, "
            f"{differing} of them differ",
            hint=f"{command}   # goes on there",
        )

    def _confirmed(self, findings: _Findings) -> _Findings:
        """Return what still differs when the destination has caught up."""
        if not findings:
            return findings
        try:
            for _ in self._again.rounds():
                before = findings
                findings = self._look_again(before)
                if not findings or findings == before:
                    break
        except Behind as behind:
            self._compared.behind = True
            self._compared.hint = behind.hint
        return findings

    def _look_again(self, before: _Findings) -> _Findings:
        self._by_content.forget()
        after = _Findings()
        for person_ids in in_parts(self._whom_to_read(before), AGAIN_AT_ONCE):
            after.persons |= self._by_content.read(person_ids).differences()
        for patient in before.strays - self._by_content.patients:
            if self._records_of({patient}):
                after.strays.add(patient)
        return after

    def _whom_to_read(self, findings: _Findings) -> list[int]:
        """Return the persons who differ, and those whom the strays' records are of."""
        person_ids = {*findings.persons}
        for person_id in self._records_of(findings.strays).values():
            if person_id is not None:
                person_ids.add(person_id)
        return sorted(person_ids)

    def _records_of(self, patients: Collection[str]) -> dict[ObjectId, int | None]:
        """Return the person_id that each record names which these patients see, by _id."""
        if not patients:
            return {}
        persons: dict[ObjectId, int | None] = {}
        for key, record in self._mongo.records(self._id, [], patients).items():
            person_id = (record.get("openmrsData") or {}).get("personId")
            persons[key] = person_id if isinstance(person_id, int) else None
        return persons
