"""X1: a role whose memory is bounded below its need ends and says why, or goes on; what it left is
done later.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import hospital as generator
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually

TEXT = 60_000  # characters: obs.value_text holds 65,535 bytes
ROWS = 1_000
ROLES = {
    "reader": ("cdc", "run", "--hospital", "kigali"),
    "consumer": ("consume", "--destination", "passport"),
}
AT_WORK = {"reader": "reading the binlog", "consumer": "partitions assigned"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(
        tmp_path_factory.mktemp("memory"), Hospital("kigali", 0, generator.NATIONAL_ID_TYPE)
    ) as stage:
        stage.fill(stage.hospitals["kigali"], seed=23, patients=30, visits=1)
        stage.grant()
        yield stage


MORE = [pytest.param(room, marks=pytest.mark.long) for room in (2, 6, 12)]


@pytest.mark.parametrize("room_mb", [0, *MORE])
@pytest.mark.parametrize("bounded", ROLES)
def test_a_role_without_memory_ends_or_goes_on_and_nothing_is_lost(
    stage: Stage, bounded: str, room_mb: int
) -> None:
    roles = {name: stage.role(*words) for name, words in ROLES.items()}
    stage.wait_equal(90)
    role = roles[bounded]
    # It may be equal before the role has begun, and a role that is still imported can't say a word.
    role.says(AT_WORK[bounded])
    assert role.process
    process = role.process
    limit(role, room_mb << 20)
    rows = write_long_texts(stage)
    eventually(lambda: not role.running or mirrored(stage) >= rows, "it has ended, or gone on")
    if room_mb == 0:
        assert process.poll() is not None, "the limit was felt"
    if (
        process.poll() is not None
    ):  # -11: a client's C code ran out of it first, which is as good as a kill
        assert process.returncode in (1, -11), process.returncode
        # SystemError: C code, the interpreter's own included, that ran out of it and didn't say so.
        assert process.returncode != 1 or re.search(
            r"passport: (out of memory|.*: SystemError)", role.said()
        )
    for one in roles.values():
        one.stop()
    again = [stage.role(*words) for words in ROLES.values()]
    assert stage.wait_equal(120).rows >= rows
    for one in again:
        one.stop()


def mirrored(stage: Stage) -> int:
    return stage.db["observations"].count_documents({"deleted": False})


def limit(role: Role, room: int) -> None:
    """So many bytes of addresses more than it has now."""
    assert role.process is not None
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{role.process.pid}/status").read_text().splitlines()
    )
    most = int(status["VmSize"].split()[0]) * 1024 + room
    subprocess.run(["prlimit", f"--pid={role.process.pid}", f"--as={most}"], check=True)


def write_long_texts(stage: Stage) -> int:
    """In one transaction; the obs of registered patients after it."""
    with stage.hospitals["kigali"].connect() as connection, connection.cursor() as cursor:
        people = [person for person, _ in generator.registrable(connection)]
        cursor.execute(
            "INSERT INTO obs (person_id, concept_id, obs_datetime, value_text, creator,"
            " date_created, voided, uuid)"
            " SELECT %s, (SELECT MIN(concept_id) FROM concept_name"
            " WHERE name = 'Ward remark'), NOW(),"
            f" CONCAT(seq, REPEAT('x', {TEXT})), 1, NOW(), 0, UUID() FROM seq_1_to_{ROWS}",
            people[:1],
        )
        cursor.execute(
            f"SELECT COUNT(*) FROM obs WHERE person_id IN ({', '.join(map(str, people))})"
        )
        ((rows,),) = cursor.fetchall()
        return int(rows)
