"""Proves that the Passport holds what the hospitals hold: links, mirror and records. Writes nothing
unless asked to.

By person, in batches of which each is read at one snapshot of the hospital, with lookups of its
own. What differs is looked at again when the destination has applied a position taken after the
read: what is on its way is no difference. At level mirror only people are read who differ by the
hash of their rows: several times as fast, blind for records.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TypeVar

from bson import ObjectId

from cdc import backfill
from consumers.lookups import Lookups
from destinations.mongo.document import Document
from openmrs.load_budget import FETCHED, WaitingPace
from openmrs.read import ANY_POSITION, Source
from passport.errors import NotReady, Retry
from passport.settings import Settings
from reconcile import differences as differing
from reconcile import expected, passport_db
from reconcile.by_hash import PERSONS, ByHash, parts
from reconcile.caught_up import Mark
from reconcile.expected import Expected
from reconcile.passport_db import PassportDb
from reconcile.report import Compared, Differences, Level, Report

ROUNDS = 3
SETTLE_S = 2.0
ROWS = 5_000  # of a batch with no more than PERSONS, and one person at least
EVERYBODY = (0, 2**62)
CACHE_ENTRIES = 50_000
CACHE_TTL_S = 3_600.0

K = TypeVar("K")
OnProgress = Callable[[int, int | None], None]  # persons done, and of how many
ByPerson = dict[int, Differences]


def verify(
    settings: Settings,
    destination: str,
    *,
    hospitals: Sequence[str] | None = None,
    persons: tuple[int, int] = EVERYBODY,
    level: Level = "record",
    repair: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Compares `hospitals` (all of them if None). `progress`: told how far it is. NotReady, Retry,
    Fatal.

    `persons`: first and last person_id. `repair`: who differs is read whole by every destination,
    once it gets there.
    """
    chosen = list(settings.hospitals if hospitals is None else hospitals)
    for hospital_id in chosen:
        settings.hospital(hospital_id)
    report = Report(level)
    with passport_db.opened(settings, destination) as passport:
        for hospital_id in chosen:
            told = partial(_told, progress, sum(one.persons for one in report.hospitals.values()))
            verifier = _Verifier(settings, hospital_id, passport, persons, level, told)
            report.add(hospital_id, *verifier.result(repair=repair))
    return report


def _told(progress: OnProgress | None, before: int, done: int, of: int) -> None:
    if progress is not None:
        progress(before + done, before + of)


class _Verifier:
    """One hospital."""

    def __init__(
        self,
        settings: Settings,
        hospital_id: str,
        passport: PassportDb,
        persons: tuple[int, int],
        level: Level,
        told: Callable[[int, int], None],
    ) -> None:
        self._settings = settings
        self._id = hospital_id
        self._hospital = settings.hospitals[hospital_id]
        self._passport = passport
        self._source = Source(hospital_id, self._hospital.mysql)
        self._pace = WaitingPace(self._hospital.load_budget, Event())
        self._first, self._last = persons
        self._done_to = self._first - 1
        self._told = told
        self._patients: set[str] = set()
        self._compared = Compared()
        self._by_hash = (
            ByHash(self._source, passport, self._pace, self._compared)
            if level == "mirror"
            else None
        )
        self._forget()

    def result(self, *, repair: bool) -> tuple[Compared, Differences]:
        try:
            found, strays = self._differing()
            if repair and not self._compared.behind and (people := self._people(found, strays)):
                backfill.persons(self._id, self._settings, people)
                self._compared.asked = len(people)
        finally:
            self._source.close()
        total = Differences()
        for one in found.values():
            total.merge(one)
        total.add("extra", (f"medicalrecords/{key}" for key in self._stray_records(strays)))
        return self._compared, total

    def _differing(self) -> tuple[ByPerson, set[str]]:
        found, strays = self._everyone()
        for _ in range(ROUNDS if found or strays else 0):
            if not self._caught_up():
                break
            before = found, strays
            found, strays = self._again(found, strays)
            if (found, strays) == before or not (found or strays):
                break
        return found, strays

    def _caught_up(self) -> bool:
        """Waits for the destination to be where the hospital is now, and to hear of who has just
        registered.
        """
        time.sleep(SETTLE_S)
        mark = Mark.now(self._settings, self._id, self._source)
        self._compared.behind = not mark.reached(lambda: self._passport.progress(self._id))
        self._compared.hint = mark.hint if self._compared.behind else ""
        return not self._compared.behind

    def _everyone(self) -> tuple[ByPerson, set[str]]:
        """Persons that differ, and patients who are shown records of the hospital though nobody
        there is them.
        """
        linked = self._passport.linked(self._id)
        whole = not self._by_hash and (self._first, self._last) == EVERYBODY
        shown = self._passport.shown_to(self._id) if whole else set()
        found: ByPerson = {}
        try:
            of = self._patients_there()
            for after, to, person_ids in self._batches():
                also = self._passport.mirrored(self._id, after, to) | {
                    one for one in linked if after < one <= to
                }
                for ids in parts(sorted({*person_ids, *also})):
                    found |= self._look(ids)
                self._done_to = to
                self._told(self._compared.persons, max(of, self._compared.persons))
        except Retry as error:
            raise self._interrupted(error, len(found)) from None
        return found, shown - self._patients

    def _look(self, person_ids: Sequence[int]) -> ByPerson:
        if self._by_hash is None:
            return self._compare(person_ids, count=True)
        differ = sorted(self._by_hash.differing(self._lookups, person_ids))
        return self._compare(differ) if differ else {}

    def _patients_there(self) -> int:
        sql = "SELECT COUNT(*) AS persons FROM patient WHERE patient_id BETWEEN %s AND %s"
        with self._source.read_at(ANY_POSITION) as reading:
            return int(reading.rows(sql, (self._first, self._last))[0]["persons"])

    def _interrupted(self, error: Retry, differ: int) -> NotReady:
        """What is known so far, and how to go on."""
        so_far = f"{self._compared.persons} people up to {self._done_to} were compared, {differ} of them differ"
        level = " --level mirror" if self._by_hash else ""
        again = f"passport verify{level} --hospital {self._id} --from-person {self._done_to + 1}"
        return NotReady(f"{error.reason}; {so_far}", hint=f"{again}   # goes on there")

    def _again(self, found: ByPerson, strays: set[str]) -> tuple[ByPerson, set[str]]:
        self._forget()
        again: ByPerson = {}
        for ids in parts(self._people(found, strays), PERSONS // 10):
            again |= self._compare(ids)
        return again, {one for one in strays - self._patients if self._stray_records({one})}

    def _people(self, found: ByPerson, strays: set[str]) -> list[int]:
        return sorted(
            {*found, *(one for one in self._stray_records(strays).values() if one is not None)}
        )

    def _stray_records(self, patients: Collection[str]) -> dict[str, int | None]:
        """Hex of _id -> person_id of the records that these patients are shown."""
        records = self._passport.records(self._id, [], patients) if patients else {}
        persons = {
            str(key): (one.get("openmrsData") or {}).get("personId") for key, one in records.items()
        }
        return {key: one if isinstance(one, int) else None for key, one in persons.items()}

    def _forget(self) -> None:
        """What was looked up before may be outdated."""
        self._lookups = Lookups(
            self._id, self._hospital, self._source, entries=CACHE_ENTRIES, ttl_s=CACHE_TTL_S
        )
        self._authors = self._passport.authors(self._settings, self._id)

    def _batches(self) -> Iterator[tuple[int, int, list[int]]]:
        """(after, to, person_ids with obs): together they leave no number out."""
        after = self._done_to
        while True:
            with self._source.read_at(ANY_POSITION) as reading:
                sizes = reading.rows(
                    "SELECT person_id, COUNT(*) AS counted FROM obs WHERE person_id > %s AND person_id <= %s"
                    " GROUP BY person_id ORDER BY person_id LIMIT %s",
                    (after, self._last, PERSONS),
                )
            batch = _prefix([(row["person_id"], row["counted"]) for row in sizes])
            last = len(batch) == len(sizes) < PERSONS
            yield after, self._last if last else batch[-1], batch
            if last:
                return
            after = batch[-1]

    def _compare(self, person_ids: Sequence[int], *, count: bool = False) -> ByPerson:
        with self._source.read_at(ANY_POSITION) as reading:
            wanted = expected.read(reading, self._lookups, person_ids, self._passport.patients)
        self._pace.spend(len(wanted.rows) * FETCHED)
        mirror = self._passport.mirror(self._id, person_ids)
        tombstones = [document for document in mirror.values() if document["deleted"]]
        records = wanted.records(
            tombstones, self._passport.rules, self._id, self._hospital.name, self._authors
        )
        there = self._passport.records(self._id, records.keys(), wanted.patients.values())
        links = self._passport.links([person.key for person in wanted.persons.values()])
        self._patients |= set(wanted.patients.values())
        if count:
            self._count(wanted, len(records))
        owners = {key: record["openmrsData"]["personId"] for key, record in records.items()}
        patients = {patient: person_id for person_id, patient in wanted.patients.items()}
        shown = {
            key: owners.get(key, patients.get(record["patientId"])) for key, record in there.items()
        }
        both = _Sides(
            wanted,
            links,
            _grouped(wanted.rows, {key: row["personId"] for key, row in wanted.rows.items()}),
            _grouped(mirror, {key: row["personId"] for key, row in mirror.items()}),
            _grouped(records, owners),
            _grouped(there, shown),
        )
        differences = {one: both.differences(one, self._passport) for one in person_ids}
        return {one: found for one, found in differences.items() if found}

    def _count(self, wanted: Expected, records: int) -> None:
        self._compared.persons += len(wanted.persons)
        self._compared.matched += len(wanted.patients)
        self._compared.rows += len(wanted.rows)
        self._compared.records += records


@dataclass(frozen=True, slots=True)
class _Sides:
    """One batch: what must be there and what is, by person and _id."""

    wanted: Expected
    links: Mapping[str, Document]
    rows: Mapping[int | None, dict[str, Document]]
    mirror: Mapping[int | None, dict[str, Document]]
    records: Mapping[int | None, dict[ObjectId, Document]]
    shown: Mapping[int | None, dict[ObjectId, Document]]

    def differences(self, person_id: int, passport: PassportDb) -> Differences:
        """Of one person."""
        person, rows = self.wanted.persons[person_id], self.rows.get(person_id, {})
        link = passport.link(person, self.wanted.patients.get(person_id))
        found = differing.link(person.key, link, self.links.get(person.key), has_rows=bool(rows))
        found.merge(differing.rows(rows, self.mirror.get(person_id, {})))
        found.merge(
            differing.records(self.records.get(person_id, {}), self.shown.get(person_id, {}))
        )
        return found


def _grouped(
    documents: Mapping[K, Document], owners: Mapping[K, int | None]
) -> dict[int | None, dict[K, Document]]:
    """By person."""
    found: dict[int | None, dict[K, Document]] = defaultdict(dict)
    for key, document in documents.items():
        found[owners[key]][key] = document
    return found


def _prefix(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The first persons whose rows make about a batch, one at least."""
    chosen: list[int] = []
    total = 0
    for person_id, rows in sizes:
        total += rows
        if chosen and total > ROWS:
            break
        chosen.append(person_id)
    return chosen
