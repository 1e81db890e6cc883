"""Values, authors, places and instants, one rule of docs/reference/records.md after the other."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from consumers.enrich.obs import References, computed_interpretation, enrich, number_text
from openmrs.lookup_queries import (
    CodedName,
    EarlierVersion,
    EncounterFacts,
    Provider,
    Staff,
    User,
)
from openmrs.tables import OBS
from openmrs.wall_time import instant
from passport.errors import Reject
from passport.event import Row, check_row
from passport.facts import (
    Author,
    Concept,
    Encounter,
    FirstVersion,
    Interpretation,
    Names,
    Observation,
    Person,
    Place,
    ReferenceRange,
)

PERSON = Person("kigali", 7, "p-7", "ok", "1199080012345678", "v")
ANSWER = Concept(90, "c-90", "Malaria", "N/A", "Diagnosis", None, ("CIEL:116128",))


def a_row(**columns: Any) -> Row:
    row: Row = dict.fromkeys(OBS.columns)
    row |= {
        "obs_id": 1,
        "person_id": 7,
        "concept_id": 5,
        "creator": 3,
        "voided": 0,
        "uuid": "o-1",
        "status": "FINAL",
    }
    return (
        row
        | {"obs_datetime": "2025-11-06T10:30:00", "date_created": "2025-11-06T11:00:00"}
        | columns
    )


def references(datatype: str = "Numeric", **facts: Any) -> References:
    question = Concept(5, "c-5", "Question", datatype, "Test", "kg", ())
    whole = References(
        "kigali", "Africa/Kigali", persons={7: PERSON}, concepts={5: question, 90: ANSWER}
    )
    for name, value in facts.items():
        setattr(whole, name, value)
    return whole


def enriched(row: Row, facts: References) -> Observation:
    check_row(row)
    return enrich(row, "v1", facts, deleted=False, origin="stream")


def text(row: Row, facts: References) -> tuple[str, str]:
    value = enriched(row, facts).value
    return value.kind, value.text


@pytest.mark.parametrize(
    ("datatype", "columns", "expected"),
    [
        ("Numeric", {"value_numeric": 37.0}, ("numeric", "37")),
        ("Numeric", {"value_numeric": 36.6}, ("numeric", "36.6")),
        ("Numeric", {"value_numeric": 20.0, "value_modifier": "<"}, ("numeric", "<20")),
        ("Numeric", {"value_numeric": 1e22}, ("numeric", "1e+22")),
        ("Coded", {"value_coded": 90}, ("coded", "Malaria")),
        ("Boolean", {"value_coded": 90}, ("boolean", "Malaria")),
        ("Coded", {"value_coded": 90, "value_coded_name_id": 4}, ("coded", "Paludisme")),
        ("Coded", {"value_coded": 90, "value_coded_name_id": 5}, ("coded", "Malaria")),
        ("Coded", {"value_coded": 90, "value_coded_name_id": 6}, ("coded", "Malaria")),
        ("Coded", {"value_coded": 91}, ("coded", "Concept 91")),
        ("Coded", {"value_coded": 90, "value_drug": 2}, ("drug", "Coartem 20/120")),
        ("Coded", {"value_coded": 90, "value_drug": 9}, ("coded", "Malaria")),
        ("Date", {"value_datetime": "2025-11-06T00:00:00"}, ("date", "2025-11-06")),
        ("Time", {"value_datetime": "1970-01-01T10:30:00"}, ("time", "10:30:00")),
        (
            "Datetime",
            {"value_datetime": "2025-11-06T10:30:00"},
            ("datetime", "2025-11-06 10:30:00"),
        ),
        ("Boolean", {"value_boolean": 1}, ("boolean", "Yes")),
        ("Boolean", {"value_boolean": 0}, ("boolean", "No")),
        ("Complex", {"value_complex": "x-ray.png|1234.dat"}, ("complex", "x-ray.png")),
        ("Text", {"value_text": "fell | from a bicycle"}, ("text", "fell | from a bicycle")),
        ("Text", {"value_text": ""}, ("text", "")),
        ("N/A", {}, ("none", "")),
        (
            "Numeric",
            {"value_numeric": 1.0, "value_text": "one", "value_coded": 90},
            ("coded", "Malaria"),
        ),
        ("Numeric", {"value_numeric": 1.0, "value_text": "one"}, ("numeric", "1")),
    ],
)
def test_value_text(datatype: str, columns: dict[str, Any], expected: tuple[str, str]) -> None:
    facts = references(
        datatype,
        coded_names={4: CodedName("Paludisme", "fr"), 5: None},
        drugs={2: "Coartem 20/120", 3: None},
    )
    assert text(a_row(**columns), facts) == expected


def test_value_keeps_what_it_was_made_of() -> None:
    number = enriched(a_row(value_numeric=20.5, value_modifier=">"), references()).value
    assert (number.number, number.modifier, number.concept) == (20.5, ">", None)
    coded = enriched(a_row(value_coded=90), references("Coded")).value
    assert coded.concept == ANSWER
    drug = enriched(
        a_row(value_coded=90, value_drug=2), references("Coded", drugs={2: "Coartem"})
    ).value
    assert drug.concept == ANSWER
    date = enriched(a_row(value_datetime="2025-11-06T10:30:00"), references("Datetime")).value
    assert date.at == datetime(2025, 11, 6, 8, 30, tzinfo=UTC)


IN_ALL: Names = (("en", "Malaria"), ("fr", "Paludisme"), ("rw", "Malariya"))
NAMED = replace(ANSWER, names=IN_ALL)


@pytest.mark.parametrize(
    ("chosen", "text", "names"),
    [
        (None, "Malaria", IN_ALL),
        # What the doctor chose holds in its language. In the others it is the concept's name.
        (CodedName("Palu", "fr"), "Palu", (IN_ALL[0], ("fr", "Palu"), IN_ALL[2])),
        (
            CodedName("Malaria, severe", "en_GB"),
            "Malaria, severe",
            (("en", "Malaria, severe"), *IN_ALL[1:]),
        ),
        (CodedName("", "fr"), "Malaria", IN_ALL),
    ],
)
def test_an_answer_is_named_in_each_kept_locale(
    chosen: CodedName | None, text: str, names: Names
) -> None:
    facts = references("Coded", coded_names={4: chosen})
    facts.concepts[90] = NAMED
    value = enriched(a_row(value_coded=90, value_coded_name_id=4), facts).value
    assert (value.text, value.names) == (text, names)


@pytest.mark.parametrize(("drug", "names"), [("paludisme", IN_ALL), ("Paludisme 20 mg", ())])
def test_a_drug_is_said_in_other_languages_only_if_it_is_called_as_its_concept(
    drug: str, names: Names
) -> None:
    facts = references("Coded", drugs={2: drug})
    facts.concepts[90] = NAMED
    value = enriched(a_row(value_coded=90, value_drug=2), facts).value
    assert (value.text, value.names) == (drug, names)


def a_range(source: Any = "concept", **bounds: float) -> ReferenceRange:
    names = ("low_absolute", "low_critical", "low_normal")
    names += ("high_normal", "high_critical", "high_absolute")
    return ReferenceRange(**{name: bounds.get(name) for name in names}, source=source)


WHOLE = a_range(low_critical=2, low_normal=4, high_normal=10, high_critical=20)


@pytest.mark.parametrize(
    ("number", "bounds", "code"),
    [
        (1.9, WHOLE, "CRITICALLY_LOW"),
        (2, WHOLE, "CRITICALLY_LOW"),
        (2.1, WHOLE, "LOW"),
        (4, WHOLE, "NORMAL"),
        (10, WHOLE, "NORMAL"),
        (10.1, WHOLE, "HIGH"),
        (20, WHOLE, "CRITICALLY_HIGH"),
        (50, a_range(low_normal=4), "NORMAL"),
        (50, a_range(high_normal=4), "HIGH"),
        (50, a_range(low_critical=2), None),
        (1, a_range(low_critical=2), "CRITICALLY_LOW"),
        (50, a_range(low_absolute=0, high_absolute=40), None),
    ],
)
def test_a_number_is_interpreted_by_its_bounds(
    number: float, bounds: ReferenceRange, code: str | None
) -> None:
    assert computed_interpretation(number, bounds) == code


def test_the_range_that_was_applied_and_the_hospitals_own_word_come_first() -> None:
    facts = references()
    facts.concepts[5] = replace(facts.concepts[5], reference_range=WHOLE)
    value = enriched(a_row(value_numeric=11.0), facts).value
    assert value.reference_range == WHOLE
    assert value.interpretation == Interpretation("HIGH", "range")

    facts.applied_ranges = {1: a_range("obs", high_normal=12), 2: a_range("obs", high_normal=1)}
    value = enriched(a_row(value_numeric=11.0), facts).value
    assert value.reference_range == facts.applied_ranges[1]
    assert value.interpretation == Interpretation("NORMAL", "range")

    value = enriched(a_row(value_numeric=11.0, interpretation="ABNORMAL"), facts).value
    assert value.interpretation == Interpretation("ABNORMAL", "obs")
    value = enriched(a_row(value_numeric=11.0, value_modifier="<"), facts).value
    assert value.interpretation is None, "it may be any number below"
    value = enriched(a_row(value_coded=90, interpretation="POSITIVE"), references("Coded")).value
    assert value.interpretation == Interpretation("POSITIVE", "obs")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_loses_nothing(number: float) -> None:
    assert float(number_text(number)) == number
    assert not number_text(number).endswith(".0")


STAFF = {
    "providers": {
        1: Provider("pr-1", 11, "Column One"),
        2: Provider("pr-2", None, "Column Two"),
        3: Provider("pr-3", 13, None),
    },
    "staff": {
        11: Staff("Ada Uwase", "pr-1"),
        13: Staff(None, "pr-3"),
        14: Staff("Jean Bosco", None),
        15: Staff("Eve K", "pr-9"),
    },
    "users": {3: User("u-3", 14), 4: User("u-4", 15), 5: User("u-5", 13), 6: User("u-6", None)},
    "orderers": {70: 2, 71: 3},
}


def encounter(
    *providers: int, location: int | None = None, visit_location: int | None = None
) -> EncounterFacts:
    one = Encounter(
        50,
        "e-50",
        "Consultation",
        "2025-11-06T10:00:00",
        datetime(2025, 11, 6, 8, tzinfo=UTC),
        "v",
        "OPD",
    )
    return EncounterFacts(one, 60, location, visit_location, providers)


@pytest.mark.parametrize(
    ("providers", "columns", "expected"),
    [
        ((1, 2), {}, Author("Ada Uwase", "encounter_provider", "pr-1")),
        ((2, 1), {}, Author("Column Two", "encounter_provider", "pr-2")),
        ((3, 1), {}, Author("Ada Uwase", "encounter_provider", "pr-1")),
        ((3,), {"order_id": 70}, Author("Column Two", "orderer", "pr-2")),
        ((99,), {"order_id": 71}, Author("Jean Bosco", "creator", "user/u-3")),
        ((), {"creator": 4}, Author("Eve K", "creator", "pr-9")),
        ((), {"creator": 5}, Author("OpenMRS", "none", None)),
        ((), {"creator": 6}, Author("OpenMRS", "none", None)),
        ((), {"creator": 999}, Author("OpenMRS", "none", None)),
    ],
)
def test_author(providers: tuple[int, ...], columns: dict[str, Any], expected: Author) -> None:
    facts = references(encounters={50: encounter(*providers)}, **STAFF)
    assert enriched(a_row(encounter_id=50, **columns), facts).author == expected


def test_author_without_an_encounter_is_not_that_of_another_row() -> None:
    facts = references(encounters={50: encounter(1)}, **STAFF)
    assert enriched(a_row(encounter_id=50), facts).author.name == "Ada Uwase"
    assert enriched(a_row(), facts).author.name == "Jean Bosco"


@pytest.mark.parametrize(
    ("own", "encounters", "visits", "expected"),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (None, None, None, None)],
)
def test_place(
    own: int | None, encounters: int | None, visits: int | None, expected: int | None
) -> None:
    places = {one: Place(one, f"l-{one}", f"Ward {one}") for one in (1, 2, 3)}
    facts = references(
        encounters={50: encounter(location=encounters, visit_location=visits)}, places=places
    )
    found = enriched(a_row(encounter_id=50, location_id=own), facts).place
    assert (found.location_id if found else None) == expected


def test_deleted_row_has_its_person_only() -> None:
    gone = enrich(a_row(value_numeric=1.0), "v1", references(), deleted=True, origin="stream")
    assert (gone.deleted, gone.person, gone.concept, gone.value.kind) == (
        True,
        PERSON,
        None,
        "none",
    )
    assert gone.at == datetime(2025, 11, 6, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "zone", "expected"),
    [
        ("2025-11-06T10:30:00", "Africa/Kigali", "2025-11-06T08:30:00+00:00"),
        ("2025-11-06T10:30:00", "America/New_York", "2025-11-06T15:30:00+00:00"),
        (
            "2025-11-02T01:30:00",
            "America/New_York",
            "2025-11-02T05:30:00+00:00",
        ),  # twice: the first one
        (
            "2025-03-09T02:30:00",
            "America/New_York",
            "2025-03-09T07:30:00+00:00",
        ),  # skipped: the offset before
        ("1927-01-01T00:00:00", "UTC", "1927-01-01T00:00:00+00:00"),
        ("2025-11-06T10:30:00.5", "UTC", "2025-11-06T10:30:00.500000+00:00"),
        ("0000-00-00T00:00:00", "UTC", None),
        ("2015-02-30T00:00:00", "UTC", None),
        ("0001-01-01T00:00:00", "Africa/Kigali", None),
        ("9999-12-31T23:59:59", "America/New_York", None),
    ],
)
def test_instant(written: str, zone: str, expected: str | None) -> None:
    found = instant(written, zone)
    assert (found.isoformat() if found else None) == expected


@given(
    st.datetimes(
        min_value=datetime.fromisoformat("1971-01-01"),
        max_value=datetime.fromisoformat("2037-01-01"),
    ),
    st.sampled_from(
        [
            "Africa/Kigali",
            "America/New_York",
            "Europe/London",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
        ]
    ),
)
def test_instant_reads_back_as_written_or_was_skipped(written: datetime, zone: str) -> None:
    found = instant(written.isoformat(), zone)
    assert found is not None
    back = found.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    assert back == written or timedelta(0) < back - written <= timedelta(hours=1)


@pytest.mark.parametrize(
    "columns",
    [
        {"uuid": None},
        {"person_id": "7"},
        {"voided": None},
        {"value_numeric": "1"},
        {"value_coded": True},
        {"value_text": 5},
    ],
)
def test_check_names_the_column_and_not_the_value(columns: dict[str, Any]) -> None:
    with pytest.raises(Reject) as rejected:
        check_row(a_row(**columns))
    assert str(rejected.value) == f"malformed: column {next(iter(columns))}"


def test_check_takes_rows_of_openmrs_without_optional_columns() -> None:
    row = a_row()
    for name in (
        "value_boolean",
        "value_complex",
        "previous_version",
        "status",
        "interpretation",
        "form_namespace_and_path",
    ):
        del row[name]
    assert enriched(row, references()).value.kind == "none"


# --- merges


def earlier(obs_id: int, person_id: int, previous: int | None, *, merged: bool) -> EarlierVersion:
    return EarlierVersion(obs_id, f"o-{obs_id}", person_id, previous, "2020-01-01T10:00:00", merged)


def first_of(*versions: EarlierVersion) -> FirstVersion | None:
    row = a_row(obs_id=9, previous_version=3)
    known = {version.obs_id: version for version in versions}
    return enriched(row, references(earlier_versions=known)).first


def test_b8_the_first_version_is_followed_into_who_was_merged() -> None:
    created = datetime(2020, 1, 1, 8, tzinfo=UTC)
    loser = earlier(3, 8, 2, merged=True)
    moved = earlier(2, 7, 1, merged=False)  # voided before the merge: then a row changes its person
    oldest = earlier(1, 8, None, merged=True)
    assert first_of(loser) == FirstVersion("o-3", created, (3,), (8,))
    assert first_of(loser, moved) == FirstVersion("o-2", created, (3, 2), (8,))
    assert first_of(loser, moved, oldest) == FirstVersion("o-1", created, (3, 2, 1), (8,))


def test_b8_a_row_of_somebody_who_lives_is_not_followed() -> None:
    assert first_of() is None
    assert first_of(earlier(3, 7, None, merged=False)) is None, "their own"
    assert first_of(earlier(3, 8, None, merged=False)) is None, "somebody else's, maybe all along"
    loser, other = earlier(3, 8, 2, merged=True), earlier(2, 6, None, merged=False)
    first = first_of(loser, other)
    assert first is not None
    assert (first.uuid, first.rows) == ("o-3", (3,))


def test_b8_versions_in_a_circle_end() -> None:
    first = first_of(earlier(3, 8, 2, merged=True), earlier(2, 8, 3, merged=True))
    assert first is not None
    assert first.rows == (3, 2)
