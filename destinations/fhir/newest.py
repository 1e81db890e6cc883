"""Which resources a batch changes, given what a destination holds of its rows. Pure.

A row has one resource that is live, or none; under any other type that it once had it is entered in
error. The highest version of all of them is the row's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from destinations.fhir.resources import (
    ID_CHARACTERS,
    TYPES,
    Held,
    Naming,
    Resource,
    held,
    resource,
    type_of,
    withdrawn,
)
from passport.errors import Fatal
from passport.facts import Observation, Person
from passport.settings import Model, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

HeldRows = Mapping[int, Sequence[Held]]

# Questions that ask what the patient has, and what the patient takes.
CONDITIONS = (
    "CIEL:1284",
    "CIEL:161602",
    "org.openmrs.module.emrapi:Coded Diagnosis",
    "org.openmrs.module.emrapi:Non-Coded Diagnosis",
)
MEDICATIONS = ("CIEL:1282", "CIEL:1193")


class Kept(Model):
    """What both FHIR destinations may be told. `people`: ``matched`` keeps rows of people whose
    national id is sure; `prefix`: before a hospital's id in ids and systems, where several write to
    one place.
    """

    people: Literal["matched", "all"] = "matched"
    prefix: str = Field("", pattern=r"^[A-Za-z0-9\-.]{0,20}$")
    national_id_system: str = "urn:openmrs-passport:national-id"
    conditions: tuple[str, ...] = CONDITIONS
    medications: tuple[str, ...] = MEDICATIONS

    @property
    def naming(self) -> Naming:
        return Naming(
            self.prefix,
            self.national_id_system,
            frozenset(self.conditions),
            frozenset(self.medications),
        )

    def keeps(self, person: Person) -> bool:
        return self.people == "all" or person.state == "ok"


@dataclass
class Changes:
    """`resources` to write, with their obs keys; `outcome`: as if they were; person_ids
    `ambiguous`, or `settled`.
    """

    resources: list[tuple[str, Resource]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    ambiguous: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)


def changes(batch: Iterable[Observation], rows: HeldRows, kept: Kept) -> Changes:
    """What one hospital's batch changes; a row may occur several times."""
    made = Changes()
    newest: dict[int, Observation] = {}
    for one in batch:
        before = newest.get(one.obs_id)
        made.outcome.stale += before is not None
        if before is None or before.version <= one.version:
            newest[one.obs_id] = one
    for one in newest.values():
        (made.ambiguous if one.person.state == "ambiguous" else made.settled).add(
            one.person.person_id
        )
        _change(made, one, rows.get(one.obs_id, ()), kept)
    made.settled -= made.ambiguous
    return made


def gone(
    scope: Scope, keys: Collection[int], version: str, rows: Iterable[Held], kept: Kept
) -> Changes:
    """What `retain` changes. A row that left a person may be somebody else's by now: then it keeps
    its version.
    """
    made = Changes()
    for one in rows:
        if one.live and one.version <= version and one.obs_id not in keys and within(scope, one):
            marked = one if isinstance(scope, Person) else one._replace(version=version)
            made.resources.append(
                (f"{scope.hospital}/{one.obs_id}", withdrawn(kept.prefix + scope.hospital, marked))
            )
            made.outcome.stored += 1
    if isinstance(scope, Person):
        (made.ambiguous if scope.state == "ambiguous" else made.settled).add(scope.person_id)
    return made


def within(scope: Scope, one: Held) -> bool:
    if isinstance(scope, KeyRange):
        return (scope.first is None or scope.first < one.obs_id) and (
            scope.to is None or one.obs_id <= scope.to
        )
    return one.person_id == scope.person_id


def _change(made: Changes, one: Observation, rows: Sequence[Held], kept: Kept) -> None:
    if rows and max(row.version for row in rows) > one.version:
        made.outcome.stale += 1
        made.outcome.overtaken.append(one.key)
    elif one.live and kept.keeps(one.person):
        shown = resource(one, kept.naming)
        made.resources.append((one.key, shown))
        made.resources += _others(one, rows, kept, but=shown["resourceType"])
        made.outcome.stored += 1
    elif one.live and not rows:
        made.outcome.unmatched += 1
    else:
        # A row that is gone leaves its mark though nothing was there: an older version of it may
        # still come.
        mark = (one.key, withdrawn(kept.prefix + one.hospital, _mark(one, rows, kept)))
        made.resources += _others(one, rows, kept) or [mark]
        made.outcome.stored += not one.live
        made.outcome.unmatched += one.live


def _others(
    one: Observation, rows: Sequence[Held], kept: Kept, but: str = ""
) -> list[tuple[str, Resource]]:
    """What else is live of this row, as entered in error by its version."""
    other = (row._replace(version=one.version) for row in rows if row.live and row.type != but)
    return [(one.key, withdrawn(kept.prefix + one.hospital, row)) for row in other]


def _mark(one: Observation, rows: Sequence[Held], kept: Kept) -> Held:
    """Where a row that is gone is marked, when nothing of it is live."""
    known = rows[0].type if rows else type_of(one, kept.naming)
    return Held(known, one.obs_id, one.uuid, one.person.person_id, one.version, live=False)


def rows_of(found: Iterable[Resource]) -> dict[int, list[Held]]:
    """By obs_id, what resources on a server say of their rows; others than this project's are
    passed over.
    """
    rows: dict[int, list[Held]] = {}
    for one in found:
        if one.get("resourceType") in TYPES:
            row = held(one)
            rows.setdefault(row.obs_id, []).append(row)
    return rows


def told(progress: Progress) -> dict[str, Any]:
    """What is kept of it beside its hospital."""
    return {name: getattr(progress, name) for name in ("offset", "version", "at_ms", "rereads")}


def by_hospital(observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    found: dict[str, list[Observation]] = {}
    for one in observations:
        found.setdefault(one.hospital, []).append(one)
    return found


def require_ids(settings: Settings) -> None:
    """Fatal when a hospital's id can't be part of a FHIR id."""
    for hospital in settings.hospitals:
        if not ID_CHARACTERS.fullmatch(hospital):
            hint = "a FHIR id takes 40 of A-Z a-z 0-9 - . for it; give the hospital such an id before its first event"
            raise Fatal(f"hospital {hospital!r} can't be part of a FHIR id", hint=hint)
