"""A concept with half a million obs gets another name: all are shown with it, and live events do
not queue behind.
"""

import time
from collections.abc import Iterator

import pytest

from dev import hospital as generator
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import Ward, eventually

OBS, PEOPLE = 500_000, 50


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """All of them are in the Passport."""
    kigali = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)
    with opened(tmp_path_factory.mktemp("rename"), kigali) as stage:
        with kigali.connect() as connection:
            generator.create(connection, seed=91, patients=4, visits=1)
        stage.grant()
        ward = Ward(stage, "kigali")
        for _ in range(PEOPLE):
            fill(ward, ward.patient(), OBS // PEOPLE)
        stage.readers()
        stage.role("consume", "--destination", "passport")
        stored = stage.db["medicalrecords"]
        eventually(lambda: stored.estimated_document_count() >= OBS, "everything is stored", 1_800)
        yield ward


def fill(ward: Ward, person: int, rows: int) -> None:
    ward.run(
        "INSERT INTO obs (person_id, concept_id, obs_datetime, value_numeric, creator,"
        " date_created, uuid)"
        f" SELECT {person}, {ward.concept('5087')}, '2025-03-04 10:05:00', 60 + seq % 60,"
        " 6, NOW(), UUID()"
        f" FROM seq_1_to_{rows}"
    )


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_live_events_overtake_a_rename_of_half_a_million_obs(ward: Ward) -> None:
    stage, person = ward.stage, ward.patient()
    ward.shown(ward.obs(person, "5089"))
    quiet = [seconds(ward, person) for _ in range(20)]
    ward.run(
        f"UPDATE concept_name SET name = 'Heart rate' WHERE concept_id = {ward.concept('5087')}"
    )
    eventually(lambda: left(stage), "it is read again", 60)
    overtook: list[float] = []
    while left(stage):
        waited = seconds(ward, person)
        if left(
            stage
        ):  # committed after the rename, shown before all that the rename concerns was read
            overtook.append(waited)
        time.sleep(0.1)
    assert len(overtook) > 20, "live events waited for what is read again"
    print(
        f"{OBS:,} obs renamed; {len(overtook)} events took {max(overtook):.2f} s at most,"
        f" before {max(quiet):.2f} s"
    )
    shown = stage.db["medicalrecords"].count_documents(
        {"data.testName": "Heart rate", "patientId": {"$ne": ""}}
    )
    assert shown >= OBS


def left(stage: Stage) -> bool:
    """Whether some are still to be read again."""
    progress = stage.db["progress"].find_one({"_id": "kigali"}) or {}
    return any("enriched" not in work for work in progress.get("rereads", ()))


def seconds(ward: Ward, person: int) -> float:
    """From an obs' commit until it is shown."""
    began = time.monotonic()
    ward.shown(ward.obs(person, "5089", value_numeric=70))
    return time.monotonic() - began
