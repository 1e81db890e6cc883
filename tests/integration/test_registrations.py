"""The watch on registrations, on a real MongoDB: by one process for all, and at a bounded cost."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from destinations.mongo import registrations, sweep
from destinations.mongo.sweep import Sweep
from tests.beside import beside
from tests.eventually import eventually
from tests.integration.passport_database import LINK_KEY, Passport
from tests.observations import HOSPITAL, obs, patient, person

OTHER = "1199080012340000"


@pytest.fixture
def passport(mongo_url: str) -> Iterator[Passport]:
    passport = Passport(mongo_url)
    yield passport
    passport.close()


def streams(passport: Passport) -> int:
    """Return how many change streams are open on `patients`."""
    operations = passport.client.admin.aggregate(
        [
            {"$currentOp": {"idleCursors": True, "localOps": True}},
            {
                "$match": {
                    "ns": f"{passport.db.name}.patients",
                    "cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": True},
                }
            },
        ]
    )
    return len(list(operations))


def lease(passport: Passport) -> dict[str, Any]:
    return passport.db.leases.find_one({"_id": "registrations"}) or {}


def test_b20_one_process_watches_for_all(passport: Passport) -> None:
    """Three have the destination open. Each watched, and each swept over all patients."""
    numbers: list[int] = []

    def count(stop: threading.Event) -> None:
        while not stop.wait(0.05):
            numbers.append(streams(passport))

    with beside(count):
        sinks = [passport.sink() for _ in range(3)]
        sinks[0].write([obs(1, 10), obs(2, 10, who=person(2, OTHER))])
        passport.register()
        assert eventually(lambda: sinks[1].wanted(HOSPITAL, 10), "the first is asked for") == [1]
        holder = lease(passport)["holder"]
        for sink in sinks:
            if sink._registrations._lease._holder == holder:
                sink.close()
        passport.register(OTHER)
        eventually(
            lambda: passport.db.people.count_documents({"pending": "read"}) == 2,
            "another one watches, and the second is asked for",
        )
        assert lease(passport)["holder"] != holder
    assert max(numbers) == 1


def test_b20_who_takes_over_goes_on_where_the_last_one_was(passport: Passport) -> None:
    """An account is deleted and restored while nobody watches: no sweep can see that any more."""
    passport.register()
    first = passport.sink()
    first.write([obs(1, 10)])
    eventually(lambda: lease(passport).get("resume"), "it has said where it is")
    first.close()
    account = passport.db.patients.find_one_and_delete({})
    assert account is not None
    passport.db.patients.insert_one(account)
    again = passport.sink()
    assert eventually(lambda: again.wanted(HOSPITAL, 10), "somebody is asked for") == [1]


def test_b20_who_dies_is_followed_when_the_lease_ends(passport: Passport) -> None:
    """It died while it looked at everybody: another one does so from the beginning."""
    far = ObjectId("f" * 24)
    over_at = datetime.now(UTC) + timedelta(seconds=2)
    dead = {"holder": "dead", "until": over_at, "resume": None, "patients": far, "people": "z"}
    passport.db.leases.insert_one({"_id": "registrations", **dead})
    sink = passport.sink()
    sink.write([obs(1, 10)])
    passport.register()
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    assert lease(passport)["until"] > over_at
    assert lease(passport)["holder"] != "dead"


def test_b20_where_the_stream_cannot_go_on_everybody_is_looked_at(passport: Passport) -> None:
    sink = passport.sink()
    sink.write([obs(1, 10)])
    sink.close()
    passport.register()
    lost = {"_data": "82" + "0" * 40}
    far = {"patients": ObjectId("f" * 24), "people": "z"}
    passport.db.leases.update_one({}, {"$set": {"resume": lost, **far}})
    again = passport.sink()
    assert eventually(lambda: again.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    eventually(lambda: lease(passport).get("resume") not in (None, lost), "it watches again")


def test_b20_a_sweep_looks_at_so_many_and_goes_round(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every link is wrong, though no event of `patients` told of it."""
    monkeypatch.setattr(sweep, "PAGE", 2)
    monkeypatch.setattr(registrations, "PAGES", 1)
    sink = passport.sink()
    numbers = [f"11990800123400{number:02}" for number in range(7)]
    passport.db.patients.insert_many([patient(number) for number in numbers])
    sink.write([obs(n, 10, who=person(n, number)) for n, number in enumerate(numbers, 1)])
    sink.close()
    wrong = {"patientId": str(ObjectId())}
    passport.db.people.update_many({}, {"$set": wrong, "$unset": {"pending": ""}})

    alone = Sweep(passport.db, LINK_KEY.encode())
    marked: list[int] = []
    while not alone.look():
        marked.append(passport.db.people.count_documents({"pending": "read"}))
    assert marked == [2, 4, 6, 7]

    passport.db.people.update_many({}, {"$set": wrong, "$unset": {"pending": ""}})
    again = passport.sink(sweep_s=0.01)
    eventually(lambda: len(again.wanted(HOSPITAL, 10)) == 7, "everybody is asked for")
    assert lease(passport)["resume"], "it went on where the stream was"
