"""What is filled in at an encounter: trees of observations, before a database gives them ids.

It is pure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from dev.hospital.dictionary import CONCEPTS, DRUGS, Dictionary

NORMAL = {concept.key: concept.normal for concept in CONCEPTS}
DIAGNOSES = ("116128", "117399", "119481", "114100", "117889", "121375", "111633", "121629")
UNCODED_DIAGNOSES = ("Snake bite, left foot", "Douleur chronique du dos")
DOSES = ("1 tablet", "2 tablets", "1 capsule", "5 ml", "½ tablet after meals")
COMPLAINTS = (
    "Fever for three days",
    "Toux et fièvre",
    "Headache",
    "Abdominal pain",
    "Follow-up, feels better",
)
NOTES = (
    "Improving; continue treatment.",
    "À revoir dans deux semaines.",
    "Referred to the specialist.",
    "Stable.",
)
REMARKS = ("Family asked for a visit.", "Bed moved to the window.", "Brought own blanket.")


@dataclass(frozen=True, slots=True)
class Draft:
    """One observation to be.

    `values` has columns of obs, or `coded` (the key of a concept), `drug` (a word of DRUGS) or
    `truth` (a bool), for which only a database has the ids.
    """

    concept: str
    values: Mapping[str, Any] = field(default_factory=dict)
    members: tuple["Draft", ...] = ()


Form = Callable[[Random, datetime], Iterator[Draft]]


def _measurement(rng: Random, key: str) -> Draft:
    low, high = NORMAL[key] or (20.0, 95.0)
    value = round(rng.uniform(low - (high - low) / 5, high + (high - low) / 4), 1)
    if key == "5092":  # oxygen saturation, in percent
        value = min(value, 100.0)
    return Draft(key, {"value_numeric": value})


def _laboratory_result(rng: Random, key: str) -> Draft:
    low, high = NORMAL[key] or (0.0, 0.0)
    number: float = _measurement(rng, key).values["value_numeric"]
    values: dict[str, Any] = {
        "value_numeric": number,
        "accession_number": f"LAB-{rng.randrange(10**6):06d}",
    }
    if rng.random() < 0.6:
        values["interpretation"] = "NORMAL"
        if number < low:
            values["interpretation"] = "LOW"
        if number > high:
            values["interpretation"] = "HIGH"
    if number > high * 1.04 and rng.random() < 0.5:
        values["interpretation"] = "CRITICALLY_HIGH"
    if rng.random() < 0.05:
        values["value_modifier"] = rng.choice("<>")
    if rng.random() < 0.05:
        values["status"] = "PRELIMINARY"
    if rng.random() < 0.05:
        values["comments"] = "Haemolysed sample"
    return Draft(key, values)


def vitals(rng: Random, when: datetime) -> Iterator[Draft]:
    for key in ("5085", "5086", "5087", "5088", "5089", "5090", "5092"):
        if rng.random() < 0.95:
            yield _measurement(rng, key)


def laboratory(rng: Random, when: datetime) -> Iterator[Draft]:
    if rng.random() < 0.8:
        members = tuple(_laboratory_result(rng, key) for key in ("21", "678", "729"))
        yield Draft("1019", members=members)
    if rng.random() < 0.5:
        yield Draft("32", {"coded": rng.choice(("703", "664", "664"))})
        yield Draft("collected", {"value_datetime": when - timedelta(minutes=rng.randint(20, 90))})


def diagnosis(rng: Random, order: str) -> Draft:
    """Return a diagnosis whose place among the visit's is `order` (the key of a concept)."""
    if rng.random() < 0.15:
        name = Draft("161602", {"value_text": rng.choice(UNCODED_DIAGNOSES)})
    else:
        name = Draft("1284", {"coded": rng.choice(DIAGNOSES)})
    certainty = Draft("159394", {"coded": rng.choice(("159392", "159393"))})
    return Draft("159947", members=(name, certainty, Draft("159946", {"coded": order})))


def prescription(rng: Random, when: datetime) -> Draft:
    """Return a prescription; one of five names the drug's concept but no formulation."""
    word = rng.choice(list(DRUGS))
    concept, _, _ = DRUGS[word]
    drug = {"coded": concept}
    if rng.random() < 0.8:
        drug["drug"] = word
    members = [
        Draft("1282", drug),
        Draft("160856", {"value_text": rng.choice(DOSES)}),
        Draft("160855", {"coded": rng.choice(("160862", "160858", "160866"))}),
        Draft("159368", {"value_numeric": float(rng.choice((3, 5, 7, 14, 30)))}),
    ]
    if rng.random() < 0.7:
        start = (when + timedelta(days=rng.randint(0, 2))).replace(hour=0, minute=0, second=0)
        members.append(Draft("1190", {"value_datetime": start}))
    return Draft("1442", members=tuple(members))


def visit_note(rng: Random, when: datetime) -> Iterator[Draft]:
    yield Draft("160288", {"coded": rng.choice(("1246", "unscheduled"))})
    yield Draft("160531", {"value_text": rng.choice(COMPLAINTS)})
    yield diagnosis(rng, "159943")
    if rng.random() < 0.3:
        yield diagnosis(rng, "159944")
    yield Draft("162169", {"value_text": rng.choice(NOTES)})


def consultation(rng: Random, when: datetime) -> Iterator[Draft]:
    yield prescription(rng, when)
    if rng.random() < 0.4:
        yield prescription(rng, when)
    if rng.random() < 0.5:
        yield Draft("832", {"truth": rng.random() < 0.3})
    if rng.random() < 0.5:
        again = (when + timedelta(days=14)).replace(hour=0, minute=0, second=0)
        yield Draft("5096", {"value_datetime": again})
    if rng.random() < 0.1:
        yield Draft("attachment", {"value_complex": f"wound.jpg |wound_{rng.randrange(10**6)}.jpg"})
    if rng.random() < 0.1:
        yield Draft("ward-remark", {"value_text": rng.choice(REMARKS)})


# What is filled in at an encounter, by the name of its type.
FORMS: Mapping[str, Form] = {
    "Vitals": vitals,
    "Visit Note": visit_note,
    "Laboratory": laboratory,
    "Consultation": consultation,
}


@dataclass(frozen=True, slots=True)
class Filled:
    """A draft with the ids of one database. `columns` are those of obs."""

    columns: dict[str, Any]
    members: tuple["Filled", ...] = ()


def fill(draft: Draft, dictionary: Dictionary, rng: Random) -> Filled | None:
    """Return the draft with this database's ids.

    None: the database has no such concept, or none of a group's members.
    """
    members = []
    for member in draft.members:
        filled = fill(member, dictionary, rng)
        if filled:
            members.append(filled)
    concept = dictionary.concepts.get(draft.concept)
    columns = _columns(draft.values, dictionary, rng)
    if concept is None or columns is None:
        return None
    if draft.members and not members:
        return None
    return Filled({"concept_id": concept, **columns}, tuple(members))


def _columns(
    values: Mapping[str, Any], dictionary: Dictionary, rng: Random
) -> dict[str, Any] | None:
    """Return the columns of obs, None if this database lacks the answer's concept."""
    columns = dict(values)
    for name in ("coded", "drug", "truth"):
        columns.pop(name, None)
    if "truth" in values:
        # Since OpenMRS 2.0 a boolean is one of two concepts.
        columns["value_coded"] = dictionary.true if values["truth"] else dictionary.false
        return columns if columns["value_coded"] else None
    if "coded" in values:
        answer = dictionary.concepts.get(values["coded"])
        if answer is None:
            return None
        columns["value_coded"] = answer
        names = dictionary.names.get(answer, ())
        columns["value_coded_name_id"] = None
        if names and rng.random() < 0.7:
            columns["value_coded_name_id"] = rng.choice(names)
    if "drug" in values:
        columns["value_drug"] = dictionary.drugs.get(values["drug"])
    return columns
