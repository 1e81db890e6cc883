"""40,000 obs in one polling interval: none is lost, by polling (each a record) or by binlog (each
in the mirror).
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from dev import hospital as generator
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually

INTERVAL_S = 5


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two hospitals of 40 patients, all of whom the Passport knows if it can."""
    kind = generator.NATIONAL_ID_TYPE
    streaming = Hospital("kigali", 0, kind)
    polled = Hospital(
        "huye",
        1,
        kind,
        settings={
            "capture": "polling",
            "poll_interval_s": INTERVAL_S,
            "load_budget": {"rows_per_s": 100_000},
        },
        flags=("--skip-log-bin",),
    )
    with opened(tmp_path_factory.mktemp("burst"), streaming, polled) as stage:
        for hospital in stage.hospitals.values():
            stage.fill(hospital, seed=21, patients=40, visits=1)
        stage.grant()
        yield stage


def burst(hospital: Hospital, concept: str, column: str, rows: int) -> None:
    """Insert obs of registered patients, all of the same second, as an import writes them."""
    with hospital.connect() as connection, connection.cursor() as cursor:
        people = [person for person, _ in generator.registrable(connection)]
        person = f"ELT(1 + MOD(seq, {len(people)}), {', '.join(map(str, people))})"
        cursor.execute(
            f"INSERT INTO obs (person_id, concept_id, obs_datetime, {column}, creator,"
            " date_created, voided, uuid)"
            f" SELECT {person}, (SELECT MIN(concept_id) FROM concept_name WHERE name = %s),"
            f" NOW(), MOD(seq, 97), 1, NOW(), 0, UUID() FROM seq_1_to_{rows}",
            [concept],
        )
        assert cursor.rowcount == rows


def mirrored(stage: Stage, key: str) -> int:
    query: dict[str, Any] = {"hospital": key, "deleted": False}
    return stage.db["observations"].count_documents(query)


def full(stage: Stage, key: str, rows: int) -> bool:
    return mirrored(stage, key) >= rows


@pytest.mark.parametrize("rows", [5_000, pytest.param(40_000, marks=pytest.mark.long)])
def test_row_48_a_burst_drains_and_loses_none(stage: Stage, rows: int) -> None:
    stage.readers()
    stage.role("consume", "--destination", "passport")
    stage.wait_equal(90)
    before = {key: mirrored(stage, key) for key in stage.hospitals}
    assert min(before.values()) > 0

    began = time.monotonic()
    burst(stage.hospitals["huye"], "Pulse", "value_numeric", rows)
    burst(stage.hospitals["kigali"], "Ward remark", "value_text", rows)
    inserted = time.monotonic() - began
    for key in stage.hospitals:
        eventually(partial(full, stage, key, before[key] + rows), f"{rows} rows of {key}", 120)
        print(
            f"{key}: all there {time.monotonic() - began:.1f} s after the first insert"
            f" (inserting: {inserted:.1f} s)"
        )
    found = stage.wait_equal(90)
    assert {key: mirrored(stage, key) - before[key] for key in stage.hospitals} == dict.fromkeys(
        stage.hospitals, rows
    )
    assert found.records >= rows
    assert found.unmapped >= rows, "no rule knows remarks: they are kept, and counted"
