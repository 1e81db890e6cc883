"""One Observation makes one FHIR R4 resource, as a dict. Pure: no I/O, no clock.

What can't be said without a guess is left out: no UCUM code (OpenMRS has the unit's text), no
category, no verification or clinical status. A Condition says that the patient has it, so a
question must be known to ask for that.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from msgspec import structs

from passport.facts import Concept, Observation, Value

Resource = dict[str, Any]
Type = Literal["Observation", "Condition", "MedicationStatement"]

TYPES: tuple[Type, ...] = ("Observation", "Condition", "MedicationStatement")
ROW = "urn:openmrs-passport:row"  # extension: version and person_id of the row
BUCKET = 1_000  # obs_ids a tag: rows of a range are found by it
ID_CHARACTERS = re.compile(r"[A-Za-z0-9\-.]{1,40}")
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_REASONS = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_MEANINGS = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"

CODE_SYSTEMS: Mapping[str, str] = {
    "ciel": "https://cielterminology.org",
    "loinc": "http://loinc.org",
    "snomed ct": "http://snomed.info/sct",
    "snomed-ct": "http://snomed.info/sct",
    "icd-10-who": "http://hl7.org/fhir/sid/icd-10",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
_INTERPRETATIONS: Mapping[str, str] = {
    "NORMAL": "N",
    "ABNORMAL": "A",
    "CRITICALLY_ABNORMAL": "AA",
    "NEGATIVE": "NEG",
    "POSITIVE": "POS",
    "CRITICALLY_LOW": "LL",
    "LOW": "L",
    "HIGH": "H",
    "CRITICALLY_HIGH": "HH",
    "VERY_SUSCEPTIBLE": "VS",
    "SUSCEPTIBLE": "S",
    "INTERMEDIATE": "I",
    "RESISTANT": "R",
    "SIGNIFICANT_CHANGE_DOWN": "D",
    "SIGNIFICANT_CHANGE_UP": "U",
    "OFF_SCALE_LOW": "<",
    "OFF_SCALE_HIGH": ">",
}
_STATUSES: Mapping[str, str] = {
    "FINAL": "final",
    "PRELIMINARY": "preliminary",
    "AMENDED": "amended",
}
_TRUTH: Mapping[str, bool] = {"CIEL:1065": True, "CIEL:1066": False}
_DIAGNOSES = frozenset({"Diagnosis", "Symptom", "Symptom/Finding"})


@dataclass(frozen=True)
class Naming:
    """`prefix`: before a hospital's id; `national_id`: its system; what `conditions`, `medications`
    are asked by.
    """

    prefix: str
    national_id: str
    conditions: frozenset[str]
    medications: frozenset[str]


class Held(NamedTuple):
    """What a destination has of a row under one type; not `live`: it is marked as entered in error."""

    type: Type
    obs_id: int
    uuid: str
    person_id: int
    version: str
    live: bool


def resource(one: Observation, naming: Naming) -> Resource:
    """The resource of a live observation."""
    one = structs.replace(one, hospital=naming.prefix + one.hospital)
    type_ = type_of(one, naming)
    person_id = one.person.person_id
    made = _frame(type_, one.hospital, one.obs_id, one.uuid, person_id, one.version)
    return _filled(made | _MAKE[type_](one, naming))


def withdrawn(hospital: str, held: Held) -> Resource:
    """The same resource as entered in error, of a `hospital` with its prefix: who and what it was
    about is gone.
    """
    made = _frame(held.type, hospital, held.obs_id, held.uuid, held.person_id, held.version)
    nothing = {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}
    if held.type == "Observation":
        return made | {"status": "entered-in-error", "code": nothing}
    if held.type == "Condition":
        return made | {
            "verificationStatus": _code(_VERIFICATION, "entered-in-error"),
            "subject": nothing,
        }
    return made | {
        "status": "entered-in-error",
        "medicationCodeableConcept": nothing,
        "subject": nothing,
    }


def held(found: Resource) -> Held:
    """What a resource that this project made says of its row. KeyError, StopIteration, ValueError
    for any other.
    """
    row = next(one for one in found["extension"] if one["url"] == ROW)
    said = {one["url"]: one for one in row["extension"]}
    codes = [one["code"] for one in found.get("verificationStatus", {}).get("coding", ())]
    error = "entered-in-error" in (found.get("status"), *codes)
    uuid, obs_id = found["identifier"][0]["value"], int(found["id"].rpartition("-")[2])
    person_id, version = said["person"]["valueInteger"], said["version"]["valueString"]
    return Held(found["resourceType"], obs_id, uuid, person_id, version, not error)


def identity(hospital: str, obs_id: int) -> str:
    """The id of a row's resource, under whatever type."""
    return f"{hospital}-{obs_id}"


def system(hospital: str, what: str) -> str:
    """``urn:openmrs:kigali:obs``."""
    return f"urn:openmrs:{quote(hospital, safe='')}:{what}"


def type_of(one: Observation, naming: Naming) -> Type:
    """By the question and the class of its answer; what isn't sure stays an Observation."""
    if _asks(one.concept, naming.medications, "Drug") and _is_drug(one.value):
        return "MedicationStatement"
    if _asks(one.concept, naming.conditions, "Diagnosis") and _is_diagnosis(one, naming):
        return "Condition"
    return "Observation"


def _asks(concept: Concept | None, codes: frozenset[str], class_: str) -> bool:
    return concept is not None and (
        concept.concept_class == class_ or not codes.isdisjoint(_codes(concept))
    )


def _is_drug(value: Value) -> bool:
    return value.kind == "drug" or (
        value.concept is not None and value.concept.concept_class == "Drug"
    )


def _is_diagnosis(one: Observation, naming: Naming) -> bool:
    value = one.value
    if value.kind == "text":  # a diagnosis in words: only where the question asks for just that
        return one.concept is not None and not naming.conditions.isdisjoint(_codes(one.concept))
    return (
        value.kind == "coded"
        and value.concept is not None
        and value.concept.concept_class in _DIAGNOSES
    )


def _codes(concept: Concept) -> Iterator[str]:
    """Its mappings, and the CIEL code in a uuid of that dictionary."""
    yield from concept.mappings
    if len(concept.uuid) == 36 and (found := re.fullmatch(r"(\d+)A+", concept.uuid)):
        yield f"CIEL:{found[1]}"


def _frame(
    type_: Type, hospital: str, obs_id: int, uuid: str, person_id: int, version: str
) -> Resource:
    said = [
        {"url": "version", "valueString": version},
        {"url": "person", "valueInteger": person_id},
    ]
    found_by = {"bucket": str(obs_id // BUCKET), "person-id": str(person_id)}
    return {
        "resourceType": type_,
        "id": identity(hospital, obs_id),
        "meta": {
            "tag": [
                {"system": system(hospital, what), "code": code} for what, code in found_by.items()
            ]
        },
        "extension": [{"url": ROW, "extension": said}],
        "identifier": [{"system": system(hospital, "obs"), "value": uuid}],
    }


def _observation(one: Observation, naming: Naming) -> Resource:
    row = one.row
    meaning = _INTERPRETATIONS.get(row.get("interpretation") or "")
    return {
        "status": _STATUSES.get(row.get("status") or "", "final"),
        "code": _concept(one.hospital, one.concept, f"Concept {row.get('concept_id')}"),
        "subject": _subject(one, naming),
        "encounter": _encounter(one),
        "effectiveDateTime": _when(one),
        "issued": _instant(one.created),
        "performer": [author] if (author := _author(one)) else None,
        **_value(one),
        "interpretation": [_code(_MEANINGS, meaning)] if meaning else None,
        "note": _note(one),
    }


def _condition(one: Observation, naming: Naming) -> Resource:
    return {
        "category": [_code(_CATEGORY, "encounter-diagnosis")] if one.encounter else None,
        "code": _answer(one),
        "subject": _subject(one, naming),
        "encounter": _encounter(one),
        "recordedDate": _when(one),
        "asserter": _author(one),
        "note": _note(one),
    }


def _medication(one: Observation, naming: Naming) -> Resource:
    return {
        "status": "unknown",  # whether it is still taken, OpenMRS doesn't say in an obs
        "medicationCodeableConcept": _answer(one),
        "subject": _subject(one, naming),
        "context": _encounter(one),
        "dateAsserted": _when(one),
        "informationSource": _author(one),
        "note": _note(one),
    }


_MAKE: Mapping[Type, Callable[[Observation, Naming], Resource]] = {
    "Observation": _observation,
    "Condition": _condition,
    "MedicationStatement": _medication,
}


def _value(one: Observation) -> Resource:
    """``value[x]``, or why there is none; a header of a group has neither."""
    value = one.value
    if value.kind == "none" or not value.text.strip():
        return {}
    match value.kind:
        case "numeric":
            return _quantity(one)
        case "coded" | "drug":
            return {"valueCodeableConcept": _answer(one)}
        case "boolean":
            stated = _truth(value)
            return (
                {"valueCodeableConcept": _answer(one)}
                if stated is None
                else {"valueBoolean": stated}
            )
        case "date" if _day(value.text):
            return {"valueDateTime": value.text}
        case "time":
            return {"valueTime": value.text}
        case "datetime" if value.at is not None:
            return {"valueDateTime": _instant(value.at)}
        case "complex":
            return {"dataAbsentReason": _code(_REASONS, "unsupported")}
    return {"valueString": value.text}


def _quantity(one: Observation) -> Resource:
    number, modifier = one.value.number, one.value.modifier
    units = one.concept.units if one.concept else None
    known = (
        number is not None and math.isfinite(number) and modifier in (None, "<", "<=", ">=", ">")
    )
    if number is None or not known:
        return {"valueString": f"{one.value.text} {units or ''}".strip()}
    written = int(number) if number.is_integer() and abs(number) < 1e15 else number
    return {"valueQuantity": _filled({"value": written, "comparator": modifier, "unit": units})}


def _truth(value: Value) -> bool | None:
    if value.concept is None:
        return {"Yes": True, "No": False}.get(value.text)
    return next((_TRUTH[code] for code in _codes(value.concept) if code in _TRUTH), None)


def _answer(one: Observation) -> Resource:
    made = _concept(one.hospital, one.value.concept, one.value.text)
    return made | {"text": one.value.text}


def _concept(hospital: str, concept: Concept | None, text: str) -> Resource:
    """Codings: the hospital's own, then its mappings in sources whose FHIR system is known."""
    if concept is None:
        return {"text": text}
    own = {"system": system(hospital, "concept"), "code": concept.uuid, "display": concept.name}
    codings = [own, *map(_coding, _known(concept))]
    return {
        "coding": [one for n, one in enumerate(codings) if one not in codings[:n]],
        "text": concept.name or text,
    }


def _known(concept: Concept) -> Iterator[tuple[str, str]]:
    for code in _codes(concept):
        source, _, rest = code.partition(":")
        if (url := CODE_SYSTEMS.get(source.casefold())) and re.fullmatch(r"\S+( \S+)*", rest):
            yield url, rest


def _coding(known: tuple[str, str]) -> Resource:
    return {"system": known[0], "code": known[1]}


def _code(url: str, code: str) -> Resource:
    return {"coding": [{"system": url, "code": code}]}


def _subject(one: Observation, naming: Naming) -> Resource:
    """By identifier, for the patients themselves are not ours: the national id, else the hospital's
    own uuid.
    """
    person = one.person
    if person.state == "ok" and person.national_id:
        return {
            "type": "Patient",
            "identifier": {"system": naming.national_id, "value": person.national_id},
        }
    own = {"system": system(one.hospital, "person"), "value": person.uuid or str(person.person_id)}
    return {"type": "Patient", "identifier": own}


def _encounter(one: Observation) -> Resource | None:
    if one.encounter is None:
        return None
    own = {"system": system(one.hospital, "encounter"), "value": one.encounter.uuid}
    return _filled({"type": "Encounter", "identifier": own, "display": one.encounter.type})


def _author(one: Observation) -> Resource | None:
    return {"display": one.author.name} if one.author.source != "none" and one.author.name else None


def _note(one: Observation) -> list[Resource] | None:
    words = (one.row.get("comments") or "").strip()
    return [{"text": words}] if words else None


def _when(one: Observation) -> str | None:
    """The instant; the day alone of a time that there is not; nothing when there is no such day
    either.
    """
    return _instant(one.at) or _day(str(one.row["obs_datetime"]))


def _day(written: str) -> str | None:
    """OpenMRS' old imports have days like 0000-00-00, which FHIR does not take."""
    try:
        return date.fromisoformat(written[:10]).isoformat()
    except ValueError:
        return None


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _filled(made: Resource) -> Resource:
    return {name: value for name, value in made.items() if value not in (None, "", [])}
