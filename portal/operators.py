"""The operators' page: every hospital's state, and what repairs it. It has no patient's data."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from portal.dependencies import ThePortal, count_as_right, operator, seconds_to_wait
from portal.page_text import Words
from portal.pages import keep, templates
from portal.sessions import OPERATOR
from portal.status_history import StatusHistory

router = APIRouter(prefix="/operators", include_in_schema=False)
_WORDS = Words("en")  # operators read English, as on the command line
# What an operator reads for a person's state, in the numbers of people who are not matched.
_STATES = {
    "ok": "not registered",
    "none": "without an id",
    "ambiguous": "id held twice",
    "invalid": "id not valid",
    "not_patient": "no patients",
    "contradicting": "another birth year or sex",
    "refused": "link refused",
}


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: str = Field(max_length=200)


@router.get("", dependencies=[Depends(operator)])
def operators(request: Request) -> Response:
    """Show every hospital's numbers and charts."""
    history: StatusHistory = request.app.state.status_history
    hospitals = [(row, history.charts(row["hospital"])) for row in history.rows]
    age = round(time.time() - history.at) if history.at else None
    values = {
        "words": _WORDS,
        "hospitals": hospitals,
        "age": age,
        "problem": history.problem,
        "states": _STATES,
    }
    return templates.TemplateResponse(request, "operators.html", values)


@router.get("/sign-in")
def sign_in_form(request: Request, portal: ThePortal) -> Response:
    if not portal.sessions.operators:
        raise HTTPException(404)
    return _sign_in_page(request, "")


@router.post("/sign-in")
def sign_in(request: Request, portal: ThePortal, form: Annotated[SignIn, Form()]) -> Response:
    if not portal.sessions.operators:
        raise HTTPException(404)
    if wait_s := seconds_to_wait(portal, request, OPERATOR):
        seconds = int(wait_s) + 1
        problem = _WORDS("wait", seconds=seconds)
        return _sign_in_page(request, problem, 429, {"Retry-After": str(seconds)})
    if not portal.sessions.is_operators_password(form.password):
        return _sign_in_page(request, _WORDS("wrong_password"), 401)
    count_as_right(portal, request, OPERATOR)
    answer = RedirectResponse("/operators", 303)
    keep(answer, portal, portal.cookies[1], portal.sessions.operator_token())
    return answer


def _sign_in_page(
    request: Request, problem: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return templates.TemplateResponse(
        request,
        "operators_sign_in.html",
        {"words": _WORDS, "problem": problem},
        status_code=status,
        headers=headers,
    )
