"""The words of this package: a row as it is asked about, and the fact that is made of rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal[
    "condition",  # a diagnosis or a problem of the patient
    "medication",
    "allergy",
    "test",  # a result
    "vaccination",
    "finding",  # something that was asked or seen, and is neither a test nor a diagnosis
    "visit",  # why somebody came, what was written and planned
    "order",  # what is to be done: no result
    "family_history",
    "somebody_else",  # a contact, the partner, the mother of a newborn's form
    "negated",  # it was said that there is none
    "detail",  # a part of another record: a dose, a specimen's time, a certainty
    "note",  # nobody knows more of it than its question and its answer
    "nothing",  # there is no answer in it
]
# `none_known` is of an allergy alone: it was said that there is no known one.
State = Literal["present", "past", "suspected", "ruled_out", "none_known"]


class Subject(NamedTuple):
    """What the rules look at: a row's question, and its answer as far as a dictionary knows it.

    `value` is the kind of its value, as in `passport.facts.Value`; ``none`` if it has none. `said`
    is the text of the answer, in small letters, where that is one of the words that the rules
    know; else it is empty, so that few subjects make many rows.
    """

    name: str
    concept_class: str
    datatype: str
    mappings: tuple[str, ...]
    value: str = "none"
    value_class: str | None = None
    value_mappings: tuple[str, ...] = ()
    said: str = ""


class Row(NamedTuple):
    """A live obs of a person.

    `key` is its obs_id, `parent` that of its group, `first` that of its first version. `moment`
    names what was measured together without a group: rows with the same moment are looked at
    together; None if nothing is known of it.
    """

    key: int
    subject: Subject
    parent: int | None = None
    first: int | None = None
    moment: str | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Rows of a group in the order in which they were first written."""
        return (self.key if self.first is None else self.first, self.key)


@dataclass(slots=True)
class Fact:
    """What one or several rows say together.

    `anchor` is the row that names it. `stating` are the rows whose values it states, `parts` its
    further rows by role, each in their order. `panel` is the row of the panel that it is a result
    of. If `is_question`, the question is what is stated, as "Asthma" of "Asthma: yes".

    `rule` is the name of the rule that decided, `why` says in a sentence how. A fact is not
    `understood` if no rule knew its question.
    """

    kind: Kind
    state: State
    anchor: int
    stating: list[int]
    parts: dict[str, list[int]] = field(default_factory=dict)
    panel: int | None = None
    is_question: bool = False
    rule: str = ""
    why: str = ""
    understood: bool = True


def codes(uuid: str, mappings: Sequence[str]) -> tuple[str, ...]:
    """Return all by which a rule may name a concept.

    These are its mappings, ``uuid:<uuid>``, and ``CIEL:<code>`` if the uuid is of that dictionary:
    the code, then As, 36 characters in all.
    """
    return (*mappings, *_of_uuid(uuid))


@lru_cache(16_384)
def _of_uuid(uuid: str) -> tuple[str, ...]:
    match = re.fullmatch(r"([0-9]+)A+", uuid) if len(uuid) == 36 else None
    if match:
        return (f"CIEL:{match[1]}", f"uuid:{uuid}")
    return (f"uuid:{uuid}",)
