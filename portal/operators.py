"""The operators' page: every hospital's state, and what repairs it. No patient's data."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from portal.board import Board
from portal.pages import keep, templates
from portal.sessions import OPERATOR
from portal.signed_in import ThePortal, let_in, operator, wait
from portal.words import Words

router = APIRouter(prefix="/operators", include_in_schema=False)
_WORDS = Words("en")  # as the command line
_STATES = {
    "ok": "not registered",
    "none": "without an id",
    "ambiguous": "id held twice",
    "invalid": "id not valid",
    "not_patient": "no patients",
}


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: str = Field(max_length=200)


@router.get("", dependencies=[Depends(operator)])
def board(request: Request) -> Response:
    shown: Board = request.app.state.board
    hospitals = [(row, shown.charts(row["hospital"])) for row in shown.rows]
    age = round(time.time() - shown.at) if shown.at else None
    values = {
        "words": _WORDS,
        "hospitals": hospitals,
        "age": age,
        "problem": shown.problem,
        "states": _STATES,
    }
    return templates.TemplateResponse(request, "operators.html", values)


@router.get("/sign-in")
def sign_in_form(request: Request, here: ThePortal) -> Response:
    if not here.sessions.operators:
        raise HTTPException(404)
    return templates.TemplateResponse(
        request, "operators_sign_in.html", {"words": _WORDS, "problem": ""}
    )


@router.post("/sign-in")
def sign_in(request: Request, here: ThePortal, form: Annotated[SignIn, Form()]) -> Response:
    if not here.sessions.operators:
        raise HTTPException(404)
    seconds = wait(here, request, OPERATOR)
    if seconds or not here.sessions.is_operators_password(form.password):
        problem = _WORDS("wait", seconds=int(seconds) + 1) if seconds else _WORDS("wrong_password")
        values = {"words": _WORDS, "problem": problem}
        status, more = (429, {"Retry-After": str(int(seconds) + 1)}) if seconds else (401, None)
        return templates.TemplateResponse(
            request, "operators_sign_in.html", values, status_code=status, headers=more
        )
    let_in(here, request, OPERATOR)
    answer = RedirectResponse("/operators", 303)
    keep(answer, here, here.cookies[1], here.sessions.operator_token())
    return answer
