"""The pages as a browser without JavaScript sees them, signing in, and the operators' page."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
import structlog

from portal import sessions
from tests.eventually import eventually
from tests.integration import portal_site as ps
from tests.integration.portal_site import ANNA, BORIS, OPERATORS_PASSWORD, PASSWORD, Site

ROW = {
    "hospital": "kigali",
    "state": "streaming",
    "snapshot": "running",
    "snapshot_key": 4711,
    "position": "binlog.000007:1234",
    "behind": True,
    "captured": 900,
    "applied_offset": 880,
    "lag_records": 20,
    "last_event_s": 3.2,
    "stored": 640,
    "matched": 12,
    "unmatched": 5,
    "unmatched_by": {"ok": 3, "ambiguous": 2},
    "conflicts": 1,
    "dead_letters": {"too_large": 2},
    "verified": {"at": datetime(2025, 11, 6, 12, 0, tzinfo=UTC), "equal": False},
    "problems": [
        {
            "what": "records could not be carried",
            "command": "passport dead-letters list --hospital kigali",
        }
    ],
}


@pytest.fixture(scope="module")
def site(mongo_url: str) -> Iterator[Site]:
    with ps.opened(mongo_url, [ROW]) as found:
        yield found


def text(html: str) -> str:
    """What is read, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_timeline_tells_who_where_and_what_it_means(site: Site) -> None:
    page = text(site.signed_in().get("/").text)
    for words in (
        "6 November 2025",
        "Malaria",
        "Diagnosed by Dr. Jane Smith",
        "Outpatient Clinic, Kigali University Hospital",
        "12.1 g/dL in the usual range",
        "9.8 g/dL much lower than usual",
        "Positive outside the usual range",
        "How certain Confirmed diagnosis",
        "How often Twice daily",
        "everything up to today,",
    ):
        assert words in page, words
    assert ps.SECRET_OF_BORIS not in page


def test_french_by_the_browsers_language(site: Site) -> None:
    answer = site.signed_in(**{"Accept-Language": "fr-FR,fr;q=0.9,en;q=0.8"}).get("/")
    assert '<html lang="fr">' in answer.text
    page = text(answer.text)
    for words in (
        "6 novembre 2025",
        "Diagnostic posé par Dr. Jane Smith",
        "12,1 g/dL dans les valeurs habituelles",
    ):
        assert words in page, words
    assert not re.search(r"\b(Sign|Diagnosed|usual|Older)\b", page)


def test_each_section_has_its_own(site: Site) -> None:
    browser = site.signed_in()
    conditions, medicines = (
        text(browser.get("/conditions").text),
        text(browser.get("/medicines").text),
    )
    assert "Malaria" in conditions
    assert "Artemether" not in conditions
    assert "Artemether 20 mg" in medicines
    assert "Start : 6 November 2025" in medicines.replace("Start 6", "Start : 6")
    tests = browser.get("/tests").text
    assert tests.count("<svg") == 1, "numbers are drawn when there are two"
    assert (
        "Haemoglobin: 4 results from 6 March 2025 to 6 November 2025,"
        " between 9.8 g/dL and 12.1 g/dL" in tests
    )
    visit = text(browser.get("/visits").text)
    assert "Fever since three days" in visit
    assert visit.index("Fever since three days") < visit.index("Haemoglobin")


def test_days_can_be_chosen(site: Site) -> None:
    browser = site.signed_in()
    page = text(browser.get("/?since=2025-05-01&until=2025-05-31").text)
    assert "10.6 g/dL" in page
    assert "12.1 g/dL" not in page
    assert "Nothing was written in these days" in text(
        browser.get("/?since=2024-01-01&until=2024-01-02").text
    )
    assert browser.get("/?since=soon").status_code == 400


def test_older_records_are_a_link_away(site: Site) -> None:
    patient = ps.patient_id(BORIS)
    many = [
        ps.record(patient, "visit", f"visit-{n:03}", f"2024-01-01T08:{n % 60:02}:00")
        for n in range(70)
    ]
    site.db.medicalrecords.insert_many(many)
    browser, seen, link = site.signed_in(BORIS), set(), "/"
    while link:
        page = browser.get(link).text
        seen |= set(re.findall(r"visit-\d{3}", page))
        older = re.search(r'href="(\?cursor=[^"]+)">Older', page)
        link = older and older[1]
    assert len(seen) == 70
    site.db.medicalrecords.delete_many({"_id": {"$in": [one["_id"] for one in many]}})


def test_markup_in_a_record_is_shown_not_run(site: Site) -> None:
    evil = ps.record(
        ps.patient_id(BORIS), "visit", "<script>alert(1)</script>", "2025-11-09T08:00:00"
    )
    site.db.medicalrecords.insert_one(evil)
    page = site.signed_in(BORIS).get("/").text
    site.db.medicalrecords.delete_one({"_id": evil["_id"]})
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


# -- signing in


def sign_in(
    site: Site, identifier: str, password: str = PASSWORD, **headers: str
) -> httpx.Response:
    data = {"identifier": identifier, "password": password}
    return site.client().post("/sign-in", data=data, headers=headers)


@pytest.mark.parametrize(
    "identifier", [ANNA, f" {ANNA[:1]} {ANNA[1:5]} {ANNA[5:]} ", f"p{ANNA}@passport.example.com"]
)
def test_signing_in_by_number_or_address(site: Site, identifier: str) -> None:
    answer = sign_in(site, identifier)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=28800"):
        assert word in cookie
    assert ANNA not in cookie


def test_over_https_the_cookie_stays_there(site: Site) -> None:
    with ps.running(site.db, https=True) as safe:
        answer = sign_in(safe, ANNA)
    assert answer.headers["set-cookie"].startswith("__Host-session=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]


def test_who_may_not_sign_in_learns_nothing(site: Site) -> None:
    """One answer for a wrong password, nobody, somebody inactive, a doctor."""
    site.db.users.update_one({"_id": ps.user_id(BORIS)}, {"$set": {"isActive": False}})
    try:
        answers = [
            sign_in(site, "1199080099999999"),
            sign_in(site, "nobody@example.com"),
            sign_in(site, BORIS),
            sign_in(site, "%00"),
            sign_in(site, '{"$ne": null}'),
            sign_in(site, f"P{ANNA}@PASSPORT.example.com", "no"),
        ]
    finally:
        site.db.users.update_one({"_id": ps.user_id(BORIS)}, {"$set": {"isActive": True}})
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


class Clock:
    """Stands still until the test moves it, so that the machine's speed plays no part."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the portal counts how long a guess has to wait."""
    still = Clock()
    monkeypatch.setattr(sessions, "time", still)
    return still


def test_guessing_is_slowed_down(site: Site, clock: Clock) -> None:
    """The right password waits too: otherwise it would be found by trying."""
    with ps.running(site.db) as own:
        statuses = [sign_in(own, BORIS, f"guess {number}").status_code for number in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        answer = sign_in(own, BORIS)
        assert answer.status_code == 429
        wait_s = int(answer.headers["retry-after"])
        assert wait_s >= 1
        assert sign_in(own, ANNA).status_code == 303, "others are not held up"
        clock.now += wait_s
        assert sign_in(own, BORIS, "one guess more").status_code == 401
        assert int(sign_in(own, BORIS).headers["retry-after"]) > wait_s, "the wait grows"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({}, 422),
        ({"identifier": ANNA}, 422),
        ({"identifier": ANNA, "password[$ne]": "x"}, 422),
        ({"identifier": ANNA, "password": PASSWORD, "isActive": "true"}, 422),
        ({"identifier": ANNA, "password": "x" * 201}, 422),
        ({"identifier": "1" * 20_000, "password": "x"}, 413),
    ],
)
def test_a_form_that_is_not_ours(site: Site, data: dict[str, str], status: int) -> None:
    answer = site.client().post("/sign-in", data=data)
    assert answer.status_code == status
    assert PASSWORD not in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_forms_of_other_sites_are_refused(site: Site, headers: dict[str, str]) -> None:
    assert sign_in(site, ANNA, **headers).status_code == 403


def test_signing_out(site: Site) -> None:
    browser = site.signed_in()
    assert browser.post("/sign-out").url.path == "/sign-in"
    assert browser.get("/").url.path == "/sign-in"


def test_nothing_of_a_patient_is_logged(site: Site) -> None:
    with structlog.testing.capture_logs() as lines:
        browser = site.signed_in()
        browser.get("/?since=2025-05-01")
        browser.get(f"/somewhere/{ANNA}")
        browser.get(f"/conditions?cursor={'A' * 300}")
        httpx.get(f"{site.url}/api/patients/me?from=2025-05-01", headers=ps.bearer())
        eventually(lambda: '"/api/patients/me"' in json.dumps(lines), "the last request is logged")
    said = json.dumps(lines)
    assert "other" in said
    for secret in (ANNA, PASSWORD, "2025-05-01", "AAAA", "eyJ", "Malaria", str(ps.user_id(ANNA))):
        assert secret not in said, secret


# -- operators


def operator(site: Site, password: str = OPERATORS_PASSWORD) -> httpx.Client:
    client = site.client(headers={"Accept": "text/html"}, follow_redirects=True)
    client.post("/operators/sign-in", data={"password": password})
    return client


def test_the_operators_page(site: Site) -> None:
    page = text(operator(site).get("/operators").text)
    for words in (
        "kigali: streaming, more to read",
        "Behind by 20 records",
        "binlog.000007:1234",
        "running, up to obs 4711",
        "3 s ago",
        "2 id held twice, 3 not registered",
        "2 too_large",
        "NOT equal, 2025-11-06 12:00 UTC",
        "Records could not be carried: passport dead-letters list --hospital kigali",
    ):
        assert words in page, words


def test_operators_and_patients_are_two_doors(site: Site) -> None:
    assert operator(site, "wrong").get("/operators").url.path == "/operators/sign-in"
    assert operator(site).get("/").url.path == "/sign-in"
    assert site.signed_in().get("/operators").url.path == "/operators/sign-in"
    stolen = {"Cookie": f"operator={ps.token()}"}
    assert httpx.get(f"{site.url}/operators", headers=stolen).status_code == 303


@pytest.mark.usefixtures("clock")
def test_guessing_the_operators_password_is_slowed_down(site: Site) -> None:
    with ps.running(site.db) as own:
        statuses = [
            own.client().post("/operators/sign-in", data={"password": f"{n}"}).status_code
            for n in range(8)
        ]
        answer = own.client().post("/operators/sign-in", data={"password": OPERATORS_PASSWORD})
    assert statuses == [401] * 5 + [429] * 3
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_without_a_password_there_is_no_operators_page(site: Site) -> None:
    with ps.running(site.db, operators={}) as closed:
        for path in ("/operators", "/operators/sign-in"):
            assert closed.client().get(path).status_code == 404
        assert closed.client().post("/operators/sign-in", data={"password": "x"}).status_code == 404
