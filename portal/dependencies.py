"""The dependencies of routes: the portal's parts, the page text in its language, the caller.

A route that takes a `Reader` or a `TheCaller` is reached only by somebody who is signed in.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from passport.settings import Portal as Settings
from portal.live import LiveUpdates
from portal.page_text import LANGUAGES, Words, chosen
from portal.patients import Patient, Patients
from portal.sessions import Sessions, Throttle


@dataclass
class Portal:
    """The parts of one running portal.

    `accounts` and `addresses` slow down guessing of passwords.
    """

    settings: Settings
    patients: Patients
    sessions: Sessions
    live: LiveUpdates
    accounts: Throttle = field(default_factory=Throttle)
    addresses: Throttle = field(default_factory=lambda: Throttle(free=30))

    @cached_property
    def cookies(self) -> tuple[str, str]:
        """The names of the patients' and of the operators' cookie.

        Browsers bind a cookie whose name begins with __Host- to this host and to https.
        """
        prefix = "__Host-" if self.settings.https else ""
        return f"{prefix}session", f"{prefix}operator"


class SignedOut(Exception):  # noqa: N818  # not an error: the page asks to sign in
    """Nobody is signed in. `path` is where that is done."""

    def __init__(self, path: str) -> None:
        self.path = path


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is signed in. `ends` is the Unix time at which the session ends."""

    patient: Patient
    ends: float


LANGUAGE_COOKIE = "language"


def words_of(request: Request) -> Words:
    """Return the page text in the language that the reader has chosen on a page.

    Without a choice, it is the one that the request's browser likes best.
    """
    language = request.cookies.get(LANGUAGE_COOKIE, "")
    if language in LANGUAGES:
        return Words(language)
    return Words(chosen(request.headers.get("accept-language", "")))


# FastAPI runs a dependency that is no coroutine in a thread. These two don't wait for anything.


async def _portal(request: Request) -> Portal:
    portal: Portal = request.app.state.portal
    return portal


async def _words(request: Request) -> Words:
    return words_of(request)


ThePortal = Annotated[Portal, Depends(_portal)]
TheWords = Annotated[Words, Depends(_words)]
_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="The Passport's session token."
)
_cookie = APIKeyCookie(
    name="session", auto_error=False, description="The same token, as the page keeps it."
)


def caller(
    request: Request,
    portal: ThePortal,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    _: Annotated[str | None, Depends(_cookie)],
) -> Caller:
    """Return who calls the API. Answers 401 when nobody is signed in."""
    token = bearer.credentials if bearer else request.cookies.get(portal.cookies[0])
    signed_in = _signed_in(portal, token)
    if signed_in is None:
        raise HTTPException(401, "sign in first", {"WWW-Authenticate": "Bearer"})
    return signed_in


def reader(request: Request, portal: ThePortal) -> Patient:
    """Return who reads a page. Leads to the sign-in page when nobody is signed in."""
    signed_in = _signed_in(portal, request.cookies.get(portal.cookies[0]))
    if signed_in is None:
        raise SignedOut("/sign-in")
    return signed_in.patient


def operator(request: Request, portal: ThePortal) -> None:
    """Let only operators through. Answers 404 when there is no operators' page."""
    if not portal.sessions.operators:
        raise HTTPException(404)
    if not portal.sessions.is_operator(request.cookies.get(portal.cookies[1], "")):
        raise SignedOut("/operators/sign-in")


TheCaller = Annotated[Caller, Depends(caller)]
Reader = Annotated[Patient, Depends(reader)]


def _signed_in(portal: Portal, token: str | None) -> Caller | None:
    session = portal.sessions.user_id(token) if token else None
    if session is None:
        return None
    user_id, ends = session
    patient = portal.patients.patient(user_id)
    return Caller(patient, ends) if patient else None


def seconds_to_wait(portal: Portal, request: Request, account: str) -> float:
    """Return how long this account, and this address, must wait before the next password.

    0 means: go on. The password counts as wrong until `count_as_right`.
    """
    address = request.client.host if request.client else ""
    return max(portal.accounts.attempt(account), portal.addresses.attempt(address))


def count_as_right(portal: Portal, request: Request, account: str) -> None:
    """Take back that the last password of this account and this address counted as wrong."""
    portal.accounts.right(account)
    portal.addresses.right(request.client.host if request.client else "")


def loop_time(ends: float, now: float) -> float:
    """Return a Unix time on the clock of an event loop that says `now`."""
    return now + ends - time.time()
