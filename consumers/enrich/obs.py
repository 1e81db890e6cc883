"""One obs row and what is known about it make one Observation. Pure: no I/O, no clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from openmrs.lookup_queries import EncounterFacts, Provider, Staff, User
from openmrs.wall_time import instant
from passport.errors import Reject
from passport.event import Row
from passport.facts import (
    Author,
    Concept,
    Observation,
    ObservationOrigin,
    Person,
    Place,
    Value,
    ValueKind,
)

NOBODY = Author("OpenMRS", "none", None)
NOTHING = Value("none", "")


@dataclass(slots=True)
class Known:
    """What a batch's rows refer to, by id. `zone` is the hospital's IANA name."""

    hospital: str
    zone: str
    persons: dict[int, Person] = field(default_factory=dict)
    concepts: dict[int, Concept] = field(default_factory=dict)
    coded_names: dict[int, str | None] = field(default_factory=dict)
    drugs: dict[int, str | None] = field(default_factory=dict)
    encounters: dict[int, EncounterFacts] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    orderers: dict[int, int | None] = field(default_factory=dict)
    providers: dict[int, Provider] = field(default_factory=dict)
    users: dict[int, User] = field(default_factory=dict)
    staff: dict[int, Staff] = field(default_factory=dict)
    authors: dict[tuple[Any, Any, Any], Author] = field(default_factory=dict)


_INT, _TEXT = (int,), (str,)
_SHAPE: tuple[tuple[str, tuple[type, ...]], ...] = (
    *((name, _INT) for name in ("obs_id", "person_id", "concept_id", "creator", "voided")),
    *((name, _TEXT) for name in ("uuid", "obs_datetime", "date_created")),
    *(
        (name, (int, type(None)))
        for name in ("encounter_id", "order_id", "location_id", "obs_group_id")
    ),
    *((name, (int, type(None))) for name in ("value_coded", "value_coded_name_id", "value_drug")),
    *((name, (int, type(None))) for name in ("value_boolean", "previous_version")),
    *(
        (name, (str, type(None)))
        for name in ("value_datetime", "value_modifier", "value_text", "value_complex")
    ),
    *((name, (str, type(None))) for name in ("comments", "status", "interpretation")),
    ("value_numeric", (float, int, type(None))),
)


def check(row: Row) -> None:
    """Reject ``malformed`` with the column's name when a column that is used has not its type."""
    get = row.get
    for name, types in _SHAPE:
        if type(get(name)) not in types:
            raise Reject("malformed", f"column {name}")


def enrich(
    row: Row, version: str, known: Known, *, deleted: bool, origin: ObservationOrigin
) -> Observation:
    """The Observation of a row; a deleted row has its person only. Never raises for a row that
    passed `check`.
    """
    person = known.persons[row["person_id"]]
    at = instant(row["obs_datetime"], known.zone)
    created = instant(row["date_created"], known.zone)
    if deleted:
        return Observation(
            known.hospital,
            version,
            row,
            True,
            person,
            None,
            NOTHING,
            NOBODY,
            None,
            None,
            at,
            created,
            origin,
        )
    concept = known.concepts.get(row["concept_id"])
    facts = known.encounters.get(row["encounter_id"])
    return Observation(
        known.hospital,
        version,
        row,
        False,
        person,
        concept,
        value(row, concept, known),
        author(row, facts, known),
        place(row, facts, known),
        facts.encounter if facts else None,
        at,
        created,
        origin,
    )


def value(row: Row, question: Concept | None, known: Known) -> Value:
    """The first value column that is not null, as a person reads it."""
    number = row["value_numeric"]
    if number is not None and row["value_drug"] is None and row["value_coded"] is None:
        return _numeric(float(number), row["value_modifier"])
    for make in _VALUES:
        found = make(row, question, known)
        if found is not None:
            return found
    return NOTHING


def _numeric(number: float, modifier: str | None) -> Value:
    return Value(
        "numeric",
        f"{modifier or ''}{number_text(number)}",
        number=number,
        modifier=modifier or None,
    )


def number_text(number: float) -> str:
    """``37.0`` -> ``37``, ``36.6`` -> ``36.6``."""
    return repr(number).removesuffix(".0")


def _drug(row: Row, _: Concept | None, known: Known) -> Value | None:
    name = known.drugs.get(row["value_drug"]) if row["value_drug"] is not None else None
    return Value("drug", name, concept=known.concepts.get(row["value_coded"])) if name else None


def _coded(row: Row, question: Concept | None, known: Known) -> Value | None:
    if row["value_coded"] is None:
        return None
    answer = known.concepts.get(row["value_coded"])
    text = known.coded_names.get(row["value_coded_name_id"]) or (
        answer.name if answer else f"Concept {row['value_coded']}"
    )
    kind: ValueKind = (
        "boolean" if question is not None and question.datatype == "Boolean" else "coded"
    )
    return Value(kind, text, concept=answer)


def _number(row: Row, *_: object) -> Value | None:
    number = row["value_numeric"]
    return None if number is None else _numeric(float(number), row["value_modifier"])


def _datetime(row: Row, question: Concept | None, known: Known) -> Value | None:
    written = row["value_datetime"]
    if written is None:
        return None
    at = instant(written, known.zone)
    datatype = question.datatype if question else ""
    if datatype == "Date":
        return Value("date", written[:10], at=at)
    if datatype == "Time":
        return Value("time", written[11:], at=at)
    return Value("datetime", written.replace("T", " "), at=at)


def _boolean(row: Row, *_: object) -> Value | None:
    stated = row.get("value_boolean")
    return None if stated is None else Value("boolean", "Yes" if stated else "No")


def _complex(row: Row, *_: object) -> Value | None:
    pointer = row.get("value_complex")
    return None if pointer is None else Value("complex", pointer.partition("|")[0])


def _text(row: Row, *_: object) -> Value | None:
    return None if row["value_text"] is None else Value("text", row["value_text"])


_VALUES: tuple[Callable[[Row, Concept | None, Known], Value | None], ...] = (
    _drug,
    _coded,
    _number,
    _datetime,
    _boolean,
    _complex,
    _text,
)


def place(row: Row, facts: EncounterFacts | None, known: Known) -> Place | None:
    """Where: the obs' own location, else the encounter's, else the visit's."""
    found = known.places.get(row["location_id"])
    if found is None and facts is not None:
        found = known.places.get(facts.location_id) or known.places.get(facts.visit_location_id)  # type: ignore[arg-type]
    return found


def author(row: Row, facts: EncounterFacts | None, known: Known) -> Author:
    """Who stated it: the first candidate with a name."""
    key = (row["encounter_id"], row["order_id"], row["creator"])
    found = known.authors.get(key)
    if found is None:
        found = known.authors[key] = next(_candidates(row, facts, known), NOBODY)
    return found


def _candidates(row: Row, facts: EncounterFacts | None, known: Known) -> Iterator[Author]:
    for provider_id in facts.providers if facts else ():
        uuid, name = _provider(provider_id, known)
        if name:
            yield Author(name, "encounter_provider", uuid)
    orderer = known.orderers.get(row["order_id"])
    if orderer is not None:
        uuid, name = _provider(orderer, known)
        if name:
            yield Author(name, "orderer", uuid)
    user = known.users.get(row["creator"])
    staff = known.staff.get(user.person_id) if user and user.person_id is not None else None
    if user and staff and staff.name:
        yield Author(staff.name, "creator", staff.provider_uuid or f"user/{user.uuid}")


def _provider(provider_id: int, known: Known) -> tuple[str | None, str | None]:
    provider = known.providers.get(provider_id)
    if provider is None:
        return None, None
    staff = known.staff.get(provider.person_id) if provider.person_id is not None else None
    return provider.uuid, (staff.name if staff else None) or provider.name
