"""Learns from the corpus what questions ask for, and measures the suggestions on it."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from meaning.facts import Kind, State, codes
from meaning.reading import CLAIMS
from meaning.rules import Asks
from meaning.suggest import LEAST_OF_A_CLAIM, Known, Question, Suggester, Suggestion, known_as_row
from tests.corpus.loader import DICTIONARIES, Case

# Outcomes of an answer, not what a question asks for.
_NO_KINDS = frozenset({"negated", "nothing"})


def known_questions(cases: Iterable[Case]) -> list[Known]:
    """Return each question of a dictionary with what most of its answers must become.

    Denying answers say nothing of it, and cases that can't be decided are left out.
    """
    by_question: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        if case.becomes.kind not in _NO_KINDS and not case.is_undecidable:
            by_question[case.dictionary, case.question.uuid].append(case)
    return [_known(answers) for answers in by_question.values()]


def _known(answers: Sequence[Case]) -> Known:
    question = answers[0].question
    kinds = Counter(case.becomes for case in answers)
    # Of as many answers of two kinds, the one that claims less.
    meaning = min(kinds, key=lambda one: (-kinds[one], one.kind in CLAIMS))
    kind: Kind = meaning.kind.replace(" ", "_")  # type: ignore[assignment]
    state: State = meaning.state.replace(" ", "_")  # type: ignore[assignment]
    asks: Asks = "anything"
    if kind in CLAIMS:
        named = sum(
            1 for case in answers if case.becomes == meaning and case.reads == question.name
        )
        asks = "whether" if 2 * named > kinds[meaning] else "which"
    if state == "none_known":
        state = "present"
    sets = dict.fromkeys([*question.sets, *(g.name for one in answers for g in one.groups)])
    classes = {one.answer.concept.concept_class for one in answers if one.answer.concept}
    described = Question(
        name=question.name,
        concept_class=question.concept_class,
        datatype=question.datatype,
        codes=codes(question.uuid, question.same_as),
        sets=tuple(sets),
        answers=tuple(sorted(classes - {""})),
    )
    return Known(described, kind, state, asks, answers[0].dictionary)


def table(known: Iterable[Known]) -> str:
    """Return config/known-concepts.tsv."""
    rows = [known_as_row(one) for one in known]
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        rows[0].keys(),
        delimiter="\t",
        lineterminator="\n",
        quoting=csv.QUOTE_NONE,
        quotechar=None,
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Held:
    """A question of a dictionary that was held back, and what was suggested for it."""

    known: Known
    suggestion: Suggestion

    @property
    def is_right(self) -> bool:
        return self.suggestion.kind == self.known.kind

    @property
    def shares_a_code(self) -> bool:
        """Whether another dictionary has the same concept, by one of its codes."""
        neighbours = self.suggestion.neighbours
        return bool(neighbours) and neighbours[0].nearness == 1.0


def held_back(known: Sequence[Known]) -> list[Held]:
    """Ask for each question while its whole dictionary is held back."""
    results: list[Held] = []
    for dictionary in DICTIONARIES:
        suggester = Suggester([one for one in known if one.dictionary != dictionary])
        asked = [one for one in known if one.dictionary == dictionary]
        results += [Held(one, suggester.suggest(one.question)) for one in asked]
    return results


# --- the page

PAGE = """# What suggestions for a mapping are worth

<!-- Made by `make docs` from tests/corpus and meaning/suggest.py. -->

`passport mapping suggest` names the known concepts that are nearest to an unmapped one, and
suggests what they ask for. Known are {count} questions of five public dictionaries
(`config/known-concepts.tsv`), judged in [the corpus](meaning-corpus.md). Here each dictionary is
held back as a whole, and the other four are asked about its questions. Right is a suggestion of the
kind that was judged first; another one that would do is counted as wrong.

**{right} of {count} are right ({share}).** Who always said "note" would be right in {notes}. So
look at each: nothing is decided by a suggestion, and a wrong condition, medication, allergy or
vaccination would put into a Passport what no doctor stated. These are suggested with a confidence
of {least_of_a_claim} and more alone: {claims} times, of which {wrong_claims} are wrong.

{by_confidence}

The confidence is the share of the neighbours that agree, times the nearness of the nearest of
these. The same concept is one that shares a code (SAME-AS) with one of another dictionary. The
weights of words, class, datatype, answers and sets were chosen with a look at these numbers: on a
dictionary that nobody has seen they may be some points lower.

## By kind

{by_kind}

## By dictionary

{by_dictionary}

## What it gets wrong

How often each kind was taken for another, the most frequent first:

{confusions}

The wrong conditions, medications, allergies and vaccinations:

{examples}

What the wrong ones have in common:

- **Whose it is.** The questions of the mother, the partner and the child have the words, the class
  and the datatype of the patient's own.
- **The group.** The same concept asks for a drug that is taken in one group, and for the drug that
  did harm in another. A rule of a question can't tell them apart; a group can.
- **History, screening and reasons.** Reasons, risk factors and exposures have diagnoses as answers,
  as a diagnosis has.
- **Note, finding or detail.** A text of class Misc is any of them. These errors mislead nobody.
- **Concepts without a class or datatype**, of which only a form's label is known, have their name
  alone to go by.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
BANDS = ((0.75, 1.01), (0.5, 0.75), (0.3, 0.5), (0.2, 0.3), (0.0, 0.2))
SHOWN = 12


def suggestions_page(held: Sequence[Held]) -> str:
    """Return the page of the documentation."""
    right = _right(held)
    claims = [one for one in held if one.suggestion.kind in CLAIMS]
    return PAGE.format(
        count=len(held),
        right=len(right),
        share=_share(len(right), len(held)),
        notes=_share(sum(1 for one in held if one.known.kind == "note"), len(held)),
        least_of_a_claim=LEAST_OF_A_CLAIM,
        claims=len(claims),
        wrong_claims=len(claims) - len(_right(claims)),
        by_confidence=_by_confidence(held),
        by_kind=_by_kind(held),
        by_dictionary=_by_dictionary(held),
        confusions=_confusions(held),
        examples=_examples(claims),
    )


def _by_confidence(held: Sequence[Held]) -> str:
    groups: list[tuple[str, list[Held]]] = []
    for least, below in BANDS:
        title = f"confidence {least:.2f} and more" if below > 1 else f"{least:.2f} to {below:.2f}"
        groups.append((title, [one for one in held if least <= one.suggestion.confidence < below]))
    groups.append(("the same concept elsewhere", [one for one in held if one.shares_a_code]))
    groups.append(("no dictionary has the same", [one for one in held if not one.shares_a_code]))
    return _table(("", "questions", "right", "share"), groups)


def _by_dictionary(held: Sequence[Held]) -> str:
    groups = [
        (name, [one for one in held if one.known.dictionary == name]) for name in DICTIONARIES
    ]
    return _table(("held back", "questions", "right", "share"), groups)


def _table(titles: Sequence[str], groups: Iterable[tuple[str, Sequence[Held]]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|---|--:|--:|--:|"]
    for title, held in groups:
        right = len(_right(held))
        lines.append(f"| {title} | {len(held)} | {right} | {_share(right, len(held))} |")
    return "\n".join(lines)


def _by_kind(held: Sequence[Held]) -> str:
    """Return precision (of what was suggested) and recall (of what should have been)."""
    lines = ["| kind | should | suggested | precision | recall |", "|---|--:|--:|--:|--:|"]
    for kind in KINDS:
        should = [one for one in held if one.known.kind == kind]
        suggested = [one for one in held if one.suggestion.kind == kind]
        if should or suggested:
            precision = _share(len(_right(suggested)), len(suggested))
            recall = _share(len(_right(should)), len(should))
            counts = f"{len(should)} | {len(suggested)} | {precision} | {recall}"
            lines.append(f"| {_words(kind)} | {counts} |")
    return "\n".join(lines)


def _confusions(held: Sequence[Held]) -> str:
    wrong = Counter((one.known.kind, one.suggestion.kind) for one in held if not one.is_right)
    lines = ["| is | suggested | questions |", "|---|---|--:|"]
    for (kind, suggested), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0])):
        if len(lines) < SHOWN + 2:
            lines.append(f"| {_words(kind)} | {_words(suggested)} | {count} |")
    return "\n".join(lines)


def _examples(claims: Sequence[Held]) -> str:
    wrong = [one for one in claims if not one.is_right]
    wrong.sort(key=lambda one: (-one.suggestion.confidence, one.known.question.name))
    lines = ["| question | is | suggested | confidence | nearest |", "|---|---|---|--:|---|"]
    for one in wrong[:SHOWN]:
        question = f"{one.known.question.name} ({one.known.dictionary})"
        nearest = one.suggestion.neighbours[0].known.question.name
        kinds = f"{_words(one.known.kind)} | {_words(one.suggestion.kind)}"
        lines.append(f"| {question} | {kinds} | {one.suggestion.confidence:.2f} | {nearest} |")
    return "\n".join(lines)


def _right(held: Iterable[Held]) -> list[Held]:
    return [one for one in held if one.is_right]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
