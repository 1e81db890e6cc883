"""The event stream on a real change stream: who is told, at once and after having been away."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from dev.stack import Mongo as MongoServer
from portal.server import listening
from tests.eventually import eventually
from tests.integration import portal_site as ps
from tests.integration.portal_site import ANNA, BORIS, Site

DEADLINE_S = 60


class Page:
    """An open page: the ids of the events it was told."""

    def __init__(self, site: Site, who: str, **headers: str) -> None:
        self.told: list[str] = []
        self.opened = threading.Event()
        self._site, self._headers, self._who = site, headers, who
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.opened.wait(DEADLINE_S)

    def _read(self) -> None:
        headers = {**ps.bearer(self._who), **self._headers}
        with (
            httpx.Client(timeout=httpx.Timeout(10, read=60)) as client,
            client.stream("GET", f"{self._site.url}/events", headers=headers) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                self.opened.set()
                if line.startswith("id: "):
                    self.told.append(line[4:])

    def count(self, number: int) -> None:
        """Wait until the page was told so many times."""
        eventually(
            lambda: len(self.told) >= number,
            lambda: f"told {number} times, not {len(self.told)}",
            DEADLINE_S,
        )


@pytest.fixture(scope="module")
def site(mongo_url: str) -> Iterator[Site]:
    with ps.opened(mongo_url) as found:
        yield found


def tag(site: Site, who: str = ANNA) -> str:
    found: str = site.app.state.portal.patients.tag(ps.patient_id(who))
    return found


def test_each_change_of_ones_own_records_is_told_and_no_other(site: Site) -> None:
    anna = Page(site, ANNA, **{"Last-Event-ID": tag(site)})
    boris = Page(site, BORIS, **{"Last-Event-ID": tag(site, BORIS)})
    one = ps.record(ps.patient_id(ANNA), "visit", "new", "2025-11-20T08:00:00")
    records = site.db.medicalrecords
    records.insert_one(one)
    anna.count(1)
    records.update_one({"_id": one["_id"]}, {"$set": {"data.reason": "edited"}, "$inc": {"rev": 1}})
    anna.count(2)
    records.update_one(
        {"_id": one["_id"]}, {"$set": {"patientId": ps.patient_id(BORIS)}, "$inc": {"rev": 1}}
    )
    anna.count(3)
    boris.count(1)
    ps.void(site.db, one["_id"])
    boris.count(2)
    records.delete_one({"_id": one["_id"]})
    two = ps.record(ps.patient_id(BORIS), "visit", "deleted", "2025-11-20T08:00:00")
    records.insert_one(two)
    boris.count(3)
    records.delete_one({"_id": two["_id"]})
    boris.count(4)
    assert boris.told[-1] == tag(site, BORIS)
    assert len(anna.told) == 3


def test_a_page_that_was_away_is_told_once(site: Site) -> None:
    before = tag(site)
    site.db.medicalrecords.insert_one(
        ps.record(ps.patient_id(ANNA), "visit", "meanwhile", "2025-11-21T08:00:00")
    )
    back = Page(site, ANNA, **{"Last-Event-ID": before})
    back.count(1)
    assert back.told == [tag(site)]
    current = Page(site, ANNA, **{"Last-Event-ID": tag(site)})
    site.db.medicalrecords.insert_one(
        ps.record(ps.patient_id(ANNA), "visit", "more", "2025-11-22T08:00:00")
    )
    current.count(1)
    assert current.told == [tag(site)], "what it knew already was not told"


def test_a_stream_ends_with_its_session(site: Site) -> None:
    from datetime import UTC, datetime, timedelta

    short = ps.token(exp=datetime.now(UTC) + timedelta(seconds=2))
    began = time.monotonic()
    with httpx.stream(
        "GET", f"{site.url}/events", headers={"Authorization": f"Bearer {short}"}, timeout=30
    ) as answer:
        assert answer.read()
    assert time.monotonic() - began < 20
    assert httpx.get(f"{site.url}/events").status_code == 401


def test_an_answer_is_sent_at_once() -> None:
    """Otherwise its body waits for the reader's ACK of its head, which comes after 40 ms."""
    with (
        listening("127.0.0.1", 0) as at,
        socket.create_connection(at.getsockname()),
        contextlib.closing(at.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_more_streams_than_allowed_are_refused_and_left_ones_are_forgotten(site: Site) -> None:
    with ps.running(site.db, max_streams=2) as small:
        live = small.app.state.portal.live
        with (
            httpx.stream("GET", f"{small.url}/events", headers=ps.bearer()),
            httpx.stream("GET", f"{small.url}/events", headers=ps.bearer(BORIS)),
        ):
            assert live.count == 2
            refused = httpx.get(f"{small.url}/events", headers=ps.bearer())
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        eventually(lambda: live.count == 0, "the streams are left", DEADLINE_S)
        assert not live._owners, "nothing is remembered of patients whose pages are closed"


@pytest.mark.parametrize("fault", [pytest.param("restart", marks=pytest.mark.long), "step down"])
def test_a_mongod_that_was_away_loses_no_event(
    own_mongo: Callable[..., MongoServer], fault: str
) -> None:
    server = own_mongo()
    with MongoClient[dict[str, Any]](server.url, tz_aware=True) as client:
        db = client["passport"]
        ps.fill(db)
        with ps.running(db) as site:
            page = Page(site, ANNA, **{"Last-Event-ID": tag(site)})
            if fault == "restart":
                server.kill()
                answer = httpx.get(f"{site.url}/api/patients/me", headers=ps.bearer(), timeout=60)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), (
                    "it was away"
                )
                server.start()
            else:
                term = client.admin.command("replSetGetStatus")["term"]
                client.admin.command("replSetStepDown", 1, force=True)
                while client.admin.command("replSetGetStatus")["term"] == term:
                    time.sleep(0.1)
            db.medicalrecords.insert_one(
                ps.record(ps.patient_id(ANNA), "visit", "after", "2025-11-23T08:00:00")
            )
            page.count(1)
            assert page.told == [tag(site)]
