"""What a record says to a reader: words, dates, flags, charts."""

import re
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from portal import chart
from portal.page_text import LANGUAGES, Words, catalogue, chosen
from portal.sessions import Throttle, fits
from portal.status_history import Sample, rates
from portal.view import Detail, by_visit, item, said_otherwise, sentence, series

ROOT = Path(__file__).parents[2] / "portal"
EN, FR = Words("en"), Words("fr")


def record(
    type_: str = "test", origin: dict[str, Any] | None = None, **data: Any
) -> dict[str, Any]:
    return {
        "_id": "r",
        "type": type_,
        "data": data,
        "openmrsData": origin or {},
        "author": "A. Author",
    }


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("fr-CA,en;q=0.9", "fr"),
        ("en-GB,fr;q=0.9", "en"),
        ("rw,fr;q=0.8,en;q=0.5", "rw"),
        ("sw,rw-RW;q=0.9,en;q=0.5", "rw"),
        ("de", "en"),
        ("fr;q=0", "en"),
        ("fr;q=x", "en"),
        (",;q=,=" * 50, "en"),
    ],
)
def test_the_browsers_language(header: str, language: str) -> None:
    assert chosen(header) == language


def test_a_visit_that_is_a_date_says_which() -> None:
    planned = item(
        record("visit", name="Return visit date", reason="2025-10-30", details="2025-10-30"), EN
    )
    assert (planned.title, planned.value, planned.details) == (
        "Return visit date",
        "30 October 2025",
        [],
    )
    said = sentence(record("visit", name="Return visit date", reason="2025-10-30"), "A. Author", FR)
    assert said == "Return visit date: 30 octobre 2025 - vu par A. Author à un hôpital inconnu"


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_language_has_the_same_texts_with_the_same_blanks() -> None:
    assert {*catalogue()} == {*LANGUAGES}
    english = catalogue()["en"]
    for language, texts in catalogue().items():
        assert texts.keys() == english.keys(), language
        for key, text in texts.items():
            assert text.strip(), (language, key)
            assert blanks(text) == blanks(english[key]), (language, key)
        assert len(texts["months"].split()) == 12, language


def test_every_language_is_in_the_switch_and_nobody_has_forgotten_to_read_it() -> None:
    assert {file.stem for file in (ROOT / "languages").glob("*.yaml")} == {*LANGUAGES}
    names = [texts["own_name"] for texts in catalogue().values()]
    assert len({*names}) == len(LANGUAGES)
    # A text that is the same as the English one may be one that nobody has translated.
    for language in ("fr", "rw"):
        texts = catalogue()[language]
        same = {key for key, text in texts.items() if text == catalogue()["en"][key]}
        assert same <= {"note", "table_date", "type_image", "label_medication_dosage"} | {
            "label_image_description"
        }, language


def test_every_text_that_is_asked_for_exists_and_every_text_is_asked_for() -> None:
    sources = "\n".join(
        path.read_text() for path in [*ROOT.glob("*.py"), *ROOT.glob("templates/*.html")]
    )
    asked = set(re.findall(r"(?:words|self|said|_WORDS|Words\(code\))\(\s*\"(\w+)\"", sources))
    asked |= set(re.findall(r"(?:words|self|said|_WORDS)\('(\w+)'", sources))
    begun = set(re.findall(r"words\(\s*f?\"(\w+_)[\"{]", sources)) | {"error_", "flag_", "label_"}
    begun |= {key for key in asked if key.endswith("_")}
    asked |= {"nothing_between", "nothing"}  # chosen in the template
    texts = catalogue()["en"]
    assert asked - begun <= texts.keys()
    unused = {key for key in texts if key not in asked and not key.startswith(tuple(begun))}
    assert not unused


@pytest.mark.parametrize(
    ("written", "en", "fr", "time"),
    [
        ("2025-11-06T10:30:00", "6 November 2025", "6 novembre 2025", "10:30"),
        ("2025-08-01", "1 August 2025", "1er août 2025", ""),
        ("2025-08-01T00:00:00", "1 August 2025", "1er août 2025", ""),
        ("2025-11-06T10:30:00.000Z", "6 November 2025", "6 novembre 2025", "10:30"),
        ("last week", "last week", "last week", ""),
        (None, "No date", "Sans date", ""),
    ],
)
def test_dates(written: str | None, en: str, fr: str, time: str) -> None:
    assert (EN.day(written), FR.day(written), EN.time(written)) == (en, fr, time)


def test_an_instant_is_told_in_the_hospitals_zone() -> None:
    assert (
        EN.moment(datetime(2025, 11, 6, 22, 30, tzinfo=UTC), "Africa/Kigali")
        == "7 November 2025, 00:30"
    )
    assert FR.moment(datetime.now(UTC), "Africa/Kigali").startswith("aujourd’hui, ")


@pytest.mark.parametrize(
    ("result", "en", "fr"),
    [
        ("37.2 DEG C", "37.2 °C", "37,2 °C"),
        ("5.1 10^3/uL", "5.1 ×10³/µL", "5,1 ×10³/µL"),
        ("Positive", "Positive", "Positive"),
        ("<5 mg", "<5 mg", "<5 mg"),
        ("2025-12-17 07:33:27", "17 December 2025, 07:33", "17 décembre 2025, 07:33"),
    ],
)
def test_units(result: str, en: str, fr: str) -> None:
    assert (EN.quantity(result), FR.quantity(result)) == (en, fr)


@pytest.mark.parametrize(
    ("interpretation", "status", "flag", "level"),
    [
        ("CRITICALLY_HIGH", "Critical", "much higher than usual", "serious"),
        ("LOW", "Abnormal", "lower than usual", "watch"),
        ("NORMAL", "Normal", "in the usual range", "calm"),
        ("RESISTANT", "Abnormal", "outside the usual range", "watch"),
        (None, "Critical", "far outside the usual range", "serious"),
        (None, None, "", "watch"),
    ],
)
def test_flags(interpretation: str | None, status: str | None, flag: str, level: str) -> None:
    origin = {"interpretation": interpretation} if interpretation else {}
    shown = item(
        record(origin=origin, testName="Sodium", result="140 mmol/L", testStatus=status), EN
    )
    assert (shown.flag, shown.level) == (flag, level)


def a_row(uuid: str, name: str, text: str = "", **more: Any) -> dict[str, Any]:
    """A row of the mirror: `names` are the question's, all else is of its value."""
    names = more.pop("names", {})
    return {
        "row": {"uuid": uuid},
        "concept": {"name": name, "names": names},
        "value": {"text": text, **more},
    }


def test_a_diagnosis_of_a_french_hospital_on_an_english_page_and_the_hospitals_word_beneath() -> (
    None
):
    answer = {"en": "Malaria", "rw": "Malariya"}
    found = record("condition", diagnosis="Paludisme", status="Diagnostic confirmé") | {
        "rows": [
            a_row("a", "Liste de problèmes", "Paludisme")
            | {"value": {"text": "Paludisme", "names": answer}},
            a_row("b", "Certitude")
            | {"value": {"text": "Diagnostic confirmé", "names": {"en": "Confirmed"}}},
        ]
    }
    shown = item(found, EN)
    assert (shown.title, shown.own_title) == ("Malaria", "Paludisme")
    assert shown.details == [Detail("How certain", "Confirmed", "Diagnostic confirmé")]
    assert sentence(found, "Dr. A", EN).startswith("Malaria - diagnosed by Dr. A")
    assert said_otherwise(found, EN) == {"diagnosis": "Malaria", "status": "Confirmed"}

    in_french = item(found, FR)
    assert (in_french.title, in_french.own_title) == ("Paludisme", "")
    assert in_french.details == [Detail("Certitude", "Diagnostic confirmé", "")]
    assert said_otherwise(found, FR) == {}
    assert item(found, Words("rw")).title == "Malariya"


def test_how_often_of_an_english_hospital_on_a_french_page() -> None:
    """What no dictionary has a word for stays the hospital's."""
    found = record("medication", medicationName="Coartem", frequency="Thrice daily; As needed") | {
        "rows": [
            a_row("a", "Medication orders", "Coartem"),
            a_row("b", "Frequency", "Thrice daily")
            | {"value": {"text": "Thrice daily", "names": {"fr_RW": "Trois fois par jour"}}},
        ]
    }
    (frequency,) = item(found, FR).details
    assert frequency.text == "Trois fois par jour; As needed"
    assert frequency.own == "Thrice daily; As needed"


@pytest.mark.parametrize(
    ("bounds", "en", "fr"),
    [
        ({"low": 4.0, "high": 10.5}, "usual 4–10.5", "habituel 4–10,5"),
        ({"low": 4.0}, "usual from 4", "habituel à partir de 4"),
        ({"high": 0.5}, "usual up to 0.5", "habituel jusqu’à 0,5"),
        ({"highCritical": 9.0}, "", ""),
    ],
)
def test_the_usual_range(bounds: dict[str, float], en: str, fr: str) -> None:
    row = a_row("a", "White cells", "11", range={**bounds, "source": "obs"})
    found = record(testName="White cells", result="11 10^3/uL", origin={"obsUuid": "a"})
    shown = found | {"rows": [row]}
    assert (item(shown, EN).usual, item(shown, FR).usual) == (en, fr)


@pytest.mark.parametrize(
    ("origin", "data", "flag", "is_compared_here"),
    [
        ({}, {}, "higher than usual", True),
        ({"interpretation": "NORMAL"}, {}, "in the usual range", False),
        ({}, {"testStatus": "Critical"}, "far outside the usual range", False),
        # Somebody has written another number in the Passport, or the row is another one's.
        ({}, {"result": "12 10^3/uL"}, "", False),
        ({"obsUuid": "other"}, {}, "", False),
    ],
)
def test_a_flag_is_the_hospitals_else_it_follows_of_the_range_and_says_so(
    origin: dict[str, Any], data: dict[str, Any], flag: str, is_compared_here: bool
) -> None:
    row = a_row(
        "a", "White cells", "11", range={"high": 10.0, "source": "concept"}, computed="HIGH"
    )
    fields = {"testName": "White cells", "result": "11 10^3/uL", **data}
    shown = item(record(origin={"obsUuid": "a", **origin}, **fields) | {"rows": [row]}, EN)
    assert (shown.flag, shown.is_compared_here) == (flag, is_compared_here)


@pytest.mark.parametrize("type_", ["condition", "medication", "test", "visit", "image"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_record_of_which_next_to_nothing_is_known_can_be_read(type_: str, language: str) -> None:
    words = Words(language)
    shown = item({"_id": "r", "type": type_, "data": {}}, words)
    assert shown.title == words(f"type_{type_}")
    assert shown.who == words("unknown_author")


def test_only_numbers_in_the_latest_units_are_drawn() -> None:
    results = [
        ("2025-05-01", "71 kg"),
        ("2025-04-01", "70.5 kg"),
        ("2025-03-01", "refused"),
        ("2025-02-01", "155 lb"),
    ]
    found = [
        item(record(testName="Weight", result=result, date=day), EN) for day, result in results
    ]
    (weight,) = series(found, EN)
    assert weight.chart is not None
    assert len(weight.chart.points) == 2
    assert (
        weight.chart.label
        == "Weight: 2 results from 1 April 2025 to 1 May 2025, between 70.5 kg and 71 kg"
    )
    assert series(found[2:3], EN)[0].chart is None


def test_a_chart_stays_in_its_frame() -> None:
    at = datetime(2025, 1, 1)  # noqa: DTZ001  # wall time
    for values in ([(at, 1.0), (at, 1.0)], [(at, -5.0), (at.replace(year=2024), 1e11)]):
        drawn = chart.drawn(values, first="", last="", low="", high="", label="")
        assert all(0 <= x <= chart.WIDTH and 0 <= y <= chart.HEIGHT for x, y in drawn.points)
    assert chart.line([0, 0]).endswith(f",{chart.HEIGHT - chart.EDGE}.0"), (
        "nothing is at the bottom"
    )


def test_what_was_written_in_one_encounter_is_one_visit() -> None:
    origins = [
        {"hospitalId": "a", "encounterUuid": "e"},
        {"hospitalId": "b", "encounterUuid": "e"},
    ] * 2 + [{}]
    found = [item(record(origin=origin) | {"_id": str(n)}, EN) for n, origin in enumerate(origins)]
    assert [len(one) for one in by_visit(found)] == [2, 2, 1]


def test_rates_of_a_topic_that_began_anew_are_not_below_zero() -> None:
    assert rates([Sample(0, 10, 0), Sample(10, 110, 0), Sample(20, 5, 0)]) == [10.0, 0.0]


def test_a_password_of_nobody_fits_nothing() -> None:
    assert not fits("nobody has this one", None)
    assert not fits("x", "not a hash")


def test_the_throttle_lets_go_after_the_wait_and_forgets_whom_it_must() -> None:
    throttle = Throttle(free=2, longest_s=60, size=3)
    assert [throttle.attempt("a") for _ in range(2)] == [0, 0]
    assert throttle.attempt("a") > 0
    assert throttle.attempt("b") == 0
    throttle.right("b")
    for other in "cde":
        throttle.attempt(other)
    assert len(throttle._wrong) == 3
