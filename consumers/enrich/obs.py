"""One obs row and what it refers to make one Observation. Pure: no I/O, no clock.

A person who reads the Observation must not have to know OpenMRS: a coded answer is a name, an
author is a person and not a number, and a wall time is also an instant.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from openmrs.lookup_queries import (
    CodedName,
    EarlierVersion,
    EncounterFacts,
    Provider,
    Staff,
    User,
    is_same_language,
)
from openmrs.wall_time import instant
from passport.event import Row
from passport.facts import (
    Author,
    Concept,
    FirstVersion,
    Interpretation,
    Names,
    Observation,
    ObservationOrigin,
    Person,
    Place,
    ReferenceRange,
    Value,
)

NOBODY = Author("OpenMRS", "none", None)
NOTHING = Value("none", "")


@dataclass(slots=True)
class References:
    """The things that the rows of a batch refer to, by id. `zone` is the hospital's IANA name."""

    hospital: str
    zone: str
    persons: dict[int, Person] = field(default_factory=dict)
    concepts: dict[int, Concept] = field(default_factory=dict)
    coded_names: dict[int, CodedName | None] = field(default_factory=dict)
    drugs: dict[int, str | None] = field(default_factory=dict)
    applied_ranges: dict[int, ReferenceRange | None] = field(default_factory=dict)
    encounters: dict[int, EncounterFacts] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    orderers: dict[int, int | None] = field(default_factory=dict)
    providers: dict[int, Provider] = field(default_factory=dict)
    users: dict[int, User] = field(default_factory=dict)
    staff: dict[int, Staff] = field(default_factory=dict)
    earlier_versions: dict[int, EarlierVersion] = field(default_factory=dict)
    # The author by encounter, order and creator: many rows of a batch share one.
    authors: dict[tuple[Any, Any, Any], Author] = field(default_factory=dict)


def enrich(
    row: Row, version: str, references: References, *, deleted: bool, origin: ObservationOrigin
) -> Observation:
    """Return the Observation of a row. A deleted row has its person only.

    Never raises for a row that has the types of `passport.event.ObsRow`.
    """
    person = references.persons[row["person_id"]]
    at = instant(row["obs_datetime"], references.zone)
    created = instant(row["date_created"], references.zone)
    if deleted:
        return Observation(
            hospital=references.hospital,
            version=version,
            row=row,
            deleted=True,
            person=person,
            concept=None,
            value=NOTHING,
            author=NOBODY,
            place=None,
            encounter=None,
            at=at,
            created=created,
            origin=origin,
        )
    concept = references.concepts.get(row["concept_id"])
    encounter = references.encounters.get(row["encounter_id"])
    return Observation(
        hospital=references.hospital,
        version=version,
        row=row,
        deleted=False,
        person=person,
        concept=concept,
        value=value(row, concept, references),
        author=author(row, encounter, references),
        place=place(row, encounter, references),
        encounter=encounter.encounter if encounter is not None else None,
        at=at,
        created=created,
        origin=origin,
        first=first_version(row, references),
    )


def first_version(row: Row, references: References) -> FirstVersion | None:
    """Return the first version of a row that a merge has brought to its person, None without one.

    A row of somebody else is only followed if that patient is voided, as the loser of a merge is. A
    row that was brought to another patient without a merge may have been somebody else's all along.
    """
    person_id = row["person_id"]
    versions = references.earlier_versions
    earlier = versions.get(row.get("previous_version") or 0)
    if earlier is None or earlier.person_id == person_id or not earlier.merged:
        return None
    chain: list[EarlierVersion] = []
    while earlier is not None and earlier not in chain:
        # At a merge the loser's older versions, which were voided before, change their person.
        if earlier.person_id != person_id and not earlier.merged:
            break
        chain.append(earlier)
        earlier = versions.get(earlier.previous_version or 0)
    first = chain[-1]
    persons = {version.person_id for version in chain} - {person_id}
    return FirstVersion(
        uuid=first.uuid,
        created=instant(first.written, references.zone),
        rows=tuple(version.obs_id for version in chain),
        persons=tuple(sorted(persons)),
    )


def value(row: Row, question: Concept | None, references: References) -> Value:
    """Return the value of a row, as a person reads it, and what it means.

    The hospital's own interpretation holds. Without one, that of a number is computed.
    """
    bare = _bare_value(row, question, references)
    stated = row.get("interpretation")
    if stated:
        return replace(bare, interpretation=Interpretation(stated, "obs"))
    if bare.number is None or bare.reference_range is None or bare.modifier is not None:
        # Of a number with a modifier, such as <5, nobody knows on which side of a bound it is.
        return bare
    code = computed_interpretation(bare.number, bare.reference_range)
    return replace(bare, interpretation=Interpretation(code, "range") if code else None)


def computed_interpretation(number: float, bounds: ReferenceRange) -> str | None:
    """Return what a number means by its bounds, None if they have no usual one.

    The bounds are taken as OpenMRS takes them when it saves an obs: a critical one is critical
    itself, a normal one is normal itself.
    """
    if bounds.high_critical is not None and number >= bounds.high_critical:
        return "CRITICALLY_HIGH"
    if bounds.high_normal is not None and number > bounds.high_normal:
        return "HIGH"
    if bounds.low_critical is not None and number <= bounds.low_critical:
        return "CRITICALLY_LOW"
    if bounds.low_normal is not None and number < bounds.low_normal:
        return "LOW"
    if bounds.low_normal is None and bounds.high_normal is None:
        return None
    return "NORMAL"


def _bare_value(row: Row, question: Concept | None, references: References) -> Value:
    """Return the value of a row without its interpretation.

    OpenMRS fills one value column, and for a drug its concept too. Should there be more, the first
    in this order holds.
    """
    if row["value_drug"] is not None:
        name = references.drugs.get(row["value_drug"])
        if name:
            return _drug(name, references.concepts.get(row["value_coded"]))
        # A drug without a name may still have its concept in value_coded.
    if row["value_coded"] is not None:
        return _coded(row, question, references)
    if row["value_numeric"] is not None:
        return _numeric(row, question, references)
    if row["value_datetime"] is not None:
        return _datetime(row["value_datetime"], question, references)
    if row.get("value_boolean") is not None:
        return Value("boolean", "Yes" if row["value_boolean"] else "No")
    if row.get("value_complex") is not None:
        # A title, and after the bar where the file lies on the hospital's server.
        title, _, _ = row["value_complex"].partition("|")
        return Value("complex", title)
    if row["value_text"] is not None:
        return Value("text", row["value_text"])
    return NOTHING


def number_text(number: float) -> str:
    """Return a number as a person writes it: ``37`` for 37.0, and ``36.6`` for 36.6."""
    return repr(number).removesuffix(".0")


def _drug(name: str, concept: Concept | None) -> Value:
    """Return a drug. It has one name in OpenMRS, mostly with a strength, and in one language.

    Only where that is just a name of its concept, it can be said in other languages too.
    """
    names: Names = ()
    if concept is not None:
        own_names = [concept.name, *(own_name for _, own_name in concept.names)]
        if name.casefold() in (own_name.casefold() for own_name in own_names):
            names = concept.names
    return Value("drug", name, concept=concept, names=names)


def _coded(row: Row, question: Concept | None, references: References) -> Value:
    answer = references.concepts.get(row["value_coded"])
    # The name that was chosen at the time, else the concept's name of today.
    chosen = references.coded_names.get(row["value_coded_name_id"])
    if chosen is not None and chosen.name:
        text = chosen.name
    elif answer is not None:
        text = answer.name
    else:
        text = f"Concept {row['value_coded']}"
    is_yes_or_no = question is not None and question.datatype == "Boolean"
    return Value(
        "boolean" if is_yes_or_no else "coded",
        text,
        concept=answer,
        names=_answer_names(answer, chosen),
    )


def _answer_names(answer: Concept | None, chosen: CodedName | None) -> Names:
    """Return an answer's names. In the language of the chosen name it is that one."""
    if answer is None:
        return ()
    if chosen is None or not chosen.name:
        return answer.names
    return tuple(
        (locale, chosen.name if is_same_language(chosen.locale, locale) else name)
        for locale, name in answer.names
    )


def _numeric(row: Row, question: Concept | None, references: References) -> Value:
    number = float(row["value_numeric"])
    modifier = row["value_modifier"] or None
    text = f"{modifier or ''}{number_text(number)}"
    reference_range = references.applied_ranges.get(row["obs_id"])
    if reference_range is None and question is not None:
        reference_range = question.reference_range
    return Value("numeric", text, number=number, modifier=modifier, reference_range=reference_range)


def _datetime(written: str, question: Concept | None, references: References) -> Value:
    """Return a value that a person wrote as ``2025-11-06T10:30:00``, as far as it was asked for."""
    at = instant(written, references.zone)
    datatype = question.datatype if question is not None else ""
    if datatype == "Date":
        return Value("date", written[:10], at=at)
    if datatype == "Time":
        return Value("time", written[11:], at=at)
    return Value("datetime", written.replace("T", " "), at=at)


def place(row: Row, encounter: EncounterFacts | None, references: References) -> Place | None:
    """Return the obs' own location, else the encounter's, else the visit's."""
    places = references.places
    if row["location_id"] in places:
        return places[row["location_id"]]
    if encounter is None:
        return None
    if encounter.location_id in places:
        return places[encounter.location_id]
    if encounter.visit_location_id in places:
        return places[encounter.visit_location_id]
    return None


def author(row: Row, encounter: EncounterFacts | None, references: References) -> Author:
    """Return who stated the obs: the first candidate with a name."""
    key = (row["encounter_id"], row["order_id"], row["creator"])
    if key not in references.authors:
        references.authors[key] = next(_candidates(row, encounter, references), NOBODY)
    return references.authors[key]


def _candidates(
    row: Row, encounter: EncounterFacts | None, references: References
) -> Iterator[Author]:
    """Yield those who may have stated the obs, and have a name, the likeliest first."""
    for provider_id in encounter.providers if encounter is not None else ():
        uuid, name = _provider(provider_id, references)
        if name:
            yield Author(name, "encounter_provider", uuid)
    orderer = references.orderers.get(row["order_id"])
    if orderer is not None:
        uuid, name = _provider(orderer, references)
        if name:
            yield Author(name, "orderer", uuid)
    user = references.users.get(row["creator"])
    if user is not None and user.person_id is not None:
        staff = references.staff.get(user.person_id)
        if staff is not None and staff.name:
            yield Author(staff.name, "creator", staff.provider_uuid or f"user/{user.uuid}")


def _provider(provider_id: int, references: References) -> tuple[str | None, str | None]:
    """Return a provider's uuid and name. A provider is a person, or has only a name."""
    provider = references.providers.get(provider_id)
    if provider is None:
        return None, None
    if provider.person_id is not None:
        staff = references.staff.get(provider.person_id)
        if staff is not None and staff.name:
            return provider.uuid, staff.name
    return provider.uuid, provider.name
