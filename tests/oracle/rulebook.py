"""config/mapping.yaml, asked of obs rows. What depends on two concepts alone is remembered."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.oracle.facts import Concept

Matcher = Mapping[str, list[str]]
Key = tuple[Any, ...]


class Rulebook:
    """`panels`: the classes of panels."""

    def __init__(self, mapping: Mapping[str, Any], concepts: Mapping[int, Concept]) -> None:
        self.groups: list[Mapping[str, Any]] = list(mapping.get("groups", ()))
        self.rules: list[Mapping[str, Any]] = list(mapping.get("rules", ()))
        self.siblings: Mapping[str, list[Matcher]] = mapping.get("siblings", {})
        self.answers: Mapping[str, Mapping[str, list[str]]] = mapping.get("answers", {})
        self.panels = set(mapping.get("panels", {}).get("classes", ()))
        self.notes: bool = mapping.get("other_notes", True)
        self._concepts = concepts
        self._known: dict[Key, Any] = {}

    def group(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The group of which this row could be a header: the first that fits."""
        found: Mapping[str, Any] | None = self._once(
            "group",
            row,
            lambda fit: next((group for group in self.groups if fit(group["header"])), None),
        )
        return found

    def rule(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the row's question asks for."""
        found: Mapping[str, Any] | None = self._once(
            "rule", row, lambda fit: next((rule for rule in self.rules if fit(rule)), None)
        )
        return found

    def role(self, group: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        """``value``, or the first part that the row fits as a member of the group."""
        matchers: list[tuple[str, Matcher]] = []
        if "value" in group:
            matchers.append(("value", group["value"]))
        matchers += group.get("parts", {}).items()
        found: str | None = self._once(
            group["name"],
            row,
            lambda fit: next((name for name, matcher in matchers if fit(matcher)), None),
        )
        return found or self.beside(row)

    def beside(self, row: Mapping[str, Any]) -> str | None:
        """The role of the row for the rows beside it."""
        found: str | None = self._once(
            "beside",
            row,
            lambda fit: next(
                (role for role, many in self.siblings.items() if any(map(fit, many))), None
            ),
        )
        return found

    def says(self, row: Mapping[str, Any], text: str | None) -> str:
        """What the answer says, whatever was asked. `text`: of values that are words."""
        answer = self._concepts.get(row["value_coded"])
        codes = called(answer) if answer else frozenset()
        for name, listed in self.answers.items():
            if codes & set(listed.get("mappings", ())):
                return name
        for name, listed in self.answers.items():
            if text and text.casefold() in [one.casefold() for one in listed.get("names", ())]:
                return name
        return ""

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
    codes = called(question)
    answers = called(answer) if answer else frozenset()
    holds: dict[str, Callable[[list[str]], Any]] = {
        "mappings": lambda wanted: codes & set(wanted),
        "values": lambda wanted: answers & set(wanted),
        "classes": lambda wanted: question.concept_class in wanted,
        "datatypes": lambda wanted: question.datatype in wanted,
        "names": lambda wanted: question.name.casefold() in [one.casefold() for one in wanted],
        "sources": lambda wanted: (
            {code.split(":")[0] for code in codes if ":" in code} & set(wanted)
        ),
        "value_classes": lambda wanted: answer is not None and answer.concept_class in wanted,
    }
    return all(holds[field](matcher[field]) for field in holds if field in matcher)


def called(concept: Concept) -> frozenset[str]:
    """All that a concept may be called."""
    return concept.mappings | {f"uuid:{concept.uuid}"} | ({ciel(concept)} - {""})


def ciel(concept: Concept) -> str:
    """Return the code in a uuid of the CIEL dictionary, which As fill up to 36 letters."""
    code = concept.uuid.rstrip("A")
    return (
        f"CIEL:{code}"
        if len(concept.uuid) == 36 and code.isascii() and code.isdigit() and len(code) < 36
        else ""
    )
