"""What a request has at hand: the portal's parts, its reader's words, and who is asking."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from passport.settings import Portal as Settings
from portal.live import Live
from portal.passport_db import PassportDb, Patient
from portal.sessions import Sessions, Throttle
from portal.words import Words, chosen


@dataclass
class Portal:
    """The parts of one running portal."""

    settings: Settings
    db: PassportDb
    sessions: Sessions
    live: Live
    accounts: Throttle = field(default_factory=Throttle)
    addresses: Throttle = field(default_factory=lambda: Throttle(free=30))

    @cached_property
    def cookies(self) -> tuple[str, str]:
        """Names of the patients' and of the operators' cookie; browsers bind __Host- to this host
        and to https.
        """
        prefix = "__Host-" if self.settings.https else ""
        return f"{prefix}session", f"{prefix}operator"


class SignedOut(Exception):  # noqa: N818  # not an error: the page asks to sign in
    """Nobody is signed in; `path` is where that is done."""

    def __init__(self, path: str) -> None:
        self.path = path


async def portal(request: Request) -> Portal:  # no thread for what does not wait
    found: Portal = request.app.state.portal
    return found


def words(request: Request) -> Words:
    return Words(chosen(request.headers.get("accept-language", "")))


async def _words(request: Request) -> Words:
    return words(request)


ThePortal = Annotated[Portal, Depends(portal)]
TheWords = Annotated[Words, Depends(_words)]
_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="The Passport's session token."
)
_cookie = APIKeyCookie(
    name="session", auto_error=False, description="The same token, as the page keeps it."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """`ends`: Unix time at which the session does."""

    patient: Patient
    ends: float


def _token(
    request: Request, here: Portal, bearer: HTTPAuthorizationCredentials | None
) -> str | None:
    return bearer.credentials if bearer else request.cookies.get(here.cookies[0])


def _caller(here: Portal, token: str | None) -> Caller | None:
    session = here.sessions.user_id(token) if token else None
    patient = here.db.patient(session[0]) if session else None
    return Caller(patient, session[1]) if session and patient else None


def caller(
    request: Request,
    here: ThePortal,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _: Annotated[str | None, Depends(_cookie)],
) -> Caller:
    """For the API: 401 when nobody is signed in."""
    found = _caller(here, _token(request, here, bearer))
    if found is None:
        raise HTTPException(401, "sign in first", {"WWW-Authenticate": "Bearer"})
    return found


def reader(request: Request, here: ThePortal) -> Patient:
    """For the pages: who isn't signed in is asked to."""
    found = _caller(here, request.cookies.get(here.cookies[0]))
    if found is None:
        raise SignedOut("/sign-in")
    return found.patient


def operator(request: Request, here: ThePortal) -> None:
    """404 when there is no operators' page."""
    if not here.sessions.operators:
        raise HTTPException(404)
    if not here.sessions.is_operator(request.cookies.get(here.cookies[1], "")):
        raise SignedOut("/operators/sign-in")


def wait(here: Portal, request: Request, account: str) -> float:
    """Seconds until the next password may be tried, for this account and from this address; 0: go
    on.
    """
    address = request.client.host if request.client else ""
    return max(here.accounts.attempt(account), here.addresses.attempt(address))


def let_in(here: Portal, request: Request, account: str) -> None:
    here.accounts.right(account)
    here.addresses.right(request.client.host if request.client else "")


TheCaller = Annotated[Caller, Depends(caller)]
Reader = Annotated[Patient, Depends(reader)]


def loop_time(ends: float, now: float) -> float:
    """A Unix time on a loop's clock that says `now`."""
    return now + ends - time.time()
