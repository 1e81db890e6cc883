"""Reads what one hospital's obs rows refer to: names, encounters, staff and persons.

They are read in batches, at a binlog position that is known to contain the rows, and are kept until
a key change or time evicts them. For each kind of row there is one cache and one query.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from consumers.cache import Cache, Order
from consumers.enrich.obs import References, enrich
from openmrs import lookup_queries
from openmrs.identity import Identities
from openmrs.lookup_queries import (
    APPLIED_RANGES,
    CodedName,
    EarlierVersion,
    EncounterFacts,
    Provider,
    Staff,
    User,
)
from openmrs.read import ANY_POSITION, ConsistentRead, Elsewhere, Source, SourcePosition
from openmrs.tables import OBS, REFERENCE_TABLES
from passport.event import KeyChangeEvent, Row
from passport.facts import (
    Concept,
    Observation,
    ObservationOrigin,
    Person,
    Place,
    ReferenceRange,
)
from passport.settings import Hospital
from passport.version import LOWEST, Position, parse, read_version

V = TypeVar("V")
PATIENCE_S = 2.0  # how long others wait for a commit of this hospital to become visible


class RowToEnrich(NamedTuple):
    """A row that has the types of `passport.event.ObsRow`; the rest as in facts.Observation."""

    row: Row
    version: str
    deleted: bool
    origin: ObservationOrigin


class ReadOnDemand:
    """A consistent read that is opened by the first thing that no cache has, or never."""

    def __init__(self, source: Source, position: SourcePosition) -> None:
        self._source = source
        self._position = position
        self._stack = ExitStack()
        self._reading: ConsistentRead | None = None

    def __enter__(self) -> "ReadOnDemand":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The read translates the errors of its client, so it has to see them.
        self._stack.__exit__(error_type, error, traceback)

    def reading(self) -> ConsistentRead:
        if self._reading is None:
            read = self._source.read_at(self._position, patience_s=PATIENCE_S)
            self._reading = self._stack.enter_context(read)
        return self._reading


class OpenRead:
    """A consistent read that somebody else has opened, and will close."""

    def __init__(self, reading: ConsistentRead) -> None:
        self._reading = reading

    def reading(self) -> ConsistentRead:
        return self._reading


Read = ReadOnDemand | OpenRead


class Kind(Generic[V]):
    """One kind of row: its cache, and the query that reads what the cache doesn't have."""

    def __init__(
        self, cache: Cache[V], load: Callable[[ConsistentRead, list[int]], dict[int, V]]
    ) -> None:
        self.cache = cache
        self._load = load

    def get(self, ids: set[int | None], read: Read) -> dict[int, V]:
        """Return the values by id. An id that the hospital doesn't have is left out."""
        values, missing = self.cache.take(key for key in ids if key is not None)
        if missing:
            reading = read.reading()
            loaded = self._load(reading, missing)
            self.cache.put(loaded, _order(reading))
            values |= loaded
        return values


class Lookups:
    """One hospital's names, encounters, staff and persons. For one thread.

    What is cached is true as long as every key change up to the newest event is given to `evict`
    before the next question. Raises Retry and Fatal of `Source`.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, source: Source, *, entries: int, ttl_s: float
    ) -> None:
        self.hospital_id = hospital_id
        self.hospital = hospital
        self.source = source
        self.newest = LOWEST
        self._server = ""  # of the newest event; "" until there is one
        self.identities = Identities(hospital_id, hospital)
        self._persons: Cache[Person] = Cache("person", entries, ttl_s)
        self._concepts: Kind[Concept] = Kind(Cache("concept", entries, ttl_s), self._load_concepts)
        self._coded_names: Kind[CodedName | None] = Kind(
            Cache("concept_name", entries, ttl_s), lookup_queries.coded_names
        )
        self._drugs: Kind[str | None] = Kind(Cache("drug", entries, ttl_s), lookup_queries.drugs)
        self._applied_ranges: Kind[ReferenceRange | None] = Kind(
            Cache("reference_range", entries, ttl_s), _load_applied_ranges
        )
        self._encounters: Kind[EncounterFacts] = Kind(
            Cache("encounter", entries, ttl_s), self._load_encounters
        )
        self._places: Kind[Place] = Kind(Cache("location", entries, ttl_s), lookup_queries.places)
        self._orderers: Kind[int | None] = Kind(
            Cache("order", entries, ttl_s), lookup_queries.orderers
        )
        self._providers: Kind[Provider] = Kind(
            Cache("provider", entries, ttl_s), lookup_queries.providers
        )
        self._users: Kind[User] = Kind(Cache("user", entries, ttl_s), lookup_queries.users)
        self._staff: Kind[Staff] = Kind(Cache("staff", entries, ttl_s), lookup_queries.staff)

    def observations(
        self, rows: Sequence[RowToEnrich], position: SourcePosition | None = None
    ) -> list[Observation]:
        """Return the rows enriched, in order.

        What no cache has is read in one consistent read, which contains `position`.
        """
        with ReadOnDemand(self.source, position or self.end()) as read:
            return self._enriched(rows, read)

    def observations_in(
        self, reading: ConsistentRead, rows: Sequence[RowToEnrich]
    ) -> list[Observation]:
        """Return the rows enriched, in order, within a read that is open already."""
        return self._enriched(rows, OpenRead(reading))

    def persons(
        self, person_ids: Collection[int], position: SourcePosition | None = None
    ) -> dict[int, Person]:
        """Return the persons by id; every id is there."""
        with ReadOnDemand(self.source, position or self.end()) as read:
            return self._people(person_ids, read)

    def persons_in(
        self, reading: ConsistentRead, person_ids: Collection[int], *, fresh: bool = False
    ) -> dict[int, Person]:
        """Return the persons by id, within a read that is open already.

        `fresh`: nothing comes from the cache.
        """
        if fresh:
            for person_id in person_ids:
                self._persons.evict(person_id, None)
        return self._people(person_ids, OpenRead(reading))

    def version(self, reading: ConsistentRead) -> str:
        """Return the version of what `reading` sees: its position in the newest epoch.

        A polled hospital has no positions; there it is the newest run's. What another server says
        may be older than anything that came, and has the lowest version: it overrides nothing.
        """
        if isinstance(reading.answer, Elsewhere):
            return LOWEST
        newest = parse(self.newest)
        if reading.position is None or newest.pos == 0:
            return self.newest
        return read_version(newest.epoch, reading.position)

    def end(self) -> SourcePosition:
        """Return the position of a read that contains all that is committed now.

        It is the end of the binlog whose events come. A polled hospital has none that matters, and
        its account may not see one.
        """
        is_polled = parse(self.newest).pos == 0
        return ANY_POSITION if is_polled else SourcePosition.end_of(self._server)

    def seen(self, version: str, server: str = "") -> bool:
        """Take note of an event's version and server. Return True if it is of an older epoch.

        A new epoch clears everything.
        """
        if version > self.newest:
            if version[:10] != self.newest[:10]:
                self.clear(identities=True)
            self.newest = version
            self._server = server
        return version[:10] < self.newest[:10]

    def clear(self, *, identities: bool = False) -> None:
        """Forget all names and persons. `identities`: the index of national ids too."""
        self._persons.clear()
        self._concepts.cache.clear()
        self._coded_names.cache.clear()
        self._drugs.cache.clear()
        self._applied_ranges.cache.clear()
        self._encounters.cache.clear()
        self._places.cache.clear()
        self._orderers.cache.clear()
        self._providers.cache.clear()
        self._users.cache.clear()
        self._staff.cache.clear()
        if identities:
            self.identities.clear()

    def evict(self, event: KeyChangeEvent) -> None:
        """Forget what a key change concerns, unless it was read at its position or later."""
        source = event.source
        if source.table not in REFERENCE_TABLES:
            return  # it was published by an earlier release, which watched a table more
        if not event.keys:
            # It concerns the whole table, and every obs is enriched again.
            self.clear(identities=True)
        before: Order | None = None
        if source.file and source.version[:10] == self.newest[:10]:
            before = Position(source.file, source.pos).order
        for key in event.keys:
            self._evict(source.table, key, before)

    def affected_patients(self) -> set[int]:
        """Return, once, the persons whose state another patient's ids may have changed."""
        affected = self.identities.affected_patients
        self.identities.affected_patients = set()
        return affected

    def holders_of_same_ids(self, person_ids: Iterable[int]) -> set[int]:
        """Return the others who hold a national id of one of these persons."""
        return self.identities.holders_of_same_ids(person_ids)

    def close(self) -> None:
        self.source.close()

    def _evict(  # noqa: C901  # one case a table
        self, table: str, key: dict[str, Any], before: Order | None
    ) -> None:
        """Forget what one row of `table` concerns.

        Some tables hardly ever change. Then the whole kind is forgotten.
        """
        match table:
            case "concept" | "concept_numeric" | "concept_reference_map":
                self._concepts.cache.evict(key.get("concept_id"), before)
            case "concept_name":
                self._concepts.cache.evict(key.get("concept_id"), before)
                self._coded_names.cache.evict(key.get("concept_name_id"), before)
            case (
                "concept_class"
                | "concept_datatype"
                | "concept_reference_source"
                | "concept_reference_term"
            ):
                self._concepts.cache.clear()
            case "drug":
                self._drugs.cache.evict(key.get("drug_id"), before)
            case "encounter" | "encounter_provider":
                self._encounters.cache.evict(key.get("encounter_id"), before)
            case "visit":
                visit_id = key.get("visit_id")
                self._encounters.cache.evict_if(lambda facts: facts.visit_id == visit_id)
            case "encounter_role" | "encounter_type" | "visit_type":
                self._encounters.cache.clear()
            case "location":
                self._places.cache.evict(key.get("location_id"), before)
            case "obs_reference_range":
                self._applied_ranges.cache.evict(key.get("obs_id"), before)
            case "orders":
                self._orderers.cache.evict(key.get("order_id"), before)
            case "provider":
                self._providers.cache.evict(key.get("provider_id"), before)
                self._staff.cache.evict(key.get("person_id"), before)
            case "users":
                self._users.cache.evict(key.get("user_id"), before)
                self._staff.cache.evict(key.get("person_id"), before)
            case "person_name":
                self._staff.cache.evict(key.get("person_id"), before)
            case "person":
                self._persons.evict(key.get("person_id"), before)
            case "patient" | "patient_identifier":
                self._persons.evict(key.get("patient_id"), before)
            case "patient_identifier_type":
                self.clear(identities=True)

    def _enriched(self, rows: Sequence[RowToEnrich], read: Read) -> list[Observation]:
        references = self._references(rows, read)
        return [
            enrich(row, version, references, deleted=deleted, origin=origin)
            for row, version, deleted, origin in rows
        ]

    def _references(self, rows: Sequence[RowToEnrich], read: Read) -> References:
        """Return all that the rows refer to. A deleted row needs only its person."""
        references = References(self.hospital_id, self.hospital.timezone)
        references.persons = self._people({to_enrich.row["person_id"] for to_enrich in rows}, read)
        live = [to_enrich.row for to_enrich in rows if not to_enrich.deleted]

        references.concepts = self._concepts.get(_ids(live, "concept"), read)
        references.coded_names = self._coded_names.get(_ids(live, "concept_name"), read)
        references.drugs = self._drugs.get(_ids(live, "drug"), read)
        if not self.source.lacks(APPLIED_RANGES):
            numbers = {row["obs_id"] for row in live if row["value_numeric"] is not None}
            references.applied_ranges = self._applied_ranges.get(numbers, read)
        references.encounters = self._encounters.get(_ids(live, "encounter"), read)
        encounters = references.encounters.values()

        location_ids = _ids(live, "location")
        location_ids.update(encounter.location_id for encounter in encounters)
        location_ids.update(encounter.visit_location_id for encounter in encounters)
        references.places = self._places.get(location_ids, read)

        references.orderers = self._orderers.get(_ids(live, "orders"), read)
        provider_ids = set(references.orderers.values())
        for encounter in encounters:
            provider_ids.update(encounter.providers)
        references.providers = self._providers.get(provider_ids, read)
        references.users = self._users.get(_ids(live, "users"), read)
        staff_ids = {provider.person_id for provider in references.providers.values()}
        staff_ids.update(user.person_id for user in references.users.values())
        references.staff = self._staff.get(staff_ids, read)
        references.earlier_versions = self._earlier_versions(live, read)
        return references

    def _earlier_versions(self, rows: Sequence[Row], read: Read) -> dict[int, EarlierVersion]:
        """Return the earlier versions of rows that a merge may have brought from somebody else.

        Nearly every edit comes together with the row that it replaces, which is the same person's:
        then nothing is asked.
        """
        persons: dict[int, set[int]] = {}
        for row in rows:
            persons.setdefault(row["obs_id"], set()).add(row["person_id"])
        named: dict[int, int] = {}  # the person of a row, by its previous version
        for row in rows:
            obs_id = row.get("previous_version")
            if obs_id is not None and persons.get(obs_id) != {row["person_id"]}:
                named[obs_id] = row["person_id"]
        if not named:
            return {}
        earlier = lookup_queries.earlier_versions(read.reading(), list(named))
        brought = [
            version
            for obs_id, version in earlier.items()
            if version.merged and version.person_id != named[obs_id]
        ]
        # Some of what follows may be there already, as the previous version of another row.
        followed: set[int] = set()
        while brought:
            older: set[int] = set()
            for version in brought:
                if version.previous_version is not None:
                    older.add(version.previous_version)
            older -= followed
            followed |= older
            if missing := sorted(older - earlier.keys()):
                earlier |= lookup_queries.earlier_versions(read.reading(), missing)
            brought = [earlier[obs_id] for obs_id in older if obs_id in earlier]
        return earlier

    def _people(self, person_ids: Collection[int], read: Read) -> dict[int, Person]:
        persons, missing = self._persons.take(person_ids)
        if missing:
            reading = read.reading()
            fresh = self.identities.read(reading, missing, self.version(reading))
            # A person whom the hospital doesn't have is not cached, and is found when added later.
            existing = {key: person for key, person in fresh.items() if person.uuid is not None}
            self._persons.put(existing, _order(reading))
            persons |= fresh
            for person_id in self.identities.affected_patients:
                self._persons.evict(person_id, None)
        return persons

    def _load_concepts(self, reading: ConsistentRead, ids: list[int]) -> dict[int, Concept]:
        hospital = self.hospital
        return lookup_queries.concepts(reading, ids, hospital.locales, hospital.kept_locales)

    def _load_encounters(
        self, reading: ConsistentRead, ids: list[int]
    ) -> dict[int, EncounterFacts]:
        hospital = self.hospital
        return lookup_queries.encounters(reading, ids, hospital.provider_roles, hospital.timezone)


def _load_applied_ranges(
    reading: ConsistentRead, obs_ids: list[int]
) -> dict[int, ReferenceRange | None]:
    """Return the range that OpenMRS applied to each of these obs, None where it applied none.

    The None is kept too: most obs that are enriched again have none. An OpenMRS before 2.7 has no
    such table, and of it nothing is kept.
    """
    if not reading.has_table(APPLIED_RANGES):
        return {}
    ranges: dict[int, ReferenceRange | None] = dict.fromkeys(obs_ids)
    ranges.update(lookup_queries.applied_ranges(reading, obs_ids))
    return ranges


def _ids(rows: Sequence[Row], reference: str) -> set[int | None]:
    """Return the ids of the rows in the table `reference` that these rows of obs refer to."""
    ids: set[int | None] = set()
    for column in OBS.columns_to(reference):
        ids.update(row[column] for row in rows)
    return ids


def _order(reading: ConsistentRead) -> Order | None:
    return None if reading.position is None else reading.position.order
