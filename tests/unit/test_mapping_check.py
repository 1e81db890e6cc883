"""What `passport mapping` says of a file before it is used, and why an obs is what it is."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from destinations.mongo import mirror
from destinations.mongo.mapping_change import Change, changes_of_person
from destinations.mongo.projection import obs as obs_projection
from meaning.check import check
from meaning.explain import Explanation, explain
from meaning.rules import MappingRules, load, parse
from meaning.suggest import Question
from passport.facts import Observation
from tests import observations as make
from tests.observations import HOSPITAL, obs

PROJECT = load()
COLOUR = Question("Favourite colour", "Misc", "Text", ("uuid:colour",))
PULSE = Question("Pulse", "Test", "Numeric", ("CIEL:5087", "uuid:pulse"))
DIAGNOSIS = Question("Problem list", "Diagnosis", "Coded", ("CIEL:1284", "uuid:problem"))
UNUSED = Question("Old question", "Misc", "Text", ("uuid:old",))
FORM = Question("Ward form", "Misc", "N/A", ("uuid:form",))
DICTIONARY = (COLOUR, PULSE, DIAGNOSIS, UNUSED, FORM)
IN_USE = {"uuid:colour", "CIEL:5087", "CIEL:1284", "uuid:form"}


def problems(*rules: dict[str, Any], **sections: Any) -> list[tuple[str, str]]:
    """The problems of a file, but for the concepts that stay notes."""
    content = {"version": 2, "rules": rules, **sections}
    found = check(parse(content), parse(content, PROJECT), DICTIONARY, IN_USE)
    return [(one.problem, one.place) for one in found if one.problem != "stays a note"]


def notes(*rules: dict[str, Any], **sections: Any) -> list[str]:
    content = {"version": 2, "rules": rules, **sections}
    found = check(parse(content), parse(content, PROJECT), DICTIONARY, IN_USE)
    return [one.place for one in found if one.problem == "stays a note"]


COLOUR_RULE = {"name": "colour", "kind": "finding", "mappings": ["uuid:colour"]}


def test_a_file_that_fits_has_no_problem() -> None:
    assert problems(COLOUR_RULE) == []


def test_what_the_dictionary_does_not_have_is_named() -> None:
    wrong = {"name": "typing error", "kind": "test", "mappings": ["CIEL:50877"]}
    group = {"name": "g", "kind": "test", "header": {"mappings": ["CIEL:5087", "PIH:1"]}}
    answers = {"no": {"mappings": ["CIEL:66"]}}
    assert problems(wrong, groups=[group], answers=answers) == [
        ("unknown code", "groups: g, header"),
        ("unknown code", "rules: typing error"),
        ("unknown code", "answers: no"),
        ("matches nothing", "rules: typing error"),
    ]


def test_a_rule_whose_conditions_no_concept_meets_together_is_named() -> None:
    never = {"name": "n", "kind": "test", "mappings": ["CIEL:5087"], "datatypes": ["Text"]}
    assert problems(never) == [("matches nothing", "rules: n")]


def test_a_rule_that_another_is_asked_before_is_named() -> None:
    all_tests = {"name": "all tests", "kind": "test", "classes": ["Test"]}
    pulse = {"name": "pulse", "kind": "finding", "names": ["Pulse"]}
    assert problems(all_tests, pulse) == [("shadowed", "rules: pulse")]
    assert problems(pulse, all_tests) == [("shadowed", "rules: all tests")]
    both = {"name": "both", "kind": "finding", "names": ["Pulse", "Favourite colour"]}
    assert problems(all_tests, both) == [], "it still decides on one of them"
    one_answer = {"name": "only no", "kind": "test", "classes": ["Test"], "values": ["CIEL:5087"]}
    assert problems(one_answer, pulse) == [], "other answers reach the second"


def test_a_group_that_another_is_asked_before_is_named() -> None:
    first = {"name": "first", "kind": "test", "header": {"mappings": ["CIEL:5087"]}}
    second = {"name": "second", "kind": "visit", "header": {"names": ["Pulse"]}}
    assert problems(groups=[first, second]) == [("shadowed", "groups: second")]


def test_concepts_in_use_that_no_rule_knows_are_named_by_the_hospitals_names() -> None:
    assert notes() == ["Favourite colour"]
    assert notes(COLOUR_RULE) == []
    only_no = {"kind": "negated", "mappings": ["uuid:colour"], "values": ["CIEL:1066"]}
    assert notes(only_no) == [], "a rule of some answers knows the question"
    header = {"name": "g", "kind": "visit", "header": {"mappings": ["uuid:colour"]}}
    assert notes(groups=[header]) == []


# --- diff

ROWS = [obs(1, 10), obs(2, 10, make.UNKNOWN, make.text("blue"))]


def changes(rows: Sequence[Observation], *rules: dict[str, Any], **more: Any) -> Counter[Change]:
    documents = [mirror.document(row) for row in rows]
    after = parse({"version": 2, "rules": rules, **more}, PROJECT)
    return Counter(changes_of_person(documents, HOSPITAL, PROJECT, after))


def test_rules_that_say_the_same_change_nothing() -> None:
    assert changes(ROWS, {"kind": "note", "names": ["Favourite colour"]}) == {}


def test_each_record_that_becomes_another_is_counted() -> None:
    more = [*ROWS, obs(3, 10, make.UNKNOWN, make.text("red")), obs(4, 10, voided=True)]
    rule = {"kind": "finding", "names": ["Favourite colour"]}
    assert changes(more, rule) == {
        Change("Favourite colour", "uuid:concept-7", "note", "finding"): 2
    }


def test_records_that_come_and_go_are_counted() -> None:
    gone = {"kind": "somebody_else", "names": ["Pulse"]}
    assert changes(ROWS, gone) == {Change("Pulse", "CIEL:5087", "test", "no record"): 1}
    documents = [mirror.document(row) for row in ROWS]
    without = parse({"version": 2, "rules": [gone]}, PROJECT)
    back = Counter(changes_of_person(documents, HOSPITAL, without, PROJECT))
    assert back == {Change("Pulse", "CIEL:5087", "no record", "test"): 1}


def test_a_state_and_a_content_that_change_are_changes() -> None:
    malaria = [obs(1, 10, make.DIAGNOSIS, make.coded(make.MALARIA))]
    past = {"kind": "condition", "state": "past", "asks": "which", "mappings": ["CIEL:1284"]}
    assert changes(malaria, past) == {
        Change("PROBLEM LIST", "CIEL:1284", "condition", "condition, past"): 1
    }
    in_a_form = [obs(1, 10, make.UNKNOWN, make.NO_VALUE), obs(2, 10, obs_group_id=1)]
    assert changes(in_a_form, panels={"classes": ["Misc"]}) == {
        Change("Pulse", "CIEL:5087", "test", "test"): 1
    }, "the form is named beside it"


def test_other_notes_that_are_hidden_are_counted() -> None:
    assert changes(ROWS, other_notes=False) == {
        Change("Favourite colour", "uuid:concept-7", "note", "no record"): 1
    }


# --- explain


def explained(rows: Sequence[Observation], key: int, rules: MappingRules = PROJECT) -> Explanation:
    documents = [mirror.document(row) for row in rows]
    return explain(obs_projection.live_rows(documents, rules), rules, key)


def test_the_rule_of_a_question_is_named_and_what_is_asked_before_it() -> None:
    explanation = explained([obs(1, 10)], 1)
    assert explanation.fact is not None
    assert (explanation.fact.kind, explanation.role, explanation.group) == ("test", None, None)
    [change] = explanation.changes
    assert change.startswith("a rule for CIEL:5087 in the hospital's file: it is asked before ")


def test_what_no_rule_knows_says_which_code_a_rule_needs() -> None:
    explanation = explained(ROWS, 2)
    assert explanation.fact is not None
    assert explanation.fact.kind == "note"
    assert explanation.changes == ("a rule for uuid:concept-7 in the hospital's file",)


DIAGNOSED = [
    obs(3, 10, make.VISIT_DIAGNOSES, make.NO_VALUE),
    obs(4, 10, make.DIAGNOSIS, make.coded(make.MALARIA), obs_group_id=3),
    obs(5, 10, make.CERTAINTY, make.coded(make.CONFIRMED), obs_group_id=3),
]


@pytest.mark.parametrize(("key", "role"), [(3, "header"), (4, None), (5, "certainty")])
def test_a_group_is_named_with_the_role_of_each_member(key: int, role: str | None) -> None:
    explanation = explained(DIAGNOSED, key)
    assert (explanation.group, explanation.role) == ("diagnosis", role)
    assert explanation.fact is not None
    assert explanation.fact.kind == "condition"
    if role != "certainty":
        assert any("Diagnosis certainty (obs 5)" in change for change in explanation.changes)


def test_the_list_of_an_answer_is_named() -> None:
    none = [obs(1, 10, make.DIAGNOSIS, make.coded(make.NONE))]
    explanation = explained(none, 1)
    assert explanation.answer == "none"
    assert any("hospital's file than none" in change for change in explanation.changes)


def test_no_answer_of_the_patient_is_said() -> None:
    rows = [replace(row, value=make.text("canary-1")) for row in ROWS]
    rows.append(obs(4, 10, make.DIAGNOSIS, make.coded(make.MALARIA)))
    for key in (1, 2, 4):
        text = repr(explained(rows, key))
        assert "canary" not in text
        assert "Malaria" not in text
        assert "CIEL:116128" not in text
