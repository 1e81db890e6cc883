"""X3: today's code goes on with the data that an earlier commit wrote, and the other way round."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import hospital as generator
from tests.e2e.roles import REPOSITORY, Role, environment
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import WITHIN_S, eventually
from tests.soak.ledger import fresh

FIRST = "586d2b3"  # of the whole way
BEFORE_MSGSPEC = "98133ac"  # the last whose events were pydantic's
BEFORE_THE_HOUSE = "f4ae177"  # the last before files, classes and events got their names of today
BEFORE_SMALL_POSITIONS = "66c43a5"  # the last that kept a hospital's positions under one key
# Those before it refuse every record of the positions topic that has a field which they don't know.
READS_LATER_POSITIONS = (BEFORE_THE_HOUSE, BEFORE_SMALL_POSITIONS)
EARLIER = (FIRST, BEFORE_MSGSPEC, *READS_LATER_POSITIONS)


def code_of(commit: str, folder: Path) -> dict[str, str]:
    """Variables with which a process runs that commit's code."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert archive.returncode == 0, (
        f"{archive.stderr.decode()}: the history is not here: git fetch --unshallow"
    )
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    variables = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    words = [sys.executable, "-c", "import cdc, consumers; print(cdc.__file__, consumers.__file__)"]
    found = subprocess.run(
        words,
        cwd=REPOSITORY,
        env=environment(variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.count(str(folder)) == 2, found.stdout
    return variables


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with opened(tmp_path, Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)) as stage:
        stage.fill(stage.hospitals["kigali"], seed=17, patients=40)
        stage.grant()
        yield stage


def shift(stage: Stage, seed: int, **variables: str) -> str:
    """Reader and consumer of some code while people work, both killed in it; the epoch that MongoDB
    shows then.
    """
    known = stage.db["progress"].find_one() or {}
    roles = _roles(stage, **variables)
    _work(stage, seed)
    eventually(
        lambda: (stage.db["progress"].find_one() or {}).get("offset") != known.get("offset"),
        "the consumer has applied some of it",
    )
    for role in roles:
        role.kill()
    return _epoch(stage)


def _roles(stage: Stage, **variables: str) -> list[Role]:
    reader = stage.role("cdc", "run", "--hospital", "kigali", **variables)
    consumer = stage.role("consume", "--destination", "passport", **variables)
    reader.says("reading the binlog")
    return [reader, consumer]


def _work(stage: Stage, seed: int) -> None:
    with stage.hospitals["kigali"].connect(autocommit=False) as connection:
        assert generator.Clinic(connection, seed=seed).run(4, rate=30).total() > 20


def _epoch(stage: Stage) -> str:
    found = stage.db["progress"].find_one()
    assert found
    return str(found["version"])[:10]


def _records(stage: Stage) -> dict[str, object]:
    return {one["openmrsData"]["obsUuid"]: one["_id"] for one in stage.db["medicalrecords"].find()}


def _of_merged_persons(stage: Stage) -> set[str]:
    merged = stage.db["observations"].distinct("personId", {"first": {"$exists": True}})
    found = stage.db.medicalrecords.find({"openmrsData.personId": {"$in": merged}})
    return {one["openmrsData"]["obsUuid"] for one in found}


@pytest.mark.long
@pytest.mark.parametrize("commit", EARLIER)
def test_todays_code_goes_on_with_what_an_earlier_one_wrote(
    stage: Stage, tmp_path: Path, commit: str
) -> None:
    """Earlier ones made other records of a merge, which get today's `_id` with the upgrade."""
    epoch = shift(stage, 1, **code_of(commit, tmp_path / commit))
    before = _records(stage)
    roles = _roles(stage)
    _work(stage, 2)
    stage.wait_equal(120)
    after = _records(stage)
    assert _epoch(stage) == epoch, "no snapshot was needed"
    kept = before.keys() & after.keys() - _of_merged_persons(stage)
    assert kept
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert all(role.running for role in roles)


@pytest.mark.long
@pytest.mark.parametrize("commit", READS_LATER_POSITIONS)
def test_an_earlier_one_goes_on_with_what_todays_code_wrote(
    stage: Stage, tmp_path: Path, commit: str
) -> None:
    """What it writes is what it knows: of a merge it makes other records than today's code.

    Once today's code is back, `passport verify --repair` makes all equal again.
    """
    epoch = shift(stage, 1)
    assert shift(stage, 2, **code_of(commit, tmp_path / commit)) == epoch, "no snapshot was needed"
    _roles(stage)
    _work(stage, 3)
    fresh(stage, time.time(), WITHIN_S)
    stage.run("verify", "--repair", timeout=300)
    stage.wait_equal(120)
    assert _epoch(stage) == epoch, "no snapshot was needed"


@pytest.mark.long
def test_one_that_cannot_read_todays_positions_stops_and_says_so(
    stage: Stage, tmp_path: Path
) -> None:
    epoch = shift(stage, 1)
    reader = stage.role(
        "cdc", "run", "--hospital", "kigali", **code_of(BEFORE_MSGSPEC, tmp_path / "code")
    )
    assert reader.wait(90) != 0
    assert "holds a record that is not a position" in reader.said()
    _roles(stage)
    _work(stage, 2)
    stage.wait_equal(120)
    assert _epoch(stage) == epoch, "it has written nothing"
