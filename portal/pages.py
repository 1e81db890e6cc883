"""The patient's pages. They work without JavaScript; with it they renew themselves
(static/page.js).
"""

import asyncio
from datetime import date
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Query, Request
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from portal import live
from portal.api import CURSOR, page
from portal.passport_db import Patient, RecordType, Wanted
from portal.sessions import fits
from portal.signed_in import Portal, Reader, TheCaller, ThePortal, TheWords, let_in, loop_time, wait
from portal.view import by_day, by_visit, item, series
from portal.words import Words

PAGE, TESTS, VISITS = 50, 1_000, 150
TABS = ("timeline", "conditions", "medicines", "tests", "visits")

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
    here: ThePortal,
    words: TheWords,
    patient: Reader,
    cursor: Cursor = None,
    since: str = "",
    until: str = "",
) -> Response:
    wanted = Wanted(since=_day(since), until=_day(until))
    values = _values(here, words, patient, "timeline")
    found, following = page(here.db.records, patient.id, wanted, cursor, PAGE)
    chosen = {"since": wanted.since, "until": wanted.until}
    values |= {
        "days": by_day(item(one, words) for one in found),
        "next": following,
        "cursor": cursor,
        **chosen,
    }
    return templates.TemplateResponse(request, "timeline.html", values)


def _listed(type_: RecordType, tab: str) -> Any:
    def listed(
        request: Request, here: ThePortal, words: TheWords, patient: Reader, cursor: Cursor = None
    ) -> Response:
        values = _values(here, words, patient, tab)
        found, following = page(here.db.records, patient.id, Wanted(type_), cursor, PAGE)
        values |= {
            "items": [item(one, words) for one in found],
            "next": following,
            "cursor": cursor,
        }
        return templates.TemplateResponse(request, "records.html", values)

    return listed


router.get("/conditions")(_listed("condition", "conditions"))
router.get("/medicines")(_listed("medication", "medicines"))


@router.get("/tests")
def tests(request: Request, here: ThePortal, words: TheWords, patient: Reader) -> Response:
    values = _values(here, words, patient, "tests")
    found = here.db.records(patient.id, Wanted("test"), None, TESTS)
    values |= {
        "tests": series([item(one, words) for one in found], words),
        "full": len(found) == TESTS,
    }
    return templates.TemplateResponse(request, "tests.html", values)


@router.get("/visits")
def visits(
    request: Request, here: ThePortal, words: TheWords, patient: Reader, cursor: Cursor = None
) -> Response:
    values = _values(here, words, patient, "visits")
    found, following = page(here.db.records, patient.id, Wanted(), cursor, VISITS)
    values |= {
        "visits": by_visit([item(one, words) for one in found]),
        "next": following,
        "cursor": cursor,
    }
    return templates.TemplateResponse(request, "visits.html", values)


def _values(here: Portal, words: Words, patient: Patient, tab: str) -> dict[str, Any]:
    """What every page of a patient shows. The tag is read before the records: what comes in between
    is told of.
    """
    tag = here.db.tag(patient.id)
    hospitals = [
        (one, words.moment(one.at, one.timezone) if one.at else "")
        for one in here.db.as_of(patient.id)
    ]
    return {
        "words": words,
        "patient": patient,
        "tab": tab,
        "tabs": TABS,
        "tag": tag,
        "hospitals": hospitals,
    }


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise HTTPException(400, "a day is written as 2025-11-06") from None


class Events(StreamingResponse):
    """A stream that is left however it ends."""

    def __init__(self, here: Portal, stream: live.Stream, ends: float) -> None:
        super().__init__(
            live.events(stream, ends),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )
        self._leave = here.live.leave
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.loop.run_in_executor(None, self._leave, self._stream)


@router.get("/events")
async def events(
    here: ThePortal,
    caller: TheCaller,
    seen: Annotated[str, Query(max_length=40)] = "",
    last_event_id: Annotated[str, Header(max_length=40)] = "",
) -> Response:
    """Says that records have changed, at once and after the page was away; never what they are."""
    loop = asyncio.get_running_loop()
    stream = await loop.run_in_executor(
        None, here.live.join, caller.patient.id, last_event_id or seen, loop
    )
    if stream is None:
        raise HTTPException(503, "come again", {"Retry-After": "5"})
    return Events(here, stream, loop_time(caller.ends, loop.time()))


@router.get("/sign-in")
def sign_in_form(request: Request, here: ThePortal, words: TheWords) -> Response:
    return _form(request, words, "")


@router.post("/sign-in")
def sign_in(
    request: Request, here: ThePortal, words: TheWords, form: Annotated[SignIn, Form()]
) -> Response:
    account = form.identifier.strip().lower()
    if seconds := wait(here, request, account):
        return _form(
            request,
            words,
            words("wait", seconds=int(seconds) + 1),
            429,
            {"Retry-After": str(int(seconds) + 1)},
        )
    user = here.db.account(account)
    right = fits(form.password, user["password"] if user else None)
    if not right or user is None or here.db.patient(str(user["_id"])) is None:
        return _form(request, words, words("wrong"), 401)
    let_in(here, request, account)
    answer = RedirectResponse("/", 303)
    keep(answer, here, here.cookies[0], here.sessions.token(str(user["_id"])))
    return answer


@router.post("/sign-out")
def sign_out(here: ThePortal) -> Response:
    answer = RedirectResponse("/sign-in", 303)
    for name in here.cookies:
        answer.delete_cookie(name, secure=here.settings.https, httponly=True, samesite="lax")
    return answer


def keep(answer: Response, here: Portal, name: str, token: str) -> None:
    """Puts a session into its cookie."""
    lasting = int(here.sessions.lasting.total_seconds())
    answer.set_cookie(
        name, token, lasting, secure=here.settings.https, httponly=True, samesite="lax"
    )


def _form(
    request: Request,
    words: Words,
    problem: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    values = {"words": words, "problem": problem}
    return templates.TemplateResponse(
        request, "sign_in.html", values, status_code=status, headers=headers
    )
