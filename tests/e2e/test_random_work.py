"""Whatever two hospitals and the Passport do, in any order: the oracle is right about what MongoDB
then holds.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dev import hospital as generator
from dev.hospital import people
from dev.hospital.clinic import ACTIONS
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import equal, eventually

Clinics = list[generator.Clinic]
KEYS = ("kigali", "huye")
PASSPORT = ("register", "leave", "another id", "edit")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Clinics]]:
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE) for number, key in enumerate(KEYS)
    ]
    with opened(tmp_path_factory.mktemp("random"), *hospitals) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(hospital, every=2, seed=81 + number, patients=20, visits=1)
        stage.grant()
        stage.readers()
        stage.role("consume", "--destination", "passport")
        eventually(
            lambda: stage.db["progress"].count_documents({}) == len(KEYS), "both hospitals came", 60
        )
        equal(stage)
        yield (
            stage,
            [
                generator.Clinic(one.connect(autocommit=False), seed=n)
                for n, one in enumerate(hospitals)
            ],
        )


# Hypothesis gives seeds. A failure can't be made smaller: the servers keep what was done before.
ONCE: dict[str, Any] = {
    "phases": [Phase.generate],
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@given(st.integers(0, 2**32))
@settings(max_examples=3, **ONCE)
def test_random_work_ends_as_the_oracle_says(scene: tuple[Stage, Clinics], seed: int) -> None:
    play(scene, seed, 100)


@pytest.mark.long
@given(st.integers(0, 2**32))
@settings(max_examples=25, **ONCE)
def test_thousands_of_steps_end_as_the_oracle_says(scene: tuple[Stage, Clinics], seed: int) -> None:
    play(scene, seed, 250)


def play(scene: tuple[Stage, Clinics], seed: int, steps: int) -> None:
    """At a hospital every action is as likely as another, those that seldom happen too."""
    stage, clinics = scene
    rng, done = Random(seed), 0
    for _ in range(steps):
        if rng.random() < 0.2:
            done += in_the_passport(stage, rng.choice(PASSPORT), rng)
        else:
            with suppress(LookupError):  # nothing there to do it on
                rng.choice(clinics).do(rng.choice(sorted(ACTIONS)))
                done += 1
    assert done > steps / 2
    # Work may have left nobody who is matched.
    print(f"seed {seed}, {done} steps: {equal(stage, be_it_nothing=True)}")


def in_the_passport(stage: Stage, what: str, rng: Random) -> bool:
    """Somebody registers, leaves, has another id, or a doctor edits a record."""
    patients, records = stage.db["patients"], stage.db["medicalrecords"]
    known = [one["nationalId"] for one in patients.find({}, {"nationalId": 1}).sort("nationalId")]
    with stage.hospitals[rng.choice(KEYS)].connect() as connection:
        free = sorted({digits for _, digits in generator.registrable(connection)} - set(known))
    if what == "register" and free:
        generator.passport_patients(stage.db, [rng.choice(free)])
    elif what == "leave" and len(known) > 10:
        patients.delete_one({"nationalId": rng.choice(known)})
    elif what == "another id":
        new = rng.choice(
            [*free, people.national_id(1980, "F", rng.randrange(8_000_000, 9_000_000))]
        )
        patients.update_one({"nationalId": rng.choice(known)}, {"$set": {"nationalId": new}})
    elif what == "edit":
        found = [
            one["_id"]
            for one in records.find({"patientId": {"$ne": ""}}, {"_id": 1}).sort("_id").limit(500)
        ]
        edit: dict[str, Any] = {
            "data.details": "as the doctor says",
            "lastEditedAt": datetime.now(UTC),
        }
        records.update_one(
            {"_id": rng.choice(found or [ObjectId()]), "patientId": {"$ne": ""}}, {"$set": edit}
        )
    else:
        return False
    return True
