"""Whatever two hospitals and the Passport do, in any order: the oracle is right about what MongoDB
then holds.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dev import hospital as generator
from dev.hospital import people
from dev.hospital.clinic import ACTIONS
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import equal, eventually
from tests.faults.kinds import frozen
from tests.soak.doctors import Notes

KEYS = ("kigali", "huye")
PASSPORT = ("register", "leave", "another id", "edit", "edit", "edit")


@dataclass(frozen=True)
class Scene:
    """`notes` are what doctors have written in the Passport."""

    stage: Stage
    clinics: list[generator.Clinic]
    consumers: list[Role]
    notes: Notes


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE) for number, key in enumerate(KEYS)
    ]
    # An edit that is saved just after its record was hidden stays in the tombstone until a sweep.
    with opened(tmp_path_factory.mktemp("random"), *hospitals, sweep_s=20) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(hospital, every=2, seed=81 + number, patients=20, visits=1)
        stage.grant()
        stage.readers()
        consumers = [stage.role("consume", "--destination", "passport") for _ in range(2)]
        eventually(
            lambda: stage.db["progress"].count_documents({}) == len(KEYS), "both hospitals came", 60
        )
        equal(stage)
        clinics = [
            generator.Clinic(one.connect(autocommit=False), seed=number)
            for number, one in enumerate(hospitals)
        ]
        yield Scene(stage, clinics, consumers, Notes(stage.db))


# Hypothesis gives seeds. A failure can't be made smaller: the servers keep what was done before.
ONCE: dict[str, Any] = {
    "phases": [Phase.generate],
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@given(st.integers(0, 2**32))
@settings(max_examples=2, **ONCE)
def test_random_work_ends_as_the_oracle_says(scene: Scene, seed: int) -> None:
    play(scene, seed, 100)


@pytest.mark.long
@given(st.integers(0, 2**32))
@settings(max_examples=25, **ONCE)
def test_thousands_of_steps_end_as_the_oracle_says(scene: Scene, seed: int) -> None:
    play(scene, seed, 250)


def play(scene: Scene, seed: int, steps: int) -> None:
    """At a hospital every action is as likely as another, those that seldom happen too.

    Now and then a consumer stands still, or goes on.
    """
    rng, done = Random(seed), 0
    with contextlib.ExitStack() as still:
        stopped: dict[int, contextlib.ExitStack] = {}
        for _ in range(steps):
            chance = rng.random()
            if chance < 0.03:
                freeze_or_continue(scene, rng.randrange(len(scene.consumers)), stopped, still)
            elif chance < 0.23:
                done += in_the_passport(scene, rng.choice(PASSPORT), rng)
            else:
                with contextlib.suppress(LookupError):  # nothing there to do it on
                    rng.choice(scene.clinics).do(rng.choice(sorted(ACTIONS)))
                    done += 1
    assert done > steps / 2
    # Work may have left nobody who is matched.
    comparison = equal(scene.stage, be_it_nothing=True)
    assert not scene.notes.lost()
    print(f"seed {seed}, {done} steps, {scene.notes.edits} edits: {comparison}")


def freeze_or_continue(
    scene: Scene,
    number: int,
    stopped: dict[int, contextlib.ExitStack],
    still: contextlib.ExitStack,
) -> None:
    """Stop this consumer, or let it go on if it stands still. `still` lets all go on at its end."""
    if number in stopped:
        stopped.pop(number).close()
        return
    stopped[number] = still.enter_context(contextlib.ExitStack())
    stopped[number].enter_context(frozen(scene.consumers[number]))


def in_the_passport(scene: Scene, what: str, rng: Random) -> bool:
    """Somebody registers, leaves, has another id, or a doctor edits a record."""
    stage = scene.stage
    patients, records = stage.db["patients"], stage.db["medicalrecords"]
    known = [one["nationalId"] for one in patients.find({}, {"nationalId": 1}).sort("nationalId")]
    with stage.hospitals[rng.choice(KEYS)].connect() as connection:
        free = sorted({digits for _, digits in generator.registrable(connection)} - set(known))
    if what == "register" and free:
        generator.passport_patients(stage.db, [rng.choice(free)])
    elif what == "leave" and len(known) > 10:
        # What was written for somebody who leaves goes with them, wherever a merge has brought it.
        scene.notes.forget()
        patients.delete_one({"nationalId": rng.choice(known)})
    elif what == "another id":
        new = rng.choice(
            [*free, people.national_id(1980, "F", rng.randrange(8_000_000, 9_000_000))]
        )
        patients.update_one({"nationalId": rng.choice(known)}, {"$set": {"nationalId": new}})
    elif what == "edit":
        # Who has left is seen by no doctor any more, though their records may stay for a while.
        present = [str(one["_id"]) for one in patients.find({}, {"_id": 1})]
        shown = records.find({"patientId": {"$in": present}}, {"_id": 1}).sort("_id").limit(500)
        found = [one["_id"] for one in shown]
        return bool(found) and scene.notes.write(rng.choice(found))
    else:
        return False
    return True
