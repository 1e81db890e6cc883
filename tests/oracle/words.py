"""What the mirror says of a row beside its columns: words for readers of other languages, and what
a number is compared with.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.oracle.facts import Bounds, Concept, Facts

Row = dict[str, Any]
KEYS = ("lowAbsolute", "lowCritical", "low", "high", "highCritical", "highAbsolute", "source")


def differing(doc: Row, row: Row, facts: Facts) -> list[str]:
    """The names of what a document of `observations` says otherwise of `row`."""
    if "format" not in doc:
        return ["format"]
    concept, value = doc["concept"], doc["value"]
    said = Words(
        concept.get("names", {}),
        value.get("names", {}),
        value.get("range", {}),
        value.get("computed"),
    )
    right = words(row, facts, value["text"])
    return [name for name in Words._fields if getattr(said, name) != getattr(right, name)]


class Words(NamedTuple):
    """`question` and `answer`: by locale, those that are not the hospital's own."""

    question: dict[str, str]
    answer: dict[str, str]
    range: dict[str, Any]
    computed: str | None


def words(row: Row, facts: Facts, text: str) -> Words:
    """`text`: what the hospital calls the value."""
    question = facts.concepts[row["concept_id"]]
    bounds = compared_with(row, question, facts)
    return Words(
        others(question.names, question.name),
        others(answer_names(row, facts), text),
        shown(bounds),
        computed(row, bounds),
    )


def others(names: Mapping[str, str], own: str) -> dict[str, str]:
    return {locale: name for locale, name in names.items() if name != own}


def answer_names(row: Row, facts: Facts) -> dict[str, str]:
    answer = facts.concepts.get(row["value_coded"])
    if answer is None:
        return {}
    drug = facts.drugs.get(row["value_drug"])
    if drug is not None:
        called = {name.casefold() for name in (answer.name, *answer.names.values())}
        return dict(answer.names) if drug.casefold() in called else {}
    names = dict(answer.names)
    chosen = facts.concept_names.get(row["value_coded_name_id"])
    if chosen:
        language = facts.name_locales[row["value_coded_name_id"]].split("_")[0]
        names |= {locale: chosen for locale in names if locale.split("_")[0] == language}
    return names


def compared_with(row: Row, question: Concept, facts: Facts) -> Bounds | None:
    """None for what is no number, or is compared with nothing."""
    other = (row["value_coded"], row["value_drug"])
    if row["value_numeric"] is None or any(value is not None for value in other):
        return None
    return facts.bounds.get(row["obs_id"], question.bounds)


def shown(bounds: Bounds | None) -> dict[str, Any]:
    if bounds is None:
        return {}
    return {key: value for key, value in zip(KEYS, bounds, strict=True) if value is not None}


def computed(row: Row, bounds: Bounds | None) -> str | None:
    """None where the hospital says it itself, or where it can't be said."""
    if bounds is None or row.get("interpretation") or row["value_modifier"]:
        return None
    number = row["value_numeric"]
    if bounds.high_critical is not None and bounds.high_critical <= number:
        return "CRITICALLY_HIGH"
    if bounds.high is not None and bounds.high < number:
        return "HIGH"
    if bounds.low_critical is not None and number <= bounds.low_critical:
        return "CRITICALLY_LOW"
    if bounds.low is not None and number < bounds.low:
        return "LOW"
    return None if bounds.low is bounds.high is None else "NORMAL"
