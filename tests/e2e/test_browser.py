"""The pages in a real Chromium, on the whole stack: a record committed at the hospital appears, a
void makes it go.

Screenshots of every page, at phone and desktop width, in light and in print, are kept in
.stack/screenshots.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from dev import hospital as generator
from dev.hospital.registration import documents
from dev.stack import install
from passport.errors import Fatal
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually
from tests.servers import unavailable

PICTURES = Path(__file__).parents[2] / ".stack" / "screenshots"
PASSWORD, OPERATORS_PASSWORD = "a good password", "an operator's password"
SECRET = "the Passport's JWT_SECRET, of the browser tests alone"
PAGES = ("", "conditions", "medicines", "tests", "visits")
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
APPEARS_MS = 30_000  # liveness: how soon it is on an idle machine is a benchmark's business


class Running(NamedTuple):
    """The stage with its portal at `url`; `person` at the hospital is the patient `national_id` of
    the Passport.
    """

    stage: Stage
    url: str
    person: int
    national_id: str


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One hospital, everybody registered; the patient with the most obs can sign in."""
    hospital = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE, locales=("en",))
    operators = {"password_hash": hashed(OPERATORS_PASSWORD), "sample_s": 1}
    portal = {"port": 0, "https": False, "jwt_secret": SECRET, "operators": operators}
    with opened(tmp_path_factory.mktemp("browser"), hospital, portal=portal) as stage:
        with hospital.connect() as connection:
            generator.create(connection, seed=7, patients=30, visits=3)
            able = dict(generator.registrable(connection))
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT person_id FROM obs WHERE voided = 0 GROUP BY 1 ORDER BY COUNT(*) DESC"
                )
                person = next(int(row[0]) for row in cursor.fetchall() if int(row[0]) in able)
        generator.passport_patients(stage.db, able.values())
        user = documents(able[person])[0]["_id"]
        stage.db.users.update_one({"_id": user}, {"$set": {"password": hashed(PASSWORD)}})
        stage.grant()
        stage.readers()
        stage.role("consume", "--destination", "passport")
        role = stage.role("portal")
        stage.wait_equal(90)
        role.says("portal listens")
        (line,) = [one for one in role.said().splitlines() if "portal listens" in one]
        yield Running(stage, f"http://127.0.0.1:{json.loads(line)['port']}", person, able[person])
        assert role.stop() == 0
        said = role.said()
        assert able[person] not in said
        assert "/events" in said


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        program = install.chromium()
    except Fatal as error:
        unavailable(str(error))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def signed_in(
    browser: Browser, running: Running, width: str = "phone", **options: Any
) -> Iterator[Page]:
    """The patient's timeline; what the browser's own policy refuses fails the test."""
    w, h = WIDTHS[width]
    context: BrowserContext = browser.new_context(
        viewport={"width": w, "height": h},
        **{"locale": "en-GB", "base_url": running.url, **options},
    )
    refused: list[str] = []
    page = context.new_page()
    page.on(
        "console",
        lambda message: (
            refused.append(message.text) if "Content Security" in message.text else None
        ),
    )
    page.on("pageerror", lambda error: refused.append(str(error)))
    page.goto("/")
    page.fill("#identifier", running.national_id)
    page.fill("#password", PASSWORD)
    page.click("button")
    page.wait_for_selector("#list")
    yield page
    context.close()
    assert not refused


def insert_pulse(running: Running, value: int) -> int:
    """One obs, committed by the hospital's own application."""
    with (
        running.stage.hospitals["kigali"].connect(autocommit=False) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "INSERT INTO obs (person_id, concept_id, obs_datetime, value_numeric, creator,"
            " date_created, voided, uuid)"
            " SELECT %s, MIN(concept_id), NOW(), %s, 1, NOW(), 0, UUID() FROM concept_name"
            " WHERE name = 'Pulse'",
            [running.person, value],
        )
        connection.commit()
        return int(cursor.lastrowid)


def void(running: Running, obs_id: int) -> None:
    running.stage.hospitals["kigali"].sql.execute(
        "UPDATE openmrs.obs SET voided = 1, voided_by = 1, date_voided = NOW()"
        f" WHERE obs_id = {obs_id}"
    )


def test_what_is_seen_is_what_the_passport_holds(browser: Browser, running: Running) -> None:
    patient = str(documents(running.national_id)[1]["_id"])
    expected = {
        str(one["_id"]) for one in running.stage.db.medicalrecords.find({"patientId": patient})
    }
    assert len(expected) > 20
    with signed_in(browser, running, java_script_enabled=False) as page:
        seen: set[str] = set()
        while True:
            seen |= {str(one.get_attribute("data-id")) for one in page.locator("[data-id]").all()}
            older = page.get_by_role("link", name="Older records")
            if not older.count():
                break
            older.click()
    assert seen == expected, "all of it, and without JavaScript"


def test_a_record_appears_and_goes_without_reload(browser: Browser, running: Running) -> None:
    with signed_in(browser, running) as page:
        page.wait_for_selector(".live:not([hidden])")
        page.evaluate("window.sameDocument = true")
        obs_id = insert_pulse(running, 187)
        began = time.monotonic()
        card = page.locator("article", has_text="187 /min")
        card.wait_for(timeout=APPEARS_MS)
        print(f"on the page {time.monotonic() - began:.2f} s after COMMIT")
        assert "fresh" in str(card.get_attribute("class"))
        assert page.get_by_role("status").inner_text() == "Your records have just been updated."
        void(running, obs_id)
        began = time.monotonic()
        card.wait_for(state="detached", timeout=APPEARS_MS)
        print(f"gone {time.monotonic() - began:.2f} s after its void")
        assert page.evaluate("window.sameDocument"), "the page was not loaded again"


def test_a_page_that_was_hidden_or_offline_catches_up(browser: Browser, running: Running) -> None:
    with signed_in(browser, running) as page:
        page.wait_for_selector(".live:not([hidden])")
        page.context.set_offline(True)
        obs_id = insert_pulse(running, 186)
        query = {"openmrsData.obsId": obs_id}
        while not running.stage.db.medicalrecords.find_one(query):
            time.sleep(0.05)
        assert page.locator("article", has_text="186 /min").count() == 0, "it was offline"
        page.context.set_offline(False)
        page.locator("article", has_text="186 /min").wait_for(timeout=APPEARS_MS)
        void(running, obs_id)
        page.locator("article", has_text="186 /min").wait_for(state="detached", timeout=APPEARS_MS)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_accessible_and_photographed(
    browser: Browser, running: Running, width: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with signed_in(browser, running, width) as page:
        for name in PAGES:
            page.goto(f"/{name}")
            look(page, f"{width}-{name or 'timeline'}", wide=width == "phone")
        page.emulate_media(media="print")
        for name in ("", "tests"):
            page.goto(f"/{name}")
            page.screenshot(
                path=PICTURES / f"{width}-{name or 'timeline'}-print.png", full_page=True
            )
        page.emulate_media(media="screen")
        page.goto("/nothing")
        look(page, f"{width}-error")
        page.goto("/")
        page.get_by_role("button", name="Sign out").click()
        look(page, f"{width}-sign-in")
        page.fill("#identifier", "nobody@example.com")
        page.fill("#password", "wrong")
        page.click("button")
        look(page, f"{width}-sign-in-wrong")
    with signed_in(browser, running, width, locale="fr-FR") as page:
        assert page.get_by_role("heading", level=1).inner_text().startswith("Tous les dossiers")
        for name in PAGES:
            page.goto(f"/{name}")
            look(page, f"{width}-{name or 'timeline'}-fr", wide=width == "phone")
        page.goto("/tests")
        pulse = page.get_by_role("heading", level=2, name="Pouls")
        assert "Pulse" in pulse.inner_text(), "the hospital's own word is beneath"
        assert "habituel 55–100" in page.locator("article", has=pulse).inner_text()
        page.get_by_role("button", name="Ikinyarwanda").click()
        assert page.locator("html").get_attribute("lang") == "rw"
        for name in ("", "tests"):
            page.goto(f"/{name}")
            look(page, f"{width}-{name or 'timeline'}-rw", wide=width == "phone")


@contextmanager
def operators(browser: Browser, running: Running, width: str) -> Iterator[Page]:
    """Their page, with a chart on it."""
    w, h = WIDTHS[width]
    context = browser.new_context(viewport={"width": w, "height": h}, base_url=running.url)
    page = context.new_page()
    page.goto("/operators")
    look(page, f"{width}-operators-sign-in")
    page.fill("#password", OPERATORS_PASSWORD)
    page.click("button")
    while not page.locator("polyline").count():
        page.reload()
    yield page
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_operators_page(browser: Browser, running: Running, width: str) -> None:
    with operators(browser, running, width) as page:
        assert page.get_by_role("heading", name="kigali: streaming").count() == 1
        content = page.content()
        for number in ("national", running.national_id, "Pulse"):
            assert number not in content
        look(page, f"{width}-operators", wide=True)


def test_status_says_what_the_operators_page_says(browser: Browser, running: Running) -> None:
    running.stage.wait_equal(90)  # else somebody is matched between the one and the other
    watching = running.stage.role("status", "--json", "--watch")
    eventually(lambda: watching.said().count("\n") >= 2, "a second look", 120)
    watching.stop()
    ((row,), (again,), *_) = map(json.loads, watching.said().splitlines())
    assert (
        row["matched"]
        == again["matched"]
        == running.stage.db.people.count_documents({"patientId": {"$ne": None}})
    )
    headroom = (
        row["headroom_s"]
        if isinstance(row["headroom_s"], str)
        else f"{row['headroom_s'] / 3600:,.0f} h"
    )
    wanted = {
        "Position": row["position"],
        "Surely kept in the binlog for": headroom,
        "Snapshot": row["snapshot"],
        "People matched": f"{row['matched']:,}",
        "Conflicts": row["conflicts"],
        "Last verify": "never",
    }
    with operators(browser, running, "desktop") as page:
        shown = page.locator("article").inner_text()

        def is_current() -> bool:
            """The page has what was asked last, which may be from before the status."""
            nonlocal shown
            page.reload()
            shown = page.locator("article").inner_text()
            return all(f"{label}\n{number}" in shown for label, number in wanted.items())

        eventually(is_current, lambda: f"the page shows {wanted}: {shown}", 30)
    assert f"{row['hospital']}: {row['state']}" in shown
    assert f"{row['unmatched_by']['none']:,} without an id" in shown


def look(page: Page, name: str, *, wide: bool = False) -> None:
    """axe finds nothing, nothing is wider than the screen, and a picture is kept."""
    for details in page.locator("details:not([open]) summary").all()[:3]:
        details.click()
    page.evaluate("scrollTo(0, 0)")  # what the tabs cover in the middle of a page is no target
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    found = Axe().run(page, options={"resultTypes": ["violations"], "runOnly": TAGS})
    assert found.violations_count == 0, f"{name}: {found.generate_report()}"
    if wide:
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            f"{name} scrolls sideways"
        )


TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def test_axe_does_find_something_where_there_is_something(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(
        "<html><body><img src='x'><p style='color:#ccc;background:#fff'>pale</p></body></html>"
    )
    found = {one["id"] for one in Axe().run(page, options={"runOnly": TAGS}).response["violations"]}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= found
    page.close()
