"""The state of a person, and ids that two patients hold."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmrs.identity import Holders, PersonFacts, digits, stated

ID, OTHER = "1199080012345678", "1199080087654321"


def facts(
    *identifiers: tuple[str, bool], patient: bool = True, voided: bool = False
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
        (facts(("", False)), ("invalid", None)),
        (facts(("123456789", False)), ("invalid", None)),
        (facts(("1" * 17, False)), ("invalid", None)),
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
    "typed", ["1-1990-8001234-5-678", " 1199080012345678\t", "ID 1199080012345678"]
)
def test_digits_as_typed(typed: str) -> None:
    assert digits(typed) == "1199080012345678"


def test_digits_of_other_scripts_are_none() -> None:
    assert digits("\u0661\u0662\u0967\u09e712") == "12"


def test_leading_zeros_count() -> None:
    holders = Holders()
    holders.replace(1, ["0123456789"])
    holders.replace(2, ["00123456789"])
    assert holders.of("0123456789") == (1,)


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
            assert set(holders.of(one)) == {who for who, theirs in held.items() if one in theirs}
        assert holders.holders_of_same_ids(patient) == shared(held, patient, ids)


@given(st.dictionaries(PATIENTS, IDS), st.dictionaries(PATIENTS, IDS))
def test_reload_names_whoever_changed_and_who_shares(
    before: dict[int, set[str]], after: dict[int, set[str]]
) -> None:
    holders = Holders()
    for patient, ids in before.items():
        holders.replace(patient, ids)
    named = holders.reload(after)
    clean = [{who: ids - {"short"} for who, ids in one.items()} for one in (before, after)]
    changed = {
        who for who in {*before, *after} if clean[0].get(who, set()) != clean[1].get(who, set())
    }
    assert changed <= named
    touched = {
        one for who in changed for one in clean[0].get(who, set()) ^ clean[1].get(who, set())
    }
    assert {who for who, ids in clean[1].items() if ids & touched} <= named
    for one in (ID, OTHER, "1111111111"):
        assert set(holders.of(one)) == {who for who, ids in after.items() if one in ids}
