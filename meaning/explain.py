"""Says why a row became what it became, and what would change it. Pure.

What is said names concepts, codes, kinds and roles. An answer is what a patient has, so that only
its class is said, and the list of answers that knows it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meaning.facts import Fact, Row, Subject
from meaning.reading import BLOOD_PRESSURE, read
from meaning.rules import Answer, Group, MappingRules
from meaning.suggest import own_code


class Explanation(NamedTuple):
    """What a row says, together with others.

    `fact` is the one that it states, or else is a part of, in the `role`; None if it says nothing
    by itself. `answer` is the list of answers that knows its answer. `group` is the one that the
    rule belongs to, `changes` what would make it another fact, a sentence each.
    """

    fact: Fact | None
    role: str | None
    answer: Answer
    group: str | None
    changes: tuple[str, ...]


def explain(rows: Sequence[Row], rules: MappingRules, key: int) -> Explanation:
    """Return what the live row `key` says among all live `rows` of its person."""
    by_key = {row.key: row for row in rows}
    sense = rules.sense(by_key[key].subject)
    fact, role = _fact_of(key, read(rows, rules))
    group = next((one for one in rules.groups if fact is not None and one.name == fact.rule), None)
    changes = _changes(by_key, rules, key, fact, role, group)
    return Explanation(fact, role, sense.answer, group.name if group else None, tuple(changes))


def _fact_of(key: int, facts: Sequence[Fact]) -> tuple[Fact | None, str | None]:
    """Return the fact that the row states; else that it names, or is a part of, with the role."""
    for fact in facts:
        if key in fact.stating:
            return fact, None
    for fact in facts:
        if key == fact.anchor:
            return fact, "header"
    for fact in facts:
        for role, keys in fact.parts.items():
            if key in keys:
                return fact, role
    return None, None


def _changes(
    rows: Mapping[int, Row],
    rules: MappingRules,
    key: int,
    fact: Fact | None,
    role: str | None,
    group: Group | None,
) -> list[str]:
    subject = rows[key].subject
    code = own_code(subject.mappings)
    if fact is None:
        if subject.value == "none":
            return ["a value: a row without one is a header, and says something by its members"]
        return ["nothing: it is a part of no fact"]
    if role is not None and role != "header":
        other = f"a group of the hospital's file that takes {code} for its value, or leaves it out"
        return [f"{other}: then it is not the {role} of another row"]
    if fact.rule == BLOOD_PRESSURE:
        return ["another moment or group: two numbers that were not measured together are two"]
    changes: list[str] = []
    if group is not None:
        headers = ", ".join(group.header.mappings) or "its header"
        changes.append(
            f"a group of the hospital's file with the same header ({headers}): it is asked before"
            f" {group.name}"
        )
    elif fact.rule:
        changes.append(f"a rule for {code} in the hospital's file: it is asked before {fact.rule}")
    else:
        changes.append(f"a rule for {code} in the hospital's file")
    changes += _changes_of_answer(rules, subject)
    changes += _changes_of_parts(rows, rules, fact)
    return changes


def _changes_of_answer(rules: MappingRules, subject: Subject) -> list[str]:
    answer = rules.sense(subject).answer
    if not answer:
        return []
    return [f"its answer's code in another list of answers of the hospital's file than {answer}"]


def _changes_of_parts(rows: Mapping[int, Row], rules: MappingRules, fact: Fact) -> list[str]:
    """Return a sentence for each part whose answer may withdraw a claim, or say its state."""
    changes: list[str] = []
    for role, keys in fact.parts.items():
        if role not in ("present", "status", "revised", "relation", "certainty"):
            continue
        for key in keys:
            subject = rows[key].subject
            answer = rules.sense(subject).answer or "no list"
            changes.append(
                f"another answer of its {role}, {subject.name} (obs {key}): it is in {answer}"
            )
    return changes
