"""``GET /api/patients/me``: the signed-in patient's profile and records, as JSON."""

import re
from datetime import date, datetime
from hashlib import blake2b
from typing import Annotated, Any

from bson import ObjectId
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from portal.dependencies import TheCaller, ThePortal, TheWords
from portal.page_text import Words, utc
from portal.patients import Document, Patient, Patients, RecordFilter, RecordType, TimelinePlace
from portal.reader_words import usual
from portal.view import author, said_otherwise, sentence

router = APIRouter()
# A cursor is a record's _id and, if it has a date, a "-" and the date as hex of its UTF-8.
CURSOR = "^[0-9a-f]{24}(-([0-9a-f]{2})*)?$"


def _as_written(text: str) -> str:
    # Pydantic alone would take Unix seconds for a day, too.
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("a day is written as 2025-11-06")
    return text


Day = Annotated[date, BeforeValidator(_as_written)]


class Find(BaseModel):
    """The query parameters: which records are asked for."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: RecordType | None = Field(None, description="Only records of this type.")
    since: Day | None = Field(None, alias="from", description="Only of this day and later.")
    until: Day | None = Field(None, alias="to", description="Only of this day and earlier.")
    limit: int = Field(50, ge=1, le=200, description="At most so many records.")
    cursor: str | None = Field(
        None, max_length=2_000, pattern=CURSOR, description="`next` of the answer before."
    )


class Profile(BaseModel):
    name: str
    nationalId: str  # noqa: N815  # the Passport's own names
    dateOfBirth: date | None  # noqa: N815
    gender: str | None
    bloodType: str | None  # noqa: N815
    allergies: list[str]


class HospitalAsOf(BaseModel):
    name: str
    asOf: datetime | None = Field(description="Everything up to then is here; to the minute.")  # noqa: N815


class Range(BaseModel):
    low: float | None = Field(None, description="From here on it is usual.")
    high: float | None = Field(None, description="Up to here it is usual.")
    lowCritical: float | None = Field(None, description="Here and below it is critical.")  # noqa: N815
    highCritical: float | None = Field(None, description="Here and above it is critical.")  # noqa: N815
    lowAbsolute: float | None = Field(None, description="OpenMRS takes nothing below.")  # noqa: N815
    highAbsolute: float | None = Field(None, description="OpenMRS takes nothing above.")  # noqa: N815


class Record(BaseModel):
    id: str
    type: RecordType
    date: str | None = Field(
        description="When it happened: the hospital's wall time, without a zone."
    )
    summary: str = Field(description="One sentence, in the reader's language (en, fr, rw).")
    data: dict[str, Any] = Field(
        description="As the Passport keeps it: in the hospital's own words."
    )
    translated: dict[str, str] = Field(
        description="Fields of `data` in the reader's language, where the hospital's dictionary "
        "has other words in it."
    )
    createdBy: str = Field(description="The author's name.")  # noqa: N815
    hospital: str | None
    location: str | None
    interpretation: str | None = Field(
        description="The hospital's own, of a test result: NORMAL, HIGH, CRITICALLY_LOW ..."
    )
    range: Range | None = Field(
        description="What the number is compared with, as far as the hospital has bounds for it."
    )
    computedInterpretation: str | None = Field(  # noqa: N815
        description="What follows of the number and its `range`, where the hospital has stated "
        "no interpretation."
    )
    createdAt: datetime  # noqa: N815


class Me(BaseModel):
    patient: Profile
    hospitals: list[HospitalAsOf]
    records: list[Record] = Field(description="Newest first.")
    next: str | None = Field(description="`cursor` of the next page; null on the last one.")


_ERRORS: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the answer of that ETag"},
    401: {"description": "No valid session"},
    503: {"description": "The Passport's database is away; Retry-After says when to come again"},
}


@router.get("/api/patients/me", response_model=Me, responses=_ERRORS, tags=["patient"])
def me(
    request: Request,
    find: Annotated[Find, Query()],
    caller: TheCaller,
    portal: ThePortal,
    words: TheWords,
) -> Response:
    """Your own profile and records. No parameter names a patient: the session does."""
    patient = caller.patient
    record_filter = RecordFilter(find.type, find.since, find.until)
    records, following = page(portal.patients, patient.id, record_filter, find.cursor, find.limit)
    hospitals = []
    for hospital in portal.patients.as_of(patient.id):
        # To the minute: otherwise no answer would be the same as the one before, see `_tagged`.
        to_the_minute = hospital.at and hospital.at.replace(second=0, microsecond=0)
        hospitals.append(HospitalAsOf(name=hospital.name, asOf=to_the_minute))
    answer = Me(
        patient=_profile(patient),
        hospitals=hospitals,
        records=[_record(record, words) for record in records],
        next=following,
    )
    return _tagged(answer.model_dump_json().encode(), request.headers.get("if-none-match", ""))


def page(
    patients: Patients, patient_id: str, record_filter: RecordFilter, cursor: str | None, limit: int
) -> tuple[list[Document], str | None]:
    """Return `limit` records, and the cursor of those that follow, None if none do."""
    after = place(cursor) if cursor else None
    # One more than asked for shows whether there is a next page.
    records = patients.records(patient_id, record_filter, after, limit + 1)
    if len(records) <= limit:
        return records, None
    return records[:limit], cursor_after(records[limit - 1])


def cursor_after(record: Document) -> str:
    """Return the cursor of the records that follow this one."""
    day = record["data"].get("date")
    return str(record["_id"]) + ("" if day is None else f"-{day.encode().hex()}")


def place(cursor: str) -> TimelinePlace:
    """Return the place in the timeline that a cursor says. Every text that CURSOR allows is one."""
    key, dash, day = cursor.partition("-")
    written = bytes.fromhex(day).decode(errors="replace") if dash else None
    return written, ObjectId(key)


def _profile(patient: Patient) -> Profile:
    profile = patient.profile
    born = profile.get("dateOfBirth")
    return Profile(
        name=patient.user["name"],
        nationalId=profile["nationalId"],
        dateOfBirth=born.date() if born else None,
        gender=profile.get("gender"),
        bloodType=profile.get("bloodType"),
        allergies=profile.get("allergies") or [],
    )


def _record(record: Document, words: Words) -> Record:
    origin = record.get("openmrsData") or {}
    data = record["data"]
    author_name = author(record, words)
    compared_with = usual(record)
    return Record(
        id=str(record["_id"]),
        type=record["type"],
        date=data.get("date"),
        summary=sentence(record, author_name, words),
        data=data,
        translated=said_otherwise(record, words),
        createdBy=author_name,
        hospital=data.get("hospital"),
        location=origin.get("locationName"),
        interpretation=origin.get("interpretation"),
        range=Range(**compared_with.range) if compared_with else None,
        computedInterpretation=compared_with.computed if compared_with else None,
        createdAt=utc(record["createdAt"]),
    )


def _tagged(body: bytes, if_none_match: str) -> Response:
    """Return the answer, or 304 if the caller has this very answer already."""
    tag = f'"{blake2b(body, digest_size=16).hexdigest()}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Cookie, Accept-Language",
    }
    callers_tags = [etag.strip().removeprefix("W/") for etag in if_none_match.split(",")]
    if if_none_match.strip() == "*" or tag in callers_tags:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
