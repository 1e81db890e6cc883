"""Finds the persons whose mirror differs, by their link and by a hash of their rows.

The hospital's server computes the hashes, so no row travels unless a hash differs.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from consumers.lookups import Lookups
from openmrs import row_hash
from openmrs.key_ranges import rows_of_persons
from openmrs.load_budget import FETCHED, HASHED, PageSize, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.row_hash import Digest
from openmrs.tables import OBS
from passport.event import Row
from reconcile import differences
from reconcile.expected import matched_patients
from reconcile.mongo_reader import MongoReader
from reconcile.persons import PERSONS_AT_ONCE, read_in_parts
from reconcile.report import Compared


@dataclass(frozen=True, slots=True)
class Differing:
    """A person who differs, as the hospital was when that was seen.

    `patient` is the hex of patients._id, None for somebody who isn't matched.
    """

    patient: str | None
    digest: Digest


class ByHash:
    """Compares one hospital's persons; whomever it looks at is counted in `compared`."""

    def __init__(
        self, source: Source, mongo: MongoReader, pace: WaitingPace, compared: Compared
    ) -> None:
        self._source = source
        self._mongo = mongo
        self._pace = pace
        self._compared = compared
        self._hashed = PageSize(PERSONS_AT_ONCE, least=1)
        self._fetched = PageSize(PERSONS_AT_ONCE, least=1)

    def differing(self, lookups: Lookups, person_ids: Sequence[int]) -> dict[int, Differing]:
        """Return those of the persons who differ.

        Their identifiers are read anew, whatever `lookups` holds. The reads are short ones, one
        after the other: an ALTER at the hospital would wait for a longer one. Whoever changes in
        between may seem to differ, and is looked at again. Raises Retry, NotReady, Fatal.
        """
        with self._source.read_at(ANY_POSITION) as read:
            persons = lookups.persons_in(read, person_ids, fresh=True)
        expected_links = self._mongo.expected_links(persons.values())
        matched = matched_patients(expected_links)
        digests = self._digests(sorted(matched))
        mirror = self._mirror(person_ids)
        links = self._mongo.links([person.key for person in persons.values()])

        suspects = set()
        for person_id in person_ids:
            mirrored = row_hash.digest(mirror.get(person_id, []), self._source.columns(OBS))
            if mirrored != digests.get(person_id, Digest()):
                suspects.add(person_id)
        rows = self._rows(sorted(suspects & matched.keys()), digests)
        self._compared.persons += len(persons)
        self._compared.matched += len(matched)

        differing = {}
        for person_id, person in persons.items():
            patient = matched.get(person_id)
            is_link_wrong = differences.link(
                person.key,
                expected_links[person_id],
                links.get(person.key),
                has_rows=person_id in digests,
            )
            # A hash may differ where only the text of a number does: the rows themselves decide.
            are_rows_wrong = person_id in suspects and not _are_equal(
                rows.get(person_id, []), mirror.get(person_id, [])
            )
            if is_link_wrong or are_rows_wrong:
                differing[person_id] = Differing(patient, digests.get(person_id, Digest()))
        return differing

    def _digests(self, person_ids: Sequence[int]) -> dict[int, Digest]:
        """Return the digest of the hospital's rows, of each person who has any."""
        digests: dict[int, Digest] = {}
        parts = read_in_parts(self._source, self._hashed, person_ids, self._digests_in)
        for _, digests_of_part in parts:
            rows = sum(digest.rows for digest in digests_of_part.values())
            self._compared.rows += rows
            self._pace.spend(rows * HASHED)
            digests |= digests_of_part
        return digests

    def _digests_in(self, read: ConsistentRead, person_ids: Sequence[int]) -> dict[int, Digest]:
        digest = row_hash.sql(self._source.columns(OBS))
        groups = read.rows(
            f"SELECT {OBS.person} AS person_id, COUNT(*) AS counted, {digest} AS digest"  # noqa: S608
            f" FROM {OBS.name} WHERE {OBS.person} IN ({','.join(map(str, person_ids))})"
            f" GROUP BY {OBS.person}"
        )
        digests = {}
        for group in groups:
            digests[group["person_id"]] = Digest(int(group["counted"]), int(group["digest"]))
        return digests

    def _mirror(self, person_ids: Collection[int]) -> Mapping[int, list[Row]]:
        """Return the rows that the destination holds, by person."""
        rows: dict[int, list[Row]] = defaultdict(list)
        for document in self._mongo.live_rows(self._source.hospital, person_ids):
            rows[document["personId"]].append(document["row"])
        return rows

    def _rows(
        self, person_ids: Sequence[int], digests: dict[int, Digest]
    ) -> Mapping[int, list[Row]]:
        """Return the hospital's rows by person, and make `digests` those of the same moment."""
        rows: dict[int, list[Row]] = defaultdict(list)

        def read_part(
            read: ConsistentRead, part: Sequence[int]
        ) -> tuple[list[Row], dict[int, Digest]]:
            return rows_of_persons(read, OBS, part), self._digests_in(read, part)

        for part, answer in read_in_parts(self._source, self._fetched, person_ids, read_part):
            rows_of_part, digests_of_part = answer
            self._pace.spend(len(rows_of_part) * (FETCHED + HASHED))
            for row in rows_of_part:
                rows[row[OBS.person]].append(row)
            for person_id in part:
                digests.pop(person_id, None)
            digests |= digests_of_part
        return rows


def _are_equal(hospital: Iterable[Row], mirror: Iterable[Row]) -> bool:
    return {row[OBS.key]: row for row in hospital} == {row[OBS.key]: row for row in mirror}
