"""Each kind of value as FHIR R4 has it, valid by the models of fhir.resources (R4B); nothing is
guessed.
"""

from datetime import UTC, datetime
from typing import Any

import pytest
from fhir.resources.R4B.condition import Condition
from fhir.resources.R4B.medicationstatement import MedicationStatement
from fhir.resources.R4B.observation import Observation as FhirObservation
from msgspec import structs

from destinations.fhir.newest import FhirOptions, changes, gone, require_ids
from destinations.fhir.resources import (
    Held,
    Resource,
    held_row,
    identity,
    resource,
    withdrawn,
)
from passport.errors import Fatal
from passport.facts import Concept, Observation, Value
from passport.settings import Settings
from tests.observations import (
    CERTAINTY,
    CHIEF_COMPLAINT,
    DIAGNOSIS,
    DRUG_ORDER,
    MALARIA,
    NO_VALUE,
    NOBODY,
    PULSE,
    UNKNOWN,
    coded,
    concept,
    number,
    obs,
    person,
    text,
    version,
)
from tests.settings import build_settings, hospital_settings, kafka_settings

MODELS = {
    "Observation": FhirObservation,
    "Condition": Condition,
    "MedicationStatement": MedicationStatement,
}
PENICILLIN = concept(30, "Penicillin", "CIEL:81724", cls="Drug")
YES = concept(31, "Oui", "CIEL:1065")
AT = datetime(2025, 11, 6, 8, 30, tzinfo=UTC)
KEPT = FhirOptions()


def valid(made: Resource) -> Resource:
    MODELS[made["resourceType"]].model_validate(made)
    return made


def made(asked: Concept = PULSE, value: Value | None = None, **more: Any) -> Resource:
    return valid(resource(obs(5, 10, asked, value, **more), KEPT.naming))


def of(found: Resource) -> dict[str, Any]:
    """``value[x]``."""
    return {
        name: value for name, value in found.items() if name.startswith(("value", "dataAbsent"))
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (number(72), {"valueQuantity": {"value": 72, "unit": "beats/min"}}),
        (number(36.6), {"valueQuantity": {"value": 36.6, "unit": "beats/min"}}),
        (
            Value("numeric", "<5", number=5.0, modifier="<"),
            {"valueQuantity": {"value": 5, "comparator": "<", "unit": "beats/min"}},
        ),
        (Value("numeric", "~5", number=5.0, modifier="~"), {"valueString": "~5 beats/min"}),
        (Value("numeric", "inf", number=float("inf")), {"valueString": "inf beats/min"}),
        (text("well"), {"valueString": "well"}),
        (text("  "), {}),
        (NO_VALUE, {}),
        (Value("date", "2025-11-06", at=AT), {"valueDateTime": "2025-11-06"}),
        (Value("date", "2025-00-12"), {"valueString": "2025-00-12"}),
        (Value("time", "10:30:00", at=AT), {"valueTime": "10:30:00"}),
        (
            Value("datetime", "2025-11-06 10:30:00", at=AT),
            {"valueDateTime": "2025-11-06T08:30:00Z"},
        ),
        (Value("datetime", "2025-03-30 02:30:00"), {"valueString": "2025-03-30 02:30:00"}),
        (Value("boolean", "Yes"), {"valueBoolean": True}),
        (Value("boolean", "No"), {"valueBoolean": False}),
        (Value("boolean", "Oui", concept=YES), {"valueBoolean": True}),
    ],
)
def test_a_value_has_its_type(value: Value, expected: dict[str, Any]) -> None:
    assert of(made(PULSE, value)) == expected


def test_a_coded_value_has_the_codes_of_known_systems_and_its_text() -> None:
    found = made(
        CHIEF_COMPLAINT, coded(concept(8, "Cough", "CIEL:143264", "LOCAL:7", "SNOMED CT:49727002"))
    )
    assert found["valueCodeableConcept"] == {
        "text": "Cough",
        "coding": [
            {"system": "urn:openmrs:kigali:concept", "code": "concept-8", "display": "Cough"},
            {"system": "https://cielterminology.org", "code": "143264"},
            {"system": "http://snomed.info/sct", "code": "49727002"},
        ],
    }


def test_a_boolean_whose_answer_is_not_known_stays_coded() -> None:
    answer = Value("boolean", "Peut-être", concept=concept(32, "Peut-être"))
    assert list(of(made(PULSE, answer))) == ["valueCodeableConcept"]


def test_a_file_says_that_it_is_not_here() -> None:
    found = of(made(PULSE, Value("complex", "x-ray.png")))
    assert found["dataAbsentReason"]["coding"][0]["code"] == "unsupported"
    assert "x-ray" not in str(found)


def test_who_when_where_from() -> None:
    found = made(interpretation="CRITICALLY_HIGH", status="PRELIMINARY", comments=" check again ")
    national = {"system": "urn:openmrs-passport:national-id", "value": "1199080012345678"}
    assert found["id"] == "kigali-5"
    assert found["identifier"] == [{"system": "urn:openmrs:kigali:obs", "value": "obs-5"}]
    assert found["subject"] == {"type": "Patient", "identifier": national}
    assert found["encounter"]["identifier"] == {
        "system": "urn:openmrs:kigali:encounter",
        "value": "encounter-7",
    }
    assert (found["status"], found["effectiveDateTime"]) == ("preliminary", "2025-11-06T08:35:00Z")
    assert found["interpretation"][0]["coding"][0]["code"] == "HH"
    assert (found["performer"], found["note"]) == (
        [{"display": "Jane Smith"}],
        [{"text": "check again"}],
    )


def test_nobody_is_no_performer_and_a_time_that_is_none_leaves_the_day() -> None:
    one = structs.replace(obs(5, 10, author=NOBODY), at=None, created=None, encounter=None)
    found = valid(resource(one, KEPT.naming))
    assert found["effectiveDateTime"] == "2025-11-06"
    assert not {"performer", "issued", "encounter"} & found.keys()


@pytest.mark.parametrize(
    ("asked", "value"),
    [(PULSE, number(72)), (DIAGNOSIS, coded(MALARIA)), (DRUG_ORDER, coded(PENICILLIN))],
)
def test_a_day_that_is_none_is_left_out(asked: Concept, value: Value) -> None:
    one = structs.replace(obs(5, 10, asked, value, obs_datetime="0000-00-00T00:00:00"), at=None)
    found = valid(resource(one, KEPT.naming))
    assert not {"effectiveDateTime", "recordedDate", "dateAsserted"} & found.keys()


def test_somebody_without_a_national_id_is_known_by_the_hospitals_uuid() -> None:
    found = made(who=person(4, None))
    assert found["subject"]["identifier"] == {
        "system": "urn:openmrs:kigali:person",
        "value": "person-4",
    }


FAMILY = concept(40, "Family history of", "CIEL:160592", cls="Question")
ALLERGY = concept(41, "Allergy to drug", cls="Question")


@pytest.mark.parametrize(
    ("asked", "value", "type_"),
    [
        (DIAGNOSIS, coded(MALARIA), "Condition"),
        (concept(42, "Diagnosis, non-coded", "CIEL:161602"), text("Malaria"), "Condition"),
        (DRUG_ORDER, coded(PENICILLIN), "MedicationStatement"),
        (DRUG_ORDER, Value("drug", "Penicillin 500 mg"), "MedicationStatement"),
        (DRUG_ORDER, coded(concept(43, "None", "CIEL:1107")), "Observation"),
        (FAMILY, coded(MALARIA), "Observation"),
        (ALLERGY, coded(PENICILLIN), "Observation"),
        (MALARIA, Value("boolean", "No"), "Observation"),
        (DIAGNOSIS, coded(concept(43, "None", "CIEL:1107")), "Observation"),
        (CERTAINTY, coded(concept(21, "Confirmed")), "Observation"),
        (UNKNOWN, text("blue"), "Observation"),
    ],
)
def test_only_what_the_patient_has_or_takes_says_so(
    asked: Concept, value: Value, type_: str
) -> None:
    assert made(asked, value)["resourceType"] == type_


@pytest.mark.parametrize("type_", list(MODELS))
def test_what_is_withdrawn_keeps_its_version_and_nothing_of_the_patient(type_: Any) -> None:
    row = Held(type_, 5, "obs-5", 1, version(10), live=False)
    found = valid(withdrawn("kigali", row))
    assert held_row(found) == row
    assert "1199" not in str(found)
    assert "Malaria" not in str(found)


def test_a_resource_says_which_row_it_is() -> None:
    assert held_row(made()) == Held("Observation", 5, "obs-5", 1, version(10), live=True)


def written(
    batch: list[Observation], rows: list[Held], kept: FhirOptions = KEPT
) -> list[tuple[str, bool]]:
    """(type, whether live) of what a batch of obs 5 writes."""
    found = [held_row(valid(one)) for _, one in changes(batch, {5: rows}, kept).resources]
    return [(one.type, one.live) for one in found]


def test_a_row_whose_type_changes_stays_live_under_one() -> None:
    before = [Held("Observation", 5, "obs-5", 1, version(10), live=True)]
    now = obs(5, 10, DIAGNOSIS, coded(MALARIA))
    assert written([now], before) == [("Condition", True), ("Observation", False)]


def test_an_older_version_changes_nothing() -> None:
    before = [Held("Observation", 5, "obs-5", 1, version(20), live=False)]
    found = changes([obs(5, 10)], {5: before}, KEPT)
    assert (found.resources, found.outcome.overtaken) == ([], ["kigali/5"])


def test_what_is_gone_leaves_its_mark_though_nothing_was_there() -> None:
    assert written([obs(5, 10, voided=True)], []) == [("Observation", False)]
    assert written([obs(5, 10, deleted=True)], []) == [("Observation", False)]
    assert written(
        [obs(5, 20, deleted=True)], [Held("Condition", 5, "obs-5", 1, version(10), live=True)]
    ) == [("Condition", False)]


def test_only_people_whose_id_is_sure_unless_all_are_wanted() -> None:
    unsure = obs(5, 20, who=person(2, None, state="ambiguous"))
    before = [Held("Observation", 5, "obs-5", 2, version(10), live=True)]
    assert written([unsure], []) == []
    assert written([unsure], before) == [("Observation", False)]
    assert written([unsure], [], FhirOptions(people="all")) == [("Observation", True)]
    assert changes([unsure], {}, KEPT).ambiguous == {2}


def test_a_person_read_whole_who_is_still_ambiguous_is_asked_for_again() -> None:
    assert gone(person(2, None, state="ambiguous"), [], version(20), [], KEPT).ambiguous == {2}
    assert gone(person(2), [], version(20), [], KEPT).settled == {2}


@pytest.mark.parametrize(("prefix", "hospital"), [("p" * 20, "h" * 28), ("", "h" * 48)])
def test_b21_no_id_passes_64_characters(prefix: str, hospital: str) -> None:
    """The longest hospital that is taken has a valid id; one character more is refused."""
    with pytest.raises(Fatal, match="FHIR id"):
        require_ids(settings(hospital), prefix)
    require_ids(settings(hospital[1:]), prefix)
    assert len(identity(prefix + hospital[1:], 2**31)) <= 64
    assert len(f"openmrs-passport.{prefix}{hospital[1:]}") <= 64


def settings(hospital_id: str) -> Settings:
    return build_settings({hospital_id: hospital_settings()}, kafka_settings("unused", "any"))
