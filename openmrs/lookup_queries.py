"""Reads a hospital's names in bulk.

All ids of a kind are asked for in one SELECT, those of concepts and encounters in two.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openmrs.read import ConsistentRead
from openmrs.wall_time import instant
from passport.facts import Concept, Encounter, Names, Place, RangeSource, ReferenceRange

Ids = Sequence[int]
# The concept_map_type_id of SAME-AS. OpenMRS has it as its first one since there are map types, and
# as the default of a mapping. Another type (NARROWER-THAN and the like) names another concept.
SAME_AS = 1
# The table of the ranges that OpenMRS applied, which older versions don't have.
APPLIED_RANGES = "obs_reference_range"
_BOUNDS = ("low_absolute", "low_critical", "low_normal", "hi_normal", "hi_critical", "hi_absolute")
_TYPES = {"FULLY_SPECIFIED": 0, None: 1, "SHORT": 2, "INDEX_TERM": 3}


@dataclass(frozen=True, slots=True)
class EncounterFacts:
    """An encounter with its own and its visit's place, and its providers' ids, best first."""

    encounter: Encounter
    visit_id: int | None
    location_id: int | None
    visit_location_id: int | None
    providers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Provider:
    """A row of provider. `name` is a column of OpenMRS 1.9, for providers who are no person."""

    uuid: str
    person_id: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class User:
    """A row of users, without its secrets."""

    uuid: str
    person_id: int | None


@dataclass(frozen=True, slots=True)
class CodedName:
    """A row of concept_name: the name that somebody chose for an answer."""

    name: str
    locale: str


@dataclass(frozen=True, slots=True)
class Staff:
    """A person who works at the hospital, with the uuid of the first provider that they are."""

    name: str | None
    provider_uuid: str | None


@dataclass(frozen=True, slots=True)
class EarlierVersion:
    """A row of obs that another one names as its previous version.

    `merged` says that its patient is voided, as the loser of a merge is.
    """

    obs_id: int
    uuid: str
    person_id: int
    previous_version: int | None
    written: str
    merged: bool


def concepts(
    reading: ConsistentRead, ids: Ids, locales: Sequence[str], kept_locales: Sequence[str] = ()
) -> dict[int, Concept]:
    """Return the concepts by id.

    Each is named in the first locale of `locales` that it has, and has its names in all of
    `kept_locales`.
    """
    rows = reading.rows(
        """SELECT c.concept_id, c.uuid, d.name AS datatype, k.name AS class, n.units,
        n.low_absolute, n.low_critical, n.low_normal, n.hi_normal, n.hi_critical, n.hi_absolute
        FROM concept c LEFT JOIN concept_datatype d ON d.concept_datatype_id = c.datatype_id
        LEFT JOIN concept_class k ON k.concept_class_id = c.class_id
        LEFT JOIN concept_numeric n ON n.concept_id = c.concept_id WHERE c.concept_id IN %s""",
        (ids,),
    )
    names = _grouped(
        reading.rows(
            """SELECT concept_id, concept_name_id, name, locale, locale_preferred, concept_name_type
            FROM concept_name WHERE voided = 0 AND concept_id IN %s""",
            (ids,),
        ),
        "concept_id",
    )
    mapped = _grouped(
        reading.rows(
            """SELECT m.concept_id, s.name, t.code FROM concept_reference_map m
            JOIN concept_reference_term t
              ON t.concept_reference_term_id = m.concept_reference_term_id
            JOIN concept_reference_source s ON s.concept_source_id = t.concept_source_id
            WHERE m.concept_map_type_id = %s AND m.concept_id IN %s""",
            (SAME_AS, ids),
        ),
        "concept_id",
    )
    concepts_by_id = {}
    for row in rows:
        concept_id = row["concept_id"]
        concepts_by_id[concept_id] = _concept(
            row, names.get(concept_id, ()), mapped.get(concept_id, ()), locales, kept_locales
        )
    return concepts_by_id


def _concept(
    row: dict[str, Any],
    names: Sequence[dict[str, Any]],
    mapped: Sequence[dict[str, Any]],
    locales: Sequence[str],
    kept_locales: Sequence[str],
) -> Concept:
    return Concept(
        row["concept_id"],
        row["uuid"],
        concept_name(names, locales) or f"Concept {row['uuid']}",
        row["datatype"] or "",
        row["class"] or "",
        row["units"] or None,
        tuple(sorted({f"{source['name']}:{source['code']}" for source in mapped})),
        names_in(names, kept_locales),
        _reference_range(row, "concept"),
    )


def concept_name(names: Iterable[Mapping[str, Any]], locales: Sequence[str]) -> str | None:
    """Return the name that the hospital's locales prefer.

    `names` are rows of concept_name that are not voided. None if there are none.
    """
    best = min(names, key=lambda name: _preference(name, locales), default=None)
    return None if best is None else str(best["name"])


def names_in(names: Sequence[Mapping[str, Any]], kept_locales: Sequence[str]) -> Names:
    """Return the name in each of these locales, else in its language; none where there is none.

    `names` are rows of concept_name that are not voided. An index term is for searching, often a
    misspelling: whoever reads is better served with a word of another language.
    """
    readable = [name for name in names if name["concept_name_type"] != "INDEX_TERM"]
    kept = []
    for locale in kept_locales:
        of_language = [name for name in readable if is_same_language(name["locale"], locale)]
        name = concept_name(of_language, (locale,))
        if name is not None:
            kept.append((locale, name))
    return tuple(kept)


def is_same_language(locale: str, other: str) -> bool:
    """Return whether two locales, such as ``fr`` and ``fr_RW``, are of one language."""
    return locale.partition("_")[0] == other.partition("_")[0]


def _preference(name: Mapping[str, Any], locales: Sequence[str]) -> tuple[int, bool, int, int]:
    kind = _TYPES.get(name["concept_name_type"], 4)
    return (
        _nearness(name["locale"], locales),
        not name["locale_preferred"],
        kind,
        name["concept_name_id"],
    )


def _nearness(locale: str, locales: Sequence[str]) -> int:
    """Return twice the index of the first locale that fits, one more if only its language does."""
    for index, preferred in enumerate(locales):
        if locale == preferred:
            return 2 * index
        if is_same_language(locale, preferred):
            return 2 * index + 1
    return 2 * len(locales)


def coded_names(reading: ConsistentRead, ids: Ids) -> dict[int, CodedName | None]:
    """Return the names by concept_name_id; a voided one is None."""
    rows = reading.rows(
        "SELECT concept_name_id, name, locale, voided FROM concept_name"
        " WHERE concept_name_id IN %s",
        (ids,),
    )
    names: dict[int, CodedName | None] = {}
    for row in rows:
        name = CodedName(row["name"], row["locale"])
        names[row["concept_name_id"]] = None if row["voided"] else name
    return names


def applied_ranges(reading: ConsistentRead, obs_ids: Ids) -> dict[int, ReferenceRange]:
    """Return the range that OpenMRS applied, by obs_id, of each of these obs that has one.

    The hospital's database must have the table APPLIED_RANGES.
    """
    rows = reading.rows_of_listed_columns(
        APPLIED_RANGES,
        """SELECT obs_id, low_absolute, low_critical, low_normal, hi_normal, hi_critical,
        hi_absolute FROM obs_reference_range WHERE obs_id IN %s""",
        (obs_ids,),
    )
    ranges = {}
    for row in rows:
        reference_range = _reference_range(row, "obs")
        if reference_range is not None:
            ranges[row["obs_id"]] = reference_range
    return ranges


def _reference_range(row: Mapping[str, Any], source: RangeSource) -> ReferenceRange | None:
    """Return the range of a row that has its six columns, None if all of them are NULL."""
    if all(row[column] is None for column in _BOUNDS):
        return None
    return ReferenceRange(
        low_absolute=row["low_absolute"],
        low_critical=row["low_critical"],
        low_normal=row["low_normal"],
        high_normal=row["hi_normal"],
        high_critical=row["hi_critical"],
        high_absolute=row["hi_absolute"],
        source=source,
    )


def drugs(reading: ConsistentRead, ids: Ids) -> dict[int, str | None]:
    return {
        row["drug_id"]: row["name"]
        for row in reading.rows("SELECT drug_id, name FROM drug WHERE drug_id IN %s", (ids,))
    }


def places(reading: ConsistentRead, ids: Ids) -> dict[int, Place]:
    rows = reading.rows(
        "SELECT location_id, uuid, name FROM location WHERE location_id IN %s", (ids,)
    )
    return {row["location_id"]: Place(row["location_id"], row["uuid"], row["name"]) for row in rows}


def orderers(reading: ConsistentRead, ids: Ids) -> dict[int, int | None]:
    """Return the provider_id of who ordered, by order_id."""
    rows = reading.rows("SELECT order_id, orderer FROM orders WHERE order_id IN %s", (ids,))
    return {row["order_id"]: row["orderer"] for row in rows}


def encounters(
    reading: ConsistentRead, ids: Ids, roles: Sequence[str], zone: str
) -> dict[int, EncounterFacts]:
    """Return the encounters by id. `roles` are uuids or names of encounter roles, best first."""
    rows = reading.rows(
        """SELECT e.encounter_id, e.uuid, e.location_id, e.visit_id,
          CAST(e.encounter_datetime AS CHAR) AS written, t.name AS type, v.uuid AS visit_uuid,
          v.location_id AS visit_location_id, vt.name AS visit_type
        FROM encounter e LEFT JOIN encounter_type t ON t.encounter_type_id = e.encounter_type
        LEFT JOIN visit v ON v.visit_id = e.visit_id
        LEFT JOIN visit_type vt ON vt.visit_type_id = v.visit_type_id
        WHERE e.encounter_id IN %s""",
        (ids,),
    )
    providers = _grouped(
        reading.rows(
            """SELECT p.encounter_id, p.encounter_provider_id, p.provider_id, r.uuid, r.name
            FROM encounter_provider p
            LEFT JOIN encounter_role r ON r.encounter_role_id = p.encounter_role_id
            WHERE p.voided = 0 AND p.encounter_id IN %s""",
            (ids,),
        ),
        "encounter_id",
    )
    return {
        row["encounter_id"]: _encounter(row, providers.get(row["encounter_id"], ()), roles, zone)
        for row in rows
    }


def _encounter(
    row: dict[str, Any], providers: Sequence[Any], roles: Sequence[str], zone: str
) -> EncounterFacts:
    written = row["written"].replace(" ", "T")
    ranked = sorted(providers, key=lambda row: (_rank(row, roles), row["encounter_provider_id"]))
    encounter = Encounter(
        row["encounter_id"],
        row["uuid"],
        row["type"] or "",
        written,
        instant(written, zone),
        row["visit_uuid"],
        row["visit_type"],
    )
    return EncounterFacts(
        encounter,
        row["visit_id"],
        row["location_id"],
        row["visit_location_id"],
        tuple(provider["provider_id"] for provider in ranked),
    )


def _rank(provider: Mapping[str, Any], roles: Sequence[str]) -> int:
    for index, role in enumerate(roles):
        if role in (provider["uuid"], provider["name"]):
            return index
    return len(roles)


def providers(reading: ConsistentRead, ids: Ids) -> dict[int, Provider]:
    rows = reading.rows(
        "SELECT provider_id, uuid, person_id, name FROM provider WHERE provider_id IN %s", (ids,)
    )
    return {
        row["provider_id"]: Provider(row["uuid"], row["person_id"], row["name"] or None)
        for row in rows
    }


def users(reading: ConsistentRead, ids: Ids) -> dict[int, User]:
    rows = reading.rows("SELECT user_id, uuid, person_id FROM users WHERE user_id IN %s", (ids,))
    return {row["user_id"]: User(row["uuid"], row["person_id"]) for row in rows}


def staff(reading: ConsistentRead, ids: Ids) -> dict[int, Staff]:
    """Return staff by person_id; every id is there, without a name if the person has none."""
    names = _grouped(
        reading.rows(
            """SELECT person_id, given_name, family_name FROM person_name
            WHERE voided = 0 AND person_id IN %s
            ORDER BY preferred DESC, person_name_id""",
            (ids,),
        ),
        "person_id",
    )
    own = _grouped(
        reading.rows(
            """SELECT person_id, uuid FROM provider
            WHERE retired = 0 AND person_id IN %s
            ORDER BY provider_id""",
            (ids,),
        ),
        "person_id",
    )
    return {
        key: Staff(_person_name(names.get(key)), own[key][0]["uuid"] if key in own else None)
        for key in ids
    }


def _person_name(names: Sequence[Mapping[str, Any]] | None) -> str | None:
    if not names:
        return None
    return " ".join(filter(None, (names[0]["given_name"], names[0]["family_name"]))) or None


def _grouped(rows: Iterable[dict[str, Any]], key: str) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups


def earlier_versions(reading: ConsistentRead, ids: Ids) -> dict[int, EarlierVersion]:
    """Return patients' rows of obs by obs_id, with what is asked of an earlier version."""
    rows = reading.rows(
        """SELECT o.obs_id, o.uuid, o.person_id, o.previous_version,
        CAST(o.date_created AS CHAR) AS written,
        (p.voided OR n.voided) AS merged FROM obs o
        JOIN person n ON n.person_id = o.person_id
        JOIN patient p ON p.patient_id = o.person_id WHERE o.obs_id IN %s""",
        (ids,),
    )
    return {
        row["obs_id"]: EarlierVersion(
            row["obs_id"],
            row["uuid"],
            row["person_id"],
            row["previous_version"],
            row["written"].replace(" ", "T"),
            bool(row["merged"]),
        )
        for row in rows
    }
