"""The Passport as a destination: links first, then the mirror, then the records."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from pymongo import MongoClient

from destinations.mongo import legacy_records, mirror, reports
from destinations.mongo import medical_history as history
from destinations.mongo import progress as progress_of_hospitals
from destinations.mongo.client import Document, Mongo, translate_errors
from destinations.mongo.medicalrecords import Records
from destinations.mongo.observations import SLICE, Applied, Rows
from destinations.mongo.people import Link, People
from destinations.mongo.projection.mapping import MappingRules
from destinations.mongo.registrations import Registrations
from passport.check import Check
from passport.errors import Reject
from passport.facts import Observation, Person
from passport.settings import Settings
from passport.sink import KeyRange, Outcome, Progress, Scope


class MongoSink:
    """See passport.sink.Sink."""

    def __init__(
        self,
        client: MongoClient[Document],
        database: Mongo,
        settings: Settings,
        rules: MappingRules,
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
        self._rows = Rows(database)
        self._reports = reports.Reports(database)
        self._registrations = registrations
        self._history = partial(history.link, database) if link_medical_history else None
        self._records: dict[str, Records] = {}
        self._begun = False

    def write(self, observations: Sequence[Observation]) -> Outcome:
        if not self._begun:
            legacy_records.refuse(self._db)
            self._begun = True
        outcome = Outcome()
        hospitals: dict[str, list[Observation]] = defaultdict(list)
        for observation in observations:
            hospitals[observation.hospital].append(observation)
        for hospital, batch in hospitals.items():
            outcome += self._write(hospital, batch)
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        if isinstance(scope, KeyRange):
            return self._retain_range(scope, set(keys), version)
        return self._retain_person(scope, set(keys), version)

    def ambiguous(self, hospital: str) -> Sequence[int]:
        return self._people.ambiguous(hospital)

    def wanted(self, hospital: str, limit: int) -> Sequence[int]:
        self._registrations.check()
        return self._people.wanted(hospital, limit)

    def progress(self, hospital: str) -> Progress | None:
        return self._reports.progress(hospital)

    def record(self, progress: Progress) -> None:
        authors = self._of(progress.hospital).authors
        at = datetime.fromtimestamp(progress.at_ms / 1000, UTC)
        with translate_errors():
            self._db.syncstatus.update_one(
                {"hospitalId": str(authors.hospital)}, {"$set": {"lastSyncTime": at}}, upsert=True
            )
        progress_of_hospitals.store(self._db, progress)

    def counts(self, hospital: str) -> Mapping[str, int]:
        return self._reports.counts(hospital)

    def unmatched(self, hospital: str) -> Iterator[tuple[str, int, str]]:
        """(hospital, person_id, state) of people whose rows are not kept."""
        return reports.unmatched(self._db, hospital)

    def ready(self) -> None:
        self._registrations.check()
        with translate_errors():
            self._client.admin.command("ping")

    def checks(self) -> Iterator[Check]:
        """What `passport check` says besides: `connect` refuses a server that is no replica set."""
        with translate_errors():
            hosts = self._client.admin.command("hello").get("hosts", ())
        members = len(hosts)  # none: shards, each a replica set of its own
        detail = f"{members} members, a write waits for a majority of them"
        remedy = (
            ""
            if members > 2 or not members
            else "rs.add('HOST:27017') in mongosh, until there are three"
        )
        yield Check("replica set", True if members > 2 or not members else None, detail, remedy)

    def close(self) -> None:
        self._registrations.stop()
        self._client.close()

    def _of(self, hospital: str) -> Records:
        if hospital not in self._records:
            known = self._settings.hospital(hospital)
            self._records[hospital] = Records(
                self._db, hospital, known, self._rules, self._people, self._rows, self._history
            )
        return self._records[hospital]

    def _write(self, hospital: str, batch: Sequence[Observation]) -> Outcome:
        newest = _newest(batch)
        if any(observation.origin == "person" for observation in batch):
            self._of(
                hospital
            ).authors.forget()  # read whole: also what the Passport says of its authors
        outcome = Outcome(stale=len(batch) - len(newest))
        links = self._links(_persons(newest.values()))
        documents = self._documents(newest, links, outcome)
        applied = self._apply(hospital, documents | self._strays(newest, links), links)
        self._project(hospital, applied, outcome)
        outcome.stored += sum(key in documents for key in applied.stored)
        outcome.unchanged += sum(key in documents for key in applied.unchanged)
        outcome.overtaken += [key for key in applied.stale if key in documents]
        outcome.stale += len(outcome.overtaken)
        return outcome

    def _apply(
        self, hospital: str, documents: Mapping[str, mirror.Sealed], links: Mapping[str, Link]
    ) -> Applied:
        records = self._of(hospital)
        return self._rows.apply(documents, records.reserve, partial(records.begin, links))

    def _project(self, hospital: str, applied: Applied, outcome: Outcome) -> None:
        refreshed = self._of(hospital).refresh(applied.kept, applied.begun)
        outcome.rejected += list((applied.refused | refreshed.refused).items())
        for key in refreshed.unlinked:
            # Stored by a writer that did not know yet that the person's link has ended, or is gone:
            # this one, perhaps.
            number = int(key.removeprefix(f"{hospital}/"))
            self._rows.remove(
                hospital, number, max(map(_version, applied.kept.values()), default="")
            )

    def _links(self, persons: Mapping[str, Person]) -> dict[str, Link]:
        """The persons' links, with what a change of them asks for done, but for reading at the
        hospital.
        """
        return self._evaluated(persons)[0]

    def _evaluated(self, persons: Mapping[str, Person]) -> tuple[dict[str, Link], set[str]]:
        """The same, and the keys of those that were changed here."""
        links, changed = self._people.evaluated(persons)
        for key, link in links.items():
            here = link.pending in ("move", "remove")
            if here or (link.pending is not None and key in changed):
                self._redo(link)
            if here:
                links[key] = self._people.settle(link) or link
        return links, changed

    def _redo(self, link: Link) -> None:
        """Projects all of a person's rows again; of somebody who is not matched, removes them then."""
        owned = self._rows.versions(link.hospital, link.person_id)
        keys = list(owned)
        for start in range(0, len(keys), SLICE):
            self._of(link.hospital).refresh(keys[start : start + SLICE])
        if link.patient_id is None and owned:
            self._rows.remove(link.hospital, link.person_id, max(owned.values()))

    def _documents(
        self, newest: Mapping[str, Observation], links: Mapping[str, Link], outcome: Outcome
    ) -> dict[str, mirror.Sealed]:
        """Mirror documents of the rows that may be kept."""
        documents = {}
        for key, observation in newest.items():
            link = links[observation.person.key]
            if link.patient_id is None:
                outcome.unmatched += 1
            elif observation.version < link.floor:
                outcome.overtaken.append(key)
            else:
                try:
                    documents[key] = mirror.document(observation)
                except Reject as error:
                    outcome.rejected.append((key, error.reason))
        return documents

    def _strays(
        self, newest: Mapping[str, Observation], links: Mapping[str, Link]
    ) -> dict[str, mirror.Sealed]:
        """Tombstones of rows that are in the mirror as somebody else's, and now belong to one who
        is not matched.
        """
        keys = [
            key
            for key, observation in newest.items()
            if links[observation.person.key].patient_id is None
        ]
        found = self._rows.documents(keys) if keys else {}
        return {
            key: mirror.tombstone(known, newest[key].version)
            for key, known in found.items()
            if known["personId"] != newest[key].person.person_id and not known["deleted"]
        }

    def _retain_range(self, scope: KeyRange, keys: set[int], version: str) -> Outcome:
        bounds = {"$gt": scope.first, "$lte": scope.to}
        within = {name: bound for name, bound in bounds.items() if bound is not None}
        query: Document = {
            "hospital": scope.hospital,
            "obsId": within or {"$exists": True},
            "version": {"$lte": version},
        }
        # Those that this very chunk has removed before are projected again: that heals a crash in
        # between.
        query["$or"] = [{"deleted": False}, {"version": version, "deleted": True}]
        return self._gone(scope.hospital, query, keys, version)

    def _retain_person(self, person: Person, keys: set[int], version: str) -> Outcome:
        links, changed = self._evaluated({person.key: person})
        link, outcome = links[person.key], Outcome()
        if link.patient_id is not None:
            query = {
                "hospital": person.hospital,
                "personId": person.person_id,
                "version": {"$lte": version},
            }
            outcome = self._gone(person.hospital, query, keys, None)
        if link.pending is not None or link.patient_id is None:
            self._redo(link)
        matched_since = (
            person.key in changed and link.pending is not None
        )  # their rows were written as nobody's
        if version >= link.floor and not matched_since:
            # With the `rev` from before all this: a change since then leaves `pending`, and all
            # this comes again.
            self._people.settle(link, version)
        return outcome

    def _gone(self, hospital: str, query: Document, keys: set[int], version: str | None) -> Outcome:
        """Makes the rows of `query` but `keys` tombstones, of `version` (None: of the one they
        have: a row that has left a person may be somebody else's since, by an event still to
        come)."""
        present = self._rows.present(query)
        gone = [key for obs_id, key in present.items() if obs_id not in keys]
        outcome = Outcome()
        for start in range(0, len(gone), SLICE):
            known = self._rows.documents(gone[start : start + SLICE])
            tombstones = {
                key: mirror.tombstone(one, version or one["version"]) for key, one in known.items()
            }
            applied = self._apply(hospital, tombstones, {})
            self._project(hospital, applied, outcome)
            outcome.stored += len(applied.stored)
            outcome.unchanged += len(applied.unchanged)
            outcome.stale += len(applied.stale)
        return outcome


def _newest(batch: Iterable[Observation]) -> dict[str, Observation]:
    """By row; of one version the later one."""
    newest: dict[str, Observation] = {}
    for observation in batch:
        known = newest.get(observation.key)
        if known is None or observation.version >= known.version:
            newest[observation.key] = observation
    return newest


def _persons(observations: Iterable[Observation]) -> dict[str, Person]:
    """The newest knowledge of each person, by key."""
    persons: dict[str, Person] = {}
    for observation in observations:
        person = observation.person
        known = persons.get(person.key)
        if known is None or person.version >= known.version:
            persons[person.key] = person
    return persons


def _version(document: Document) -> str:
    return str(document["version"])
