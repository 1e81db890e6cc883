"""Suggests what a question asks for that no rule knows: as the nearest known concepts do.

Known are the questions of public dictionaries that a clinician has judged, in
config/known-concepts.tsv. A concept is a bag of words: of its name and its sets, its class, its
datatype and the classes of its answers. Two are near each other that share rare words (the cosine
of tf-idf), or are the same if they share a code. What the nearest ones ask for is suggested.

A suggestion is a hint to a person, and nothing is ever decided by it. A wrong one is common: words
of a name can't tell the mother's HIV test from the patient's.
docs/reference/mapping-suggestions.md says how often it is wrong, and where.

All but `known_concepts`, which reads the file, is pure.
"""

import csv
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from meaning.facts import Kind, State
from meaning.reading import CLAIMS
from meaning.rules import Asks
from passport.configuration import packaged

NEIGHBOURS = 11
# What it takes to be a neighbour at all. Below it, two concepts share no more than a datatype.
LEAST_NEARNESS = 0.12
# A claim that is less sure isn't suggested: wrong meaning is worse than missing data.
LEAST_OF_A_CLAIM = 0.3
BETWEEN = " | "  # entries of a column

_WORD = re.compile(r"[^\W_]+")
# How much a word counts by where it stands; 1 in the name. Chosen by hand, with a look at what the
# corpus makes of it.
_OF_SETS = 0.4
_OF_CLASS = 1.6
_OF_DATATYPE = 1.2
_OF_ANSWERS = 1.6
_OF_PIECES = 0.35  # four letters of a word, so that forms of a word are near each other


class Question(NamedTuple):
    """What is known of a concept that asks something.

    `codes` are as in `meaning.facts.Subject.mappings`. `sets` are the names of the sets and groups
    that it stands in, `answers` the classes of the concepts that answer it.
    """

    name: str
    concept_class: str
    datatype: str
    codes: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


class Known(NamedTuple):
    """A question of a public dictionary, and what it asks for."""

    question: Question
    kind: Kind
    state: State
    asks: Asks
    dictionary: str


class Neighbour(NamedTuple):
    """A known question that is near, how near it is (0 to 1), and what the two share."""

    known: Known
    nearness: float
    shared: str


class Suggestion(NamedTuple):
    """What a question may ask for, by its neighbours, the nearest first.

    `confidence` is between 0 and 1: the share of the neighbours that agree, times how near the
    nearest of these is. Where nothing is sure enough it is a note, and the confidence 0.
    """

    kind: Kind
    state: State
    asks: Asks
    confidence: float
    neighbours: tuple[Neighbour, ...]


class Suggester:
    """Known questions, prepared so that the nearest ones are found quickly."""

    def __init__(self, known: Sequence[Known]) -> None:
        self._known = known
        features = [_features(one.question) for one in known]
        counts = Counter(feature for one in features for feature in one)
        self._rarity = {name: math.log(len(known) / count) + 1 for name, count in counts.items()}
        self._vectors = [self._vector(one) for one in features]
        self._by_feature: dict[str, list[int]] = defaultdict(list)
        for index, vector in enumerate(self._vectors):
            for feature in vector:
                self._by_feature[feature].append(index)

    def suggest(self, question: Question) -> Suggestion:
        """Return what the question may ask for."""
        neighbours = self.neighbours(question)
        votes: dict[Kind, float] = defaultdict(float)
        for neighbour in neighbours:
            # The square: one that is twice as near outvotes three.
            votes[neighbour.known.kind] += neighbour.nearness**2
        for kind in sorted(votes, key=lambda one: -votes[one]):
            # The nearest of this kind says the rest.
            nearest = next(one for one in neighbours if one.known.kind == kind)
            confidence = votes[kind] / sum(votes.values()) * nearest.nearness
            if kind in CLAIMS and confidence < LEAST_OF_A_CLAIM:
                continue
            known = nearest.known
            return Suggestion(kind, known.state, known.asks, round(confidence, 2), neighbours)
        return Suggestion("note", "present", "anything", 0.0, neighbours)

    def neighbours(self, question: Question) -> tuple[Neighbour, ...]:
        """Return the nearest known questions, the nearest first."""
        vector = self._vector(_features(question))
        products: dict[int, float] = defaultdict(float)
        for feature, weight in vector.items():
            for index in self._by_feature.get(feature, ()):
                products[index] += weight * self._vectors[index][feature]
        near: list[Neighbour] = []
        codes = set(question.codes)
        for index, known in enumerate(self._known):
            common_codes = sorted(codes.intersection(known.question.codes))
            if common_codes:
                near.append(Neighbour(known, 1.0, f"the code {common_codes[0]}"))
            elif products.get(index, 0.0) >= LEAST_NEARNESS:
                nearness = round(min(products[index], 0.99), 2)
                near.append(Neighbour(known, nearness, self._shared(vector, index)))
        near.sort(key=lambda neighbour: -neighbour.nearness)
        return tuple(near[:NEIGHBOURS])

    def _vector(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return the features by their weights, with a length of 1. Unknown ones are rarest."""
        rarest = math.log(len(self._known) + 1) + 1
        vector = {
            name: weight * self._rarity.get(name, rarest) for name, weight in features.items()
        }
        length = math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0
        return {name: weight / length for name, weight in vector.items()}

    def _shared(self, vector: Mapping[str, float], index: int) -> str:
        """Say what two questions share: what counts most first."""
        other = self._vectors[index]
        common = [name for name in vector if name in other and not name.startswith("piece ")]
        common.sort(key=lambda name: (-vector[name] * other[name], name))
        return ", ".join(common[:4])


def known_concepts() -> list[Known]:
    """Return the known questions that come with the project."""
    text = packaged("known-concepts.tsv").read_text(encoding="utf-8")
    return parse_known(text.splitlines())


def parse_known(lines: Iterable[str]) -> list[Known]:
    """Return the known questions of a table with the columns that `known_as_row` makes."""
    known: list[Known] = []
    for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
        question = Question(
            name=row["name"],
            concept_class=row["class"],
            datatype=row["datatype"],
            codes=_several(row["codes"]),
            sets=_several(row["sets"]),
            answers=_several(row["answers"]),
        )
        known.append(
            Known(
                question,
                cast("Kind", row["kind"]),
                cast("State", row["state"]),
                cast("Asks", row["asks"]),
                row["dictionary"],
            )
        )
    return known


def known_as_row(known: Known) -> dict[str, str]:
    """Return a known question as a row of the table."""
    question = known.question
    return {
        "dictionary": known.dictionary,
        "name": question.name,
        "class": question.concept_class,
        "datatype": question.datatype,
        "kind": known.kind,
        "state": known.state,
        "asks": known.asks,
        "codes": BETWEEN.join(question.codes),
        "sets": BETWEEN.join(question.sets),
        "answers": BETWEEN.join(question.answers),
    }


def rule_line(suggestion: Suggestion, codes: Sequence[str]) -> str:
    """Return a line for the `rules` of a mapping file that says what the suggestion does."""
    rule: dict[str, Any] = {"kind": suggestion.kind}
    if suggestion.state != "present":
        rule["state"] = suggestion.state
    if suggestion.asks != "anything":
        rule["asks"] = suggestion.asks
    rule["mappings"] = [own_code(codes)]
    return f"- {json.dumps(rule, ensure_ascii=False)}"


def own_code(codes: Sequence[str]) -> str:
    """Return the code by which a rule should name a concept: CIEL's, else its first one."""
    return next((code for code in codes if code.startswith("CIEL:")), codes[0])


def _several(text: str) -> tuple[str, ...]:
    return tuple(text.split(BETWEEN)) if text else ()


def _features(question: Question) -> dict[str, float]:
    """Return what a question is compared by, each with how much it counts."""
    features: dict[str, float] = {}
    for group in question.sets:
        for word in _words(group):
            features[f"set: {word}"] = _OF_SETS
    for answer_class in question.answers:
        features[f"answers: {answer_class}"] = _OF_ANSWERS
    if question.concept_class:
        features[f"class: {question.concept_class}"] = _OF_CLASS
    if question.datatype:
        features[f"datatype: {question.datatype}"] = _OF_DATATYPE
    for word in _words(question.name):
        features[word] = 1.0
        for start in range(len(word) - 3):
            features[f"piece {word[start : start + 4]}"] = _OF_PIECES
    return features


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
