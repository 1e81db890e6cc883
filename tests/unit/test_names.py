"""Which of a concept's names is shown."""

from typing import Any

import pytest

from openmrs.lookup_queries import concept_name, names_in


def a_name(
    name_id: int, name: str, locale: str, kind: str | None = "FULLY_SPECIFIED", preferred: int = 0
) -> dict[str, Any]:
    return {
        "concept_name_id": name_id,
        "name": name,
        "locale": locale,
        "concept_name_type": kind,
        "locale_preferred": preferred,
    }


NAMES = [
    a_name(1, "Paludisme", "fr"),
    a_name(2, "Malaria", "en_GB"),
    a_name(3, "malaria, confirmed", "en", None, 1),
    a_name(4, "MAL", "en", "SHORT"),
    a_name(5, "Malariya", "rw", "INDEX_TERM"),
]


@pytest.mark.parametrize(
    ("locales", "expected"),
    [
        (("fr", "en"), "Paludisme"),
        (("en_GB",), "Malaria"),
        (("en",), "malaria, confirmed"),
        (
            ("en_US", "fr"),
            "malaria, confirmed",
        ),  # the language of the first comes before the second
        (("sw", "fr"), "Paludisme"),
        (("rw",), "Malariya"),
        (("sw",), "malaria, confirmed"),  # any: the preferred one
        ((), "malaria, confirmed"),
    ],
)
def test_locale_chain(locales: tuple[str, ...], expected: str) -> None:
    assert concept_name(NAMES, locales) == expected
    assert concept_name(reversed(NAMES), locales) == expected


def test_within_a_locale_preferred_then_type_then_the_oldest() -> None:
    kinds = [
        a_name(1, "index", "en", "INDEX_TERM"),
        a_name(2, "short", "en", "SHORT"),
        a_name(3, "synonym", "en", None),
    ]
    assert concept_name(kinds, ("en",)) == "synonym"
    full = [*kinds, a_name(9, "full", "en"), a_name(8, "older full", "en")]
    assert concept_name(full, ("en",)) == "older full"
    assert concept_name([*full, a_name(10, "wanted", "en", "INDEX_TERM", 1)], ("en",)) == "wanted"


def test_no_name() -> None:
    assert concept_name([], ("en",)) is None


def test_a_name_is_kept_in_each_locale_that_has_one_to_read() -> None:
    assert names_in(NAMES, ("en", "fr", "rw", "en_GB", "sw")) == (
        ("en", "malaria, confirmed"),
        ("fr", "Paludisme"),
        # rw has an index term alone, which is for searching
        ("en_GB", "Malaria"),
    )
    assert names_in(NAMES, ("fr_RW",)) == (("fr_RW", "Paludisme"),), "its language will do"
    assert names_in([], ("en", "fr")) == ()
