"""What a question and its answer mean, by the rules that come with the project."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest

from meaning.facts import Fact, Row, Subject
from meaning.interpretation import STATUSES, status_of
from meaning.reading import read
from meaning.rules import load

RULES = load()


class Said(NamedTuple):
    """A row: the code of its question, and the code, class or text of its answer."""

    question: str
    answer: str = ""
    answer_class: str = "Misc"
    question_class: str = "Question"
    datatype: str = "Coded"
    value: str = "coded"
    text: str = ""
    name: str = ""


def subject(row: Said) -> Subject:
    codes = (row.question,) if ":" in row.question else ()
    return Subject(
        name=row.name or row.question,
        concept_class=row.question_class,
        datatype=row.datatype,
        mappings=codes,
        value=row.value,
        value_class=row.answer_class if row.answer else None,
        value_mappings=(row.answer,) if row.answer else (),
        said=row.text.casefold() if row.text.casefold() in RULES.words else "",
    )


def group(header: str, *members: Said) -> list[Row]:
    """Return a header without a value, numbered 1, and its members."""
    top = Said(header, datatype="N/A", value="none")
    rows = [Row(1, subject(top))]
    rows += [Row(key, subject(member), parent=1) for key, member in enumerate(members, 2)]
    return rows


def alone(row: Said) -> list[Row]:
    return [Row(1, subject(row))]


def kinds(rows: Iterable[Row]) -> dict[int, str]:
    """Return the kind of the fact that each row states, by its number."""
    return {key: fact.kind for fact in read(rows, RULES) for key in fact.stating}


def only(rows: Iterable[Row]) -> Fact:
    [fact] = read(rows, RULES)
    return fact


YES = {"answer": "CIEL:1065"}
NO = {"answer": "CIEL:1066"}
ASTHMA = {"answer": "CIEL:121375", "answer_class": "Diagnosis"}
DIABETES = {"answer": "CIEL:119481", "answer_class": "Diagnosis"}
PENICILLIN = {"answer": "CIEL:81724", "answer_class": "Drug"}
PRESENT_NO = Said("CIEL:1729", **NO)
MOTHER = Said("CIEL:1560", answer="CIEL:970")
BOOLEAN = {"datatype": "Boolean", "value": "boolean"}
DIAGNOSIS = {"question_class": "Diagnosis"}
BAHMNI = {"answer": "x:1", "datatype": "Coded"}


@pytest.mark.parametrize(
    ("rows", "kind", "state"),
    [
        (alone(Said("CIEL:1284", **ASTHMA)), "condition", "present"),
        (alone(Said("CIEL:161602", datatype="Text", value="text")), "condition", "present"),
        (alone(Said("CIEL:119481", **DIAGNOSIS, **BOOLEAN, **YES)), "condition", "present"),
        (alone(Said("CIEL:119481", **DIAGNOSIS, **BOOLEAN, **NO)), "negated", "present"),
        (alone(Said("CIEL:119481", **DIAGNOSIS, **BOOLEAN, text="No")), "negated", "present"),
        (alone(Said("CIEL:1628", **ASTHMA)), "condition", "past"),
        (alone(Said("CIEL:1284", answer="CIEL:1107")), "negated", "present"),
        (alone(Said("CIEL:1284", answer="CIEL:1067")), "negated", "present"),
        (alone(Said("CIEL:1284", answer="CIEL:1175")), "negated", "present"),
        (alone(Said("CIEL:1284", **YES)), "note", "present"),
        (alone(Said("CIEL:1284", **PENICILLIN)), "note", "present"),
        (alone(Said("CIEL:160592", **DIABETES)), "family_history", "present"),
        (alone(Said("CIEL:140228", **DIAGNOSIS, **YES)), "family_history", "present"),
        (alone(Said("CIEL:160643", **PENICILLIN)), "allergy", "present"),
        (alone(Said("CIEL:160643", answer="CIEL:1107")), "allergy", "none_known"),
        (alone(Said("CIEL:160557", **BOOLEAN, **YES)), "allergy", "none_known"),
        (alone(Said("CIEL:160557", **BOOLEAN, **NO)), "negated", "none_known"),
        (
            alone(Said("a", name="Known drug allergies", text="none", value="text")),
            "allergy",
            "none_known",
        ),
        (alone(Said("CIEL:1282", **PENICILLIN)), "medication", "present"),
        (alone(Said("CIEL:1282", value="drug")), "medication", "present"),
        (alone(Said("CIEL:1282", **DIABETES)), "note", "present"),
        (alone(Said("CIEL:1193", answer="CIEL:1107")), "negated", "present"),
        (alone(Said("CIEL:1087", **PENICILLIN)), "medication", "past"),
        (alone(Said("x:1", question_class="Drug", **YES)), "finding", "present"),
        (alone(Said("x:1", question_class="Drug", **NO)), "negated", "present"),
        (alone(Said("CIEL:1252", answer="CIEL:1434")), "note", "present"),
        (alone(Said("CIEL:1271", answer="CIEL:5497", answer_class="Test")), "order", "present"),
        (alone(Said("CIEL:984", **PENICILLIN)), "vaccination", "present"),
        (alone(Said("CIEL:984", text="Not vaccinated", answer="x:1")), "negated", "present"),
        (alone(Said("CIEL:1423", **BOOLEAN, **YES)), "vaccination", "present"),
        (alone(Said("CIEL:124068", **DIAGNOSIS, **NO)), "negated", "present"),
        (alone(Said("CIEL:124068", **DIAGNOSIS, **YES)), "finding", "present"),
        (alone(Said("CIEL:1436", answer="CIEL:703")), "somebody_else", "present"),
        (alone(Said("CIEL:159956", **PENICILLIN)), "test", "present"),
        (alone(Said("CIEL:159786", answer="CIEL:159791")), "finding", "present"),
        (alone(Said("CIEL:5219", value="text")), "visit", "present"),
        (alone(Said("x:1", question_class="Test", value="numeric")), "test", "present"),
        (alone(Said("x:1", question_class="Test", answer="CIEL:1107")), "test", "present"),
        (alone(Said("x:1", question_class="Test", answer="CIEL:1067")), "negated", "present"),
        (alone(Said("x:1", question_class="Finding", **ASTHMA)), "finding", "present"),
        (alone(Said("x:1", **ASTHMA)), "note", "present"),
        (alone(Said("x:1", **PENICILLIN)), "note", "present"),
        (alone(Said("x:1", **BOOLEAN, **YES)), "note", "present"),
        (alone(Said("x:1", **BOOLEAN, **NO)), "negated", "present"),
    ],
)
def test_a_question_by_itself(rows: Sequence[Row], kind: str, state: str) -> None:
    fact = only(rows)
    assert (fact.kind, fact.state) == (kind, state), fact.why


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (group("CIEL:1633", Said("CIEL:1628", **ASTHMA), PRESENT_NO), {2: "negated"}),
        (
            group("CIEL:1633", Said("CIEL:1628", **ASTHMA), Said("CIEL:1729", **YES)),
            {2: "condition"},
        ),
        (
            group(
                "CIEL:1633",
                Said("CIEL:1628", **ASTHMA),
                PRESENT_NO,
                Said("CIEL:1628", **DIABETES),
                Said("CIEL:1729", **YES),
            ),
            {2: "negated", 4: "condition"},
        ),
        (group("x:1", Said("CIEL:160592", **DIABETES), MOTHER), {2: "family_history"}),
        (group("CIEL:160593", Said("CIEL:160592", **DIABETES), MOTHER), {2: "family_history"}),
        (group("x:1", Said("CIEL:1284", **DIABETES), MOTHER), {2: "family_history"}),
        (
            group("CIEL:160593", Said("CIEL:1169", answer="CIEL:703"), MOTHER),
            {2: "somebody_else", 3: "somebody_else"},
        ),
        (
            group("CIEL:161642", Said("CIEL:1284", **ASTHMA), Said("CIEL:1282", **PENICILLIN)),
            {2: "somebody_else", 3: "somebody_else"},
        ),
        (
            group(
                "CIEL:159947",
                Said("CIEL:1284", **ASTHMA),
                Said("b", name="Bahmni Diagnosis Status", text="Ruled Out Diagnosis", **BAHMNI),
            ),
            {2: "negated"},
        ),
        (
            group(
                "CIEL:159947",
                Said("CIEL:1284", **ASTHMA),
                Said("b", name="Bahmni Diagnosis Revised", text="False", **BOOLEAN),
            ),
            {2: "condition"},
        ),
        (
            group(
                "CIEL:159947",
                Said("CIEL:1284", **ASTHMA),
                Said("b", name="Bahmni Diagnosis Revised", text="True", **BOOLEAN),
            ),
            {2: "negated"},
        ),
        (
            group(
                "CIEL:121689",
                Said("CIEL:160643", **PENICILLIN),
                Said("CIEL:159935", answer="CIEL:111061", answer_class="Diagnosis"),
            ),
            {2: "allergy"},
        ),
        (
            group(
                "CIEL:121760",
                Said("CIEL:1193", **PENICILLIN),
                Said("CIEL:159935", answer="CIEL:512", answer_class="Diagnosis"),
            ),
            {2: "finding", 3: "finding"},
        ),
        (
            group(
                "CIEL:1421",
                Said("CIEL:984", **PENICILLIN),
                Said("CIEL:1418", datatype="Numeric", value="numeric"),
            ),
            {2: "vaccination"},
        ),
        (group("CIEL:159947", Said("CIEL:159394", answer="CIEL:159392")), {2: "detail"}),
    ],
)
def test_what_stands_beside_it(rows: Sequence[Row], expected: dict[int, str]) -> None:
    assert kinds(rows) == expected


def test_a_suspicion_stays_one() -> None:
    certainty = Said("CIEL:159394", answer="CIEL:159393")
    fact = only(group("CIEL:159947", Said("CIEL:1284", **ASTHMA), certainty))
    assert (fact.kind, fact.state) == ("condition", "suspected")


def test_the_outermost_group_of_somebody_else_closes_all_within() -> None:
    rows = [
        Row(1, subject(Said("CIEL:162588", datatype="N/A", value="none"))),
        Row(2, subject(Said("CIEL:159947", datatype="N/A", value="none")), parent=1),
        Row(3, subject(Said("CIEL:1284", **ASTHMA)), parent=2),
    ]
    assert kinds(rows) == {3: "somebody_else"}


def test_rows_that_are_each_others_group_end() -> None:
    rows = [Row(key, subject(Said("CIEL:1284", **ASTHMA)), parent=3 - key) for key in (1, 2)]
    assert kinds(rows) == {1: "condition", 2: "condition"}


def test_a_fact_says_which_rule_decided_and_why() -> None:
    fact = only(alone(Said("CIEL:1284", answer="CIEL:1107")))
    assert fact.rule == "diagnosis"
    assert fact.why == "the question asks for condition, and the answer is no, or not known"
    unknown = only(alone(Said("x:1", **ASTHMA)))
    assert (unknown.rule, unknown.understood) == ("", False)


def test_every_interpretation_of_openmrs_is_decided() -> None:
    assert len(STATUSES) == 17
    told = {name for name, status in STATUSES.items() if status is not None}
    critical = {"CRITICALLY_LOW", "CRITICALLY_HIGH", "CRITICALLY_ABNORMAL"}
    assert told == {"NORMAL", "ABNORMAL", "LOW", "HIGH", *critical}
    assert {name for name in told if STATUSES[name] == "Critical"} == critical
    assert status_of(None) is status_of("") is status_of("UNHEARD_OF") is None
