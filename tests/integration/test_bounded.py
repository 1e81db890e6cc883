"""A hospital's server can't fill the memory of who reads it.

Its answers without an end are played (tests/hostile_mysql.py): no real server gives them.
"""

from pathlib import Path
from typing import Any

import pytest

from openmrs.bounded_connection import ANSWER_MIB
from openmrs.read import Source
from passport.errors import Fatal, Origin
from tests.eventually import eventually
from tests.hostile_mysql import hostile_server
from tests.integration.consuming import delivered, hospital, read, running, settings
from tests.integration.test_worker import consume_until_equal_one, metric


@pytest.mark.parametrize("one_row", [False, True])
def test_d15_an_answer_without_an_end_is_given_up(one_row: bool) -> None:
    with hostile_server(one_row=one_row) as server:
        source = Source("kigali", server.settings())
        with pytest.raises(Fatal, match=r"kigali: MySQL at .* answers with more than") as caught:
            source.connection()
    assert caught.value.origin == Origin.hospital("kigali")
    sockets_hold = 32
    assert ANSWER_MIB - 32 < server.sent / 2**20 < ANSWER_MIB + sockets_hold


def test_d15_it_harms_no_other_hospital(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    servers = {"kigali": own_mariadb(), "butare": own_mariadb()}
    for seed, server in enumerate(servers.values()):
        hospital(server, seed=seed, patients=3)
    given = settings(servers, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    with hostile_server() as hostile:
        taken_over = given.hospitals["kigali"].model_copy(update={"mysql": hostile.settings()})
        broken = given.model_copy(update={"hospitals": {**given.hospitals, "kigali": taken_over}})
        with running(broken, "butare"):
            eventually(
                lambda: (
                    metric("passport_consumer_paused", hospital="kigali", destination="file") == 1
                ),
                "the hospital is paused",
            )
            assert hostile.sent > ANSWER_MIB << 19, "it has sent much before"
            consume_until_equal_one(given, path, "butare")
    assert {key[0] for key in delivered(path).rows} == {"butare"}
