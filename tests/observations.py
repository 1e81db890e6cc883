"""Observations for tests, as the consumers' enrichment would give them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from msgspec.structs import replace

from passport.facts import (
    Author,
    Concept,
    Encounter,
    Interpretation,
    Observation,
    Person,
    Place,
    Value,
)
from passport.settings import Destination, Kafka, Settings
from passport.version import Version
from tests.settings import build_settings, hospital_settings

HOSPITAL = "kigali"
BORN = datetime(2025, 11, 6, 8, 30, tzinfo=UTC)


def concept(
    concept_id: int,
    name: str,
    *mappings: str,
    cls: str = "Misc",
    datatype: str = "N/A",
    **more: Any,
) -> Concept:
    return Concept(
        concept_id,
        f"concept-{concept_id}",
        name,
        datatype,
        cls,
        more.get("units"),
        tuple(sorted(mappings)),
    )


VISIT_DIAGNOSES = concept(1, "Visit Diagnoses", "CIEL:159947", cls="ConvSet")
DIAGNOSIS = concept(2, "PROBLEM LIST", "CIEL:1284", cls="Diagnosis", datatype="Coded")
CERTAINTY = concept(3, "Diagnosis certainty", "CIEL:159394", datatype="Coded")
RANK = concept(4, "Diagnosis order", "CIEL:159946", datatype="Coded")
PULSE = concept(5, "Pulse", "CIEL:5087", cls="Test", datatype="Numeric", units="beats/min")
CHIEF_COMPLAINT = concept(6, "Chief complaint", "CIEL:5219", datatype="Text")
UNKNOWN = concept(7, "Favourite colour", datatype="Text")
PRESCRIPTION = concept(8, "Current medication", "CIEL:160741", cls="ConvSet")
DRUG_ORDER = concept(9, "Medication orders", "CIEL:1282", cls="Drug", datatype="Coded")
DOSAGE = concept(10, "Dose", "CIEL:160856", datatype="Numeric", units="mg")
PANEL = concept(11, "Blood count", "CIEL:1019", cls="LabSet")
SYSTOLIC = concept(12, "Systolic", "CIEL:5085", cls="Finding", datatype="Numeric", units="mmHg")
DIASTOLIC = concept(13, "Diastolic", "CIEL:5086", cls="Finding", datatype="Numeric", units="mmHg")
ALLERGY = concept(14, "Allergy", "CIEL:121689", cls="Diagnosis")
ALLERGEN = concept(15, "Causative agent", "CIEL:160643", datatype="Coded")
REACTION = concept(16, "Reaction", "CIEL:160646", datatype="Coded")
IMMUNIZATION = concept(17, "Immunization history", "CIEL:1421", cls="ConvSet")
VACCINE = concept(18, "Immunizations", "CIEL:984", datatype="Coded")
VACCINATED_ON = concept(19, "Vaccination date", "CIEL:1410", datatype="Date")
DOSE_NUMBER = concept(23, "Dose number", "CIEL:1418", datatype="Numeric")
PAST_HISTORY = concept(24, "Past history", "CIEL:1628", cls="Finding", datatype="Coded")
EARLIER_DRUGS = concept(25, "Earlier drugs", "CIEL:1087", datatype="Coded")
ADVERSE_EFFECT = concept(27, "Adverse drug reaction", "CIEL:121760", cls="Diagnosis")
NONE = concept(26, "None", "CIEL:1107")
MALARIA = concept(20, "Malaria", "CIEL:116128", cls="Diagnosis")
CONFIRMED = concept(21, "Confirmed")

NOBODY = Author("OpenMRS", "none", None)
JANE = Author("Jane Smith", "encounter_provider", "provider-jane")
WARD = Place(5, "place-5", "Outpatient Clinic")


def version(pos: int, row: int = 1) -> str:
    return str(Version(1_700_000_000, 1, pos, row))


def person(
    person_id: int = 1, national_id: str | None = "1199080012345678", at: int = 0, **changes: Any
) -> Person:
    state: Any = changes.pop("state", "ok" if national_id else "none")
    hospital = changes.pop("hospital", HOSPITAL)
    uuid = f"person-{person_id}"
    return Person(hospital, person_id, uuid, state, national_id, version(at, 0), **changes)


def coded(answer: Concept) -> Value:
    return Value("coded", answer.name, concept=answer)


def number(value: float) -> Value:
    text = repr(float(value))
    return Value("numeric", text.removesuffix(".0"), number=float(value))


def text(value: str) -> Value:
    return Value("text", value)


NO_VALUE = Value("none", "")


def obs(
    obs_id: int,
    pos: int,
    asked: Concept = PULSE,
    value: Value | None = None,
    *,
    who: Person | None = None,
    voided: bool = False,
    deleted: bool = False,
    author: Author = JANE,
    row: int = 1,
    **columns: Any,
) -> Observation:
    """Return obs `obs_id` as of binlog position `pos`. `columns` are columns of its row."""
    who = who or person()
    value = value if value is not None else number(72)
    if stated := columns.get("interpretation"):
        value = replace(value, interpretation=Interpretation(stated, "obs"))
    at = BORN + timedelta(minutes=obs_id)
    columns.setdefault("date_created", (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S"))
    fields = {
        "obs_id": obs_id,
        "person_id": who.person_id,
        "concept_id": asked.concept_id,
        "encounter_id": 7,
        "obs_datetime": (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S"),
        "obs_group_id": None,
        "previous_version": None,
        "comments": None,
        "voided": int(voided),
        "uuid": f"obs-{obs_id}",
        "status": "FINAL",
        "interpretation": None,
        "value_text": value.text if value.kind == "text" else None,
        "value_numeric": value.number,
    } | columns
    if deleted:
        return Observation(
            who.hospital,
            version(pos, row),
            fields,
            True,
            who,
            None,
            NO_VALUE,
            NOBODY,
            None,
            None,
            None,
            at,
        )
    encounter = Encounter(7, "encounter-7", "Consultation", "2025-11-06T10:15:00", BORN)
    place = (
        who.hospital,
        version(pos, row),
        fields,
        False,
        who,
        asked,
        value,
        author,
        WARD,
        encounter,
        at,
        at,
    )
    return Observation(*place)


def at_position(observation: Observation, pos: int, row: int = 1) -> Observation:
    return replace(observation, version=version(pos, row))


def settings(options: dict[str, Any], **kigali: Any) -> Settings:
    """Return the settings of two hospitals and one destination named passport.

    `kigali` are fields of the first hospital's settings.
    """
    hospitals = {
        HOSPITAL: hospital_settings(
            **{"name": "Kigali Hospital", "national_id_type": "type-uuid", **kigali}
        ),
        "huye": hospital_settings(name="Huye Hospital", partition=1, national_id_type="type-uuid"),
    }
    destinations = {"passport": Destination(type="mongo", options=options)}
    return build_settings(hospitals, Kafka(bootstrap="127.0.0.1:1"), destinations)


def patient(national_id: str = "1199080012345678") -> dict[str, Any]:
    """Return a document of the Passport's `patients`."""
    key, user = ObjectId(), ObjectId()
    return {
        "_id": key,
        "user": user,
        "nationalId": national_id,
        "dateOfBirth": datetime(1990, 8, 1, tzinfo=UTC),
        "gender": "female",
        "contactNumber": "0780000000",
        "address": "KN 1",
        "emergencyContact": {"name": "A", "relationship": "B", "phone": "C"},
        "medicalHistory": [],
        "status": "active",
    }
