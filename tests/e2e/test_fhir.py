"""Both FHIR destinations are filled from the topic: what an oracle in plain SQL says, whatever is
done meanwhile.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import pymysql
import pytest
from fhir.resources.R4B import get_fhir_model_class
from pymysql.constants import ER

from dev import hospital as generator
from dev.hospital.clinic import ACTIONS
from tests.e2e.roles import Role
from tests.e2e.stage import PASSWORD, Hospital, Stage, opened
from tests.e2e.ward import Ward, new_id
from tests.eventually import eventually
from tests.fhir_readers import Resource, newest, of_hospital
from tests.oracle.facts import Query, people
from tests.oracle.fhir import Differences, compare
from tests.servers import fresh_name

KEY = "kigali"
WITHIN_S = 120  # a search for all that it has costs HAPI more than the writing
CANARY = "canary-7f3a"


@dataclass
class Place:
    """A destination of the settings, and how somebody else reads it."""

    name: str
    everybody: bool
    url: str = ""
    prefix: str = ""
    folder: Path = Path()

    def as_settings(self) -> dict[str, Any]:
        if self.url:
            return {
                "type": "destinations.fhir.server",
                "options": {"url": self.url, "prefix": self.prefix},
            }
        return {
            "type": "destinations.fhir.ndjson",
            "options": {"folder": str(self.folder), "people": "all"},
        }

    def resources(self) -> Iterable[Resource]:
        return of_hospital(self.url, self.prefix + KEY) if self.url else newest(self.folder)


class Scene:
    def __init__(self, stage: Stage, places: list[Place]) -> None:
        self.stage, self.places = stage, {place.name: place for place in places}
        self.hospital = stage.hospitals[KEY]
        self.roles: dict[str, Role] = {}

    def consume(self, *names: str, **variables: str) -> None:
        for name in names:
            self.roles[name] = self.stage.role("consume", "--destination", name, **variables)

    def stop(self, *names: str) -> None:
        for name in names:
            self.roles.pop(name).stop()

    def differences(self, name: str) -> Differences:
        place = self.places[name]
        with self.hospital.connect() as connection:
            return compare(
                connection,
                self.hospital.for_oracle(),
                place.everybody,
                place.prefix,
                place.resources(),
            )

    def agree(self, *names: str) -> list[Differences]:
        """Waits until each holds what the hospital says; nobody may write there."""
        return [self._agrees(name) for name in names]

    def _agrees(self, name: str) -> Differences:
        differences = self.differences(name)

        def agrees() -> bool:
            nonlocal differences
            for role in self.roles.values():
                role.require_running()
            differences = self.differences(name)
            return not differences.found

        def unequal() -> str:
            return f"{name}, {len(differences.found)} differences: {differences.found[:20]}"

        eventually(agrees, unequal, WITHIN_S)
        return differences


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, fhir_url: str) -> Iterator[Scene]:
    folder, prefix = tmp_path_factory.mktemp("fhir"), fresh_name().replace("_", "-") + "."
    places = [
        Place("exchange", everybody=False, url=fhir_url, prefix=f"{prefix}1."),
        Place("research", everybody=True, folder=folder / "research"),
        Place("exchange-again", everybody=False, url=fhir_url, prefix=f"{prefix}2."),
        Place("research-again", everybody=True, folder=folder / "again"),
    ]
    settings = {place.name: place.as_settings() for place in places}
    hospital = Hospital(KEY, 0, generator.NATIONAL_ID_TYPE, provider_roles=("Clinician",))
    with opened(
        folder, hospital, destinations=settings, logs={"level": "DEBUG", "format": "json"}
    ) as stage:
        with hospital.connect() as connection:
            generator.create(connection, seed=17, patients=15, visits=1)
            leave_none_ambiguous(connection)
        stage.grant()
        yield Scene(stage, places)


def leave_none_ambiguous(connection: Any) -> None:
    """Who is, may be read whole at the hospital, and the first test is of what the topic alone
    gives.
    """
    known = people(Query(connection), generator.NATIONAL_ID_TYPE)
    ambiguous = [(person,) for person, (state, _) in known.items() if state == "ambiguous"]
    connection.cursor().executemany(
        "UPDATE patient_identifier SET voided = 1 WHERE patient_id = %s", ambiguous
    )


def blind(scene: Scene) -> dict[str, str]:
    """An account that sees which columns obs has, and no row of it, as environment variables of a
    role.
    """
    granted = scene.stage.granted(scene.hospital)
    lines = [
        line.replace("'passport'@", "'blind'@") for line in granted if not line.startswith("--")
    ]
    scene.hospital.sql.execute(
        *(line.replace("SELECT", "REFERENCES") if ".`obs`" in line else line for line in lines)
    )
    scene.hospital.sql.execute(f"ALTER USER 'blind'@'%' IDENTIFIED BY '{PASSWORD}'")
    return {"PASSPORT_HOSPITALS__KIGALI__MYSQL__USER": "blind"}


def test_the_topic_alone_fills_both(scene: Scene) -> None:
    account = blind(scene)
    with (
        pytest.raises(pymysql.err.OperationalError) as refused,
        scene.hospital.connect(user="blind", password=PASSWORD) as connection,
    ):
        connection.cursor().execute("SELECT obs_id FROM obs")
    assert refused.value.args[0] == ER.TABLEACCESS_DENIED_ERROR
    scene.stage.readers()
    scene.consume("exchange", "research", **account)
    server, files = scene.agree("exchange", "research")
    assert files.live > server.live > 100, "some people have no sure id"
    scene.stop("exchange", "research")
    scene.consume("exchange", "research")


def test_whatever_a_clinic_does(scene: Scene) -> None:
    """Each of the generator's actions, twice."""
    done = set()
    with scene.hospital.connect(autocommit=False) as connection:
        clinic = generator.Clinic(connection, seed=3)
        for name in [*ACTIONS, *ACTIONS]:
            with suppress(LookupError):  # nothing there to do it on
                clinic.do(name)
                done.add(name)
    assert len(done) > len(ACTIONS) - 5
    server, files = scene.agree("exchange", "research")
    assert min(server.withdrawn, files.withdrawn) > 10


def test_killed_while_a_clinic_works(scene: Scene) -> None:
    seed = SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with scene.hospital.at_work(seed, rate=8):
        for _ in range(3):
            for name in ("exchange", "research"):
                time.sleep(2)
                scene.roles[name].kill()
                scene.roles[name].start()
    scene.agree("exchange", "research")


def test_an_id_that_is_corrected_shared_and_given_up(scene: Scene) -> None:
    """On the server: under the new id, then under none; files have everybody, by the hospital's own
    uuid.
    """
    ward, (first, second) = Ward(scene.stage, KEY), (new_id(), new_id())
    one, other = (ward.patient(digits, registered=False) for digits in (first, new_id()))
    row = ward.obs(one)
    scene.agree("exchange", "research")
    assert subject(scene, row) == first
    correct = "UPDATE patient_identifier SET identifier = %s WHERE patient_id = %s"
    with scene.hospital.connect() as connection:
        connection.cursor().execute(correct, (second, one))
        scene.agree("exchange", "research")
        assert subject(scene, row) == second
        connection.cursor().execute(correct, (second, other))
        scene.agree("exchange", "research")
        assert subject(scene, row) is None
        connection.cursor().execute(correct, (new_id(), other))
    scene.agree("exchange", "research")
    assert subject(scene, row) == second


def subject(scene: Scene, obs: int) -> Any:
    """The id under which the server shows a row; None once it is withdrawn."""
    place = scene.places["exchange"]
    [shown] = [one for one in place.resources() if one["id"] == f"{place.prefix}{KEY}-{obs}"]
    return shown["subject"]["identifier"]["value"] if "subject" in shown else None


def test_a_refill_from_the_topics_start_says_the_same(scene: Scene) -> None:
    scene.consume("exchange-again", "research-again")
    scene.agree("exchange-again", "research-again")
    scene.stop("exchange-again", "research-again")


def test_all_of_it_is_valid(scene: Scene) -> None:
    for place in scene.places.values():
        for one in place.resources():
            get_fhir_model_class(one["resourceType"]).model_validate(one)


def test_nothing_of_a_patient_is_said(scene: Scene) -> None:
    """The control is that both places have it."""
    ward, digits = Ward(scene.stage, KEY), new_id()
    person = ward.patient(digits, registered=False, named=CANARY)
    ward.obs(person, "162169", value_text=f"{CANARY} text ½", comments=f"{CANARY} comment")
    scene.agree("exchange", "research")
    for name in ("exchange", "research"):
        held = str([*scene.places[name].resources()])
        assert f"{CANARY} text ½" in held
        assert f"{CANARY} comment" in held
    said = scene.stage.said()
    assert "partitions assigned" in said
    assert CANARY not in said
    assert digits not in said
