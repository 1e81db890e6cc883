"""kill -9, at any moment, of the reader, of the consumer, of both: MongoDB ends equal to the
hospital.
"""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened

KILLS = 10
REGISTERED = 0.7


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    hospital = Hospital(
        "kigali",
        0,
        generator.NATIONAL_ID_TYPE,
        provider_roles=("Clinician",),
        settings={"load_budget": {"chunk_rows": 500}},
    )
    with opened(tmp_path_factory.mktemp("kills"), hospital) as stage:
        with hospital.connect() as connection:
            generator.create(connection, seed=11, patients=300)
            able = [digits for _, digits in generator.registrable(connection)]
        generator.passport_patients(
            stage.db, random.Random(1).sample(able, int(len(able) * REGISTERED))
        )
        stage.grant()
        yield stage


class AtWork:
    """A clinic that works beside the test until it is told to stop."""

    def __init__(self, hospital: Hospital, seed: int, rate: float) -> None:
        self._stop = threading.Event()
        self._clinic = generator.Clinic(hospital.connect(), seed=seed, rate=rate)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> "AtWork":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._clinic.connection.close()
        if self.error:
            raise self.error

    @property
    def done(self) -> int:
        return self._clinic.counts.total()

    def _work(self) -> None:
        try:
            self._clinic.run(600, stop=self._stop)
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            self.error = error


@pytest.mark.long
def test_ten_kills_at_random_moments(stage: Stage) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    reader = stage.readers()["kigali"]
    consumer = stage.role("consume", "--destination", "passport")
    killed: list[Role] = []
    with AtWork(stage.hospitals["kigali"], seed, rate=20) as clinic:
        before = clinic.done
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 3.5))
            victims = rng.choice(([reader], [consumer], [reader, consumer]))
            strike(victims)
            killed += victims
        assert clinic.done - before > 5 * KILLS, "the clinic went on"
    assert len(killed) >= KILLS
    assert len(set(reader.pids + consumer.pids)) == 2 + len(killed)
    stage.wait_equal(90)


def strike(victims: list[Role]) -> None:
    """Kills all, then starts all again: new pids."""
    for victim in victims:
        victim.kill()
    for victim in victims:
        victim.start()
        assert victim.pids[-1] != victim.pids[-2]
