"""Decides which resources a batch changes, given what a destination has of its rows. Pure.

A row has one resource that is live, or none. Under any other type that it once had, its resource is
entered in error. The highest version of all of them is the row's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from destinations.fhir.resources import (
    ID_CHARACTERS,
    TYPES,
    Held,
    Naming,
    Resource,
    held_row,
    resource,
    type_of,
    withdrawn,
)
from meaning.rules import load, parse
from passport.errors import Fatal
from passport.facts import Observation, Person
from passport.settings import Model, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

HeldRows = Mapping[int, Sequence[Held]]


class FhirOptions(Model):
    """The options that both FHIR destinations have.

    `people`: ``matched`` keeps only rows of people whose national id is sure. `prefix` stands
    before a hospital's id in ids and systems, where several write to one place. `conditions` and
    `medications` are the codes of a hospital's own questions that ask for one. They are asked
    before the rules of config/mapping.yaml.
    """

    people: Literal["matched", "all"] = "matched"
    prefix: str = Field("", pattern=r"^[A-Za-z0-9\-.]{0,20}$")
    national_id_system: str = "urn:openmrs-passport:national-id"
    conditions: tuple[str, ...] = ()
    medications: tuple[str, ...] = ()

    @cached_property
    def naming(self) -> Naming:
        own: list[dict[str, object]] = []
        if self.conditions:
            own.append({"kind": "condition", "asks": "which", "mappings": self.conditions})
        if self.medications:
            own.append({"kind": "medication", "asks": "which", "mappings": self.medications})
        rules = parse({"version": 2, "rules": own}, load())
        return Naming(self.prefix, self.national_id_system, rules)

    def keeps(self, person: Person) -> bool:
        return self.people == "all" or person.state == "ok"


@dataclass
class Changes:
    """The changes that a batch makes.

    `resources` are to be written, each with the key of its row. `outcome` is that of the batch if
    all of them are. `ambiguous` and `settled` are the person_ids of people who are ambiguous now,
    and of those who are not.
    """

    resources: list[tuple[str, Resource]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    ambiguous: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)


def changes(batch: Iterable[Observation], rows: HeldRows, options: FhirOptions) -> Changes:
    """Return what one hospital's batch changes. `rows` is what the destination has, by obs_id.

    A row may occur several times in the batch.
    """
    result = Changes()
    newest: dict[int, Observation] = {}
    for observation in batch:
        before = newest.get(observation.obs_id)
        result.outcome.stale += before is not None
        if before is None or before.version <= observation.version:
            newest[observation.obs_id] = observation
    for observation in newest.values():
        _note_state(result, observation.person)
        _change(result, observation, rows.get(observation.obs_id, ()), options)
    result.settled -= result.ambiguous
    return result


def gone(
    scope: Scope, keys: Collection[int], version: str, rows: Iterable[Held], options: FhirOptions
) -> Changes:
    """Return what `retain` changes. `rows` may be more than those of the scope."""
    result = Changes()
    for row in rows:
        is_gone = row.live and row.version <= version and row.obs_id not in keys
        if not is_gone or not within(scope, row):
            continue
        # A row that left a person may be somebody else's by now: it keeps its version, so that the
        # event which says so is not older.
        marked = row._replace(version=version) if isinstance(scope, KeyRange) else row
        key = f"{scope.hospital}/{row.obs_id}"
        result.resources.append((key, withdrawn(options.prefix + scope.hospital, marked)))
        result.outcome.stored += 1
    if isinstance(scope, Person):
        _note_state(result, scope)
    return result


def within(scope: Scope, row: Held) -> bool:
    """Return whether a row belongs to a scope."""
    if isinstance(scope, KeyRange):
        is_after_first = scope.first is None or scope.first < row.obs_id
        return is_after_first and (scope.to is None or row.obs_id <= scope.to)
    return row.person_id == scope.person_id


def _note_state(result: Changes, person: Person) -> None:
    if person.state == "ambiguous":
        result.ambiguous.add(person.person_id)
    else:
        result.settled.add(person.person_id)


def _change(
    result: Changes, observation: Observation, rows: Sequence[Held], options: FhirOptions
) -> None:
    """Add to `result` what one observation changes. `rows` is what the destination has of it."""
    if rows and max(row.version for row in rows) > observation.version:
        result.outcome.stale += 1
        result.outcome.overtaken.append(observation.key)
    elif observation.live and options.keeps(observation.person):
        live = resource(observation, options.naming)
        result.resources.append((observation.key, live))
        result.resources += _withdraw_all(observation, rows, options, but=live["resourceType"])
        result.outcome.stored += 1
    elif observation.live and not rows:
        result.outcome.unmatched += 1
    else:
        # A row that is gone leaves its mark though nothing was there: an older version of it may
        # still come.
        resources = _withdraw_all(observation, rows, options)
        if not resources:
            type_ = rows[0].type if rows else type_of(observation, options.naming)
            mark = Held(
                type_,
                observation.obs_id,
                observation.uuid,
                observation.person.person_id,
                observation.version,
                live=False,
            )
            hospital = options.prefix + observation.hospital
            resources = [(observation.key, withdrawn(hospital, mark))]
        result.resources += resources
        result.outcome.stored += not observation.live
        result.outcome.unmatched += observation.live


def _withdraw_all(
    observation: Observation, rows: Sequence[Held], options: FhirOptions, but: str = ""
) -> list[tuple[str, Resource]]:
    """Return what is live of this row, under other types than `but`, as entered in error."""
    hospital = options.prefix + observation.hospital
    resources = []
    for row in rows:
        if row.live and row.type != but:
            gone_now = row._replace(version=observation.version)
            resources.append((observation.key, withdrawn(hospital, gone_now)))
    return resources


def rows_of(resources: Iterable[Resource]) -> dict[int, list[Held]]:
    """Return what resources on a server say of their rows, by obs_id.

    Resources of other types than this project makes are passed over.
    """
    rows: dict[int, list[Held]] = {}
    for row_resource in resources:
        if row_resource.get("resourceType") in TYPES:
            row = held_row(row_resource)
            rows.setdefault(row.obs_id, []).append(row)
    return rows


def progress_content(progress: Progress) -> dict[str, Any]:
    """Return what is stored of a progress beside its hospital."""
    return {
        "offset": progress.offset,
        "version": progress.version,
        "at_ms": progress.at_ms,
        "rereads": progress.rereads,
    }


def by_hospital(observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    """Return the observations of each hospital, in their order."""
    batches: dict[str, list[Observation]] = {}
    for observation in observations:
        batches.setdefault(observation.hospital, []).append(observation)
    return batches


def require_ids(settings: Settings, prefix: str) -> None:
    """Raise Fatal if a hospital's id behind `prefix` can't be part of a FHIR id."""
    for hospital in settings.hospitals:
        if not ID_CHARACTERS.fullmatch(prefix + hospital):
            raise Fatal(
                f"hospital {prefix + hospital!r} can't be part of a FHIR id",
                hint="a FHIR id takes 47 of A-Z a-z 0-9 - . for options.prefix and the hospital's"
                " id; give it such an id before its first event",
            )
