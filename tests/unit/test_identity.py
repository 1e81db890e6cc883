"""What is read as a national id, the state of a person, and ids that two patients hold."""

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmrs.identity import Holders, PersonFacts, stated
from openmrs.national_id import (
    IdentifierType,
    compiled_format,
    has_luhn_digit,
    read_national_id,
)

ID, OTHER = "1199080012345678", "1199080087654321"


def facts(
    *identifiers: tuple[str | None, bool], patient: bool = True, voided: bool = False
) -> PersonFacts:
    return PersonFacts("u", patient, voided, identifiers)


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts((ID, False)), ("ok", ID)),
        (facts((ID, False), (OTHER, True)), ("ok", OTHER)),
        (facts((ID, False), (OTHER, False)), ("ambiguous", None)),
        (facts((ID, True), (OTHER, True)), ("ambiguous", None)),
        (facts((ID, False), (ID, False)), ("ok", ID)),
        (facts(), ("none", None)),
        (facts((None, False)), ("invalid", None)),
        (facts((None, False), (None, False)), ("invalid", None)),
        (facts((None, False), (ID, False)), ("ambiguous", None)),
        (facts((None, False), (ID, True)), ("ok", ID)),
        (facts((None, True), (ID, False)), ("invalid", None)),
        (facts(("0123456789", False)), ("ok", "0123456789")),
        (facts((ID, False), patient=False), ("not_patient", None)),
        (facts((ID, False), voided=True), ("voided", None)),
    ],
)
def test_states(given_facts: PersonFacts, expected: tuple[str, str | None]) -> None:
    assert stated(7, given_facts, Holders()) == expected


def test_an_id_that_another_holds_is_ambiguous() -> None:
    holders = Holders()
    holders.replace(7, [ID])
    assert stated(7, facts((ID, False)), holders) == ("ok", ID)
    holders.replace(8, [OTHER, ID])
    assert stated(7, facts((ID, False)), holders) == ("ambiguous", None)


@pytest.mark.parametrize(
    "written",
    ["1-1990-8001234-5-678", " 1199080012345678\t", "1.1990.8 / 0012345 - 678", "1199080012345678"],
)
def test_digits_and_what_separates_them_are_a_national_id(written: str) -> None:
    assert read_national_id(written) == ID


@pytest.mark.parametrize(
    "written",
    [
        "B/O 1199080012345678",
        "ID 1199080012345678",
        "1199080012345678B",
        "+250788123456",
        "(1199080012345678)",
        "1199080012345678-",
        "/1199080012345678",
        "1199080012345678, 1199080087654321",
        "\u0661\u0662\u0967\u09e712345678901",
        "1199\u00a0080012345678",
        "",
        " - ",
        "123456789",
        "1" * 17,
    ],
)
def test_anything_else_is_none(written: str) -> None:
    assert read_national_id(written) is None


def test_an_identifier_fits_its_types_format_with_separators_or_without() -> None:
    plain = IdentifierType(1, r"\d{16}", "").reader()
    assert [plain(ID), plain("1 1990 80012345678"), plain("0788123456")] == [ID, ID, None]
    dashed = IdentifierType(1, r"^\d-\d{4}-\d{11}$", "").reader()
    assert [dashed(ID), dashed("1-1990-80012345678")] == [None, ID]


def test_java_formats_that_are_understood_and_that_are_not() -> None:
    understood = [
        r"\d{16}",
        "[0-9]{10,16}",
        r"^(1|2|3)(19|20)\d{2}[78]\d{10}$",
        r"(\d{4}-\d{6})|(\d{16})",
        "[A-Z]{2}[0-9]{8}",
    ]
    assert [written for written in understood if compiled_format(written) is None] == []
    other = [r"\p{Alpha}+", "([0-9]+)+", "(?=1)[0-9]+", "[0-9&&[^5]]+", "[", "9{2}{3}", "[z-a]"]
    other.append("[0-9]*" * 9 + "x")
    assert [written for written in other if compiled_format(written) is not None] == []
    assert compiled_format("") is None
    assert IdentifierType(1, "([0-9]+)+", "").not_understood() == "format"
    assert IdentifierType(1, "", "org.example.Other").not_understood() == "validator"


@given(st.integers(0, 10**15 - 1))
def test_one_check_digit_of_ten_is_right(number: int) -> None:
    fitting = [digit for digit in "0123456789" if has_luhn_digit(f"{number:015}{digit}")]
    assert len(fitting) == 1
    assert has_luhn_digit("79927398713")


def test_leading_zeros_count() -> None:
    holders = Holders()
    holders.replace(1, ["0123456789"])
    holders.replace(2, ["00123456789"])
    assert holders.of("0123456789") == {1}


PATIENTS = st.integers(1, 4)
IDS = st.sets(st.sampled_from([ID, OTHER, "1111111111", "short"]), max_size=3)


def shared(held: Mapping[int, set[str]], patient: int, ids: set[str]) -> set[int]:
    valid = {one for one in ids if one != "short"}
    return {other for other, theirs in held.items() if other != patient and theirs & valid}


@given(st.lists(st.tuples(PATIENTS, IDS)))
def test_holders_are_as_a_plain_scan_says(changes: list[tuple[int, set[str]]]) -> None:
    holders, held = Holders(), dict[int, set[str]]()
    for patient, ids in changes:
        before = held.get(patient, set())
        assert holders.replace(patient, ids) == shared(held, patient, before ^ ids)
        held[patient] = ids
        for one in (ID, OTHER, "1111111111"):
            assert holders.of(one) == {who for who, theirs in held.items() if one in theirs}
        assert holders.holders_of_same_ids(patient) == shared(held, patient, ids)


@given(st.dictionaries(PATIENTS, IDS), st.dictionaries(PATIENTS, IDS))
def test_reload_names_whoever_changed_and_who_shares(
    before: dict[int, set[str]], after: dict[int, set[str]]
) -> None:
    holders = Holders()
    for patient, ids in before.items():
        holders.replace(patient, ids)
    named = holders.reload((who, one) for who, ids in after.items() for one in ids)
    clean = [{who: ids - {"short"} for who, ids in one.items()} for one in (before, after)]
    changed = {
        who for who in {*before, *after} if clean[0].get(who, set()) != clean[1].get(who, set())
    }
    touched = {
        one for who in changed for one in clean[0].get(who, set()) ^ clean[1].get(who, set())
    }
    sharing = {who for who, ids in clean[1].items() if ids & touched}
    was_empty = not any(clean[0].values())
    assert named == (set() if was_empty else changed | sharing)
    for one in (ID, OTHER, "1111111111"):
        assert holders.of(one) == {who for who, ids in after.items() if one in ids}


def test_b15_the_index_stays_small() -> None:
    """A million ids take 40 MB, however often they are loaded."""

    def pairs() -> Iterator[tuple[int, str]]:
        return ((patient, f"9{patient * 7919 % count:015d}") for patient in range(count))

    count = 20_000
    holders = Holders()
    for _ in range(3):
        assert holders.reload(pairs()) == set()
        databases = holders._index.execute("PRAGMA database_list").fetchall()
        ((pages,),) = holders._index.execute("PRAGMA page_count")
        ((page_bytes,),) = holders._index.execute("PRAGMA page_size")
        assert len(databases) == 1
        assert pages * page_bytes / count < 50
