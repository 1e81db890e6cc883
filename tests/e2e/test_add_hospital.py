"""A hospital is added while two consumers and another hospital's reader run
(docs/how-to/add-a-hospital.md).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.ward import equal
from tests.eventually import eventually


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE)
        for number, key in enumerate(("kigali", "huye"))
    ]
    with opened(tmp_path, *hospitals) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(hospital, seed=91 + number, patients=12)
        stage.grant()
        yield stage


def offset(stage: Stage, key: str) -> int:
    return int((stage.db["progress"].find_one({"_id": key}) or {"offset": 0})["offset"])


def goes_on(stage: Stage, key: str) -> None:
    before = offset(stage, key)
    eventually(lambda: offset(stage, key) > before + 5, f"{key} goes on")


def said(consumers: list[Role], words: str) -> bool:
    return any(words in one.said() for one in consumers)


def test_a_hospital_joins_while_the_others_work(stage: Stage) -> None:
    with_both = stage.write_config(stage.folder / "both.yaml")
    stage.write_config(hospitals={"kigali": stage.hospitals["kigali"].as_settings()})
    reader = stage.role("cdc", "run", "--hospital", "kigali")
    consumers = [stage.role("consume", "--destination", "passport") for _ in range(2)]
    unknown = stage.run("cdc", "run", "--hospital", "huye")
    assert unknown.returncode == 2, "it is not in the settings yet"
    with stage.hospitals["kigali"].at_work(4, rate=20), stage.hospitals["huye"].at_work(4, rate=20):
        goes_on(stage, "kigali")
        stage.config.write_bytes(with_both.read_bytes())
        checked = stage.run("check", "--hospital", "huye")
        assert checked.returncode in (0, 1), checked.stderr
        joined = stage.role("cdc", "run", "--hospital", "huye")
        joined.says("reading the binlog")
        eventually(
            lambda: said(consumers, "partition of no hospital"),
            "a running consumer notices the partition",
        )
        assert offset(stage, "huye") == 0, "and leaves it alone"
        goes_on(stage, "kigali")
        for one in consumers:
            assert one.stop() == 0, one.said()[-2000:]
            one.start()
            goes_on(stage, "kigali")
        goes_on(stage, "huye")
        assert stage.run("status").returncode == 0
    assert (reader.pids, joined.pids) == ([reader.process.pid], [joined.process.pid]), (
        "no reader was restarted"
    )  # type: ignore[union-attr]
    # The work corrects identifiers, and whoever was registered may be matched no more. Hospitals
    # are equal only if somebody of each one was compared.
    for hospital in stage.hospitals.values():
        with hospital.connect() as connection:
            able = [digits for _, digits in generator.registrable(connection)]
        assert generator.passport_patients(stage.db, able)
    assert equal(stage).rows
    assert stage.run("verify").returncode == 0
    assert "paused" not in "".join(one.said() for one in consumers)
