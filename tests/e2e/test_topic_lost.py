"""The topic of changes loses what it had acknowledged: deleted while all work, or cut off when its
broker crashes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from cdc.positions import Positions
from dev import hospital as generator
from passport.settings import Kafka
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually

TOPIC = "openmrs.changes"
COPIED = "person_id, concept_id, obs_datetime, value_numeric, creator, date_created, voided"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A hospital of the binlog and one that is polled, whose patients the Passport knows, all
    applied.
    """
    polled = {"capture": "polling", "poll_interval_s": 3}
    hospitals = (
        Hospital("kigali", 0, generator.NATIONAL_ID_TYPE),
        Hospital("huye", 1, generator.NATIONAL_ID_TYPE, settings=polled, flags=("--skip-log-bin",)),
    )
    with opened(tmp_path_factory.mktemp("topic"), *hospitals) as stage:
        for hospital in stage.hospitals.values():
            stage.fill(hospital, seed=41, patients=15, visits=2)
        stage.grant()
        yield stage


@pytest.fixture(scope="module")
def roles(stage: Stage) -> dict[str, Role]:
    """By hospital, and the consumer as "consumer"."""
    roles = {**stage.readers(), "consumer": stage.role("consume", "--destination", "passport")}
    stage.wait_equal(90)
    return roles


def work(stage: Stage, rows: int) -> None:
    """So many obs more at each hospital, each in a transaction of its own."""
    for hospital in stage.hospitals.values():
        with hospital.connect(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT MAX(obs_id) FROM obs WHERE voided = 0 AND value_numeric IS NOT NULL"
            )
            ((newest,),) = cursor.fetchall()
            for _ in range(rows):
                cursor.execute(
                    f"INSERT INTO obs ({COPIED}, uuid) SELECT {COPIED}, UUID() FROM obs"
                    f" WHERE obs_id = {newest}"
                )


def acknowledged(stage: Stage) -> dict[str, int]:
    """By hospital: the topic's end behind what its reader's saved position stands for."""
    positions = Positions(Kafka(bootstrap=stage.kafka.url))
    try:
        return {key: one.topic_end for key, one in positions.all().items()}
    finally:
        positions.close()


class Heard:
    """What the readers have said since it was made."""

    def __init__(self, stage: Stage, roles: dict[str, Role]) -> None:
        self._roles = {key: roles[key] for key in stage.hospitals}
        self._known = {key: len(role.said()) for key, role in self._roles.items()}

    def wait(self, words: str) -> None:
        """Until all have said it."""
        for key, role in self._roles.items():
            eventually(
                lambda role=role, key=key: words in role.said()[self._known[key] :],
                f"{role} says {words!r}",
            )


def test_deleted_while_all_work_it_is_made_anew_and_filled_by_a_snapshot(
    stage: Stage, roles: dict[str, Role]
) -> None:
    heard, before = Heard(stage, roles), roles["consumer"].said()
    admin = KafkaAdminClient(bootstrap_servers=stage.kafka.url)
    admin.delete_topics([TOPIC])
    eventually(lambda: TOPIC not in admin.list_topics(), "the topic is gone", 30)
    work(stage, 5)
    heard.wait("deleted and made anew")
    assert TOPIC in admin.list_topics()
    admin.close()
    stage.wait_equal(90)
    said = roles["consumer"].said()[len(before) :]
    # It began anew: at a gap, or, where as many records had come again by then, with its
    # partitions.
    assert "gap in the topic" in said or "partitions assigned" in said


def test_cut_off_when_its_broker_crashes_nothing_is_missing(
    stage: Stage, roles: dict[str, Role]
) -> None:
    """The consumer is away, and only the topic knew of the last changes, the saved positions being
    behind them.
    """
    stage.wait_equal(60)
    roles["consumer"].kill()
    heard = Heard(stage, roles)
    logs = [
        stage.kafka.data / f"{TOPIC}-{number}" / "00000000000000000000.log" for number in (0, 1)
    ]
    sizes = [log.stat().st_size for log in logs]
    before = acknowledged(stage)
    work(stage, 30)
    eventually(
        lambda: all(end > before[key] + 30 for key, end in acknowledged(stage).items()),
        "all is acknowledged",
    )
    stage.kafka.kill()
    for log, size in zip(logs, sizes, strict=True):
        cut(log, size)
    stage.kafka.start()
    heard.wait("its end was lost")
    roles["consumer"].start()
    stage.wait_equal(90)


def cut(log: Path, size: int) -> None:
    """What a machine's crash takes that the broker had not written through."""
    assert log.stat().st_size > size
    with log.open("r+b") as file:
        file.truncate(size)
