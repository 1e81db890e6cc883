"""Prints what the product makes of the corpus: ``python -m tests.corpus [verdict | page]``.

With a verdict (missing, dangerous, odd) it prints the cases that have it, too. With ``page`` it
writes the pages of the documentation, and config/known-concepts.tsv.
"""

import sys
from pathlib import Path

from tests.corpus.loader import Case, Meaning, cases
from tests.corpus.product import results
from tests.corpus.report import Result, page, tables
from tests.corpus.suggestions import held_back, known_questions, suggestions_page, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/meaning-corpus.md"
SUGGESTIONS = ROOT / "docs/reference/mapping-suggestions.md"
KNOWN = ROOT / "config/known-concepts.tsv"


def main(wanted: str | None) -> int:
    """Print the report. Return 1 if a case that can be decided is dangerous, else 0."""
    judged = results(cases())
    if wanted == "page":
        PAGE.write_text(page(judged), encoding="utf-8")
        known = known_questions(cases())
        KNOWN.write_text(table(known), encoding="utf-8")
        SUGGESTIONS.write_text(suggestions_page(held_back(known)), encoding="utf-8")
        return 0
    print(tables(judged))
    for result in judged:
        if result.verdict == wanted:
            print(_line(result))
    dangerous = [one for one in judged if one.verdict == "dangerous"]
    return int(any(not one.case.is_undecidable for one in dangerous))


def _line(result: Result) -> str:
    case, made = result.case, result.outcome
    asked = " > ".join([*(group.key for group in case.groups), case.question.key])
    wanted = " or ".join(_words(meaning) for meaning in case.accepted)
    became = f"{_words(made.meaning)} {made.name}".strip()
    return f"{case.id} ({case.form}) {asked} = {_answer(case)}: {became}; should be {wanted}"


def _answer(case: Case) -> str:
    beside = [f"{member.question.key} = {member.answer.text}" for member in case.siblings]
    return f"{case.answer.text} [{'; '.join(beside)}]" if beside else case.answer.text


def _words(meaning: Meaning) -> str:
    return meaning.kind if meaning.state == "present" else f"{meaning.kind} ({meaning.state})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
