"""The portal as an ASGI application: its parts, its routes, and what its errors look like."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pymongo.database import Database
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from passport import __version__
from passport.settings import Hospital
from passport.settings import Portal as Settings
from portal import api, operators, pages
from portal.dependencies import Portal, SignedOut, words_of
from portal.guard import Guard
from portal.live import LiveUpdates
from portal.patients import Patients
from portal.sessions import Sessions
from portal.status_history import Collect, StatusHistory


def create(
    settings: Settings,
    hospitals: Mapping[str, Hospital],
    database: Database[dict[str, Any]],
    collect: Collect,
) -> FastAPI:
    """Make the application. `collect` returns the operators' numbers.

    Raises Fatal if no secret is set to sign sessions with.
    """
    patients = Patients(database, hospitals)
    sessions = Sessions(settings)
    portal = Portal(settings, patients, sessions, LiveUpdates(patients, settings.max_streams))
    history = StatusHistory(collect, settings.operators.sample_s)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        portal.live.start()
        if sessions.operators:
            history.start()
        yield
        portal.live.stop()
        history.stop()

    app = FastAPI(
        title="Patient Passport",
        version=__version__,
        summary="A patient's own records, from all hospitals, a moment after they were written.",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    app.state.portal = portal
    app.state.status_history = history
    for routes in (api.router, pages.router, operators.router):
        app.include_router(routes)
    app.mount("/static", StaticFiles(directory=str(files("portal") / "static")), name="static")
    app.add_exception_handler(SignedOut, _to_sign_in)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(PyMongoError, _database_away)
    app.add_middleware(Guard, https=settings.https)
    return app


def _to_sign_in(_: Request, error: Exception) -> Response:
    path = error.path if isinstance(error, SignedOut) else "/sign-in"
    return RedirectResponse(path, 303)


def _not_understood(request: Request, error: Exception) -> Response:
    """Say where the request is wrong and why, never what was sent: it may name a patient."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [
        {"loc": problem["loc"], "msg": problem["msg"], "type": problem["type"]}
        for problem in problems
    ]
    return _error_page(request, 422) or JSONResponse({"detail": detail}, 422)


def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _error_page(request, 500) or JSONResponse({"detail": ""}, 500)
    return _error_page(request, error.status_code) or JSONResponse(
        {"detail": error.detail}, error.status_code, error.headers
    )


def _database_away(request: Request, _: Exception) -> Response:
    headers = {"Retry-After": "5"}
    return _error_page(request, 503, headers) or JSONResponse(
        {"detail": "try again soon"}, 503, headers
    )


def _error_page(
    request: Request, status: int, headers: dict[str, str] | None = None
) -> Response | None:
    """Return a page for a browser, or None for a program, which gets JSON."""
    is_browser = "text/html" in request.headers.get("accept", "")
    if not is_browser or request.url.path.startswith("/api/"):
        return None
    words = words_of(request)
    text = words(f"error_{status}" if status in (404, 503) else "error_other")
    return pages.templates.TemplateResponse(
        request,
        "error.html",
        {"words": words, "text": text},
        status_code=status,
        headers=headers,
    )
