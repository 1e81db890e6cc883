"""The Passport as a destination: what the contract asks of one, hospital by hospital."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pymongo import MongoClient

from destinations.mongo import legacy_records, reports
from destinations.mongo import progress as stored_progress
from destinations.mongo.client import Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from destinations.mongo.hospital_writer import HospitalWriter
from destinations.mongo.people import People
from destinations.mongo.registrations import Registrations
from meaning.rules import MappingRules, fingerprint
from passport.check import Check
from passport.facts import Observation, Person
from passport.settings import Settings
from passport.sink import KeyRange, Outcome, Progress, RetainStep, Scope

RulesByHospital = Mapping[str, MappingRules]


class MongoSink:
    """The destination of type mongo. `passport.sink.Sink` says what each method promises."""

    def __init__(
        self,
        client: MongoClient[Document],
        database: Mongo,
        settings: Settings,
        rules: RulesByHospital,
        people: People,
        registrations: Registrations,
        *,
        link_medical_history: bool,
    ) -> None:
        self._client = client
        self._db = database
        self._settings = settings
        self._rules = rules
        self._people = people
        self._reports = reports.Reports(database)
        self._registrations = registrations
        self._link_medical_history = link_medical_history
        self._fences: dict[str, Fence] = {}
        self._writers: dict[str, HospitalWriter] = {}
        self._has_written = False

    def take(self, hospital: str) -> None:
        self._fence(hospital).take()
        # What was known of the hospital is from before this.
        self._writers.pop(hospital, None)

    def write(self, observations: Sequence[Observation]) -> Outcome:
        if not self._has_written:
            legacy_records.refuse_undecided(self._db)
            self._has_written = True
        by_hospital: dict[str, list[Observation]] = defaultdict(list)
        for observation in observations:
            by_hospital[observation.hospital].append(observation)
        outcome = Outcome()
        for hospital, batch in by_hospital.items():
            outcome += self._writer(hospital).write(batch)
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        writer = self._writer(scope.hospital)
        if isinstance(scope, KeyRange):
            return writer.retain_range(scope, set(keys), version)
        return writer.retain_person(scope, set(keys), version)

    def begin_person(self, person: Person) -> int:
        return self._writer(person.hospital).begin_person(person)

    def retain_steps(
        self, person: Person, keys: Collection[int], version: str, begun: int | None
    ) -> Iterator[RetainStep]:
        return self._writer(person.hospital).retain_steps(person, keys, version, begun)

    def rules(self, hospital: str) -> str:
        return fingerprint(self._rules[hospital])

    def ambiguous(self, hospital: str) -> Sequence[int]:
        return self._people.ambiguous(hospital)

    def wanted(self, hospital: str, limit: int) -> Sequence[int]:
        self._registrations.check()
        return self._people.wanted(hospital, limit)

    def progress(self, hospital: str) -> Progress | None:
        return stored_progress.read(self._db, hospital)

    def record(self, progress: Progress) -> None:
        passport_hospital = self._writer(progress.hospital).authors.hospital
        stored_progress.store(progress, str(passport_hospital), self._fence(progress.hospital))

    def counts(self, hospital: str) -> Mapping[str, int]:
        return self._reports.counts(hospital)

    def unmatched(self, hospital: str) -> Iterator[tuple[str, int, str]]:
        """Yield (hospital, person_id, state) of people whose rows are not kept."""
        return reports.unmatched(self._db, hospital)

    def ready(self) -> None:
        self._registrations.check()
        with translate_errors():
            self._client.admin.command("ping")

    def checks(self) -> Iterator[Check]:
        """Yield what `passport check` says besides; `connect` has refused a standalone server."""
        with translate_errors():
            hosts = self._client.admin.command("hello").get("hosts", ())
        members = len(hosts)  # 0 behind a router of shards, each of which is a replica set
        detail = f"{members} members, a write waits for a majority of them"
        if members > 2 or not members:
            yield Check("replica set", True, detail, "")
        else:
            remedy = "rs.add('HOST:27017') in mongosh, until there are three"
            yield Check("replica set", None, detail, remedy)

    def close(self) -> None:
        self._registrations.stop()
        for fence in self._fences.values():
            fence.close()
        self._client.close()

    def _fence(self, hospital: str) -> Fence:
        if hospital not in self._fences:
            self._fences[hospital] = Fence(self._db, hospital)
        return self._fences[hospital]

    def _writer(self, hospital: str) -> HospitalWriter:
        """Return the hospital's writer. Raises BadSettings for an unknown hospital."""
        if hospital not in self._writers:
            settings = self._settings.hospital(hospital)
            self._writers[hospital] = HospitalWriter(
                self._db,
                hospital,
                settings,
                self._rules[hospital],
                self._people,
                self._fence(hospital),
                link_medical_history=self._link_medical_history,
            )
        return self._writers[hospital]
