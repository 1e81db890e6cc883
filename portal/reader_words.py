"""What a record says in the reader's language, by the obs that make it. Pure.

A record has the hospital's own words alone. The mirror's rows of its obs know what else these words
are called, and what a number is compared with. What no row of the record has a word for stays as
the hospital, or somebody in the Passport, wrote it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


def words_by_own(rows: Iterable[Document], language: str) -> dict[str, str]:
    """Return the words of a language by the hospital's own, of all that these rows name.

    A word is left out if there is none in that language, or if it is the same.
    """
    words: dict[str, str] = {}
    for row in rows:
        concept = row.get("concept") or {}
        value = row.get("value") or {}
        for own, names in (
            (concept.get("name"), concept.get("names")),
            (value.get("text"), value.get("names")),
        ):
            word = _in_language(names or {}, language)
            if own and word:
                words[own] = word
    return words


def translated(text: str, words: Mapping[str, str]) -> str:
    """Return a text of a record with these words. It may be several, joined as ``"; "``."""
    if text in words:
        return words[text]
    return "; ".join(words.get(part, part) for part in text.split("; "))


@dataclass(frozen=True, slots=True)
class Usual:
    """What a test's number is compared with.

    `range` has the bounds that there are: ``low`` and ``high``, ``lowCritical`` and the like.
    `computed` is what follows for the number, None if the hospital has said it itself.
    """

    range: Mapping[str, float]
    computed: str | None


def usual(record: Document) -> Usual | None:
    """Return what the record's number is compared with, None if it is no number or with nothing.

    Whoever edits a result in the Passport may write another number, which nobody has compared.
    """
    result = str(record["data"].get("result") or "").partition(" ")[0]
    uuid = (record.get("openmrsData") or {}).get("obsUuid")
    for row in record.get("rows") or ():
        value = row.get("value") or {}
        if row["row"].get("uuid") == uuid and "range" in value and value["text"] == result:
            bounds = {name: bound for name, bound in value["range"].items() if name != "source"}
            return Usual(bounds, value.get("computed"))
    return None


def _in_language(names: Mapping[str, str], language: str) -> str | None:
    """Return the name in the language itself, else in a locale of it, such as ``fr_RW``."""
    if language in names:
        return names[language]
    for locale, name in names.items():
        if locale.partition("_")[0] == language:
            return name
    return None
