"""Asks the product what a case becomes, and says it in the words of the corpus."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from destinations.mongo import mirror
from destinations.mongo.projection import obs as obs_projection
from destinations.mongo.projection.mapping import MappingRules, load
from passport import facts
from passport.facts import Observation, Value
from tests import observations as make
from tests.corpus.loader import Answer, Case, Concept, Meaning
from tests.corpus.report import Outcome, Result, verdict

Document = dict[str, Any]

WHEN = "2025-11-06T10:31:00"
NAMED_BY = {"condition": "diagnosis", "medication": "medicationName", "test": "testName"}


def results(cases: Iterable[Case]) -> list[Result]:
    """Return what the product makes of each case, and what that is worth."""
    judged: list[Result] = []
    for case in cases:
        made = outcome(case)
        judged.append(Result(case, made, verdict(case, made)))
    return judged


def outcome(case: Case) -> Outcome:
    """Return what the product makes of the case's question and answer."""
    rows, question = _rows(case)
    documents = [mirror.document(row) for row in rows]
    records = obs_projection.projected(
        documents, _mapping(), make.HOSPITAL, "Kigali Hospital", "a" * 24, lambda _: "somebody"
    )
    for record in records:
        origin = record.document["openmrsData"]
        members = set(origin.get("memberUuids") or [origin["obsUuid"]])
        if f"obs-{question}" not in members:
            continue
        return _of_record(case, rows, record.document, members)
    return Outcome(Meaning("nothing"))


@cache
def _mapping() -> MappingRules:
    return load()


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


def _of_record(
    case: Case, rows: list[Observation], document: Document, members: set[str]
) -> Outcome:
    kind = document["type"]
    data = document["data"]
    beside = {
        member.question.key
        for member, row in zip(case.siblings, rows[-len(case.siblings) :], strict=False)
        if f"obs-{row.obs_id}" in members
    }
    stated = case.answer.text in data.get("details", "").split("; ")
    if not stated:
        return Outcome(Meaning("detail"), beside=frozenset(beside))
    name = data.get(NAMED_BY.get(kind, "reason"), "")
    if kind == "test":
        name = f"{name}: {data['result']}"
    return Outcome(Meaning(kind), name, frozenset(beside), data.get("testStatus", "none"))
