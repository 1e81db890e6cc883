"""A recorded OpenMRS: whatever its staff did, and whoever is killed meanwhile, MongoDB ends as the
oracle says.
"""

from collections.abc import Iterator

import pytest

from dev.hospital import passport_patients
from dev.hospital.recorded import load, playback
from dev.stack import MariaDB
from tests import concepts_page, real_data
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.test_kills import strike
from tests.eventually import eventually
from tests.oracle.facts import read

TRANSACTIONS = 2_119
PATIENTS = 108
OBS = 3_609


@pytest.fixture(params=["binlog", pytest.param("polling", marks=pytest.mark.long)])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = real_data.recorded()
    hospital = Hospital(
        "kigali",
        0,
        real_data.NATIONAL_ID_TYPE,
        settings={
            "capture": request.param,
            "poll_interval_s": 1,
            "load_budget": {"chunk_rows": 200},
        },
    )
    with opened(tmp_path_factory.mktemp("recorded"), hospital) as stage:
        assert isinstance(hospital.server, MariaDB)
        load(folder, hospital.server)
        stage.grant()
        yield stage


def test_what_a_real_openmrs_did_ends_equal_though_everybody_is_killed(stage: Stage) -> None:
    hospital = stage.hospitals["kigali"]
    assert isinstance(hospital.server, MariaDB)
    reader = stage.readers()["kigali"]
    consumer = stage.role("consume", "--destination", "passport")
    roles = {"reader": reader, "consumer": consumer}
    registered: set[str] = set()
    strikes = [["reader"], ["consumer"], ["reader", "consumer"], ["reader"]]
    killed: list[Role] = []
    with playback(real_data.recorded(), hospital.server) as recording:
        assert recording.left == TRANSACTIONS
        part = TRANSACTIONS // (2 * len(strikes)) + 1
        for names in strikes:
            recording.play(part)
            wait_published(stage)
            victims = [roles[name] for name in names]
            recording.play(part)  # what they are killed with in their hands
            strike(victims)
            killed += victims
            registered |= register_half(stage, registered)
        assert recording.left == 0
    assert len({*reader.pids, *consumer.pids}) == 2 + len(killed)
    with hospital.connect() as connection, connection.cursor() as cursor:
        for table, rows in {"patient": PATIENTS, "obs": OBS}.items():
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            assert cursor.fetchone() == (rows,), table
    stage.wait_equal(120)
    registered |= register_half(stage, registered)
    found = stage.wait_equal(120)
    assert found.matched > PATIENTS / 2
    assert found.rows > OBS / 2
    # Its dictionary maps nothing to another: what no rule knows is shown as question and answer.
    assert set(found.types) == {"test"}
    with hospital.connect() as connection:
        facts = read(connection, hospital.for_oracle())
    becomes = concepts_page.becomes(facts, hospital.for_oracle())
    assert sum(becomes.values()) == OBS
    concepts_page.check("A recorded OpenMRS", becomes)


def wait_published(stage: Stage) -> None:
    """Wait until the destination has something new: those that are killed are at work then."""
    before = stage.db["people"].estimated_document_count()
    before_rows = stage.db["observations"].estimated_document_count()
    eventually(
        lambda: (
            stage.db["people"].estimated_document_count() > before
            or stage.db["observations"].estimated_document_count() > before_rows
        ),
        "the pipeline is at work",
    )


def register_half(stage: Stage, registered: set[str]) -> set[str]:
    """Register each second patient who can be matched by now. Return their national ids."""
    hospital = stage.hospitals["kigali"]
    with hospital.connect() as connection:
        people = read(connection, hospital.for_oracle()).people
    able = {digits for _, digits in people.values() if digits}
    chosen = set(sorted(able - registered)[::2])
    passport_patients(stage.db, sorted(chosen))
    return chosen
