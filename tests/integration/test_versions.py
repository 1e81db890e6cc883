"""Capture on the versions that hospitals run besides those of all other tests.

This is the smallest set. In `make test-long` the capture suite runs on these versions as well: each
test that has one of them among its parameters.
"""

from collections.abc import Callable

import pymysql
import pytest
from pymysql.constants import ER

from dev.stack import MariaDB
from tests import stream
from tests.eventually import eventually
from tests.hospitals import Server, assert_equal, clinic, hospital, in_source_order, reading, saved
from tests.reader_process import catch_up, running
from tests.servers import KINDS, Address


@pytest.fixture(scope="module", params=["mysql-5.7", "mysql-8.0", "mariadb-11.8"])
def server(request: pytest.FixtureRequest, module_own: Callable[..., Server]) -> Server:
    """As it comes, apart from the binlog: MySQL without GTIDs, MariaDB without column names."""
    kind = KINDS[request.param]
    if issubclass(kind, MariaDB):
        return module_own(kind, flags=["--binlog-row-metadata=NO_LOG"])
    flags = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
    return module_own(kind, flags=[*flags, "--loose-binlog-row-metadata=MINIMAL"])


@pytest.fixture(scope="module")
def address(server: Server) -> Address:
    return hospital(server, patients=3)


def test_a1_capture_starts_streams_and_follows_ddl(address: Address, kafka_bootstrap: str) -> None:
    """MySQL has SHOW BINARY LOG STATUS from 8.2 on, under another name before."""
    if address.flavour == "mysql":
        with pytest.raises(pymysql.err.ProgrammingError) as refused:
            address.execute("SHOW BINARY LOG STATUS")
        assert refused.value.args[0] == ER.PARSE_ERROR

    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    snapshot = saved(settings).snapshot
    assert snapshot is not None
    assert snapshot.state == "done"
    assert_equal(settings, address)

    with running(settings), clinic(address):
        eventually(
            lambda: len([*stream.changes(stream.records(settings))]) > 20, "changes are published"
        )
        address.execute("ALTER TABLE obs ADD COLUMN value_boolean TINYINT DEFAULT 1 AFTER obs_id")
        address.execute("UPDATE obs SET comments = 'altered' ORDER BY obs_id LIMIT 5")
    address.execute("ALTER TABLE obs DROP COLUMN value_boolean")
    address.execute("UPDATE obs SET comments = 'as before' ORDER BY obs_id LIMIT 3")
    catch_up(settings)
    assert in_source_order(assert_equal(settings, address))
