"""GET /api/patients/me on a real MongoDB: what it says, and whom it says nothing."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from bson import ObjectId
from pymongo.monitoring import CommandListener

from destinations.mongo.client import ensure_indexes
from portal.api import cursor_after
from tests.integration import portal_site as ps
from tests.integration.portal_site import ANNA, BORIS, SECRET, Site, bearer, token

ME = "/api/patients/me"
READS = {
    "find",
    "aggregate",
    "distinct",
    "getMore",
    "hello",
    "ping",
    "killCursors",
    "endSessions",
    "explain",
}


class Commands(CommandListener):
    """The names of all commands that were sent."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def started(self, event: Any) -> None:
        self.names.add(event.command_name)

    def succeeded(self, event: Any) -> None:
        """Not of interest."""

    def failed(self, event: Any) -> None:
        """Not of interest."""


@pytest.fixture(scope="module")
def commands() -> Commands:
    return Commands()


@pytest.fixture(scope="module")
def site(mongo_url: str, commands: Commands) -> Iterator[Site]:
    with ps.opened(mongo_url, (), commands) as found:
        yield found


def get(site: Site, who: str = ANNA, **query: Any) -> Any:
    answer = httpx.get(f"{site.url}{ME}", params=query, headers=bearer(who))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_documented_answer(site: Site) -> None:
    """Step 7 of the documented design: "Malaria - diagnosed by Dr. Jane Smith at Hospital 1"."""
    found = get(site, type="condition")
    (malaria,) = found["records"]
    assert malaria["type"] == "condition"
    assert malaria["data"]["details"] == "Malaria"
    assert malaria["createdBy"] == "Dr. Jane Smith"
    assert malaria["hospital"] == "Kigali University Hospital"
    assert malaria["createdAt"] == "2025-11-06T10:30:00Z"
    assert (
        malaria["summary"] == "Malaria - diagnosed by Dr. Jane Smith at Kigali University Hospital"
    )
    assert found["patient"]["nationalId"] == ANNA
    assert [one["name"] for one in found["hospitals"]] == ["Kigali University Hospital"]


def test_it_speaks_french(site: Site) -> None:
    answer = httpx.get(
        f"{site.url}{ME}?type=condition", headers=bearer() | {"Accept-Language": "fr-RW,en;q=0.5"}
    )
    assert answer.json()["records"][0]["summary"].startswith(
        "Malaria - diagnostiqué par Dr. Jane Smith"
    )


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 8),
        ({"type": "test"}, 5),
        ({"type": "image"}, 0),
        ({"from": "2025-11-06"}, 5),
        ({"to": "2025-08-06"}, 3),
        ({"from": "2025-05-06", "to": "2025-08-06"}, 2),
        ({"from": "2025-11-06", "type": "test"}, 2),
        ({"to": "9999-12-31"}, 8),
        ({"from": "0001-01-01"}, 8),
        ({"from": "2025-11-07", "to": "2025-11-06"}, 0),
    ],
)
def test_filters(site: Site, query: dict[str, str], count: int) -> None:
    assert len(get(site, **query)["records"]) == count


def test_pages_join_without_gap_or_double(site: Site) -> None:
    """Equal dates, and records without one, which come last."""
    patient = ps.patient_id(BORIS)
    dates = ["2025-10-01T08:00:00"] * 5 + ["2025-09-01T08:00:00"] * 3
    made = [
        ps.record(patient, "visit", f"visit {number}", when) for number, when in enumerate(dates)
    ]
    for one in made[-2:]:
        del one["data"]["date"]
    del made[-1]["data"]  # as Mongoose saves one that is empty
    site.db.medicalrecords.insert_many(made)
    try:
        whole = [one["id"] for one in get(site, BORIS)["records"]]
        assert len(whole) == len(set(whole)) == 9
        for limit in (1, 2, 3, 4, 8, 9):
            found, cursor = [], None
            while cursor is not None or not found:
                page = get(site, BORIS, limit=limit, **({"cursor": cursor} if cursor else {}))
                assert len(page["records"]) <= limit
                found += [one["id"] for one in page["records"]]
                cursor = page["next"]
                if cursor is None:
                    break
            assert found == whole, limit
    finally:
        site.db.medicalrecords.delete_many({"_id": {"$in": [one["_id"] for one in made]}})


def test_a_page_is_read_from_the_index(site: Site) -> None:
    """Each part of a page examines no more documents than it gives: 5,000 cost what 50 do."""
    patient = ps.patient_id(BORIS)
    many = [
        ps.record(patient, "test", "Pulse", f"2025-{1 + n % 12:02}-01T08:00:00", "70")
        for n in range(600)
    ]
    site.db.medicalrecords.insert_many(many)
    try:
        plan = (
            site.db.medicalrecords.find({"patientId": patient})
            .sort([("data.date", -1), ("_id", -1)])
            .limit(20)
        )
        assert plan.explain()["executionStats"]["totalDocsExamined"] == 20
        for part in (
            {"data.date": "2025-06-01T08:00:00", "_id": {"$lt": ObjectId()}},
            {"data.date": {"$lt": "2025-06-01T08:00:00"}},
        ):
            query = {"$and": [{"patientId": patient}, part]}
            plan = (
                site.db.medicalrecords.find(query).sort([("data.date", -1), ("_id", -1)]).limit(20)
            )
            assert plan.explain()["executionStats"]["totalDocsExamined"] <= 20
    finally:
        site.db.medicalrecords.delete_many({"_id": {"$in": [one["_id"] for one in many]}})


def test_who_knows_the_patient_is_read_from_the_index(mongo_database: ps.Mongo) -> None:
    """A partial index by $type serves no {patientId: ...}: seen on a real server, and so it is one
    by $gt.
    """
    ensure_indexes(mongo_database, 30)
    mongo_database.people.insert_many(
        [{"_id": n, "patientId": f"{n}", "idHash": f"{n}"} for n in range(300)]
    )
    for query in ({"patientId": "7"}, {"idHash": {"$in": ["7", "8"]}}):
        stats = mongo_database.people.find(query).explain()["executionStats"]
        assert stats["totalDocsExamined"] == stats["nReturned"] > 0, query


def test_an_unchanged_answer_is_not_sent_again(site: Site) -> None:
    first = httpx.get(f"{site.url}{ME}?type=condition", headers=bearer())
    known = {"If-None-Match": first.headers["etag"]}
    again = httpx.get(f"{site.url}{ME}?type=condition", headers=bearer() | known)
    assert (again.status_code, again.content) == (304, b"")
    site.db.medicalrecords.update_one(
        {"type": "condition", "patientId": ps.patient_id(ANNA)}, {"$set": {"data.x": "y"}}
    )
    changed = httpx.get(f"{site.url}{ME}?type=condition", headers=bearer() | known)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_voided_records_never_appear(site: Site) -> None:
    gone = ps.record(ps.patient_id(ANNA), "condition", "A mistake", "2025-11-07T08:00:00")
    site.db.medicalrecords.insert_one(gone)
    assert "A mistake" in json.dumps(get(site))
    ps.void(site.db, gone["_id"])
    assert "A mistake" not in json.dumps(get(site))
    assert str(gone["_id"]) not in json.dumps(get(site))


# -- hostile requests


def _unsigned() -> str:
    claims = {"userId": str(ps.user_id(ANNA)), "exp": datetime.now(UTC) + timedelta(hours=1)}
    return jwt.encode(claims, None, algorithm="none")


def _parts(header: Any, claims: Any, signature: str = "") -> str:
    encoded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in (header, claims)
    ]
    return ".".join([*encoded, signature])


LATER = datetime.now(UTC) + timedelta(hours=1)
TOKENS = {
    "empty": ".",
    "not a token": "abc",
    "three dots": "...",
    "of another secret": token(key="another secret that is long enough, 32 letters"),
    "expired": token(exp=datetime.now(UTC) - timedelta(seconds=1)),
    "without exp": token(exp=None),
    "exp is text": _parts(
        {"alg": "HS256", "typ": "JWT"}, {"userId": str(ps.user_id(ANNA)), "exp": "never"}, "x"
    ),
    "not yet": token(nbf=LATER),
    "issued in the future": token(iat=LATER),
    "alg none": _unsigned(),
    "alg None": _parts({"alg": "None"}, {"userId": str(ps.user_id(ANNA)), "exp": 9999999999}),
    "HS512": token(algorithm="HS512"),
    "RS256 in name": _parts(
        {"alg": "RS256"}, {"userId": str(ps.user_id(ANNA)), "exp": 9999999999}, "c2ln"
    ),
    "key in the header": _parts(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": "YQ"}}, {"userId": str(ps.user_id(ANNA))}
    ),
    "no userId": token(userId=None),
    "userId is an operator": token(userId={"$ne": None}),
    "userId is a list": token(userId=[str(ps.user_id(ANNA))]),
    "userId is no ObjectId": token(userId="me"),
    "userId of nobody": token(userId=str(ObjectId())),
    "userId of a doctor": token(userId=str(ps.AUTHOR)),
    "sub instead of userId": token(userId=None, sub=str(ps.user_id(ANNA))),
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_not_to_be_believed(site: Site, name: str) -> None:
    for given in (
        {"Authorization": f"Bearer {TOKENS[name]}"},
        {"Cookie": f"session={TOKENS[name]}"},
    ):
        answer = httpx.get(f"{site.url}{ME}", headers=given)
        assert answer.status_code == 401, name
        assert set(answer.json()) == {"detail"}


def test_the_right_token_is_believed() -> None:
    """The table above fails for its own reasons, not for a wrong secret."""
    assert jwt.decode(token(), SECRET, algorithms=["HS256"])["userId"] == str(ps.user_id(ANNA))


QUERIES = [
    "type[$ne]=test",
    "type=%24ne",
    'type={"$gt":""}',
    "type=secret",
    "patientId=" + ps.patient_id(BORIS),
    "patient=" + ps.patient_id(BORIS),
    "userId=" + str(ps.user_id(BORIS)),
    "nationalId=" + BORIS,
    "$where=sleep(1000)",
    "limit=0",
    "limit=-1",
    "limit=201",
    "limit=99999999999999999999999",
    "limit=1e3",
    "from=yesterday",
    "from[$gt]=2025-01-01",
    "from=2025-02-30",
    "from=0",
    "from=1762387200",
    "to=2025-11-06T10:30:00",
    "cursor=x",
    "cursor=" + "A" * 201,
    "cursor=" + "0" * 24 + "-" + "00" * 1_000,
    "cursor=" + "0" * 24 + "-0",
    "cursor=" + "0" * 24 + "%0A",
    "cursor[$gt]=" + "0" * 24,
    "cursor=" + base64.urlsafe_b64encode(b'["2025",{"$gt":""}]').decode(),
    "cursor=%00",
    "cursor=%F0%9F%92%89",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_makes_no_sense(site: Site, query: str) -> None:
    answer = httpx.get(f"{site.url}{ME}?{query}", headers=bearer())
    assert answer.status_code in (400, 422), answer.text
    assert ps.SECRET_OF_BORIS not in answer.text
    assert '"input"' not in answer.text, "what was sent is not sent back"


def test_another_patients_cursor_shows_only_ones_own(site: Site) -> None:
    """A cursor is a place in a timeline, not a key to one."""
    for date in ("2025-10-01T08:00:00", "9999", "\0", '{"$gt": ""}', None):
        cursor = cursor_after({"_id": "f" * 24, "data": {"date": date}})
        assert ps.SECRET_OF_BORIS not in json.dumps(get(site, cursor=cursor))
    assert ps.SECRET_OF_BORIS in json.dumps(get(site, BORIS)), "which is there for Boris"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/patients/{ps.patient_id(BORIS)}", 404),
        ("GET", "/api/patients/me/../" + ps.patient_id(BORIS), 404),
        ("GET", "/api/patients", 404),
        ("GET", "/static/../server.py", 404),
        ("GET", "/static/%2e%2e/server.py", 404),
        ("GET", "/docs", 404),
        ("DELETE", ME, 405),
        ("PUT", ME, 405),
        ("POST", ME, 405),
        ("POST", "/sign-in", 411),
    ],
)
def test_there_is_no_other_way_in(site: Site, method: str, path: str, status: int) -> None:
    content = iter([b"password=x"]) if status == 411 else b""
    assert (
        httpx.request(method, f"{site.url}{path}", headers=bearer(), content=content).status_code
        == status
    )


def test_who_is_not_active_any_more_is_out(site: Site) -> None:
    query = {"_id": ps.user_id(BORIS)}
    site.db.users.update_one(query, {"$set": {"isActive": False}})
    try:
        assert httpx.get(f"{site.url}{ME}", headers=bearer(BORIS)).status_code == 401
    finally:
        site.db.users.update_one(query, {"$set": {"isActive": True}})
    assert httpx.get(f"{site.url}{ME}", headers=bearer(BORIS)).status_code == 200


def test_every_answer_has_the_security_headers(site: Site) -> None:
    for path in (ME, "/", "/sign-in", "/static/page.js", "/nothing", "/openapi.json"):
        headers = httpx.get(f"{site.url}{path}").headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


def test_mongodb_is_only_read(site: Site, commands: Commands) -> None:
    """All that the tests above, the pages and the event stream made the portal send."""
    browser = site.signed_in()
    for path in ("/", "/conditions", "/medicines", "/tests", "/visits", "/sign-in"):
        assert browser.get(path).status_code == 200
    with browser.stream("GET", "/events") as stream:
        assert next(stream.iter_lines())
    assert (
        browser.post("/sign-in", data={"identifier": ANNA, "password": "wrong"}).status_code == 401
    )
    assert {"find", "aggregate"} <= commands.names
    assert commands.names <= READS
