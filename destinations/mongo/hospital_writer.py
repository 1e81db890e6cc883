"""The write path of one hospital: links of people, then rows of the mirror, then records.

This is the order of all writes, and each step finds what a crash before it has left behind:

1. `people`: each person's link to a patient of the Passport is brought up to date.
2. `observations`: rows of people who are matched are stored where they are newer.
3. `medicalrecords`: the records of these rows, and of all connected rows, are made what they should
   be. Placeholder accounts come before the records that they belong to, audit entries with them.

Only the holder of the hospital's fence writes any of it. So what this writer has read stays true
until it writes, but for what the Passport does: it edits records, and marks people as to be read.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from destinations.mongo import mirror
from destinations.mongo.client import Mongo, in_parallel
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence
from destinations.mongo.medicalrecords import MedicalRecords, RecordRound
from destinations.mongo.mirror import SealedDocument
from destinations.mongo.observations import SLICE, Observations, RowBatch
from destinations.mongo.people import Link, People
from meaning.rules import MappingRules
from passport.errors import Reject, Retry
from passport.facts import Observation, Person
from passport.settings import Hospital
from passport.sink import KeyRange, Outcome, RetainStep

NEVER = -1  # no link has this `rev`


class HospitalWriter:
    """Writes what one hospital says. Its methods raise Retry, NotReady or Fatal."""

    def __init__(
        self,
        database: Mongo,
        hospital_id: str,
        hospital: Hospital,
        rules: MappingRules,
        people: People,
        fence: Fence,
        *,
        link_medical_history: bool,
    ) -> None:
        self._id = hospital_id
        self._people = people
        self._fence = fence
        self._observations = Observations(database, fence)
        self._records = MedicalRecords(
            database,
            hospital_id,
            hospital,
            rules,
            people,
            self._observations,
            fence,
            link_medical_history=link_medical_history,
        )
        self.authors = self._records.authors

    def write(self, observations: Sequence[Observation]) -> Outcome:
        """Store a batch of the hospital's observations; the newest version of each row wins."""
        newest = _newest_by_row(observations)
        if any(observation.origin == "person" for observation in observations):
            # A person is read whole because the Passport has changed: so may its authors have.
            self.authors.forget()
        outcome = Outcome(stale=len(observations) - len(newest))

        links, _ = self._evaluate_links(_newest_persons(newest.values()))
        documents = self._documents_to_keep(newest, links, outcome)
        rows = documents | self._tombstones_of_strays(newest, links)
        batch = self._write_rows_and_records(rows, links, outcome)

        # Tombstones of strays are not counted: their observations are counted as unmatched.
        outcome.stored += len(batch.stored & documents.keys())
        outcome.unchanged += len(batch.unchanged & documents.keys())
        outcome.overtaken += [key for key in batch.stale if key in documents]
        outcome.stale += len(outcome.overtaken)
        return outcome

    def retain_range(self, scope: KeyRange, keys: set[int], version: str) -> Outcome:
        """Remove the rows of a key range, at or below `version`, that are not among `keys`."""
        bounds = {"$gt": scope.first, "$lte": scope.to}
        within = {operator: bound for operator, bound in bounds.items() if bound is not None}
        query: Document = {
            "hospital": scope.hospital,
            "obsId": within or {"$exists": True},
            "version": {"$lte": version},
        }
        # Rows that this very chunk has removed before are projected again: that heals a crash
        # between rows and records.
        query["$or"] = [{"deleted": False}, {"version": version, "deleted": True}]
        present = self._observations.present(query)
        gone = [key for obs_id, key in present.items() if obs_id not in keys]
        outcome = Outcome()
        for start in range(0, len(gone), SLICE):
            rows = self._observations.documents(gone[start : start + SLICE])
            tombstones = {key: mirror.tombstone(row, version) for key, row in rows.items()}
            self._write_tombstones(tombstones, outcome)
        return outcome

    def begin_person(self, person: Person) -> int:
        """Return the `rev` of the link under which the person's rows begin to be written."""
        links, _ = self._evaluate_links({person.key: person})
        return _rev_to_settle(links[person.key], person.version)

    def retain_person(self, person: Person, keys: Collection[int], version: str) -> Outcome:
        """Remove a person's rows, at or below `version`, that are not among `keys`."""
        outcome = Outcome()
        for step in self.retain_steps(person, keys, version, None):
            outcome += step.outcome
        return outcome

    def retain_steps(
        self, person: Person, keys: Collection[int], version: str, begun: int | None
    ) -> Iterator[RetainStep]:
        """Do the same in steps of SLICE rows or records. See `passport.sink.RetainsInSteps`."""
        if person.uuid is None and not self._people.knows(person.key):
            # Polling tells of every number of a range. The hospital never had a person of this one.
            yield from self._end_unexplained(person.person_id, None)
            yield RetainStep(Outcome(), is_last=True)
            return
        links, changed = self._evaluate_links({person.key: person})
        link = links[person.key]
        if begun is None:
            # If the person was matched only now, the rows of this reading were dropped as nobody's.
            was_matched_now = person.key in changed and link.pending is not None
            begun = NEVER if was_matched_now else _rev_to_settle(link, version)

        outcome = Outcome()
        for rows in self._observations.of_person(person.hospital, person.person_id):
            outcome += self._retain_rows(link, rows, keys, version)
            if len(rows) == SLICE:
                yield RetainStep(outcome, is_last=False)
                outcome = Outcome()
        yield from self._end_unexplained(link.person_id, link.patient_id)
        if link.rev == begun:
            # A change of the link since it was read leaves `pending`, and all of this comes again.
            self._people.settle(link, self._fence, version)
        yield RetainStep(outcome, is_last=True)

    def _retain_rows(
        self, link: Link, rows: Sequence[Document], keys: Collection[int], version: str
    ) -> Outcome:
        """Retain some of a person's rows."""
        outcome = Outcome()
        if link.patient_id is not None:
            gone = [row["_id"] for row in rows if row["obsId"] not in keys]
            # Each keeps its own version. A row that has left this person may be somebody else's
            # since, by an event that is still to come and that must not lose. What is newer than
            # the reading may have come between two steps.
            tombstones = {
                key: mirror.tombstone(row, row["version"])
                for key, row in self._observations.documents(gone).items()
                if row["version"] <= version and row["personId"] == link.person_id
            }
            self._write_tombstones(tombstones, outcome)
        if link.pending is not None or link.patient_id is None:
            self._refresh_rows(link, rows)
        return outcome

    def _write_rows_and_records(
        self, rows: Mapping[str, SealedDocument], links: Mapping[str, Link], outcome: Outcome
    ) -> RowBatch:
        """Store mirror documents (by ``_id``) that are newer, then refresh the records they show.

        Of the outcome, only `rejected` is added to.
        """
        batch, begun = self._store_rows(rows, links)
        outcome.rejected += batch.refused.items()
        outcome.rejected += self._records.refresh(batch.kept, begun).items()
        return batch

    def _store_rows(
        self, rows: Mapping[str, SealedDocument], links: Mapping[str, Link]
    ) -> tuple[RowBatch, RecordRound | None]:
        """Store the rows that are newer, and begin the records of all that are kept."""
        patients = {key: link.patient_id for key, link in links.items()}
        batch = RowBatch(dict(rows))
        if not batch.rows:
            return batch, None
        batch.heads = self._observations.connected_heads(batch.named())
        if batch.changes_records(batch.heads):
            batch.earlier = self._observations.documents(batch.heads)
        writes = batch.next_writes(batch.heads)
        operations = [write.operation() for write in writes]

        # The overlap: while MongoDB stores the rows, their records are already projected as they
        # will be then, and those of now are read. `MedicalRecords.refresh` begins anew if a row was
        # refused.
        def begin_records() -> RecordRound | None:
            expected = batch.view_after(writes)
            return self._records.begin(expected, patients) if expected.seeds else None

        begun, written = in_parallel(begin_records, lambda: self._observations.write(operations))
        if written.missed or "duplicate" in written.failed.values():
            raise Retry(f"hospital {self._id}: rows were changed by a writer of an earlier release")
        batch.settle(writes, written)
        return batch, None if batch.refused else begun

    def _evaluate_links(self, persons: Mapping[str, Person]) -> tuple[dict[str, Link], set[str]]:
        """Return the persons' links, and the keys of those that were changed by this.

        What the change of a link asks for is done here, but for reading a person at the hospital.
        """
        links, changed = self._people.evaluated(persons, self._fence)
        for key, link in links.items():
            is_ours_to_do = link.pending in ("move", "remove")
            if not is_ours_to_do and (link.pending is None or key not in changed):
                continue
            rows = next(self._observations.of_person(link.hospital, link.person_id), [])
            if len(rows) == SLICE:
                # So many take long. `pending` has the person read whole, and they go step by step.
                continue
            self._refresh_rows(link, rows)
            if is_ours_to_do:
                links[key] = self._people.settle(link, self._fence) or link
        return links, changed

    def _refresh_rows(self, link: Link, rows: Sequence[Document]) -> None:
        """Refresh the records of a person's rows; remove the rows if nobody is matched."""
        if not rows:
            return
        self._records.refresh([row["_id"] for row in rows])
        if link.patient_id is None:
            self._observations.remove(rows)

    def _end_unexplained(self, person_id: int, patient: str | None) -> Iterator[RetainStep]:
        """End the records of a person that no row of the hospital makes, in steps."""
        for looked_at in self._records.look_for_unexplained(person_id, patient):
            self._records.refresh((), unexplained=looked_at.unexplained)
            if looked_at.is_full:
                yield RetainStep(Outcome(), is_last=False)

    def _documents_to_keep(
        self, newest: Mapping[str, Observation], links: Mapping[str, Link], outcome: Outcome
    ) -> dict[str, SealedDocument]:
        """Return the mirror documents of rows that may be kept. The others go into the outcome."""
        documents: dict[str, SealedDocument] = {}
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

    def _tombstones_of_strays(
        self, newest: Mapping[str, Observation], links: Mapping[str, Link]
    ) -> dict[str, SealedDocument]:
        """Return tombstones of rows that have gone from somebody who is matched to one who is not.

        The mirror has them as the former person's. A tombstone that is there already is returned,
        too, whichever event or reading has left it: a crash may have come before its record.
        """
        keys = [
            key
            for key, observation in newest.items()
            if links[observation.person.key].patient_id is None
        ]
        if not keys:
            return {}
        tombstones: dict[str, SealedDocument] = {}
        for key, row in self._observations.documents(keys).items():
            observation = newest[key]
            if row["personId"] == observation.person.person_id:
                continue
            version = observation.version
            if row["deleted"]:
                version = max(version, row["version"])
            tombstones[key] = mirror.tombstone(row, version)
        return tombstones

    def _write_tombstones(self, tombstones: Mapping[str, SealedDocument], outcome: Outcome) -> None:
        batch = self._write_rows_and_records(tombstones, {}, outcome)
        outcome.stored += len(batch.stored)
        outcome.unchanged += len(batch.unchanged)
        outcome.stale += len(batch.stale)


def _rev_to_settle(link: Link, version: str) -> int:
    """Return the `rev` of a link that a reading of this version settles, if it stays so.

    A reading older than what the link rests on decides nothing: the person is wanted again.
    """
    is_newest = version >= max(link.floor, link.version)
    return link.rev if is_newest else NEVER


def _newest_by_row(observations: Iterable[Observation]) -> dict[str, Observation]:
    """Return the newest state of each row, by its key. Of one version the later one counts."""
    newest: dict[str, Observation] = {}
    for observation in observations:
        other = newest.get(observation.key)
        if other is None or observation.version >= other.version:
            newest[observation.key] = observation
    return newest


def _newest_persons(observations: Iterable[Observation]) -> dict[str, Person]:
    """Return what is newest known of each person, by key."""
    persons: dict[str, Person] = {}
    for observation in observations:
        person = observation.person
        other = persons.get(person.key)
        if other is None or person.version >= other.version:
            persons[person.key] = person
    return persons
