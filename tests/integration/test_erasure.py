"""Erasing somebody of a real hospital from a real MongoDB."""

from collections.abc import Iterator

import pytest

from destinations.mongo.erasure import Erasure
from destinations.mongo.fence import Fence
from dev import hospital as generator
from dev.hospital import people, registration
from passport.facts import Person
from passport.sink import Progress
from tests import observations as make
from tests.integration.passport_database import LINK_KEY, Passport, read_whole
from tests.observations import HOSPITAL, obs, version
from tests.servers import Address


class Scene:
    """Somebody of the hospital who is registered, with one observation."""

    def __init__(self, passport: Passport, address: Address) -> None:
        self.passport, self.address = passport, address
        with address.connect() as connection:
            generator.create(connection, seed=6, patients=3, visits=1)
            self.person_id, self.national_id = registration.registrable(connection)[0]
        [(obs_id, uuid)] = address.execute(
            f"SELECT obs_id, uuid FROM obs WHERE person_id = {self.person_id} LIMIT 1"
        )
        self.obs_id, self.uuid = int(obs_id), str(uuid)
        self.hospital = {
            "mysql": address.settings(),
            "national_id_type": people.NATIONAL_ID_TYPE,
        }
        self.sink = passport.sink(self.hospital)
        self.passport.register(self.national_id)

    def person(self, at: int) -> Person:
        return Person(HOSPITAL, self.person_id, "uuid", "ok", self.national_id, version(at, 0))

    def leave(self) -> dict[str, int]:
        """Leave the Passport, and be erased."""
        self.passport.db.patients.delete_many({})
        read_whole(self.sink, self.person(40), [])
        settings = make.settings({"uri": "x", "link_key": LINK_KEY}, **self.hospital)
        one = settings.model_copy(update={"hospitals": {HOSPITAL: settings.hospitals[HOSPITAL]}})
        fence = Fence(self.passport.db, HOSPITAL)
        fence.take()
        erasure = Erasure(self.passport.db, one, LINK_KEY.encode(), self.national_id)
        numbers = erasure.run(fence)
        fence.close()
        self.sink.take(HOSPITAL)  # as the consumer does when it has lost it
        return numbers


@pytest.fixture
def scene(mongo_url: str, mysql_database: Address) -> Iterator[Scene]:
    passport = Passport(mongo_url)
    yield Scene(passport, mysql_database)
    passport.close()


def test_b17_who_is_erased_and_registers_again_is_read_whole(scene: Scene) -> None:
    """Their link is new then, as that of somebody of whom there is nothing older."""
    db, sink = scene.passport.db, scene.sink
    who, mark = scene.person(10), {"_id": f"{HOSPITAL}/{scene.person_id}", "pending": "read"}
    sink.record(Progress(HOSPITAL, 1, version(10), 0, []))
    sink.write([obs(scene.obs_id, 10, who=who, uuid=scene.uuid)])
    assert db.people.find_one(mark) is None, "whoever is new has nothing older"
    assert scene.leave()["people"] == 1
    assert db.people.find_one() is None
    scene.passport.register(scene.national_id)
    newer = obs(99_999, 50, who=scene.person(50))
    sink.write([newer])
    assert len(scene.passport.shown()) == 1, "the older one is missing"
    assert sink.wanted(HOSPITAL, 10) == [scene.person_id]
    older = obs(scene.obs_id, 10, who=who, uuid=scene.uuid)
    read_whole(sink, scene.person(60), [older, newer])
    assert len(scene.passport.shown()) == 2
    assert sink.wanted(HOSPITAL, 10) == []
