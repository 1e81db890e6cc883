"""Asks the product what a case becomes, and says it in the words of the corpus."""

from collections.abc import Iterable
from typing import Any

from destinations.mongo import mirror
from destinations.mongo.projection import obs as obs_projection
from meaning.facts import Fact, Row, Subject, codes
from meaning.reading import read
from meaning.rules import MappingRules, load
from passport import facts
from passport.facts import Observation, Value
from tests import observations as make
from tests.corpus.loader import Answer, Case, Concept, Meaning
from tests.corpus.report import Outcome, Result, verdict

Document = dict[str, Any]

WHEN = "2025-11-06T10:31:00"
# A record of these types states something by naming it; only these kinds may be shown as one.
STATED_AS = {"condition": ("condition", "allergy"), "medication": ("medication",)}


def results(cases: Iterable[Case], rules: MappingRules | None = None) -> list[Result]:
    """Return what the product makes of each case, and what that is worth.

    The rules are those that come with the project, if no others are passed.
    """
    if rules is None:
        rules = load()
    judged: list[Result] = []
    for case in cases:
        made = outcome(case, rules)
        judged.append(Result(case, made, verdict(case, made)))
    return judged


def outcome(case: Case, rules: MappingRules) -> Outcome:
    """Return what the product makes of the case's question and answer."""
    rows, question = _rows(case)
    fact = _fact_of(question, read([_asked_about(row) for row in rows], rules))
    if fact is None:
        return Outcome(Meaning("nothing"))
    members = {*fact.stating, *(key for keys in fact.parts.values() for key in keys)}
    beside = frozenset(
        member.question.key
        for obs_id, member in enumerate(case.siblings, question + 1)
        if obs_id in members
    )
    if question not in fact.stating:
        return Outcome(Meaning("detail"), beside=beside)
    record = _record(rows, fact, rules)
    meaning = Meaning(fact.kind.replace("_", " "), fact.state.replace("_", " "))
    return Outcome(meaning, _name(fact, record), beside, record.get("testStatus", "none"))


def _fact_of(obs_id: int, stated: Iterable[Fact]) -> Fact | None:
    """Return the fact that the row states; else one that it is a part of."""
    parts: Fact | None = None
    for fact in stated:
        if obs_id in fact.stating:
            return fact
        if any(obs_id in keys for keys in fact.parts.values()):
            parts = fact
    return parts


def _asked_about(row: Observation) -> Row:
    assert row.concept is not None
    answer = row.value.concept
    subject = Subject(
        name=row.concept.name,
        concept_class=row.concept.concept_class,
        datatype=row.concept.datatype,
        mappings=codes(row.concept.uuid, row.concept.mappings),
        value=row.value.kind,
        value_class=answer.concept_class if answer else None,
        value_mappings=codes(answer.uuid, answer.mappings) if answer else (),
        said=row.value.text.casefold(),
    )
    return Row(row.obs_id, subject, parent=row.row["obs_group_id"], moment=WHEN)


def _record(rows: list[Observation], fact: Fact, rules: MappingRules) -> Document:
    """Return what is shown of the fact in the Passport; empty if nothing is."""
    records = obs_projection.projected(
        [mirror.document(row) for row in rows],
        rules,
        make.HOSPITAL,
        "Kigali Hospital",
        "a" * 24,
        lambda _: "somebody",
    )
    for record in records:
        if record.document["openmrsData"]["obsId"] != fact.anchor:
            continue
        kinds = STATED_AS.get(record.document["type"])
        assert kinds is None or fact.kind in kinds, f"a {fact.kind} is shown as a {kinds}"
        shown: Document = record.document["data"]
        return shown
    return {}


def _name(fact: Fact, shown: Document) -> str:
    match fact.kind:
        case "condition" | "allergy":
            return str(shown.get("diagnosis", "")).removeprefix("Allergy: ")
        case "medication":
            return str(shown.get("medicationName", ""))
        case "vaccination":
            return str(shown.get("reason", "")).removeprefix("Vaccination: ")
        case _:
            return f"{shown.get('testName', '')}: {shown.get('result', '')}"


def _rows(case: Case) -> tuple[list[Observation], int]:
    """Return the case's rows as observations, and the obs_id of its question."""
    rows: list[Observation] = []
    parent: int | None = None
    for obs_id, group in enumerate(case.groups, 1):
        rows.append(_row(obs_id, parent, group, make.NO_VALUE))
        parent = obs_id
    question = len(rows) + 1
    interpretation = case.interpretation
    answer = _value(case.answer)
    rows.append(_row(question, parent, case.question, answer, interpretation=interpretation))
    for obs_id, (asked, answered) in enumerate(case.siblings, question + 1):
        rows.append(_row(obs_id, parent, asked, _value(answered)))
    return rows, question


def _row(
    obs_id: int, parent: int | None, asked: Concept, value: Value, **columns: Any
) -> Observation:
    return make.obs(
        obs_id, 10, _concept(asked), value, obs_group_id=parent, obs_datetime=WHEN, **columns
    )


def _concept(concept: Concept) -> facts.Concept:
    return facts.Concept(
        concept_id=int.from_bytes(concept.uuid.encode()[:7]),
        uuid=concept.uuid,
        name=concept.name,
        datatype=concept.datatype,
        concept_class=concept.concept_class,
        units=None,
        mappings=concept.same_as,
    )


def _value(answer: Answer) -> Value:
    concept = _concept(answer.concept) if answer.concept is not None else None
    number = float(answer.text) if answer.kind == "numeric" else None
    return Value(answer.kind, answer.text, number=number, concept=concept)
