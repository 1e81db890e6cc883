"""config/mapping.yaml, asked of obs rows. An answer depends on two concepts alone and is
remembered.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.oracle.facts import Concept

Matcher = Mapping[str, list[str]]
Key = tuple[Any, ...]


class Rulebook:
    """`panels`: the classes of panels."""

    def __init__(self, mapping: Mapping[str, Any], concepts: Mapping[int, Concept]) -> None:
        self.groups: list[Mapping[str, Any]] = list(mapping["groups"])
        self.rules: list[Mapping[str, Any]] = list(mapping["rules"])
        self.panels = set(mapping["panels"]["classes"])
        self._concepts = concepts
        self._known: dict[Key, Any] = {}

    def group(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The group of which this row is a header: the first that fits."""
        found: Mapping[str, Any] | None = self._once(
            "group",
            row,
            lambda fit: next((group for group in self.groups if fit(group["header"])), None),
        )
        return found

    def kind(self, row: Mapping[str, Any]) -> str | None:
        """The type of record that the row makes by itself."""
        found: str | None = self._once(
            "kind", row, lambda fit: next((rule["type"] for rule in self.rules if fit(rule)), None)
        )
        return None if found == "none" else found

    def role(self, group: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        """``value``, or the first part that the row fits as a member of the group."""
        matchers: list[tuple[str, Matcher]] = [("value", group["value"]), *group["parts"].items()]
        found: str | None = self._once(
            group["name"],
            row,
            lambda fit: next((name for name, matcher in matchers if fit(matcher)), None),
        )
        return found

    def _once(
        self, what: str, row: Mapping[str, Any], decide: Callable[[Callable[[Matcher], bool]], Any]
    ) -> Any:
        key = (what, row["concept_id"], row["value_coded"])
        if key not in self._known:
            question, answer = (
                self._concepts[row["concept_id"]],
                self._concepts.get(row["value_coded"]),
            )
            self._known[key] = decide(lambda matcher: fits(question, answer, matcher))
        return self._known[key]


def fits(question: Concept, answer: Concept | None, matcher: Matcher) -> bool:
    """All fields given must fit, each by one of its entries."""
    name = question.name.casefold()
    holds: dict[str, Callable[[list[str]], Any]] = {
        "mappings": lambda wanted: any(
            one in question.mappings or one == ciel(question) for one in wanted
        ),
        "values": lambda wanted: (
            answer is not None and (set(wanted) & answer.mappings or ciel(answer) in wanted)
        ),
        "classes": lambda wanted: question.concept_class in wanted,
        "datatypes": lambda wanted: question.datatype in wanted,
        "names": lambda wanted: name in [one.casefold() for one in wanted],
        "words": lambda wanted: any(
            re.search(rf"(?<!\w){re.escape(one.casefold())}(?!\w)", name) for one in wanted
        ),
        "value_classes": lambda wanted: answer is not None and answer.concept_class in wanted,
    }
    return all(holds[field](matcher[field]) for field in holds if field in matcher)


def ciel(concept: Concept) -> str:
    """Return the code in a uuid of the CIEL dictionary, which As fill up to 36 letters."""
    code = concept.uuid.rstrip("A")
    return (
        f"CIEL:{code}"
        if len(concept.uuid) == 36 and code.isascii() and code.isdigit() and len(code) < 36
        else ""
    )
