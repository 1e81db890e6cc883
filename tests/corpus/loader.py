"""Reads the tables of this folder, and checks them."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from passport.facts import ValueKind

FOLDER = Path(__file__).parent
DICTIONARIES = ("lime", "refapp", "kenyaemr", "ugandaemr", "bahmni")

Kind = Literal[
    "condition",
    "medication",
    "allergy",
    "test",
    "vaccination",
    "finding",
    "visit",
    "order",
    "family history",
    "somebody else",
    "negated",
    "detail",
    "note",
    "nothing",
]
State = Literal["present", "past", "suspected", "ruled out", "none known"]
STATES: Mapping[Kind, tuple[State, ...]] = {
    "condition": ("present", "past", "suspected", "ruled out"),
    "medication": ("present", "past"),
    "allergy": ("present", "none known"),
}
CATEGORIES = (
    "diagnosis",
    "screening",
    "drug history",
    "family",
    "past history",
    "prescription",
    "vaccine",
    "allergy",
    "drug stop",
    "lab",
    "obstetric",
    "HIV and TB",
    "contact",
    "lab flags",
    "adverse effects",
    "vitals",
    "social history",
    "notes",
    "orders",
    "visit",
)
FLAGS = ("none", "Normal", "Abnormal", "Critical")


class CorpusError(ValueError):
    """A table of the corpus says something that can't be."""


@dataclass(frozen=True)
class Source:
    """A public repository, at the commit that was read."""

    key: str
    repository: str
    commit: str
    licence: str


@dataclass(frozen=True)
class ConceptMapping:
    """A code of another dictionary; only ``SAME-AS`` says that it means the same."""

    type: str
    source: str
    code: str


@dataclass(frozen=True)
class Concept:
    """A concept of one of the dictionaries. `key` names it within the corpus.

    `concept_class` and `datatype` are empty if no file of the dictionary says them; then only its
    name, from the label of a form, and its uuid are known.
    """

    key: str
    uuid: str
    name: str
    french: str
    concept_class: str
    datatype: str
    mappings: tuple[ConceptMapping, ...]
    sets: tuple[str, ...]

    @property
    def same_as(self) -> tuple[str, ...]:
        """The codes that mean the same, as ``SOURCE:code``."""
        same = {f"{one.source}:{one.code}" for one in self.mappings if one.type == "SAME-AS"}
        return tuple(sorted(same))


@dataclass(frozen=True)
class Answer:
    """What was answered. `concept` is there for a coded answer alone."""

    kind: ValueKind
    text: str
    concept: Concept | None = None


class Member(NamedTuple):
    """Another answer in the same group, or in the same encounter if there is no group."""

    question: Concept
    answer: Answer


class Meaning(NamedTuple):
    """What an answer becomes."""

    kind: Kind
    state: State = "present"


@dataclass(frozen=True)
class Case:
    """One answer to one question, where it stands in its form, and what it must become.

    `groups` are the headers above it, the outermost first. `becomes` is the judgement, and
    `or_else` what would do as well. `reads` is what a person reads; empty if there is nothing to
    be read. `same_record` are those of `siblings` that belong to the same record. `flags` are the
    badges of a test that are right; empty if none was judged. It `is_undecidable` if its concepts
    say something else than the label of the form: the same rows mean something else elsewhere.
    """

    id: str
    dictionary: str
    category: str
    form: str
    path: str
    source: Source
    groups: tuple[Concept, ...]
    question: Concept
    siblings: tuple[Member, ...]
    answer: Answer
    interpretation: str | None
    becomes: Meaning
    or_else: tuple[Meaning, ...]
    reads: str
    flags: tuple[str, ...]
    same_record: tuple[str, ...]
    is_undecidable: bool
    why: str
    held_back: bool

    @property
    def accepted(self) -> tuple[Meaning, ...]:
        return (self.becomes, *self.or_else)


@cache
def cases(folder: Path = FOLDER) -> tuple[Case, ...]:
    """Return all cases.

    Raises CorpusError if a table names what isn't there, uses an unknown word, or says something
    twice.
    """
    sources = _sources(folder)
    read: list[Case] = []
    for dictionary in DICTIONARIES:
        concepts = _concepts(folder / dictionary)
        forms = _forms(folder / dictionary, sources)
        for row in _rows(folder / dictionary / "cases.tsv"):
            try:
                read.append(_case(dictionary, row, concepts, forms))
            except (KeyError, ValueError) as error:
                raise CorpusError(f"{dictionary}/cases.tsv, {row['id']}: {error}") from None
    _check_that_nothing_is_said_twice(read)
    return tuple(read)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if None in row or None in row.values():
                raise CorpusError(f"{path.name}: a line with too many or too few columns: {row}")
            yield row


def _sources(folder: Path) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for row in _rows(folder / "sources.tsv"):
        source = Source(row["source"], row["repository"], row["commit"], row["licence"])
        if len(source.commit) != 40 or not source.licence:
            raise CorpusError(f"sources.tsv, {source.key}: needs a whole commit and a licence")
        sources[source.key] = source
    return sources


def _forms(folder: Path, sources: Mapping[str, Source]) -> dict[str, tuple[str, Source]]:
    """Return the path and the source of each form."""
    forms: dict[str, tuple[str, Source]] = {}
    for row in _rows(folder / "forms.tsv"):
        if row["source"] not in sources:
            raise CorpusError(f"{folder.name}/forms.tsv: {row['form']} has no known source")
        forms[row["form"]] = (row["path"], sources[row["source"]])
    return forms


def _concepts(folder: Path) -> dict[str, Concept]:
    concepts: dict[str, Concept] = {}
    uuids: set[str] = set()
    for row in _rows(folder / "concepts.tsv"):
        concept = Concept(
            key=row["key"],
            uuid=row["uuid"],
            name=row["name"],
            french=row["name_fr"],
            concept_class=row["class"],
            datatype=row["datatype"],
            mappings=tuple(_mapping(text) for text in _several(row["mappings"])),
            sets=tuple(_several(row["sets"])),
        )
        if concept.key in concepts or concept.uuid in uuids:
            raise CorpusError(f"{folder.name}/concepts.tsv: {concept.key} is there twice")
        concepts[concept.key] = concept
        uuids.add(concept.uuid)
    return concepts


def _mapping(text: str) -> ConceptMapping:
    map_type, _, code = text.partition(" ")
    source, _, code = code.partition(":")
    if not code:
        raise CorpusError(f"{text!r} is no mapping")
    return ConceptMapping(map_type, source, code)


def _several(text: str, between: str = " | ") -> list[str]:
    return text.split(between) if text else []


def _case(
    dictionary: str,
    row: Mapping[str, str],
    concepts: Mapping[str, Concept],
    forms: Mapping[str, tuple[str, Source]],
) -> Case:
    path, source = forms[row["form"]]
    question = concepts[row["question"]]
    siblings: list[Member] = []
    for text in _several(row["siblings"]):
        asked, _, answered = text.partition(" = ")
        siblings.append(Member(concepts[asked], _answer(answered, concepts[asked], concepts)))
    same_record = tuple(_several(row["same_record"]))
    case = Case(
        id=row["id"],
        dictionary=dictionary,
        category=row["category"],
        form=row["form"],
        path=path,
        source=source,
        groups=tuple(concepts[key] for key in _several(row["groups"], " > ")),
        question=question,
        siblings=tuple(siblings),
        answer=_answer(row["answer"], question, concepts),
        interpretation=row["interpretation"] or None,
        becomes=_meaning(row["becomes"]),
        or_else=tuple(_meaning(text) for text in _several(row["or"])),
        reads=row["reads"],
        flags=tuple(_several(row["flag"], " or ")),
        same_record=same_record,
        is_undecidable=row["undecidable"] == "yes",
        why=row["why"],
        held_back=row["held_back"] == "yes",
    )
    _check(case)
    return case


def _answer(text: str, question: Concept, concepts: Mapping[str, Concept]) -> Answer:
    """Return what a cell says: ``[a concept]``, ``"a text"``, a number, a date, true or false."""
    is_boolean = question.datatype == "Boolean"
    if text.startswith("["):
        concept = concepts[text.removeprefix("[").removesuffix("]")]
        return Answer("boolean" if is_boolean else "coded", concept.name, concept)
    if text.startswith('"'):
        return Answer("text", text.strip('"'))
    if text in ("true", "false"):
        return Answer("boolean", "Yes" if text == "true" else "No")
    if text.count("-") == 2:
        return Answer("date", text)
    float(text)
    return Answer("numeric", text)


def _meaning(text: str) -> Meaning:
    word, _, state = text.partition(": ")
    if word not in get_args(Kind):
        raise ValueError(f"{word!r} is no kind")
    kind = cast("Kind", word)
    if state and state not in STATES.get(kind, ()):
        raise ValueError(f"{state!r} is no state of a {kind}")
    return Meaning(kind, cast("State", state or "present"))


def _check(case: Case) -> None:
    if case.category not in CATEGORIES:
        raise ValueError(f"{case.category!r} is no category")
    if len(set(case.accepted)) != len(case.accepted):
        raise ValueError("it may become the same twice")
    unknown = set(case.flags) - set(FLAGS)
    if unknown:
        raise ValueError(f"{unknown} are no flags")
    siblings = {member.question.key for member in case.siblings}
    strangers = set(case.same_record) - siblings
    if strangers:
        raise ValueError(f"{strangers} belong to its record but do not stand beside it")
    is_read = case.becomes.kind not in ("negated", "detail", "nothing")
    if is_read and case.becomes.state != "ruled out" and not case.reads:
        raise ValueError("nobody has said what a person reads")


def _check_that_nothing_is_said_twice(read: list[Case]) -> None:
    ids: set[str] = set()
    stated: dict[tuple[object, ...], str] = {}
    for case in read:
        if case.id in ids:
            raise CorpusError(f"{case.id} is there twice")
        ids.add(case.id)
        where = (case.dictionary, case.form, case.groups, case.question, case.siblings)
        same = (*where, case.answer, case.interpretation)
        if same in stated:
            raise CorpusError(f"{case.id} says the same as {stated[same]}")
        stated[same] = case.id
