"""One Observation makes one FHIR R4 resource, as a dict. Pure: no I/O, no clock.

What can't be said without a guess is left out: no UCUM code (OpenMRS has the unit's text), no
category, no verification or clinical status. A Condition says that the patient has it, so a
question must be known to ask for that.
"""

import math
import re
from collections.abc import Iterator, Mapping
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
    """How a destination names things, and what it takes for a condition or a medication.

    `prefix` stands before a hospital's id. `national_id` is the system of national ids. `conditions`
    and `medications` are the codes of the questions that ask for one.
    """

    prefix: str
    national_id: str
    conditions: frozenset[str]
    medications: frozenset[str]


class Held(NamedTuple):
    """What a destination has of a row under one type. If not `live`, it is entered in error."""

    type: Type
    obs_id: int
    uuid: str
    person_id: int
    version: str
    live: bool


def resource(observation: Observation, naming: Naming) -> Resource:
    """Return the resource of a live observation."""
    observation = structs.replace(observation, hospital=naming.prefix + observation.hospital)
    type_ = type_of(observation, naming)
    frame = _frame(
        type_,
        observation.hospital,
        observation.obs_id,
        observation.uuid,
        observation.person.person_id,
        observation.version,
    )
    if type_ == "Condition":
        content = _condition(observation, naming)
    elif type_ == "MedicationStatement":
        content = _medication(observation, naming)
    else:
        content = _observation(observation, naming)
    return _filled(frame | content)


def withdrawn(hospital: str, held: Held) -> Resource:
    """Return a resource as entered in error: who and what it was about is gone.

    `hospital` is its id with the prefix.
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
    """Return what a resource that this project made says of its row.

    Raises KeyError, StopIteration or ValueError for a resource of anybody else.
    """
    row = next(extension for extension in found["extension"] if extension["url"] == ROW)
    content = {extension["url"]: extension for extension in row["extension"]}
    # A Condition is entered in error by its verification status, the others by their status.
    verification = found.get("verificationStatus", {}).get("coding", ())
    statuses = [found.get("status"), *(coding["code"] for coding in verification)]
    return Held(
        type=found["resourceType"],
        obs_id=int(found["id"].rpartition("-")[2]),
        uuid=found["identifier"][0]["value"],
        person_id=content["person"]["valueInteger"],
        version=content["version"]["valueString"],
        live="entered-in-error" not in statuses,
    )


def identity(hospital: str, obs_id: int) -> str:
    """Return the id of a row's resource, which is the same under every type."""
    return f"{hospital}-{obs_id}"


def system(hospital: str, what: str) -> str:
    """Return a hospital's own system of identifiers, as ``urn:openmrs:kigali:obs``."""
    return f"urn:openmrs:{quote(hospital, safe='')}:{what}"


def type_of(observation: Observation, naming: Naming) -> Type:
    """Decide by the question and the class of its answer. What isn't sure is an Observation."""
    if _asks(observation.concept, naming.medications, "Drug") and _is_drug(observation.value):
        return "MedicationStatement"
    if _asks(observation.concept, naming.conditions, "Diagnosis") and _is_diagnosis(
        observation, naming
    ):
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


def _is_diagnosis(observation: Observation, naming: Naming) -> bool:
    value = observation.value
    # A diagnosis in words counts only where the question asks for just that.
    if value.kind == "text":
        return observation.concept is not None and not naming.conditions.isdisjoint(
            _codes(observation.concept)
        )
    return (
        value.kind == "coded"
        and value.concept is not None
        and value.concept.concept_class in _DIAGNOSES
    )


def _codes(concept: Concept) -> Iterator[str]:
    """Yield a concept's mappings, and the CIEL code that a uuid of that dictionary has."""
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


def _observation(observation: Observation, naming: Naming) -> Resource:
    row = observation.row
    meaning = _INTERPRETATIONS.get(row.get("interpretation") or "")
    return {
        "status": _STATUSES.get(row.get("status") or "", "final"),
        "code": _concept(
            observation.hospital, observation.concept, f"Concept {row.get('concept_id')}"
        ),
        "subject": _subject(observation, naming),
        "encounter": _encounter(observation),
        "effectiveDateTime": _when(observation),
        "issued": _instant(observation.created),
        "performer": [author] if (author := _author(observation)) else None,
        **_value(observation),
        "interpretation": [_code(_MEANINGS, meaning)] if meaning else None,
        "note": _note(observation),
    }


def _condition(observation: Observation, naming: Naming) -> Resource:
    return {
        "category": [_code(_CATEGORY, "encounter-diagnosis")] if observation.encounter else None,
        "code": _answer(observation),
        "subject": _subject(observation, naming),
        "encounter": _encounter(observation),
        "recordedDate": _when(observation),
        "asserter": _author(observation),
        "note": _note(observation),
    }


def _medication(observation: Observation, naming: Naming) -> Resource:
    return {
        "status": "unknown",  # whether it is still taken, OpenMRS doesn't say in an obs
        "medicationCodeableConcept": _answer(observation),
        "subject": _subject(observation, naming),
        "context": _encounter(observation),
        "dateAsserted": _when(observation),
        "informationSource": _author(observation),
        "note": _note(observation),
    }


def _value(observation: Observation) -> Resource:
    """Return ``value[x]``, or why there is none. The header of a group has neither."""
    value = observation.value
    if value.kind == "none" or not value.text.strip():
        return {}
    match value.kind:
        case "numeric":
            return _quantity(observation)
        case "coded" | "drug":
            return {"valueCodeableConcept": _answer(observation)}
        case "boolean":
            stated = _truth(value)
            return (
                {"valueCodeableConcept": _answer(observation)}
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


def _quantity(observation: Observation) -> Resource:
    number, modifier = observation.value.number, observation.value.modifier
    units = observation.concept.units if observation.concept else None
    # FHIR has no infinite quantity, and no other comparators.
    is_a_quantity = (
        number is not None and math.isfinite(number) and modifier in (None, "<", "<=", ">=", ">")
    )
    if number is None or not is_a_quantity:
        return {"valueString": f"{observation.value.text} {units or ''}".strip()}
    # JSON would say 72.0 of what was written as 72.
    value = int(number) if number.is_integer() and abs(number) < 1e15 else number
    return {"valueQuantity": _filled({"value": value, "comparator": modifier, "unit": units})}


def _truth(value: Value) -> bool | None:
    if value.concept is None:
        return {"Yes": True, "No": False}.get(value.text)
    return next((_TRUTH[code] for code in _codes(value.concept) if code in _TRUTH), None)


def _answer(observation: Observation) -> Resource:
    made = _concept(observation.hospital, observation.value.concept, observation.value.text)
    return made | {"text": observation.value.text}


def _concept(hospital: str, concept: Concept | None, text: str) -> Resource:
    """Return the hospital's own coding, then those mappings whose source has a known system."""
    if concept is None:
        return {"text": text}
    own = {"system": system(hospital, "concept"), "code": concept.uuid, "display": concept.name}
    codings = [own]
    for mapping in _codes(concept):
        source, _, code = mapping.partition(":")
        url = CODE_SYSTEMS.get(source.casefold())
        # FHIR's type `code`: no space at an end, and one at a time.
        if url is None or not re.fullmatch(r"\S+( \S+)*", code):
            continue
        coding = {"system": url, "code": code}
        if coding not in codings:
            codings.append(coding)
    return {"coding": codings, "text": concept.name or text}


def _code(url: str, code: str) -> Resource:
    return {"coding": [{"system": url, "code": code}]}


def _subject(observation: Observation, naming: Naming) -> Resource:
    """Name the patient by identifier: the national id, else the hospital's own uuid.

    The patients themselves are not ours to write.
    """
    person = observation.person
    if person.state == "ok" and person.national_id:
        return {
            "type": "Patient",
            "identifier": {"system": naming.national_id, "value": person.national_id},
        }
    own = {
        "system": system(observation.hospital, "person"),
        "value": person.uuid or str(person.person_id),
    }
    return {"type": "Patient", "identifier": own}


def _encounter(observation: Observation) -> Resource | None:
    if observation.encounter is None:
        return None
    own = {"system": system(observation.hospital, "encounter"), "value": observation.encounter.uuid}
    return _filled({"type": "Encounter", "identifier": own, "display": observation.encounter.type})


def _author(observation: Observation) -> Resource | None:
    if observation.author.source == "none" or not observation.author.name:
        return None
    return {"display": observation.author.name}


def _note(observation: Observation) -> list[Resource] | None:
    text = (observation.row.get("comments") or "").strip()
    return [{"text": text}] if text else None


def _when(observation: Observation) -> str | None:
    """Return the instant of an obs, or the day alone if its time doesn't exist, or None."""
    return _instant(observation.at) or _day(str(observation.row["obs_datetime"]))


def _day(written: str) -> str | None:
    """Return the day of a wall time. Old imports have days like 0000-00-00, which FHIR doesn't take."""
    try:
        return date.fromisoformat(written[:10]).isoformat()
    except ValueError:
        return None


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _filled(made: Resource) -> Resource:
    return {name: value for name, value in made.items() if value not in (None, "", [])}
