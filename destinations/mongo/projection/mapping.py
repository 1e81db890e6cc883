"""config/mapping.yaml as matchers: what becomes of an obs, by its concept.

All but `load`, which reads the file, is pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import passport
from passport.errors import Fatal

MEMORY = 20_000  # subjects
RecordType = Literal["condition", "medication", "test", "visit"]


class Subject(NamedTuple):
    """What matchers look at: an obs' concept, and its coded answer's class and mappings."""

    name: str
    concept_class: str
    datatype: str
    mappings: tuple[str, ...]
    value_class: str | None
    value_mappings: tuple[str, ...] = ()


class Matcher(BaseModel):
    """A condition on a subject. All fields that are set must fit, a list by one of its entries."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    mappings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    datatypes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    value_classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "Matcher":
        says_something = (
            self.mappings
            or self.classes
            or self.datatypes
            or self.names
            or self.words
            or self.value_classes
            or self.values
        )
        if not says_something:
            raise ValueError("needs at least one of " + ", ".join(Matcher.model_fields))
        return self

    @cached_property
    def _words(self) -> re.Pattern[str]:
        words = "|".join(re.escape(word) for word in self.words)
        return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name.casefold() for name in self.names)

    def fits(self, subject: Subject) -> bool:
        return (
            (not self.mappings or not set(self.mappings).isdisjoint(subject.mappings))
            and (not self.classes or subject.concept_class in self.classes)
            and (not self.datatypes or subject.datatype in self.datatypes)
            and (not self.names or subject.name.casefold() in self._names)
            and (not self.words or bool(self._words.search(subject.name)))
            and (not self.value_classes or subject.value_class in self.value_classes)
            and (not self.values or not set(self.values).isdisjoint(subject.value_mappings))
        )


class Rule(Matcher):
    """Type ``none``: what fits makes no record, and no later rule is asked."""

    type: RecordType | Literal["none"]

    @property
    def makes(self) -> RecordType | None:
        return None if self.type == "none" else self.type


class Group(BaseModel):
    """A header and its members: one record. `parts` add to it, in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: RecordType
    header: Matcher
    value: Matcher
    parts: dict[
        Literal["certainty", "rank", "dosage", "frequency", "duration", "start", "endDate"], Matcher
    ] = Field(default_factory=dict)


class Panels(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: frozenset[str] = frozenset()


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    groups: tuple[Group, ...] = ()
    panels: Panels = Panels()
    rules: tuple[Rule, ...] = ()


class Sense(NamedTuple):
    """The meaning that the rules give a subject.

    `heads` is the group that it is the header of. `alone` is its type as a record of its own.
    `panel` says whether it names a panel.
    """

    heads: Group | None
    alone: RecordType | None
    panel: bool


@dataclass(frozen=True)
class MappingRules:
    """The whole mapping. It remembers what it made of a subject: few concepts make many obs."""

    groups: tuple[Group, ...]
    panel_classes: frozenset[str]
    rules: tuple[Rule, ...]
    _senses: dict[Subject, Sense] = field(default_factory=dict, repr=False, compare=False)

    def sense(self, subject: Subject) -> Sense:
        """Return what the rules make of a subject. The first group and rule that fit win."""
        sense = self._senses.get(subject)
        if sense is None:
            if len(self._senses) > MEMORY:
                self._senses.clear()
            sense = Sense(
                heads=next((group for group in self.groups if group.header.fits(subject)), None),
                alone=next((rule.makes for rule in self.rules if rule.fits(subject)), None),
                panel=subject.concept_class in self.panel_classes,
            )
            self._senses[subject] = sense
        return sense

    @staticmethod
    def role(group: Group, subject: Subject) -> str | None:
        """Return a member's role in its group: ``value``, the name of a part, or None."""
        if group.value.fits(subject):
            return "value"
        for name, part in group.parts.items():
            if part.fits(subject):
                return name
        return None


def codes(uuid: str, mappings: Sequence[str]) -> tuple[str, ...]:
    """Return a concept's mappings, and ``CIEL:<code>`` if its uuid is of that dictionary.

    Such a uuid is the code, then As, 36 characters in all.
    """
    return (*mappings, *_ciel(uuid))


@lru_cache(16_384)
def _ciel(uuid: str) -> tuple[str, ...]:
    match = re.fullmatch(r"([0-9]+)A+", uuid) if len(uuid) == 36 else None
    return (f"CIEL:{match[1]}",) if match else ()


def load(path: str | Path | None = None) -> MappingRules:
    """Return the rules of the file `path`, or those that come with the project.

    Raises Fatal, which names what is wrong in the file.
    """
    file = Path(path) if path is not None else _default()
    try:
        return parse(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        details: list[str] = []
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"])
            details.append(f"{place}: {problem['msg']}")
        raise Fatal(f"{file} is not a mapping", details=details, hint=f"correct {file}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Fatal(
            f"the mapping {file} can't be read ({type(error).__name__})",
            hint="correct it, or destinations.<name>.mapping",
        ) from None


def parse(content: Mapping[str, Any]) -> MappingRules:
    """Return the rules that the YAML says. Raises pydantic's ValidationError."""
    checked = _File.model_validate(content)
    return MappingRules(checked.groups, checked.panels.classes, checked.rules)


def _default() -> Path:
    package = Path(passport.__file__).parent
    installed = package / "config" / "mapping.yaml"
    if installed.exists():
        return installed
    return package.parent / "config" / "mapping.yaml"  # in a checkout
