"""What one hospital's obs rows refer to: read in batches at a known position, kept until a notice
or time evicts it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from consumers.cache import Cache, Order
from consumers.enrich.obs import Known, enrich
from openmrs import lookup_queries as names
from openmrs.identity import Identities
from openmrs.lookup_queries import EncounterFacts, Provider, Staff, User
from openmrs.read import ConsistentRead, Source, SourcePosition
from passport.event import KeyChangeEvent, Row
from passport.facts import Concept, Observation, ObservationOrigin, Person, Place
from passport.settings import Hospital
from passport.version import LOWEST, Position, parse, read_version

V = TypeVar("V")
Asked = tuple[Row, str, bool, ObservationOrigin]  # row, version, deleted, origin
Read = Callable[[], ConsistentRead]
PATIENCE_S = 2.0  # how long others wait for a commit of this hospital to become visible

# Which entries a change of a table's row concerns: by a key column ...
_BY_KEY = {
    "concept": [("_concepts", "concept_id")],
    "concept_name": [("_concepts", "concept_id"), ("_coded_names", "concept_name_id")],
    "concept_numeric": [("_concepts", "concept_id")],
    "concept_reference_map": [("_concepts", "concept_id")],
    "drug": [("_drugs", "drug_id")],
    "encounter": [("_encounters", "encounter_id")],
    "encounter_provider": [("_encounters", "encounter_id")],
    "location": [("_places", "location_id")],
    "orders": [("_orderers", "order_id")],
    "patient": [("_persons", "patient_id")],
    "patient_identifier": [("_persons", "patient_id")],
    "person": [("_persons", "person_id")],
    "person_name": [("_staff", "person_id")],
    "provider": [("_providers", "provider_id"), ("_staff", "person_id")],
    "users": [("_users", "user_id"), ("_staff", "person_id")],
}
# ... or all of a kind, of tables that hardly ever change.
_WHOLE = {
    "concept_class": "_concepts",
    "concept_datatype": "_concepts",
    "concept_reference_source": "_concepts",
    "concept_reference_term": "_concepts",
    "encounter_role": "_encounters",
    "encounter_type": "_encounters",
    "visit_type": "_encounters",
}


class Lookups:
    """One hospital's names, encounters, staff and persons. One thread; raises Retry and Fatal of
    `Source`.

    What is cached holds as long as every notice up to the newest event is given to `evict` before
    the next question.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, source: Source, *, entries: int, ttl_s: float
    ) -> None:
        self.hospital_id, self.hospital, self.source = hospital_id, hospital, source
        self.newest = LOWEST
        self.identities = Identities(hospital_id, hospital)
        self._concepts: Cache[Concept] = Cache("concept", entries, ttl_s)
        self._coded_names: Cache[str | None] = Cache("concept_name", entries, ttl_s)
        self._drugs: Cache[str | None] = Cache("drug", entries, ttl_s)
        self._encounters: Cache[EncounterFacts] = Cache("encounter", entries, ttl_s)
        self._places: Cache[Place] = Cache("location", entries, ttl_s)
        self._orderers: Cache[int | None] = Cache("order", entries, ttl_s)
        self._providers: Cache[Provider] = Cache("provider", entries, ttl_s)
        self._users: Cache[User] = Cache("user", entries, ttl_s)
        self._staff: Cache[Staff] = Cache("staff", entries, ttl_s)
        self._persons: Cache[Person] = Cache("person", entries, ttl_s)

    def observations(
        self, rows: Sequence[Asked], at_least: SourcePosition | None = None
    ) -> list[Observation]:
        """The rows, which have passed `check`, enriched in order; what isn't cached is read in one
        `read(at_least)`.
        """
        with self._reading(at_least) as read:
            return self._enriched(rows, read)

    def observations_in(self, reading: ConsistentRead, rows: Sequence[Asked]) -> list[Observation]:
        """The same within a read that is already open."""
        return self._enriched(rows, lambda: reading)

    def persons(
        self, person_ids: Collection[int], at_least: SourcePosition | None = None
    ) -> dict[int, Person]:
        """Persons by id; every id is there."""
        with self._reading(at_least) as read:
            return self._people(person_ids, read)

    def persons_in(
        self, reading: ConsistentRead, person_ids: Collection[int], *, fresh: bool = False
    ) -> dict[int, Person]:
        """The same within an open read; `fresh`: what is cached isn't good enough."""
        if fresh:
            for person_id in person_ids:
                self._persons.evict(person_id, None)
        return self._people(person_ids, lambda: reading)

    def version(self, reading: ConsistentRead) -> str:
        """The version of what `reading` sees: its position in the newest epoch; of a polled
        hospital the newest run.
        """
        newest = parse(self.newest)
        if reading.position is None or newest.pos == 0:
            return self.newest
        return read_version(newest.epoch, reading.position)

    def seen(self, version: str) -> bool:
        """Takes note of an event's version; a new epoch clears everything. True if the version is
        of an older epoch.
        """
        if version > self.newest:
            if version[:10] != self.newest[:10]:
                self.clear(identities=True)
            self.newest = version
        return version[:10] < self.newest[:10]

    def clear(self, *, identities: bool = False) -> None:
        """Forgets all names and persons; `identities`: the index of national ids too."""
        for cache in self._caches():
            cache.clear()
        if identities:
            self.identities.clear()

    def evict(self, notice: KeyChangeEvent) -> None:
        """Forgets what a notice says has changed, unless it was read at the notice's position or
        later.
        """
        source = notice.source
        if not notice.keys:  # the whole table: a snapshot follows, and reads with what is true then
            self.clear(identities=True)
        comparable = source.file and source.version[:10] == self.newest[:10]
        before = Position(source.file, source.pos).order if comparable else None
        for key in notice.keys:
            self._evict(source.table, key, before)

    def affected_patients(self) -> set[int]:
        """Takes the persons whose state may have changed because another patient gained or lost an
        id.
        """
        found, self.identities.affected_patients = self.identities.affected_patients, set()
        return found

    def holders_of_same_ids(self, person_ids: Iterable[int]) -> set[int]:
        """The others who hold a national id of one of these persons."""
        return self.identities.holders_of_same_ids(person_ids)

    def close(self) -> None:
        self.source.close()

    def _caches(self) -> Iterator[Cache[Any]]:
        return (cache for cache in vars(self).values() if isinstance(cache, Cache))

    def _evict(self, table: str, key: dict[str, Any], before: Order | None) -> None:
        for cache, column in _BY_KEY.get(table, ()):
            if key.get(column) is not None:
                getattr(self, cache).evict(key[column], before)
        if table in _WHOLE:
            getattr(self, _WHOLE[table]).clear()
        elif table == "visit":
            self._encounters.evict_if(lambda facts: facts.visit_id == key.get("visit_id"))
        elif table == "patient_identifier_type":
            self.clear(identities=True)

    @contextmanager
    def _reading(self, at_least: SourcePosition | None) -> Iterator[Read]:
        """A way to get the reading that is opened at the first miss."""
        with ExitStack() as stack:
            opened: list[ConsistentRead] = []

            def read() -> ConsistentRead:
                if not opened:
                    opened.append(
                        stack.enter_context(self.source.read_at(at_least, patience_s=PATIENCE_S))
                    )
                return opened[0]

            yield read

    def _enriched(self, rows: Sequence[Asked], read: Read) -> list[Observation]:
        known = self._known(rows, read)
        return [
            enrich(row, version, known, deleted=deleted, origin=origin)
            for row, version, deleted, origin in rows
        ]

    def _known(self, rows: Sequence[Asked], read: Read) -> Known:
        known = Known(self.hospital_id, self.hospital.timezone)
        known.persons = self._people({asked[0]["person_id"] for asked in rows}, read)
        live = [asked[0] for asked in rows if not asked[2]]
        locales, roles, zone = (
            self.hospital.locales,
            self.hospital.provider_roles,
            self.hospital.timezone,
        )
        concept_ids = _ids(live, "concept_id") | _ids(live, "value_coded")
        known.concepts = _get(
            self._concepts, concept_ids, read, lambda at, ids: names.concepts(at, ids, locales)
        )
        known.coded_names = _get(
            self._coded_names, _ids(live, "value_coded_name_id"), read, names.coded_names
        )
        known.drugs = _get(self._drugs, _ids(live, "value_drug"), read, names.drugs)
        known.encounters = _get(
            self._encounters,
            _ids(live, "encounter_id"),
            read,
            lambda at, ids: names.encounters(at, ids, roles, zone),
        )
        self._know_places(known, live, read)
        self._know_staff(known, live, read)
        return known

    def _know_places(self, known: Known, live: Sequence[Row], read: Read) -> None:
        facts = known.encounters.values()
        places = (
            _ids(live, "location_id")
            | {one.location_id for one in facts}
            | {one.visit_location_id for one in facts}
        )
        known.places = _get(self._places, places, read, names.places)

    def _know_staff(self, known: Known, live: Sequence[Row], read: Read) -> None:
        known.orderers = _get(self._orderers, _ids(live, "order_id"), read, names.orderers)
        provider_ids = {one for facts in known.encounters.values() for one in facts.providers}
        known.providers = _get(
            self._providers, provider_ids | set(known.orderers.values()), read, names.providers
        )
        known.users = _get(self._users, _ids(live, "creator"), read, names.users)
        people = {one.person_id for one in known.providers.values()} | {
            one.person_id for one in known.users.values()
        }
        known.staff = _get(self._staff, people, read, names.staff)

    def _people(self, person_ids: Collection[int], read: Read) -> dict[int, Person]:
        found, missing = self._persons.take(person_ids)
        if missing:
            reading = read()
            fresh = self.identities.read(reading, missing, self.version(reading))
            self._persons.put(
                {key: one for key, one in fresh.items() if one.uuid is not None}, _order(reading)
            )
            found |= fresh
            for person_id in self.identities.affected_patients:
                self._persons.evict(person_id, None)
        return found


def _ids(rows: Iterable[Row], column: str) -> set[int | None]:
    return {row[column] for row in rows}


def _get(
    cache: Cache[V],
    ids: Collection[int | None],
    read: Read,
    load: Callable[[ConsistentRead, list[int]], dict[int, V]],
) -> dict[int, V]:
    found, missing = cache.take([one for one in ids if one is not None])
    if missing:
        reading = read()
        fresh = load(reading, missing)
        cache.put(fresh, _order(reading))
        found |= fresh
    return found


def _order(reading: ConsistentRead) -> Order | None:
    return None if reading.position is None else reading.position.order
