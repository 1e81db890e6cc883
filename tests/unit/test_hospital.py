"""The generated hospital's pure parts: citizens, identifiers, forms, the Passport's documents."""

import re
from collections import Counter
from datetime import datetime
from random import Random

from dev.hospital.dictionary import CLASSES, CONCEPTS, DATATYPES, DRUGS, Dictionary, concept_uuid
from dev.hospital.forms import FORMS, Draft, fill
from dev.hospital.people import (
    NATIONAL_ID_TYPE,
    Identifier,
    citizen,
    dashed,
    identifiers,
    national_id,
    spaced,
)
from dev.hospital.registration import documents
from dev.hospital.seed import NOW, statements

EMAIL = re.compile(r"^\w+([.-]?\w+)*@\w+([.-]?\w+)*(\.\w{2,3})+$")  # the Passport's own
KEYS = {concept.key: concept for concept in CONCEPTS}
IDS = {key: number for number, key in enumerate(KEYS, 1000)}
DICTIONARY = Dictionary(
    concepts=IDS,
    names={IDS["703"]: (7, 8)},
    drugs={word: number for number, word in enumerate(DRUGS, 1)},
    true=IDS["true"],
    false=IDS["false"],
)


def drafts(rounds: int = 200) -> list[Draft]:
    rng = Random(1)
    roots = [one for _ in range(rounds) for form in FORMS.values() for one in form(rng, NOW)]
    return [each for root in roots for each in (root, *root.members)]


def national(index: int) -> list[Identifier]:
    written = identifiers(index, citizen(index), citizen(10))
    return [one for one in written if one.type == NATIONAL_ID_TYPE]


def test_a_national_id_has_sixteen_digits_and_tells_birth_and_sex() -> None:
    digits = national_id(1990, "F", 42)
    assert re.fullmatch(r"119907000004[0-9]{4}", digits)
    assert int(digits[:14]) % 97 + int(digits[14:]) == 97
    assert len({citizen(number).national_id for number in range(2000)}) == 2000


def test_a_citizen_is_the_same_in_every_hospital() -> None:
    assert citizen(77) == citizen(77)
    assert citizen(77) != citizen(78)


def test_spaces_and_dashes_change_no_digit() -> None:
    digits = citizen(5).national_id
    assert len({digits, spaced(digits), dashed(digits)}) == 3
    assert re.sub(r"\D", "", spaced(digits)) == re.sub(r"\D", "", dashed(digits)) == digits


def test_identifiers_have_every_oddity() -> None:
    live = {index: [one for one in national(index) if not one.voided] for index in range(1, 301)}
    assert live[4] == live[9] == []
    assert live[10] == live[11]
    assert [one.preferred for one in live[6]] == [True, False]
    assert " " in live[7][0].value
    assert "-" in live[1][0].value
    assert sum(one.voided for index in live for one in national(index)) == 8
    lengths = Counter(len(re.sub(r"\D", "", one.value)) for ones in live.values() for one in ones)
    assert set(lengths) == {6, 7, 16}


def test_a_patient_has_one_preferred_identifier_at_least() -> None:
    for index in range(1, 301):
        assert any(
            one.preferred and not one.voided
            for one in identifiers(index, citizen(index), citizen(10))
        )


def test_ciel_concepts_have_their_real_uuids() -> None:
    assert concept_uuid("5085") == "5085AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    assert {len(concept.uuid) for concept in CONCEPTS} == {36}
    assert len({concept.uuid for concept in CONCEPTS}) == len(CONCEPTS)


def test_the_dictionary_is_closed() -> None:
    assert {concept.kind for concept in CONCEPTS} <= set(CLASSES)
    assert {concept.datatype for concept in CONCEPTS} <= set(DATATYPES)
    assert {member for concept in CONCEPTS for member in concept.members} <= set(KEYS)
    assert {key for key, _, _ in DRUGS.values()} <= set(KEYS)


def test_every_draft_has_the_value_that_its_datatype_asks_for() -> None:
    columns = {
        "Numeric": "value_numeric",
        "Coded": "coded",
        "Text": "value_text",
        "Date": "value_datetime",
        "Datetime": "value_datetime",
        "Boolean": "truth",
        "Complex": "value_complex",
    }
    seen = set()
    for draft in drafts():
        datatype = KEYS[draft.concept].datatype
        seen.add(datatype)
        if datatype == "N/A":
            assert draft.members
            assert {member.concept for member in draft.members} <= set(KEYS[draft.concept].members)
        else:
            assert columns[datatype] in draft.values
    assert seen == {*columns, "N/A"}


def test_a_draft_is_filled_with_the_ids_of_its_database() -> None:
    filled = fill(Draft("32", {"coded": "703"}), DICTIONARY, Random(1))
    assert filled is not None
    assert filled.columns["concept_id"] == IDS["32"]
    assert filled.columns["value_coded"] == IDS["703"]
    assert filled.columns["value_coded_name_id"] in (7, 8, None)
    truth = fill(Draft("832", {"truth": False}), DICTIONARY, Random(1))
    assert truth is not None
    assert truth.columns == {"concept_id": IDS["832"], "value_coded": IDS["false"]}


def test_what_a_database_lacks_is_left_out() -> None:
    bare = Dictionary(concepts={"1442": 1, "160856": 2}, names={}, drugs={}, true=None, false=None)
    group = Draft(
        "1442",
        members=(Draft("1282", {"coded": "71160"}), Draft("160856", {"value_text": "1 tablet"})),
    )
    filled = fill(group, bare, Random(1))
    assert filled is not None
    assert [member.columns["concept_id"] for member in filled.members] == [2]
    assert fill(Draft("5085", {"value_numeric": 120.0}), bare, Random(1)) is None
    assert fill(Draft("1442", members=group.members[:1]), bare, Random(1)) is None


def test_the_schema_has_obs_with_openmrs_cascade() -> None:
    tables = {one.split()[2]: one for one in statements()}
    assert "REFERENCES person (person_id) ON UPDATE CASCADE" in tables["obs"]
    assert "ON UPDATE" not in tables["patient_identifier"]
    assert not re.search(r"KEY \w+ \((date_created|voided|date_voided)\)", tables["obs"])


def test_b6_the_passports_patient_is_the_citizen_who_has_the_id() -> None:
    for number in (*range(100), 5_000_001):
        person = citizen(number)
        user, patient = documents(person.national_id)
        assert user["name"] == f"{person.given} {person.family}"
        assert patient["dateOfBirth"].date() == person.born
        assert patient["gender"] == ("female" if person.gender == "F" else "male")
    _, somebody = documents(national_id(1990, "F", 7_000_001))
    assert (somebody["dateOfBirth"].year, somebody["gender"]) == (1990, "female")
    _, nobody = documents("0788123456")
    assert nobody["gender"] in {"female", "male"}


def test_passport_documents_pass_the_passports_schemas() -> None:
    for number in range(300):
        digits = citizen(number).national_id
        user, patient = documents(digits)
        assert patient["user"] == user["_id"] != patient["_id"]
        assert re.fullmatch(r"\d{10,16}", patient["nationalId"])
        assert EMAIL.fullmatch(user["email"])
        assert user["email"].islower()
        assert 2 <= len(user["name"]) <= 50
        assert re.fullmatch(r"\$2b\$12\$[./A-Za-z0-9]{53}", user["password"])
        assert patient["gender"] in {"male", "female", "other", "prefer_not_to_say"}
        assert patient["dateOfBirth"] < datetime(2025, 1, 1, tzinfo=patient["dateOfBirth"].tzinfo)
        assert set(patient["emergencyContact"]) == {"name", "relationship", "phone"}
    assert documents("1199070000042045") == documents("1199070000042045")
