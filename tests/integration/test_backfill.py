"""Reading a hospital once more, beside its reader."""

import threading
from collections.abc import Callable

import pytest

from cdc import backfill
from cdc.position import Positions
from dev.stack import MariaDB
from passport.errors import Fatal
from tests import stream
from tests.hospitals import assert_equal, hospital, reading
from tests.reader_process import catch_up


def test_a_backfill_brings_what_no_stream_showed(own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str) -> None:
    server = own_mariadb()
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    keys = sorted(stream.obs(address))
    changed, gone = keys[3], keys[-1]
    address.execute(
        "SET SESSION sql_log_bin = 0, foreign_key_checks = 0",
        f"UPDATE obs SET comments = 'unseen' WHERE obs_id = {changed}",
        f"DELETE FROM obs WHERE obs_id = {gone}",
    )
    with pytest.raises(AssertionError):  # the fault happened: the stream doesn't know
        assert_equal(settings, address)

    done: list[int] = []
    arguments = {"stop": threading.Event(), "progress": done.append}
    rows = backfill.run("kigali", settings, first=changed, to=changed, **arguments)  # type: ignore[arg-type]
    assert 0 < rows <= 200  # one chunk, not the table
    assert stream.Table.of(stream.records(settings)).rows[changed]["comments"] == "unseen"

    assert backfill.run("kigali", settings, first=None, to=None, **arguments) == len(keys) - 1  # type: ignore[arg-type]
    assert_equal(settings, address)
    assert done[-1] == len(keys) - 1


def test_without_a_stream_there_is_nothing_to_join(own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb(), patients=1)
    settings = reading(address, kafka_bootstrap)
    Positions.ensure(settings)
    with pytest.raises(Fatal, match="kigali: no stream has been started"):
        backfill.run("kigali", settings, first=None, to=None, stop=threading.Event(), progress=lambda _: None)
