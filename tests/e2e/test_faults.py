"""Each fault in turn on real processes, while two hospitals work: proven, recovered from, nothing
lost, all equal.
"""

import random
import time
from collections.abc import Iterator

import pytest

from tests.e2e.stage import opened
from tests.faults import KINDS
from tests.faults.kinds import Scene
from tests.faults.scene import SETTINGS, hospitals, set_up
from tests.soak.ledger import fresh
from tests.soak.work import Shift, lost, told

ROWS_PER_S = 15
RECOVERY_S = 90  # of a busy machine; the soak measures it
# Others kill readers and consumers in every run: tests/e2e/test_kills.py.
IN_CI = frozenset({"kill_mongo", "hang_network", "poison"})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with opened(tmp_path_factory.mktemp("faults"), *hospitals(), **SETTINGS) as stage:
        scene = set_up(stage, seed=5, patients=60)
        fresh(stage, time.time(), RECOVERY_S)
        yield scene


@pytest.mark.parametrize(
    "kind",
    [
        name if name in IN_CI else pytest.param(name, marks=pytest.mark.long)
        for name in sorted(KINDS)
    ],
)
def test_fault(scene: Scene, kind: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    stage = scene.stage
    shifts = [
        Shift(one, seed + n, ROWS_PER_S).start() for n, one in enumerate(stage.hospitals.values())
    ]
    try:
        time.sleep(1)
        print(KINDS[kind](scene, random.Random(seed)))
    finally:
        for shift in shifts:
            shift.end()
    assert all(role.running for role in scene.roles), [
        role.said()[-500:] for role in scene.roles if not role.running
    ]
    print(f"fresh {fresh(stage, time.time(), RECOVERY_S):.1f} s later")
    assert sum(shift.rows for shift in shifts) > 0
    stage.wait_equal(180)
    for key, read in told(stage).items():
        assert lost(stage.hospitals[key], read, gap=key in scene.gaps) == 0
        assert read.disorder == 0
