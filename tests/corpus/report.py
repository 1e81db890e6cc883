"""Compares what the product makes of the cases with what they must become."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tests.corpus.loader import CATEGORIES, DICTIONARIES, Case, Kind, Meaning

Verdict = Literal["right", "missing", "dangerous", "odd"]

# What is said of the patient by naming it.
CLAIMS: frozenset[Kind] = frozenset({"condition", "medication", "allergy"})
# What has a list of its own, in which a person looks for it.
LISTED: frozenset[Kind] = CLAIMS | {"vaccination", "test"}
SILENT: frozenset[Kind] = frozenset({"negated", "nothing"})
# What several rows can say together.
OF_SEVERAL_ROWS: frozenset[Kind] = LISTED | {"detail"}


@dataclass(frozen=True)
class Outcome:
    """What the product makes of a case's question.

    `name` is what a person reads of a condition, a medication or the like; of a test its name and
    its result. `beside` are the keys of the siblings' questions that are in the same record.
    `flag` is the badge of a test.
    """

    meaning: Meaning
    name: str = ""
    beside: frozenset[str] = frozenset()
    flag: str = "none"


@dataclass(frozen=True)
class Result:
    """What became of a case, and what that is worth."""

    case: Case
    outcome: Outcome
    verdict: Verdict


def verdict(case: Case, made: Outcome) -> Verdict:
    """Return what an outcome is worth to the patient who reads it.

    - ``dangerous``: it says that the patient has, takes or does not bear something, and the doctor
      did not say so; or more surely than the doctor did, or by another name.
    - ``missing``: it is not to be read, or not where one looks for it.
    - ``odd``: it is to be read in another way than it should, and misleads nobody.
    """
    meaning = made.meaning
    if _is_shown(meaning) and meaning.kind in CLAIMS:
        return _verdict_of_claim(case, made)
    silent = not _is_shown(meaning)
    if meaning in case.accepted or (silent and any(not _is_shown(one) for one in case.accepted)):
        return "right" if _is_whole(case, made) else "odd"
    if silent or meaning.kind == "detail" or case.becomes.kind in LISTED:
        return "missing"
    return "odd"


def _is_shown(meaning: Meaning) -> bool:
    return meaning.kind not in SILENT and meaning.state != "ruled out"


def _verdict_of_claim(case: Case, made: Outcome) -> Verdict:
    meaning = made.meaning
    states = {one.state for one in case.accepted if one.kind == meaning.kind}
    if not states or not _is_named_rightly(case, made):
        return "dangerous"
    if meaning.state in states:
        return "right" if _is_whole(case, made) else "odd"
    # A past or suspected disease that the doctor states now is less than was said, not more.
    return "odd" if meaning.state in ("past", "suspected") and "present" in states else "dangerous"


def _is_named_rightly(case: Case, made: Outcome) -> bool:
    """Return whether a claim has the name that was judged.

    Where another kind was judged first, it must be named by the question or by the answer, and
    never by a bare yes.
    """
    if made.meaning.state == "none known":
        return True
    if case.becomes.kind in CLAIMS:
        return made.name == case.reads
    names = {case.question.name, case.answer.text} - {"Yes", "No"}
    return made.name in names


def _is_whole(case: Case, made: Outcome) -> bool:
    """Return whether what belongs together is together, and a test has its badge."""
    if case.flags and made.flag not in case.flags:
        return False
    return set(case.same_record) <= made.beside or made.meaning.kind not in OF_SEVERAL_ROWS


# --- as tables

PAGE = """# What real questions become

<!-- Made by `make docs` from tests/corpus. -->

{answers} answers to {questions} questions of the forms of five public dictionaries were judged as a
clinician would, by the dictionary and the form and not by what the code does. `tests/corpus` has
them, their sources, and how to judge another one. `tests/unit/test_corpus.py` demands that none is
dangerous and that nine of ten are right.

A third was held back until the rules were written. Of those 398 answers, which nobody had seen who
wrote them, 347 (87 %) were right, 17 missing, 33 odd and 1 dangerous: "Stillbirth: yes" of a death
certificate became a condition, which is now accepted, as the doctor did state it. Four rules were
added afterwards; so the numbers below are of questions that have been seen. Before the first rule
was written they were 414 right, 412 missing, 288 dangerous and 80 odd of 1,194.

- **right**: what a person reads is what was meant, and stands in one place.
- **missing**: it is not to be read, or not in the list where one looks for it. Most of these are
  shown as question and answer, under "Other notes".
- **dangerous**: a condition, a medication or an allergy of the patient that the doctor did not
  state.
- **odd**: it is to be read in another way than it should, and misleads nobody.

{tables}"""


def page(judged: Sequence[Result]) -> str:
    """Return the page of the documentation."""
    cases = [one.case for one in judged]
    return PAGE.format(
        answers=f"{len(cases):,}",
        questions=len({(case.dictionary, case.form, case.groups, case.question) for case in cases}),
        tables=tables(judged),
    )


def tables(judged: Sequence[Result]) -> str:
    """Return the report as Markdown."""
    decidable = [one for one in judged if not one.case.is_undecidable]
    parts = [_by_category(decidable), _by_kind(decidable), _by_dictionary(decidable)]
    parts.append(_of_undecidable([one for one in judged if one.case.is_undecidable]))
    return "\n\n".join(parts) + "\n"


def _of_undecidable(judged: Sequence[Result]) -> str:
    counts = Counter(one.verdict for one in judged)
    return (
        f"Not counted: {len(judged)} answers whose concepts say something else than the label of "
        f"the form, of which a destination learns nothing. {counts['dangerous']} of them become a "
        "condition, a medication or an allergy that the doctor did not state."
    )


def _by_category(judged: Sequence[Result]) -> str:
    groups = [
        (category, [one for one in judged if one.case.category == category])
        for category in CATEGORIES
    ]
    return _verdicts("category", [*groups, ("**all**", judged)])


def _by_dictionary(judged: Sequence[Result]) -> str:
    groups = [
        (dictionary, [one for one in judged if one.case.dictionary == dictionary])
        for dictionary in DICTIONARIES
    ]
    held_back = [one for one in judged if one.case.held_back]
    return _verdicts("dictionary", [*groups, ("held back", held_back)])


def _verdicts(title: str, groups: Iterable[tuple[str, Sequence[Result]]]) -> str:
    lines = [
        f"| {title} | cases | right | missing | dangerous | odd |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [_line(name, judged) for name, judged in groups]
    return "\n".join(lines)


def _line(title: str, judged: Sequence[Result]) -> str:
    counts = Counter(one.verdict for one in judged)
    numbers = [len(judged), *(counts[verdict] for verdict in get_args(Verdict))]
    return f"| {title} | {' | '.join(map(str, numbers))} |"


def _by_kind(judged: Sequence[Result]) -> str:
    """Return precision and recall of each kind.

    Precision: of what became this kind, how much might. Recall: of what should become this kind
    first of all, how much became it or something else that would do.
    """
    lines = ["| kind | should | became | precision | recall |", "|---|--:|--:|--:|--:|"]
    for kind in get_args(Kind):
        should = [one for one in judged if one.case.becomes.kind == kind]
        became = [one for one in judged if one.outcome.meaning.kind == kind]
        precise = [one for one in became if one.verdict == "right"]
        recalled = [one for one in should if one.verdict == "right"]
        lines.append(
            f"| {kind} | {len(should)} | {len(became)} "
            f"| {_share(len(precise), len(became))} | {_share(len(recalled), len(should))} |"
        )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"
