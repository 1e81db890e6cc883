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
from portal.board import Board, Collect
from portal.guard import Guard
from portal.live import Live
from portal.passport_db import PassportDb
from portal.sessions import Sessions
from portal.signed_in import Portal, SignedOut, words


def create(
    settings: Settings,
    hospitals: Mapping[str, Hospital],
    database: Database[dict[str, Any]],
    collect: Collect,
) -> FastAPI:
    """`collect` gives the operators' numbers. Fatal when no secret is set."""
    db = PassportDb(database, hospitals)
    sessions = Sessions(settings)
    here = Portal(settings, db, sessions, Live(db, settings.max_streams))
    board = Board(collect, settings.operators.sample_s)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        here.live.start()
        if sessions.operators:
            board.start()
        yield
        here.live.stop()
        board.stop()

    app = FastAPI(
        title="Patient Passport",
        version=__version__,
        summary="A patient's own records, from all hospitals, a moment after they were written.",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    app.state.portal, app.state.board = here, board
    for routes in (api.router, pages.router, operators.router):
        app.include_router(routes)
    app.mount("/static", StaticFiles(directory=str(files("portal") / "static")), name="static")
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_middleware(Guard, https=settings.https)
    return app


def _signed_out(_: Request, error: Exception) -> Response:
    return RedirectResponse(error.path if isinstance(error, SignedOut) else "/sign-in", 303)


def _misread(request: Request, error: Exception) -> Response:
    """Where and why, never what was sent."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in found]
    return _page(request, 422) or JSONResponse({"detail": detail}, 422)


def _refused(request: Request, error: Exception) -> Response:
    status, detail, headers = 500, "", None
    if isinstance(error, HTTPException):
        status, detail, headers = error.status_code, error.detail, error.headers
    return _page(request, status) or JSONResponse({"detail": detail}, status, headers)


def _away(request: Request, _: Exception) -> Response:
    headers = {"Retry-After": "5"}
    return _page(request, 503, headers) or JSONResponse({"detail": "try again soon"}, 503, headers)


def _page(request: Request, status: int, headers: dict[str, str] | None = None) -> Response | None:
    """For a browser that shows a page; None for a program."""
    if "text/html" not in request.headers.get("accept", "") or request.url.path.startswith("/api/"):
        return None
    said = words(request)
    text = said(f"error_{status}" if status in (404, 503) else "error_other")
    values = {"words": said, "text": text}
    return pages.templates.TemplateResponse(
        request, "error.html", values, status_code=status, headers=headers
    )


_ANSWERS: dict[type[Exception], Any] = {
    SignedOut: _signed_out,
    RequestValidationError: _misread,
    HTTPException: _refused,
    PyMongoError: _away,
}
