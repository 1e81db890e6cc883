"""What is suggested for a question that no rule knows, and that a file is written by nothing else.

How often a suggestion is right is in docs/reference/mapping-suggestions.md, which is made by code.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from meaning.mapping_file import add_rule, with_rule
from meaning.reading import CLAIMS
from meaning.rules import parse
from meaning.suggest import (
    LEAST_OF_A_CLAIM,
    Known,
    Question,
    Suggester,
    known_as_row,
    known_concepts,
    rule_line,
)
from passport.errors import Fatal
from tests.corpus.__main__ import KNOWN, SUGGESTIONS
from tests.corpus.loader import DICTIONARIES, cases
from tests.corpus.suggestions import Held, held_back, known_questions, suggestions_page, table


def known(name: str, kind: Any, *codes: str, asks: Any = "anything", **fields: Any) -> Known:
    question = Question(name, fields.get("cls", "Misc"), fields.get("datatype", "Coded"), codes)
    return Known(question, kind, "present", asks, "elsewhere")


VIRAL_LOAD = known("HIV viral load", "test", "CIEL:856", cls="Test", datatype="Numeric")
PARTNER = known("HIV status of the partner", "somebody_else", "CIEL:1436")
DIAGNOSIS = known("Final diagnosis", "condition", "CIEL:1", asks="which", cls="Question")
NOTES = [known(f"Remark {word}", "note") for word in ("one", "two", "three")]


@pytest.fixture(scope="module")
def learned() -> list[Known]:
    return known_questions(cases())


@pytest.fixture(scope="module")
def held(learned: list[Known]) -> list[Held]:
    return held_back(learned)


def suggester() -> Suggester:
    return Suggester([VIRAL_LOAD, PARTNER, DIAGNOSIS, *NOTES])


def test_the_same_concept_of_another_dictionary_is_nearest() -> None:
    asked = Question("Charge virale", "Question", "Text", ("PIH:1", "CIEL:856"))
    suggestion = suggester().suggest(asked)
    assert suggestion.kind == "test"
    assert suggestion.neighbours[0].nearness == 1.0
    assert suggestion.neighbours[0].known is VIRAL_LOAD
    assert suggestion.neighbours[0].shared == "the code CIEL:856"


def test_without_a_code_words_class_and_datatype_count() -> None:
    suggestion = suggester().suggest(Question("Viral load", "Test", "Numeric", ("uuid:1",)))
    assert suggestion.kind == "test"
    assert 0 < suggestion.confidence < 1
    assert {"viral", "load", "class: Test"} <= set(suggestion.neighbours[0].shared.split(", "))


def test_forms_of_a_word_are_near_each_other() -> None:
    suggestion = suggester().suggest(Question("Partners", "", "", ("uuid:1",)))
    assert suggestion.kind == "somebody_else"


def test_what_resembles_nothing_is_a_note() -> None:
    suggestion = suggester().suggest(Question("Zyx", "Drug", "Complex", ("uuid:1",)))
    assert (suggestion.kind, suggestion.confidence, suggestion.neighbours) == ("note", 0.0, ())


def test_a_claim_that_is_not_sure_is_not_suggested() -> None:
    sure = suggester().suggest(Question("Final diagnosis", "Question", "Coded", ("uuid:1",)))
    assert (sure.kind, sure.asks) == ("condition", "which")
    unsure = suggester().suggest(Question("Final", "Misc", "Coded", ("uuid:1",)))
    assert unsure.neighbours[0].known is DIAGNOSIS
    assert unsure.kind not in CLAIMS


def test_no_claim_is_suggested_below_its_confidence(held: list[Held]) -> None:
    claims = [one.suggestion for one in held if one.suggestion.kind in CLAIMS]
    assert claims
    assert all(one.confidence >= LEAST_OF_A_CLAIM for one in claims)


@pytest.mark.parametrize(
    ("kind", "state", "asks", "codes", "line"),
    [
        ("note", "present", "anything", ("uuid:1",), '{"kind": "note", "mappings": ["uuid:1"]}'),
        (
            "condition", "past", "which", ("PIH:1", "CIEL:2", "uuid:3"),
            '{"kind": "condition", "state": "past", "asks": "which", "mappings": ["CIEL:2"]}',
        ),
    ],
)  # fmt: skip
def test_a_rule_names_the_concept_by_one_code(
    kind: Any, state: Any, asks: Any, codes: tuple[str, ...], line: str
) -> None:
    asked = Known(Question("x", "Misc", "Coded", codes), kind, state, asks, "")
    suggestion = Suggester([asked]).suggest(asked.question)
    assert rule_line(suggestion, codes) == f"- {line}"
    parse({"version": 2, "rules": yaml.safe_load(rule_line(suggestion, codes))})


def test_the_known_concepts_are_those_of_the_corpus(learned: list[Known]) -> None:
    assert KNOWN.read_text(encoding="utf-8") == table(learned), "make docs"
    assert [known_as_row(one) for one in known_concepts()] == [known_as_row(one) for one in learned]
    assert {one.dictionary for one in learned} == set(DICTIONARIES)


def test_the_page_is_current_and_a_dictionary_learns_nothing_of_itself(held: list[Held]) -> None:
    assert SUGGESTIONS.read_text(encoding="utf-8") == suggestions_page(held), "make docs"
    for one in held:
        assert one.known.dictionary not in {
            neighbour.known.dictionary for neighbour in one.suggestion.neighbours
        }


# --- the file

LINE = '- {"kind": "note", "mappings": ["CIEL:1"]}'
FILE = """# ours
version: 2
rules: # what we ask
  - kind: test
    names: [Pulse]  # in the ward
  # nothing yet for the theatre

answers:
  "no":
    names: ["Oya"]
"""


def test_a_rule_is_put_behind_the_last_one_and_the_rest_stays() -> None:
    longer = with_rule(FILE, LINE, "Remark")
    before, _, after = longer.partition(f"  {LINE} # Remark\n")
    assert before + after == FILE
    assert before.endswith("names: [Pulse]  # in the ward\n")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("version: 2\n", 1),
        ("version: 2", 1),
        ("version: 2\nrules:\n- kind: test\n  names: [Pulse]", 2),
        ("version: 2\nrules:\n  - {kind: test, names: [Pulse]}\nother_notes: false\n", 2),
    ],
)
def test_files_of_any_layout_take_one(text: str, rules: int) -> None:
    longer = with_rule(with_rule(text, LINE, "Remark"), LINE.replace(":1", ":2"), "Other")
    written = parse(yaml.safe_load(longer))
    assert len(written.rules) == rules + 1
    assert [rule.mappings for rule in written.rules[-2:]] == [("CIEL:1",), ("CIEL:2",)]


@pytest.mark.parametrize(
    "text",
    [
        "version: 2\nrules: []\n",
        "version: 2\nrules: [{kind: test, names: [Pulse]}]\n",
        "version: 1\nrules:\n  - {type: test, names: [Pulse]}\n",
        "just text",
        "a: [",
    ],
)
def test_a_file_without_a_place_for_it_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kigali.yaml"
    file.write_text(text)
    with pytest.raises(Fatal, match="no place for a rule") as failure:
        add_rule(file, LINE, "Remark")
    assert LINE in failure.value.hint
    assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"kigali\.yaml can't be written: No such file"):
        add_rule(tmp_path / "kigali.yaml", LINE, "Remark")


def test_a_name_that_is_no_comment_breaks_no_file(tmp_path: Path) -> None:
    file = tmp_path / "kigali.yaml"
    file.write_text("version: 2\n")
    add_rule(file, LINE, "Remark: of\nthe 'ward' #2 [")
    assert len(parse(yaml.safe_load(file.read_text())).rules) == 1
