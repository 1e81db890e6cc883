"""Who differs from the mirror, by the link and by a hash of their rows that the hospital's server
computes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from consumers.lookups import Lookups
from openmrs import row_hash as hashes
from openmrs.key_ranges import rows_of_persons
from openmrs.load_budget import FETCHED, HASHED, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.row_hash import Digest
from openmrs.tables import OBS
from passport.event import Row
from reconcile import differences as differing
from reconcile.passport_db import PassportDb
from reconcile.report import Compared

PERSONS = 500  # of a batch


@dataclass(frozen=True, slots=True)
class Differing:
    """A person who differs, as the hospital was when that was seen."""

    patient: str | None
    digest: Digest


class ByHash:
    """One hospital's persons; whom it has looked at is counted in `compared`."""

    def __init__(
        self, source: Source, passport: PassportDb, pace: WaitingPace, compared: Compared
    ) -> None:
        self._source, self._passport, self._pace, self._compared = source, passport, pace, compared

    def differing(self, lookups: Lookups, person_ids: Sequence[int]) -> dict[int, Differing]:
        """At one snapshot. `lookups`: identifiers are read anew whatever it holds. Retry, NotReady,
        Fatal.
        """
        with self._source.read_at(ANY_POSITION) as reading:
            persons = lookups.persons_in(reading, person_ids, fresh=True)
            known = self._passport.patients(persons.values())
            matched = {
                one.person_id: known[one.key] for one in persons.values() if one.key in known
            }
            digests = self._digests(reading, list(matched))
            mirror = self._mirror(person_ids)
            links = self._passport.links([one.key for one in persons.values()])
            suspects = [
                one
                for one in person_ids
                if self._suspect(digests.get(one, Digest()), mirror.get(one, []))
            ]
            rows = self._rows(reading, [one for one in suspects if one in matched])
        self._compared.persons += len(persons)
        self._compared.matched += len(matched)
        found = {}
        for one, person in persons.items():
            link = self._passport.link(person, matched.get(one))
            wrong = differing.link(person.key, link, links.get(person.key), has_rows=one in digests)
            if wrong or (one in suspects and not _equal(rows[one], mirror.get(one, []))):
                found[one] = Differing(matched.get(one), digests.get(one, Digest()))
        return found

    def _digests(self, reading: ConsistentRead, person_ids: Sequence[int]) -> dict[int, Digest]:
        """Of the rows of each person who has any."""
        if not person_ids:
            return {}
        rows = reading.rows(
            f"SELECT person_id, COUNT(*) AS counted, {hashes.sql(self._source.columns(OBS))} AS digest"  # noqa: S608
            f" FROM obs WHERE person_id IN ({','.join(map(str, person_ids))}) GROUP BY person_id"
        )
        counted = sum(row["counted"] for row in rows)
        self._compared.rows += counted
        self._pace.spend(counted * HASHED)
        return {row["person_id"]: Digest(int(row["counted"]), int(row["digest"])) for row in rows}

    def _suspect(self, digest: Digest, rows: Sequence[Row]) -> bool:
        return hashes.digest(rows, self._source.columns(OBS)) != digest

    def _mirror(self, person_ids: Collection[int]) -> Mapping[int, list[Row]]:
        """The rows that the destination holds, by person."""
        found: dict[int, list[Row]] = defaultdict(list)
        for document in self._passport.live_rows(self._source.hospital, person_ids):
            found[document["personId"]].append(document["row"])
        return found

    def _rows(self, reading: ConsistentRead, person_ids: Sequence[int]) -> Mapping[int, list[Row]]:
        """A hash may differ where a number's text does: the rows themselves decide."""
        found: dict[int, list[Row]] = defaultdict(list)
        if person_ids:
            rows = rows_of_persons(reading, person_ids)
            for row in rows:
                found[row["person_id"]].append(row)
            self._pace.spend(len(rows) * FETCHED)
        return found


def _equal(one: Iterable[Row], other: Iterable[Row]) -> bool:
    return {row["obs_id"]: row for row in one} == {row["obs_id"]: row for row in other}


def parts(ids: Sequence[int], size: int = PERSONS) -> Iterator[Sequence[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
