"""The patient's pages.

They work without JavaScript. With it they renew themselves, see static/page.js.
"""

import asyncio
from datetime import date
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Header, Query, Request
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from portal import live
from portal.api import CURSOR, page
from portal.dependencies import (
    LANGUAGE_COOKIE,
    Portal,
    Reader,
    TheCaller,
    ThePortal,
    TheWords,
    count_as_right,
    loop_time,
    seconds_to_wait,
)
from portal.page_text import LANGUAGES, Language, Words
from portal.patients import Patient, RecordFilter, RecordType
from portal.sessions import fits
from portal.view import by_day, by_visit, item, series

# How many records one page shows.
PAGE = 50
TESTS = 1_000
VISITS = 150
TABS = ("timeline", "conditions", "medicines", "tests", "visits")
A_YEAR_S = 365 * 86_400
# Each language by the name that its own readers know.
LANGUAGE_NAMES = [(code, Words(code)("own_name")) for code in LANGUAGES]

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=str(files("portal") / "templates"))
Cursor = Annotated[str | None, Query(max_length=2_000, pattern=CURSOR)]


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    identifier: str = Field(max_length=200)
    password: str = Field(max_length=200)


@router.get("/")
def timeline(
    request: Request,
    portal: ThePortal,
    words: TheWords,
    patient: Reader,
    cursor: Cursor = None,
    since: str = "",
    until: str = "",
) -> Response:
    record_filter = RecordFilter(since=_day(since), until=_day(until))
    values = _values(portal, words, patient, "timeline")
    records, following = page(portal.patients, patient.id, record_filter, cursor, PAGE)
    values |= {
        "days": by_day(item(record, words) for record in records),
        "next": following,
        "cursor": cursor,
        "since": record_filter.since,
        "until": record_filter.until,
    }
    return templates.TemplateResponse(request, "timeline.html", values)


@router.get("/conditions")
def conditions(
    request: Request, portal: ThePortal, words: TheWords, patient: Reader, cursor: Cursor = None
) -> Response:
    values = _values(portal, words, patient, "conditions")
    values |= _records_of_type("condition", portal, words, patient, cursor)
    return templates.TemplateResponse(request, "records.html", values)


@router.get("/medicines")
def medicines(
    request: Request, portal: ThePortal, words: TheWords, patient: Reader, cursor: Cursor = None
) -> Response:
    values = _values(portal, words, patient, "medicines")
    values |= _records_of_type("medication", portal, words, patient, cursor)
    return templates.TemplateResponse(request, "records.html", values)


def _records_of_type(
    type_: RecordType, portal: Portal, words: Words, patient: Patient, cursor: str | None
) -> dict[str, Any]:
    records, following = page(portal.patients, patient.id, RecordFilter(type_), cursor, PAGE)
    items = [item(record, words) for record in records]
    return {"items": items, "next": following, "cursor": cursor}


@router.get("/tests")
def tests(request: Request, portal: ThePortal, words: TheWords, patient: Reader) -> Response:
    values = _values(portal, words, patient, "tests")
    records = portal.patients.records(patient.id, RecordFilter("test"), None, TESTS)
    values |= {
        "tests": series([item(record, words) for record in records], words),
        "full": len(records) == TESTS,
    }
    return templates.TemplateResponse(request, "tests.html", values)


@router.get("/visits")
def visits(
    request: Request, portal: ThePortal, words: TheWords, patient: Reader, cursor: Cursor = None
) -> Response:
    values = _values(portal, words, patient, "visits")
    records, following = page(portal.patients, patient.id, RecordFilter(), cursor, VISITS)
    values |= {
        "visits": by_visit([item(record, words) for record in records]),
        "next": following,
        "cursor": cursor,
    }
    return templates.TemplateResponse(request, "visits.html", values)


def _values(portal: Portal, words: Words, patient: Patient, tab: str) -> dict[str, Any]:
    """Return what every page of a patient shows."""
    # Before the records are read: so the page is told of what comes in between.
    tag = portal.patients.tag(patient.id)
    hospitals = []
    for hospital in portal.patients.as_of(patient.id):
        at = words.moment(hospital.at, hospital.timezone) if hospital.at else ""
        hospitals.append((hospital, at))
    return {
        "words": words,
        "patient": patient,
        "tab": tab,
        "tabs": TABS,
        "tag": tag,
        "hospitals": hospitals,
        "languages": LANGUAGE_NAMES,
    }


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise HTTPException(400, "a day is written as 2025-11-06") from None


class EventStream(StreamingResponse):
    """The events of one open page. However it ends, the page is no longer told of changes."""

    def __init__(self, portal: Portal, open_page: live.OpenPage, ends: float) -> None:
        super().__init__(
            live.events(open_page, ends),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )
        self._leave = portal.live.leave
        self._page = open_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # In a thread: `leave` waits for a lock that is held while MongoDB answers.
            self._page.loop.run_in_executor(None, self._leave, self._page)


@router.get("/events")
async def events(
    portal: ThePortal,
    caller: TheCaller,
    seen: Annotated[str, Query(max_length=40)] = "",
    last_event_id: Annotated[str, Header(max_length=40)] = "",
) -> Response:
    """Tell a page that records have changed, at once and after it was away, never what they are."""
    loop = asyncio.get_running_loop()
    open_page = await loop.run_in_executor(
        None, portal.live.join, caller.patient.id, last_event_id or seen, loop
    )
    if open_page is None:
        raise HTTPException(503, "come again", {"Retry-After": "5"})
    return EventStream(portal, open_page, loop_time(caller.ends, loop.time()))


class Choice(BaseModel):
    """The form of the language switch: the language, and the page that it is on."""

    model_config = ConfigDict(extra="forbid")

    language: Language
    page: Literal["timeline", "conditions", "medicines", "tests", "visits", "sign-in"]


@router.post("/language")
def language(portal: ThePortal, form: Annotated[Choice, Form()]) -> Response:
    """Remember the reader's language in this browser, and go back to the page."""
    answer = RedirectResponse("/" if form.page == "timeline" else f"/{form.page}", 303)
    answer.set_cookie(
        LANGUAGE_COOKIE,
        form.language,
        A_YEAR_S,
        secure=portal.settings.https,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get("/sign-in")
def sign_in_form(request: Request, portal: ThePortal, words: TheWords) -> Response:
    return _form(request, words, "")


@router.post("/sign-in")
def sign_in(
    request: Request, portal: ThePortal, words: TheWords, form: Annotated[SignIn, Form()]
) -> Response:
    account = form.identifier.strip().lower()
    if wait_s := seconds_to_wait(portal, request, account):
        seconds = int(wait_s) + 1
        problem = words("wait", seconds=seconds)
        return _form(request, words, problem, 429, {"Retry-After": str(seconds)})
    user = portal.patients.account(account)
    # Also without a user, so that the time that it takes doesn't tell who has an account.
    is_right = fits(form.password, user["password"] if user else None)
    if not is_right or user is None or portal.patients.patient(str(user["_id"])) is None:
        return _form(request, words, words("wrong"), 401)
    count_as_right(portal, request, account)
    answer = RedirectResponse("/", 303)
    keep(answer, portal, portal.cookies[0], portal.sessions.token(str(user["_id"])))
    return answer


@router.post("/sign-out")
def sign_out(portal: ThePortal) -> Response:
    answer = RedirectResponse("/sign-in", 303)
    for name in portal.cookies:
        answer.delete_cookie(name, secure=portal.settings.https, httponly=True, samesite="lax")
    return answer


def keep(answer: Response, portal: Portal, name: str, token: str) -> None:
    """Put a session's token into its cookie."""
    lasting = int(portal.sessions.lasting.total_seconds())
    answer.set_cookie(
        name, token, lasting, secure=portal.settings.https, httponly=True, samesite="lax"
    )


def _form(
    request: Request,
    words: Words,
    problem: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    values = {"words": words, "problem": problem, "languages": LANGUAGE_NAMES}
    return templates.TemplateResponse(
        request, "sign_in.html", values, status_code=status, headers=headers
    )
