"""The lease, on real servers: who excludes whom."""

import functools
from typing import Any

import pytest

from cdc.lease import former_lock_name
from cdc.positions import Positions
from dev.stack import MariaDB, MySQL
from passport import health
from passport.settings import Settings
from tests import stream
from tests.eventually import eventually
from tests.hospitals import assert_equal, hospital, is_published, is_snapshot_done, reading
from tests.reader_process import running
from tests.servers import Address

LEASE = "hospital kigali: lease"


@pytest.fixture(params=["mariadb", "mysql"])
def address(request: pytest.FixtureRequest, own_mariadb: Any, own_mysql: Any) -> Address:
    server: MariaDB | MySQL = own_mariadb() if request.param == "mariadb" else own_mysql()
    return hospital(server, patients=2)


def readings(address: Address, bootstrap: str) -> tuple[Settings, Settings]:
    """Two systems that read the hospital, staging and production, with topics of their own."""
    staging, production = reading(address, bootstrap), reading(address, bootstrap)
    for settings in (staging, production):
        Positions.ensure(settings)
    return staging, production


def former_holder(address: Address) -> int | None:
    """The session that has the lock by which readers of older releases exclude each other."""
    ((holder,),) = address.execute(f"SELECT IS_USED_LOCK('{former_lock_name('kigali')}')")
    return holder  # type: ignore[no-any-return]


def test_a19_a_reader_into_another_topic_blocks_nobody(
    address: Address, kafka_bootstrap: str
) -> None:
    """Staging reads under the id that the hospital has in production."""
    staging, production = readings(address, kafka_bootstrap)
    with running(staging):
        eventually(lambda: is_snapshot_done(staging), "staging reads")
        staging_holds = former_holder(address)
        assert staging_holds is not None
        with running(production):
            eventually(lambda: is_snapshot_done(production), "production reads, too")
            address.execute("UPDATE obs SET comments = 'both' ORDER BY obs_id LIMIT 3")
            for settings in (staging, production):
                eventually(
                    functools.partial(is_published, settings, address),
                    "the change has come",
                )
            assert LEASE not in health.failures()
            assert former_holder(address) == staging_holds, "both were at work at once"
    assert_equal(staging, address)
    assert_equal(production, address)


def test_a19_readers_before_and_after_an_upgrade_exclude_each_other(
    address: Address, kafka_bootstrap: str
) -> None:
    staging, production = readings(address, kafka_bootstrap)
    older = address.connect()
    with older.cursor() as cursor:
        cursor.execute(f"SELECT GET_LOCK('{former_lock_name('kigali')}', 0)")
        assert cursor.fetchone() == (1,)
    with running(production):
        waits = eventually(lambda: health.failures().get(LEASE), "it says that it waits")
        assert "another reader holds the lease" in waits
        assert stream.records(production) == []
        older.close()
        eventually(lambda: is_snapshot_done(production), "it reads")
        assert LEASE not in health.failures()
        first = former_holder(address)
        assert first is not None, "no reader of an older release can begin now"
        with running(staging):
            eventually(lambda: is_snapshot_done(staging), "staging reads")
            assert former_holder(address) == first
            with running(staging):
                eventually(lambda: LEASE in health.failures(), "one reader a topic")
    assert former_holder(address) is None


def test_a19_a_reader_that_remains_takes_over_the_lock_of_older_releases(
    address: Address, kafka_bootstrap: str
) -> None:
    staging, production = readings(address, kafka_bootstrap)
    with running(staging) as stop_staging:
        eventually(lambda: is_snapshot_done(staging), "staging reads")
        first = former_holder(address)
        with running(production):
            eventually(lambda: is_snapshot_done(production), "production reads, too")
            assert former_holder(address) == first
            stop_staging.set()
            eventually(
                lambda: former_holder(address) not in (None, first),
                "who remains keeps older releases out",
            )
