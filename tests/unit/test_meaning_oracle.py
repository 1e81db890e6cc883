"""The product and the oracle read thousands of small, odd groups of rows, and mean the same."""

from collections.abc import Mapping
from random import Random
from typing import Any

from meaning.facts import Row, Subject, codes
from meaning.reading import measures_pressure, read
from meaning.rules import MappingRules, load
from tests.oracle.expected import load_mapping
from tests.oracle.facts import Concept
from tests.oracle.meaning import Sayings
from tests.oracle.rulebook import Rulebook

CASES = 1_500
# Headers, values and parts of each group, and questions of their own.
QUESTIONS = [
    "CIEL:159947",
    "CIEL:1442",
    "CIEL:121689",
    "CIEL:121760",
    "CIEL:1421",
    "CIEL:160593",
    "CIEL:161642",
    "CIEL:1284",
    "CIEL:1282",
    "CIEL:160643",
    "CIEL:984",
    "CIEL:160592",
    "CIEL:1560",
    "CIEL:1729",
    "CIEL:159394",
    "CIEL:160856",
    "CIEL:5085",
    "CIEL:5086",
    "CIEL:1628",
    "CIEL:5219",
    "CIEL:1271",
    "CIEL:159951",
    "CIEL:21",
    "CIEL:160557",
    "CIEL:1625",
    "CIEL:1252",
    "x:1",
]
ANSWERS = ("CIEL:1065", "CIEL:1066", "CIEL:1107", "CIEL:1067", "CIEL:159393", "y:1", "y:2")
CLASSES = ("Question", "Diagnosis", "Drug", "Test", "Finding", "LabSet", "ConvSet", "Misc Order")
DATATYPES = ("Coded", "Boolean", "Numeric", "Text", "N/A", "Datetime")
NAMES = ("Bahmni Diagnosis Status", "Bahmni Diagnosis Revised", "Known drug allergies", "Pulse")
KINDS = ("coded", "coded", "coded", "none", "numeric", "text", "boolean", "datetime", "complex")
TEXTS = ("", "No", "None", "Ruled out", "Inactive", "Yes", "whatever", "No known allergies")
IN_WORDS = ("coded", "drug", "boolean", "text")


class Folder:
    """A person's rows, made by chance: columns of obs, and what enrichment says of their values."""

    def __init__(self, seed: int) -> None:
        chance = Random(seed)
        self.concepts: dict[int, Concept] = {}
        for key in range(1, 9):
            mappings = frozenset({chance.choice(QUESTIONS)})
            kind = (chance.choice(NAMES), chance.choice(DATATYPES), chance.choice(CLASSES))
            self.concepts[key] = Concept(f"uuid-{key}", *kind, None, mappings)
        for key in range(20, 26):
            answer = frozenset({chance.choice(ANSWERS)})
            self.concepts[key] = Concept(
                f"uuid-{key}", "a", "N/A", chance.choice(CLASSES), None, answer
            )
        count = chance.randint(1, 8)
        self.rows: dict[int, dict[str, Any]] = {}
        self.kinds: dict[int, str] = {}
        self.texts: dict[int, str | None] = {}
        self.firsts: dict[int, int] = {}
        for key in range(1, count + 1):
            kind_of_value = chance.choice(KINDS)
            self.kinds[key] = kind_of_value
            self.texts[key] = chance.choice(TEXTS) if kind_of_value in IN_WORDS else None
            self.firsts[key] = chance.choice([key, key, chance.randint(1, count)])
            self.rows[key] = {
                "obs_id": key,
                "concept_id": chance.randint(1, 8),
                "value_coded": chance.randint(20, 25) if kind_of_value == "coded" else None,
                "obs_group_id": chance.choice([None, None, *range(1, count + 1), 99]),
                "encounter_id": chance.choice([1, None]),
                "obs_datetime": chance.choice(["2025-11-06T10:31:00", "2025-11-06T10:32:00"]),
            }

    def by_the_oracle(self, mapping: Mapping[str, Any]) -> list[str]:
        sayings = Sayings(
            self.rows,
            Rulebook(mapping, self.concepts),
            self.concepts,
            lambda row: self.kinds[row["obs_id"]].replace("none", "") or None,
            lambda row: self.texts[row["obs_id"]],
            lambda row: self.firsts[row["obs_id"]],
        )
        return sorted(
            repr(
                (
                    saying.kind,
                    saying.state if saying.kind != "negated" else "",
                    saying.anchor["obs_id"],
                    [row["obs_id"] for row in saying.stating],
                    {role: [row["obs_id"] for row in rows] for role, rows in saying.parts.items()},
                    saying.named,
                    saying.panel["obs_id"] if saying.panel else None,
                    saying.understood,
                )
            )
            for saying in sayings.all()
        )

    def by_the_product(self, rules: MappingRules) -> list[str]:
        backwards = reversed(self.rows)
        return sorted(
            repr(
                (
                    fact.kind,
                    fact.state if fact.kind != "negated" else "",
                    fact.anchor,
                    fact.stating,
                    fact.parts,
                    fact.is_question,
                    fact.panel,
                    fact.understood,
                )
            )
            for fact in read([self.row(key, rules) for key in backwards], rules)
        )

    def row(self, key: int, rules: MappingRules) -> Row:
        columns = self.rows[key]
        question = self.concepts[columns["concept_id"]]
        answer = self.concepts.get(columns["value_coded"])
        text = (self.texts[key] or "").casefold()
        subject = Subject(
            question.name,
            question.concept_class,
            question.datatype,
            codes(question.uuid, sorted(question.mappings)),
            self.kinds[key],
            answer.concept_class if answer else None,
            codes(answer.uuid, sorted(answer.mappings)) if answer else (),
            text if text in rules.words else "",
        )
        moment = None
        in_encounter = columns["encounter_id"] is not None and columns["obs_group_id"] is None
        if in_encounter and measures_pressure(subject.mappings):
            moment = columns["obs_datetime"]
        return Row(key, subject, columns["obs_group_id"], self.firsts[key], moment)


def test_product_and_oracle_mean_the_same() -> None:
    rules, mapping = load(), load_mapping()
    kinds: set[str] = set()
    for seed in range(CASES):
        folder = Folder(seed)
        expected = folder.by_the_oracle(mapping)
        assert folder.by_the_product(rules) == expected, f"seed {seed}"
        kinds |= {saying.split("'")[1] for saying in expected}
    assert {
        "condition",
        "medication",
        "allergy",
        "test",
        "vaccination",
        "finding",
        "visit",
    } <= kinds
    assert {"order", "family_history", "somebody_else", "negated", "detail", "note"} <= kinds


def test_every_row_with_a_value_is_in_a_fact() -> None:
    rules = load()
    for seed in range(CASES):
        folder = Folder(seed)
        rows = [folder.row(key, rules) for key in folder.rows]
        told: set[int] = set()
        for fact in read(rows, rules):
            told |= {*fact.stating, *(key for keys in fact.parts.values() for key in keys)}
        assert told == {row.key for row in rows if row.subject.value != "none"}, f"seed {seed}"
