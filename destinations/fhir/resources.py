"""One Observation makes one FHIR R4 resource, as a dict. Pure: no I/O, no clock.

What can't be said without a guess is left out: no UCUM code (OpenMRS has the unit's text), no
category, no verification or clinical status. A Condition says that the patient has it, so a
question must be known to ask for that: `meaning` decides it, as for the Passport.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from msgspec import structs

from meaning.facts import Row, Subject, codes
from meaning.reading import read
from meaning.rules import MappingRules
from passport.facts import Concept, Observation, Value

Resource = dict[str, Any]
Type = Literal["Observation", "Condition", "MedicationStatement"]

TYPES: tuple[Type, ...] = ("Observation", "Condition", "MedicationStatement")
ROW = "urn:openmrs-passport:row"  # extension: version and person_id of the row
BUCKET = 1_000  # obs_ids a tag: rows of a range are found by it
# A FHIR id takes 64 characters. The longest is that of a server's journal, which begins with
# "openmrs-passport."; then there are 16 digits for an obs_id, of which OpenMRS needs 10.
ID_CHARACTERS = re.compile(r"[A-Za-z0-9\-.]{1,47}")
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_REASONS = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_MEANINGS = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_RANGE_MEANINGS = "http://terminology.hl7.org/CodeSystem/referencerange-meaning"
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
_COMPARATORS = (None, "<", "<=", ">=", ">")


@dataclass(frozen=True)
class Naming:
    """The names that a destination gives, and the rules by which it knows what an obs is.

    `prefix` stands before a hospital's id. `national_id` is the system of national ids.
    """

    prefix: str
    national_id: str
    rules: MappingRules


class Held(NamedTuple):
    """A row as a destination has it under one type. If not `live`, it is entered in error."""

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
    return _without_empty(frame | content)


def withdrawn(hospital: str, row: Held) -> Resource:
    """Return a row's resource as entered in error: who and what it was about is gone.

    `hospital` is its id with the prefix.
    """
    frame = _frame(row.type, hospital, row.obs_id, row.uuid, row.person_id, row.version)
    # FHIR requires these elements. An extension says that they are kept back.
    masked = {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}
    if row.type == "Observation":
        content = {"status": "entered-in-error", "code": masked}
    elif row.type == "Condition":
        content = {
            "verificationStatus": _code(_VERIFICATION, "entered-in-error"),
            "subject": masked,
        }
    else:
        content = {
            "status": "entered-in-error",
            "medicationCodeableConcept": masked,
            "subject": masked,
        }
    return frame | content


def held_row(resource: Resource) -> Held:
    """Return what a resource that this project made says of its row.

    Raises KeyError, StopIteration or ValueError for a resource of anybody else.
    """
    row = next(extension for extension in resource["extension"] if extension["url"] == ROW)
    content = {extension["url"]: extension for extension in row["extension"]}
    # A Condition is entered in error by its verification status, the others by their status.
    verification = resource.get("verificationStatus", {}).get("coding", ())
    statuses = [resource.get("status"), *(coding["code"] for coding in verification)]
    return Held(
        type=resource["resourceType"],
        obs_id=int(resource["id"].rpartition("-")[2]),
        uuid=resource["identifier"][0]["value"],
        person_id=content["person"]["valueInteger"],
        version=content["version"]["valueString"],
        live="entered-in-error" not in statuses,
    )


def identity(hospital: str, obs_id: int) -> str:
    """Return the id of a row's resource, which is the same under every type."""
    return f"{hospital}-{obs_id}"


def system(hospital: str, kind: str) -> str:
    """Return a hospital's own system of identifiers, as ``urn:openmrs:kigali:obs``."""
    return f"urn:openmrs:{quote(hospital, safe='')}:{kind}"


def type_of(observation: Observation, naming: Naming) -> Type:
    """Decide by the rules of the Passport. What isn't sure is an Observation.

    An obs comes here without its group. So a suspicion, what is over and what a question states by
    its name stay what was asked and answered, which is always true.
    """
    subject = _asked(observation, naming.rules)
    if subject is None:
        return "Observation"
    facts = read([Row(observation.obs_id, subject)], naming.rules)
    for fact in facts:
        if fact.state == "present" and not fact.is_question:
            if fact.kind == "condition":
                return "Condition"
            if fact.kind == "medication":
                return "MedicationStatement"
    return "Observation"


def _asked(observation: Observation, rules: MappingRules) -> Subject | None:
    """Return what the rules look at; None for a question that isn't known."""
    question = observation.concept
    value = observation.value
    if question is None:
        return None
    answer = value.concept
    return Subject(
        name=question.name,
        concept_class=question.concept_class,
        datatype=question.datatype,
        mappings=codes(question.uuid, question.mappings),
        value=value.kind,
        value_class=answer.concept_class if answer is not None else None,
        value_mappings=codes(answer.uuid, answer.mappings) if answer is not None else (),
        said=rules.said(value.kind, value.text),
    )


def _codes(concept: Concept) -> Iterator[str]:
    """Yield a concept's mappings, and the CIEL code that a uuid of that dictionary has."""
    for code in codes(concept.uuid, concept.mappings):
        if not code.startswith("uuid:"):
            yield code


def _frame(
    type_: Type, hospital: str, obs_id: int, uuid: str, person_id: int, version: str
) -> Resource:
    """Return what every resource has: by which it is found again, and what it says of its row."""
    tags = [
        {"system": system(hospital, "bucket"), "code": str(obs_id // BUCKET)},
        {"system": system(hospital, "person-id"), "code": str(person_id)},
    ]
    row = [
        {"url": "version", "valueString": version},
        {"url": "person", "valueInteger": person_id},
    ]
    return {
        "resourceType": type_,
        "id": identity(hospital, obs_id),
        "meta": {"tag": tags},
        "extension": [{"url": ROW, "extension": row}],
        "identifier": [{"system": system(hospital, "obs"), "value": uuid}],
    }


def _observation(observation: Observation, naming: Naming) -> Resource:
    row = observation.row
    author = _author(observation)
    question = _concept(
        observation.hospital, observation.concept, f"Concept {row.get('concept_id')}"
    )
    return {
        "status": _STATUSES.get(row.get("status") or "", "final"),
        "code": question,
        "subject": _subject(observation, naming),
        "encounter": _encounter(observation),
        "effectiveDateTime": _when(observation),
        "issued": _instant(observation.created),
        "performer": [author] if author else None,
        **_value(observation),
        "interpretation": _interpretation(observation.value),
        "referenceRange": _usual_range(observation),
        "note": _note(observation),
    }


def _condition(observation: Observation, naming: Naming) -> Resource:
    in_encounter = observation.encounter is not None
    return {
        "category": [_code(_CATEGORY, "encounter-diagnosis")] if in_encounter else None,
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
            truth = _truth(value)
            if truth is None:
                return {"valueCodeableConcept": _answer(observation)}
            return {"valueBoolean": truth}
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
    """Return ``valueQuantity``, or ``valueString`` for what FHIR has no quantity for."""
    number = observation.value.number
    modifier = observation.value.modifier
    units = observation.concept.units if observation.concept else None
    if number is None or not math.isfinite(number) or modifier not in _COMPARATORS:
        return {"valueString": f"{observation.value.text} {units or ''}".strip()}
    quantity = {"value": _json_number(number), "comparator": modifier, "unit": units}
    return {"valueQuantity": _without_empty(quantity)}


def _interpretation(value: Value) -> list[Resource] | None:
    """Return what the value means; the text says so if it isn't the hospital's own word."""
    if value.interpretation is None or value.interpretation.code not in _INTERPRETATIONS:
        return None
    interpretation = _code(_MEANINGS, _INTERPRETATIONS[value.interpretation.code])
    if value.interpretation.source == "range":
        interpretation["text"] = "computed from the reference range"
    return [interpretation]


def _usual_range(observation: Observation) -> list[Resource] | None:
    """Return the range in which the number is usual, None if there is none."""
    bounds = observation.value.reference_range
    if bounds is None or (bounds.low_normal is None and bounds.high_normal is None):
        return None
    units = observation.concept.units if observation.concept else None
    usual: Resource = {"type": _code(_RANGE_MEANINGS, "normal")}
    for end, bound in (("low", bounds.low_normal), ("high", bounds.high_normal)):
        if bound is not None:
            usual[end] = _without_empty({"value": _json_number(bound), "unit": units})
    return [usual]


def _json_number(number: float) -> float:
    """Return a number as it was written: JSON would say 72.0 of 72."""
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _truth(value: Value) -> bool | None:
    """Return what a boolean value says; None if its answer is a concept other than yes and no."""
    if value.concept is None:
        return {"Yes": True, "No": False}.get(value.text)
    for code in _codes(value.concept):
        if code in _TRUTH:
            return _TRUTH[code]
    return None


def _answer(observation: Observation) -> Resource:
    """Return the value as a concept, with the text that was chosen at the time."""
    value = observation.value
    concept = _concept(observation.hospital, value.concept, value.text)
    return concept | {"text": value.text}


def _concept(hospital: str, concept: Concept | None, text: str) -> Resource:
    """Return the hospital's own coding, then those mappings whose source has a known system."""
    if concept is None:
        return {"text": text}
    codings = [
        {"system": system(hospital, "concept"), "code": concept.uuid, "display": concept.name}
    ]
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
        identifier = {"system": naming.national_id, "value": person.national_id}
    else:
        identifier = {
            "system": system(observation.hospital, "person"),
            "value": person.uuid or str(person.person_id),
        }
    return {"type": "Patient", "identifier": identifier}


def _encounter(observation: Observation) -> Resource | None:
    if observation.encounter is None:
        return None
    encounter = observation.encounter
    identifier = {"system": system(observation.hospital, "encounter"), "value": encounter.uuid}
    return _without_empty(
        {"type": "Encounter", "identifier": identifier, "display": encounter.type}
    )


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
    """Return the day of a wall time, None for 0000-00-00 and its like, which old imports have."""
    try:
        return date.fromisoformat(written[:10]).isoformat()
    except ValueError:
        return None


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _without_empty(resource: Resource) -> Resource:
    """Leave out elements without content, which FHIR doesn't allow."""
    return {name: value for name, value in resource.items() if value not in (None, "", [])}
