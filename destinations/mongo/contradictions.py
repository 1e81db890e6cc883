"""Compares what a hospital and the Passport say of the person who holds a national id.

One digit that was mistyped is enough to name somebody else, whose year of birth or sex then is
likely another one. Such a link waits until an operator decides. Nobody is ever linked, or not, by
their name.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from destinations.mongo.document import Document
from passport.facts import Person, Sex

Mode = Literal["off", "count", "ask"]
"""``count`` notes contradictions and links all the same; ``ask`` waits for an operator."""

Verdict = Literal["link", "refuse"]

# An estimated birthdate is made of an age, which people tell in round numbers.
ESTIMATED_YEARS = 5

# A date of birth is an instant in the Passport: midnight in the zone in which it was typed. At New
# Year it may mean either year, as zones go from UTC-12 to UTC+14.
_EARLIEST = timedelta(hours=-12)
_LATEST = timedelta(hours=14)


@dataclass(frozen=True, slots=True)
class PassportPatient:
    """A patient of the Passport. `birth_years` are those that the date of birth may mean."""

    patient_id: str
    birth_years: frozenset[int]
    sex: Sex | None

    @classmethod
    def of(cls, document: Document) -> "PassportPatient":
        """Return the patient of a document of `patients`."""
        born = document.get("dateOfBirth")
        years: frozenset[int] = frozenset()
        if isinstance(born, datetime) and born.year > 1:
            years = frozenset({(born + _EARLIEST).year, (born + _LATEST).year})
        gender = document.get("gender")
        sex: Sex | None = None
        if gender == "female" or gender == "male":
            sex = gender
        return cls(str(document["_id"]), years, sex)


def contradictions(person: Person, patient: PassportPatient) -> list[str]:
    """Return what the two say differently: ``birth_year``, ``sex``.

    What one of them doesn't know contradicts nothing.
    """
    different: list[str] = []
    if person.birth_year is not None and patient.birth_years:
        distance = min(abs(person.birth_year - year) for year in patient.birth_years)
        if distance > (ESTIMATED_YEARS if person.is_birth_estimated else 0):
            different.append("birth_year")
    if person.sex is not None and patient.sex is not None and person.sex != patient.sex:
        different.append("sex")
    return different


def link_fields(
    person: Person,
    patient: PassportPatient | None,
    id_hash: str | None,
    decision: Document | None,
    mode: Mode,
) -> Document:
    """Return the fields of a person's document that say whether they are linked.

    `patient` is the one whom their national id names. A decision holds for that id and that patient
    alone. A field that is None has nothing to say.
    """
    fields: Document = {
        "state": person.state,
        "idHash": id_hash,
        "patientId": None,
        "contradicts": None,
        "candidateId": None,
    }
    if patient is None:
        return fields
    verdict: Verdict | None = None
    if decision is not None:
        is_about_these = decision["patientId"] == patient.patient_id
        if is_about_these and decision["idHash"] == id_hash:
            verdict = decision["verdict"]
    if mode != "off":
        fields["contradicts"] = contradictions(person, patient) or None
    if verdict == "refuse":
        fields |= {"state": "refused", "candidateId": patient.patient_id}
    elif mode == "ask" and fields["contradicts"] and verdict != "link":
        fields |= {"state": "contradicting", "candidateId": patient.patient_id}
    else:
        fields["patientId"] = patient.patient_id
    return fields
