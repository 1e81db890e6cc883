"""What the product makes of real questions: nothing dangerous, and nine of ten right.

And the corpus is sound, and its report tells a dangerous outcome from a harmless one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from meaning.rules import parse
from tests.corpus.__main__ import PAGE
from tests.corpus.loader import CATEGORIES, DICTIONARIES, FOLDER, Case, CorpusError, Meaning, cases
from tests.corpus.product import results
from tests.corpus.report import CLAIMS, Outcome, Result, page, verdict

ROOT = Path(__file__).parents[2]


def case(question: str, answer: str, category: str) -> Case:
    """The first case of that question and answer."""
    return next(
        one
        for one in cases()
        if one.question.key == question
        and one.answer.text == answer
        and one.category == category
        and not one.siblings
    )


@pytest.fixture(scope="module")
def judged() -> list[Result]:
    return results(cases())


def test_nothing_becomes_a_claim_that_the_doctor_did_not_state(judged: list[Result]) -> None:
    assert dangerous(judged) == []


def test_nine_of_ten_are_right(judged: list[Result]) -> None:
    decidable = [one for one in judged if not one.case.is_undecidable]
    right = [one for one in decidable if one.verdict == "right"]
    assert len(right) >= 0.9 * len(decidable)


def test_the_page_is_current(judged: list[Result]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(judged), "make docs"


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no answer denies": lambda rules: rules["answers"].pop("no"),
    "nothing is ruled out": lambda rules: rules["answers"].pop("ruled_out"),
    "no group says whose it is": lambda rules: rules.update(groups=[]),
    "every answer of class Diagnosis is a condition": lambda rules: rules["rules"].insert(
        0, {"kind": "condition", "value_classes": ["Diagnosis"]}
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_rule_is_seen(broken: str) -> None:
    rules = yaml.safe_load((ROOT / "config/mapping.yaml").read_text(encoding="utf-8"))
    BROKEN[broken](rules)
    assert dangerous(results(cases(), parse(rules)))


def dangerous(judged: list[Result]) -> list[str]:
    """The ids of the cases that can be decided and were decided dangerously."""
    return [
        one.case.id for one in judged if one.verdict == "dangerous" and not one.case.is_undecidable
    ]


def test_the_corpus_is_large_and_of_five_dictionaries() -> None:
    read = cases()
    assert len({(one.form, one.groups, one.question) for one in read}) >= 300
    assert {one.dictionary for one in read} == set(DICTIONARIES)
    assert {one.category for one in read} == set(CATEGORIES)


def test_more_cases_must_not_become_a_claim_than_must() -> None:
    """The dangerous questions are there: those that look like a claim and are none."""
    kinds = Counter(one.becomes.kind for one in cases())
    for kind in ("negated", "somebody else", "family history", "order", "detail", "note"):
        assert kinds[kind] >= 10, kind
    claims = [one for one in cases() if one.becomes.kind in CLAIMS]
    assert len(claims) < len(cases()) / 3


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("lime/cases.tsv", "x\tlab\tnowhere.json" + "\t" * 13, "nowhere.json"),
        ("sources.tsv", "a\tb/c\t12ab\tMIT\tforms", "whole commit"),
    ],
    ids=["an unknown form", "half a commit"],
)
def test_a_line_that_cannot_be_is_refused(tmp_path: Path, file: str, line: str, wrong: str) -> None:
    folder = tmp_path / "corpus"
    copytree(FOLDER, folder)
    with (folder / file).open("a", encoding="utf-8") as table:
        table.write(line + "\n")
    with pytest.raises(CorpusError, match=wrong):
        cases(folder)


@pytest.mark.parametrize(
    ("column", "text", "wrong"),
    [
        ("becomes", "disease", "no kind"),
        ("becomes", "test: past", "no state"),
        ("category", "others", "no category"),
        ("question", "Favourite colour", "Favourite colour"),
        ("answer", "[Favourite colour]", "Favourite colour"),
        ("flag", "Red", "no flags"),
        ("same_record", "Diagnosis order", "do not stand beside it"),
        ("reads", "", "what a person reads"),
    ],
)
def test_a_word_that_is_not_known_is_refused(
    tmp_path: Path, column: str, text: str, wrong: str
) -> None:
    folder = tmp_path / "corpus"
    copytree(FOLDER, folder)
    table = folder / "lime" / "cases.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    row = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))
    lines[1] = "\t".join((row | {column: text}).values())
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=wrong):
        cases(folder)


def test_a_case_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    copytree(FOLDER, folder)
    table = folder / "lime" / "cases.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    number, rest = lines[1].split("\t", 1)
    table.write_text("\n".join([*lines, f"{number}-again\t{rest}"]) + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="says the same"):
        cases(folder)


ASTHMA = "Asthma"


@pytest.mark.parametrize(
    ("judged", "made", "name", "worth"),
    [
        ("condition", "condition", ASTHMA, "right"),
        ("condition", "condition", "Yes", "dangerous"),
        ("condition", "condition: suspected", ASTHMA, "odd"),
        ("condition: past", "condition", ASTHMA, "dangerous"),
        ("condition: suspected", "condition", ASTHMA, "dangerous"),
        ("condition: ruled out", "condition", ASTHMA, "dangerous"),
        ("condition: ruled out", "nothing", "", "right"),
        ("condition", "note", "", "missing"),
        ("condition", "nothing", "", "missing"),
        ("condition", "medication", ASTHMA, "dangerous"),
        ("family history", "condition", ASTHMA, "dangerous"),
        ("family history", "condition: past", ASTHMA, "dangerous"),
        ("family history", "note", "", "odd"),
        ("family history", "nothing", "", "missing"),
        ("negated", "nothing", "", "right"),
        ("negated", "condition", ASTHMA, "dangerous"),
        ("negated", "test", "", "odd"),
        ("allergy", "allergy: none known", "", "dangerous"),
        ("allergy: none known", "allergy", ASTHMA, "dangerous"),
        ("allergy: none known", "allergy: none known", "", "right"),
        ("note", "finding", "", "odd"),
        ("detail", "nothing", "", "missing"),
    ],
)
def test_what_an_outcome_is_worth(judged: str, made: str, name: str, worth: str) -> None:
    example = case("Diagnosis", ASTHMA, "diagnosis")
    example = replace(example, becomes=meaning(judged), or_else=(), reads=ASTHMA)
    assert verdict(example, Outcome(meaning(made), name)) == worth


def test_a_test_without_the_badge_that_was_judged_is_odd() -> None:
    flagged = next(one for one in cases() if one.flags == ("Critical",))
    assert verdict(flagged, Outcome(Meaning("test"), flag="Critical")) == "right"
    assert verdict(flagged, Outcome(Meaning("test"), flag="Normal")) == "odd"


def test_a_record_without_what_belongs_to_it_is_odd() -> None:
    torn = next(one for one in cases() if one.same_record and one.becomes == Meaning("condition"))
    whole = frozenset(torn.same_record)
    assert verdict(torn, Outcome(torn.becomes, torn.reads, whole)) == "right"
    assert verdict(torn, Outcome(torn.becomes, torn.reads)) == "odd"


def meaning(text: str) -> Meaning:
    kind, _, state = text.partition(": ")
    return Meaning(kind, state or "present")
