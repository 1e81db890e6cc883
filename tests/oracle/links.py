"""Who is linked although the two sides contradict each other, and what an operator's word changes.

Its own reading of docs/reference/records.md, "Contradictions".
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

Document = Mapping[str, Any]


class Link(NamedTuple):
    """What `people` must say: the state, patients._id or None, and what contradicts, sorted."""

    state: str
    patient: str | None
    contradicts: list[str]


def contradictions(birth: tuple[int | None, int, str], patient: Document) -> list[str]:
    """`birth`: year, by how much it may be off, sex. `patient`: a document of the Passport."""
    year, off, sex = birth
    found = []
    born = patient.get("dateOfBirth")
    if year is not None and isinstance(born, datetime):
        # Any moment that is that day somewhere on earth.
        moments = [born + timedelta(hours=hours) for hours in range(-12, 15)]
        if all(abs(moment.year - year) > off for moment in moments):
            found.append("birth_year")
    if {"F": "male", "M": "female"}.get(sex) == patient.get("gender") is not None:
        found.append("sex")
    return found


def link(
    state: str,
    patient: Document | None,
    birth: tuple[int | None, int, str],
    decision: Document | None,
    mode: str,
) -> Link:
    """`patient` has the id of a person in state ok; `decision` is the one kept for this person."""
    if patient is None:
        return Link(state, None, [])
    key = str(patient["_id"])
    found = [] if mode == "off" else contradictions(birth, patient)
    word = decision["verdict"] if decision and decision["patientId"] == key else None
    if word == "refuse":
        return Link("refused", None, found)
    if mode == "ask" and found and word is None:
        return Link("contradicting", None, found)
    return Link(state, key, found)
