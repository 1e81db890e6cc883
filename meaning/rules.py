"""config/mapping.yaml as matchers: what a question asks for, and what an answer says.

All but `load`, which reads files, is pure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import passport
from meaning.facts import Kind, State, Subject
from passport.errors import Fatal

MEMORY = 20_000  # subjects
_IN_WORDS = frozenset({"coded", "drug", "boolean", "text"})  # kinds of values

Role = Literal[
    "certainty",
    "rank",
    "dosage",
    "frequency",
    "duration",
    "quantity",
    "start",
    "endDate",
    "reaction",
    "severity",
    "doseNumber",
    "lot",
    "comment",
    "present",
    "status",
    "revised",
    "relation",
    "specimen",
    "date",
]
# What an answer says, whatever was asked. "" says none of these.
Answer = Literal[
    "yes", "no", "none", "result", "unknown", "past", "suspected", "ruled_out", "none_known", ""
]
# ``which``: the answer names the thing. ``whether``: the question names it, and yes states it.
# ``anything``: every answer is shown as it is.
Asks = Literal["which", "whether", "anything"]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))


class Matcher(_Checked):
    """A condition on a subject. All fields that are set must fit, a list by one of its entries."""

    mappings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    datatypes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    value_classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "Matcher":
        if not any(getattr(self, name) for name in Matcher.model_fields):
            raise ValueError("needs at least one of " + ", ".join(Matcher.model_fields))
        return self

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name.casefold() for name in self.names)

    @cached_property
    def _sources(self) -> tuple[str, ...]:
        return tuple(f"{source}:" for source in self.sources)

    def fits(self, subject: Subject) -> bool:
        return (
            (not self.mappings or not set(self.mappings).isdisjoint(subject.mappings))
            and (not self.classes or subject.concept_class in self.classes)
            and (not self.datatypes or subject.datatype in self.datatypes)
            and (not self.names or subject.name.casefold() in self._names)
            and (not self.value_classes or subject.value_class in self.value_classes)
            and (not self.values or not set(self.values).isdisjoint(subject.value_mappings))
            and (not self.sources or self._is_known_to_a_source(subject))
        )

    def _is_known_to_a_source(self, subject: Subject) -> bool:
        return any(mapping.startswith(self._sources) for mapping in subject.mappings)


class Rule(Matcher):
    """What a question asks for. `if_no` says what the answer "no" or "none" means."""

    name: str = ""
    kind: Kind
    state: State = "present"
    asks: Asks = "anything"
    if_no: Literal["negated", "none_known"] = "negated"


class Group(_Checked):
    """A header and its members. Those that fit `value` make records, `parts` add to them.

    Without `value`, and where `kind` is of somebody else, all members are of this kind.
    """

    name: str
    kind: Kind
    state: State = "present"
    asks: Asks = "which"
    if_no: Literal["negated", "none_known"] = "negated"
    header: Matcher
    value: Matcher | None = None
    parts: dict[Role, Matcher] = Field(default_factory=dict)

    @property
    def is_closed(self) -> bool:
        """Is True if no member makes a record by a rule of its own."""
        return self.value is None or self.kind in ("family_history", "somebody_else")


class AnswerList(_Checked):
    """Concepts that say the same, by their codes; by exact names where they have none."""

    mappings: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


class Panels(_Checked):
    classes: frozenset[str] = frozenset()


class _File(_Checked):
    version: Literal[2]
    other_notes: bool = True
    answers: dict[Answer, AnswerList] = Field(default_factory=dict)
    siblings: dict[Role, tuple[Matcher, ...]] = Field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    panels: Panels = Panels()
    rules: tuple[Rule, ...] = ()


class Decision(NamedTuple):
    """What a row states that stands alone, in the words of `meaning.facts.Fact`."""

    kind: Kind
    state: State
    is_question: bool
    rule: str
    why: str
    understood: bool


@dataclass(slots=True)
class Sense:
    """The meaning that the rules give a subject.

    `heads` is the group that it is the header of, `rule` what its question asks for, `answer` what
    its answer says. `role` is the part that it plays for its siblings in any group. `panel` says
    whether it names a panel. `alone` is what it states by itself, once that was asked.
    """

    heads: Group | None
    rule: Rule | None
    answer: Answer
    role: Role | None
    panel: bool
    alone: Decision | None = None


@dataclass(frozen=True)
class MappingRules:
    """The whole mapping. It remembers what it made of a subject: few concepts make many obs."""

    groups: tuple[Group, ...]
    panel_classes: frozenset[str]
    rules: tuple[Rule, ...]
    answers: tuple[tuple[Answer, AnswerList], ...] = ()
    siblings: tuple[tuple[Role, tuple[Matcher, ...]], ...] = ()
    other_notes: bool = True
    _senses: dict[Subject, Sense] = field(default_factory=dict, repr=False, compare=False)
    _roles: dict[tuple[str, Subject], str | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def words(self) -> frozenset[str]:
        """The answers that are known by their name, in small letters."""
        words: set[str] = set()
        for _, listed in self.answers:
            words |= {name.casefold() for name in listed.names}
        return frozenset(words)

    def said(self, kind: str, text: str) -> str:
        """Return an answer's text in small letters if the rules know it by its name, else "".

        `kind` is the kind of the value, as in `passport.facts.Value`.
        """
        if kind not in _IN_WORDS:
            return ""
        said = text.casefold()
        return said if said in self.words else ""

    def sense(self, subject: Subject) -> Sense:
        """Return what the rules make of a subject. The first group and rule that fit win."""
        sense = self._senses.get(subject)
        if sense is None:
            if len(self._senses) > MEMORY:
                self._senses.clear()
            sense = Sense(
                heads=next((group for group in self.groups if group.header.fits(subject)), None),
                rule=next((rule for rule in self.rules if rule.fits(subject)), None),
                answer=self._answer(subject),
                role=self._sibling_role(subject),
                panel=subject.concept_class in self.panel_classes,
            )
            self._senses[subject] = sense
        return sense

    def role(self, group: Group, subject: Subject) -> str | None:
        """Return a member's role in its group: ``value``, the name of a part, or None."""
        key = (group.name, subject)
        if key not in self._roles:
            if len(self._roles) > MEMORY:
                self._roles.clear()
            self._roles[key] = _role(group, subject)
        return self._roles[key]

    def _sibling_role(self, subject: Subject) -> Role | None:
        for role, matchers in self.siblings:
            if any(matcher.fits(subject) for matcher in matchers):
                return role
        return None

    def _answer(self, subject: Subject) -> Answer:
        for answer, listed in self.answers:
            if not listed.mappings.isdisjoint(subject.value_mappings):
                return answer
        if subject.said:
            for answer, listed in self.answers:
                if subject.said in {name.casefold() for name in listed.names}:
                    return answer
        return ""


NO_RULES = MappingRules((), frozenset(), ())  # to read a file by itself


def fingerprint(rules: MappingRules) -> str:
    """Return a short text that is the same for rules that decide the same in the same order."""
    content = {
        "groups": [group.model_dump() for group in rules.groups],
        "panel_classes": rules.panel_classes,
        "rules": [rule.model_dump() for rule in rules.rules],
        "answers": [(answer, listed.model_dump()) for answer, listed in rules.answers],
        "siblings": [
            (role, [matcher.model_dump() for matcher in matchers])
            for role, matchers in rules.siblings
        ],
        "other_notes": rules.other_notes,
    }
    # Sets have no order.
    text = json.dumps(content, sort_keys=True, default=sorted)
    return sha256(text.encode()).hexdigest()[:16]


def _role(group: Group, subject: Subject) -> str | None:
    if group.value is not None and group.value.fits(subject):
        return "value"
    for name, part in group.parts.items():
        if part.fits(subject):
            return name
    return None


def load(path: str | Path | None = None, below: MappingRules | None = None) -> MappingRules:
    """Return the rules of the file `path` before those `below`, else those of the project.

    A file of version 1 stands alone, as it always did. Raises Fatal, which names what is wrong in
    the file.
    """
    if below is None:
        below = _parsed(_default(), None)
    return below if path is None else _parsed(Path(path), below)


def _parsed(file: Path, below: MappingRules | None) -> MappingRules:
    try:
        return parse(yaml.safe_load(file.read_text(encoding="utf-8")), below)
    except ValidationError as error:
        details: list[str] = []
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            details.append(f"{place}: {problem['msg']}")
        raise Fatal(f"{file} is not a mapping", details=details, hint=f"correct {file}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Fatal(
            f"the mapping {file} can't be read ({type(error).__name__})",
            hint="correct it, hospitals.<id>.mapping or destinations.<name>.mapping",
        ) from None


def parse(content: Any, below: MappingRules | None = None) -> MappingRules:
    """Return the rules that the YAML says, asked before those `below` it.

    Raises pydantic's ValidationError.
    """
    if isinstance(content, Mapping) and content.get("version") == 1:
        return _version_1(content, below)
    checked = _File.model_validate(content)
    rules = tuple(_named(index, rule) for index, rule in enumerate(checked.rules))
    own = MappingRules(
        checked.groups,
        checked.panels.classes,
        rules,
        tuple(checked.answers.items()),
        tuple(checked.siblings.items()),
        checked.other_notes,
    )
    if below is None:
        return own
    return MappingRules(
        own.groups + below.groups,
        own.panel_classes | below.panel_classes,
        own.rules + below.rules,
        own.answers + below.answers,
        own.siblings + below.siblings,
        own.other_notes,
    )


def _named(index: int, rule: Rule) -> Rule:
    """Give a rule without a name one that says where it stands, and what it asks for first."""
    if rule.name:
        return rule
    first = next(iter((*rule.mappings, *rule.names, *rule.classes, *rule.datatypes)), "")
    return rule.model_copy(update={"name": f"rules.{index}: {rule.kind}, {first}"})


_REMEDY = (
    "Take this rule out. What it showed is listed by `passport mapping unmapped`, with a rule by"
    " the question's code for each"
)


class _Group1(_Checked):
    name: str
    type: Literal["condition", "medication", "test", "visit"]
    header: Matcher
    value: Matcher
    parts: dict[
        Literal["certainty", "rank", "dosage", "frequency", "duration", "start", "endDate"], Matcher
    ] = Field(default_factory=dict)


class _Rule1(Matcher):
    type: Literal["condition", "medication", "test", "visit", "none"]
    words: tuple[str, ...] = ()

    @field_validator("words")
    @classmethod
    def _no_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        raise ValueError(f"words of a name decide no more. {_REMEDY}")

    @model_validator(mode="after")
    def _asks_the_question(self) -> "_Rule1":
        decides = self.mappings or self.classes or self.datatypes or self.names or self.values
        if self.value_classes and not decides:
            raise ValueError(f"the class of an answer alone decides no more. {_REMEDY}")
        return self


class _File1(_Checked):
    version: Literal[1]
    groups: tuple[_Group1, ...] = ()
    panels: Panels = Panels()
    rules: tuple[_Rule1, ...] = ()


def _version_1(content: Mapping[str, Any], below: MappingRules | None) -> MappingRules:
    """Return what a file of version 1 says, which was all that there was.

    The answers that mean no are those of the project: they made records that said "No".
    """
    checked = _File1.model_validate(content)
    groups = [
        Group(
            name=group.name,
            kind=group.type,
            asks="anything",
            header=group.header,
            value=group.value,
            parts=dict(group.parts),
        )
        for group in checked.groups
    ]
    rules: list[Rule] = []
    for index, rule in enumerate(checked.rules):
        fields = rule.model_dump(include=set(Matcher.model_fields))
        kind: Kind = "detail" if rule.type == "none" else rule.type
        rules.append(_named(index, Rule(kind=kind, **fields)))
    return MappingRules(
        tuple(groups),
        checked.panels.classes,
        tuple(rules),
        below.answers if below is not None else (),
        below.siblings if below is not None else (),
        other_notes=False,
    )


def _default() -> Path:
    package = Path(passport.__file__).parent
    installed = package / "config" / "mapping.yaml"
    if installed.exists():
        return installed
    return package.parent / "config" / "mapping.yaml"  # in a checkout
