"""A French hospital's records on an English page and an English one's on a French page: the words
come from the mirror, in few questions.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pymongo import ASCENDING
from pymongo.monitoring import CommandListener

from tests.integration import portal_site as ps
from tests.integration.portal_site import BORIS, Site, bearer

ME = "/api/patients/me"


class Questions(CommandListener):
    """Counts the reads of each collection."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def started(self, event: Any) -> None:
        if event.command_name == "find":
            self.of[event.command["find"]] += 1

    def succeeded(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""


def a_row(obs_id: int, group: int | None, name: str, text: str, **more: Any) -> dict[str, Any]:
    """A row of the mirror. `names` are the question's, all else belongs to the value."""
    names = more.pop("names", {})
    document = {
        "_id": f"kigali/{obs_id}",
        "hospital": "kigali",
        "obsId": obs_id,
        "deleted": False,
        "row": {"uuid": f"obs-{obs_id}", "obs_group_id": group},
        "concept": {"name": name, "names": names},
        "value": {"text": text, **more},
    }
    return document if group is None else document | {"related": [f"kigali/{group}"]}


ROWS = [
    a_row(1, None, "Diagnostic", "Paludisme", names={"en": "Diagnosis"}),
    a_row(10, None, "Prescription", ""),
    a_row(11, 10, "Medicine", "Coartem"),
    a_row(12, 10, "Details", ""),
    a_row(13, 12, "Frequency", "Thrice daily"),
    a_row(20, None, "Blood count", "", names={"fr": "Numération sanguine"}),
    a_row(21, 20, "Haemoglobin", "8.1", names={"fr": "Hémoglobine"}),
    # It has the obs_id that a record names, and is another patient's.
    a_row(30, None, "Diagnosis", "Secret", names={"fr": "Un secret"}),
]
ROWS[0]["value"] = {"text": "Paludisme", "names": {"en": "Malaria", "rw": "Malariya"}}
ROWS[4]["value"] = {"text": "Thrice daily", "names": {"fr": "Trois fois par jour"}}
ROWS[6]["value"] |= {
    "range": {"low": 12.0, "high": 16.0, "source": "obs"},
    "computed": "CRITICALLY_LOW",
}


def origin(obs_id: int, uuid: str = "", *members: int) -> dict[str, Any]:
    names: dict[str, Any] = {"obsId": obs_id, "obsUuid": uuid or f"obs-{obs_id}"}
    return names | ({"memberUuids": [f"obs-{one}" for one in members]} if members else {})


@pytest.fixture(scope="module")
def questions() -> Questions:
    return Questions()


@pytest.fixture(scope="module")
def site(mongo_url: str, questions: Questions) -> Iterator[Site]:
    boris, day = ps.patient_id(BORIS), "2025-11-06T10:30:00"
    records = [
        ps.record(boris, "condition", "Paludisme", day, origin=origin(1)),
        ps.record(
            boris,
            "medication",
            "Coartem",
            day,
            frequency="Thrice daily",
            origin=origin(10, "", 11, 13),
        ),
        ps.record(
            boris,
            "test",
            "Haemoglobin",
            day,
            "8.1 g/dL",
            description="Blood count",
            origin=origin(21),
        ),
        ps.record(boris, "condition", "Secret", day, origin=origin(30, "of-boris")),
    ]
    with ps.opened(mongo_url, (), questions) as found:
        found.db.observations.create_index([("related", ASCENDING)], sparse=True)
        found.db.observations.insert_many(ROWS)
        found.db.medicalrecords.insert_many(records)
        yield found


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_paludisme_is_malaria_on_an_english_page_and_the_hospitals_word_is_beneath(
    site: Site,
) -> None:
    page = text(site.signed_in(BORIS).get("/conditions").text)
    assert "Malaria In the hospital’s words: Paludisme" in page


def test_thrice_daily_is_french_on_a_french_page(site: Site) -> None:
    browser = site.signed_in(BORIS, **{"Accept-Language": "fr"})
    page = text(browser.get("/medicines").text)
    assert "Trois fois par jour Dans les mots de l’hôpital : Thrice daily" in page.replace(
        "l’hôpital: ", "l’hôpital : "
    )
    page = text(browser.get("/tests").text)
    for words in ("Hémoglobine", "Numération sanguine", "habituel 12–16", "8,1 g/dL"):
        assert words in page, words
    assert "beaucoup plus bas que d’habitude" in page
    assert "comparé ici, pas par l’hôpital" in page
    page = text(browser.get("/conditions").text)
    assert "Paludisme" in page
    assert "Malaria" not in page


def test_a_row_of_somebody_else_says_nothing(site: Site) -> None:
    page = text(site.signed_in(BORIS, **{"Accept-Language": "fr"}).get("/conditions").text)
    assert "Secret" in page
    assert "Un secret" not in page


def test_the_switch_is_remembered_by_the_browser_and_leads_back(site: Site) -> None:
    browser = site.signed_in(BORIS, **{"Accept-Language": "fr"})
    answer = browser.post("/language", data={"language": "rw", "page": "conditions"})
    assert answer.url.path == "/conditions"
    assert '<html lang="rw">' in answer.text
    assert "Malariya" in text(answer.text)
    assert '<html lang="rw">' in browser.get("/").text
    assert '<html lang="rw">' in browser.post("/sign-out").text, "it outlives the session"
    answer = browser.post("/language", data={"language": "en", "page": "sign-in"})
    assert (answer.url.path, "Sign in" in answer.text) == ("/sign-in", True)


@pytest.mark.parametrize(
    "form",
    [
        {"language": "de", "page": "timeline"},
        {"language": "fr", "page": "//elsewhere.example"},
        {"language": "fr"},
    ],
)
def test_a_switch_to_nowhere_is_refused(site: Site, form: dict[str, str]) -> None:
    assert site.client().post("/language", data=form).status_code == 422


def test_the_api_answers_in_the_readers_language(site: Site) -> None:
    answer = httpx.get(f"{site.url}{ME}", headers=bearer(BORIS) | {"Accept-Language": "en"})
    by_title = {
        record["data"].get("diagnosis") or record["data"]["name"]: record
        for record in answer.json()["records"]
    }
    malaria = by_title["Paludisme"]
    assert malaria["summary"].startswith("Malaria - diagnosed by")
    assert malaria["data"]["diagnosis"] == "Paludisme", "as the Passport keeps it"
    assert malaria["translated"] == {"diagnosis": "Malaria", "details": "Malaria"}
    haemoglobin = by_title["Haemoglobin"]
    assert haemoglobin["range"]["low"] == 12
    assert haemoglobin["interpretation"] is None
    assert haemoglobin["computedInterpretation"] == "CRITICALLY_LOW"
    assert malaria["range"] is malaria["computedInterpretation"] is None


def test_the_words_of_a_page_are_few_questions(site: Site, questions: Questions) -> None:
    """The anchors, the groups above them, and two levels of the only group."""
    browser = site.signed_in(BORIS)
    questions.of.clear()
    browser.get("/")
    assert questions.of["observations"] == 4
    questions.of.clear()
    browser.get("/conditions")
    assert questions.of["observations"] == 1
