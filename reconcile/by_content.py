"""Compares the links, rows and records of persons with those that the Passport should hold."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bson import ObjectId

from consumers.lookups import Lookups
from destinations.mongo.document import Document
from openmrs.load_budget import FETCHED, PageSize, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from passport.settings import Settings
from reconcile import differences as differing
from reconcile.expected import Expected, expected_rows, matched_patients
from reconcile.mongo_reader import MongoReader
from reconcile.persons import PERSONS_AT_ONCE, read_in_parts
from reconcile.report import Compared, Differences

CACHE_ENTRIES = 50_000
CACHE_TTL_S = 3_600.0

K = TypeVar("K")
ByPerson = dict[int, Differences]


@dataclass(frozen=True, slots=True)
class BothEnds:
    """Some persons, as they must be (`expected`, `records`) and as they are (`links`, ...).

    Documents are given by person and _id.
    """

    person_ids: Sequence[int]
    expected: Expected
    expected_links: Mapping[int, Document]
    rows: Mapping[int | None, dict[str, Document]]
    records: Mapping[int | None, dict[ObjectId, Document]]
    links: Mapping[str, Document]
    mirror: Mapping[int | None, dict[str, Document]]
    shown: Mapping[int | None, dict[ObjectId, Document]]

    def count_into(self, compared: Compared) -> None:
        """Add these persons to what was compared."""
        compared.persons += len(self.expected.persons)
        compared.matched += len(self.expected.patients)
        compared.rows += len(self.expected.rows)
        compared.records += sum(map(len, self.records.values()))

    def differences(self) -> ByPerson:
        """Return what differs, of each person of whom something does."""
        by_person = {}
        for person_id in self.person_ids:
            differences = self._differences(person_id)
            if differences:
                by_person[person_id] = differences
        return by_person

    def _differences(self, person_id: int) -> Differences:
        person = self.expected.persons[person_id]
        rows = self.rows.get(person_id, {})
        records = self.records.get(person_id, {})
        differences = differing.link(
            person.key,
            self.expected_links[person_id],
            self.links.get(person.key),
            has_rows=bool(rows),
        )
        differences.merge(differing.rows(rows, self.mirror.get(person_id, {})))
        differences.merge(differing.records(records, self.shown.get(person_id, {})))
        return differences


class ByContent:
    """Reads both ends of one hospital's persons.

    `patients` is everybody whom the hospital's persons were matched with so far (hex of
    patients._id).
    """

    def __init__(
        self, settings: Settings, source: Source, mongo: MongoReader, pace: WaitingPace
    ) -> None:
        self._settings = settings
        self._source = source
        self._mongo = mongo
        self._pace = pace
        self._size = PageSize(PERSONS_AT_ONCE, least=1)
        self.patients: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Look names, identifiers and authors up anew from now on: they may be outdated."""
        hospital_id = self._source.hospital
        self.lookups = Lookups(
            hospital_id,
            self._settings.hospitals[hospital_id],
            self._source,
            entries=CACHE_ENTRIES,
            ttl_s=CACHE_TTL_S,
        )
        self._authors = self._mongo.authors(self._settings, hospital_id)

    def read(self, person_ids: Sequence[int]) -> BothEnds:
        """Read both ends, the hospital's in short reads, one after the other.

        An ALTER at the hospital would wait for a longer one. Whoever changes in between may seem to
        differ, and is looked at again. Raises Retry, NotReady, Fatal.
        """
        hospital_id = self._source.hospital
        name = self._settings.hospitals[hospital_id].name
        with self._source.read_at(ANY_POSITION) as read:
            persons_by_id = self.lookups.persons_in(read, person_ids, fresh=True)
        expected_links = self._mongo.expected_links(persons_by_id.values())
        patients = matched_patients(expected_links)
        must_be = Expected(persons_by_id, patients, self._expected_rows(sorted(patients)))
        self.patients |= set(must_be.patients.values())

        mirror = self._mongo.mirror(hospital_id, person_ids)
        tombstones = [document for document in mirror.values() if document["deleted"]]
        rules = self._mongo.rules[hospital_id]
        records = must_be.records(tombstones, rules, hospital_id, name, self._authors)
        shown = self._mongo.records(hospital_id, records.keys(), must_be.patients.values())
        links = self._mongo.links([person.key for person in must_be.persons.values()])

        # A record belongs to the person whose rows make it. One that no row makes belongs to
        # whoever sees it.
        owners = {key: record["openmrsData"]["personId"] for key, record in records.items()}
        persons = {patient: person_id for person_id, patient in must_be.patients.items()}
        shown_to = {}
        for key, record in shown.items():
            shown_to[key] = owners.get(key, persons.get(record["patientId"]))
        return BothEnds(
            person_ids=person_ids,
            expected=must_be,
            expected_links=expected_links,
            rows=_grouped(must_be.rows, _persons_of(must_be.rows)),
            records=_grouped(records, owners),
            links=links,
            mirror=_grouped(mirror, _persons_of(mirror)),
            shown=_grouped(shown, shown_to),
        )

    def _expected_rows(self, person_ids: Sequence[int]) -> dict[str, Document]:
        documents: dict[str, Document] = {}

        def read_part(read: ConsistentRead, part: Sequence[int]) -> dict[str, Document]:
            return expected_rows(read, self.lookups, part)

        parts = read_in_parts(self._source, self._size, person_ids, read_part)
        for _, documents_of_part in parts:
            self._pace.spend(len(documents_of_part) * FETCHED)
            documents |= documents_of_part
        return documents


def _persons_of(documents: Mapping[str, Document]) -> dict[str, int]:
    return {key: document["personId"] for key, document in documents.items()}


def _grouped(
    documents: Mapping[K, Document], owners: Mapping[K, int | None]
) -> dict[int | None, dict[K, Document]]:
    """Return the documents by their owner."""
    groups: dict[int | None, dict[K, Document]] = defaultdict(dict)
    for key, document in documents.items():
        groups[owners[key]][key] = document
    return groups
