"""A server that purges its binlog by size: known to the headroom, to the check and to its hint."""

from contextlib import closing
from typing import Any

from cdc.retention import read_headroom
from openmrs.read import Source
from tests.hospitals import Server, checked, hospital, reading, saved
from tests.reader_process import catch_up
from tests.servers import KINDS

TEN_DAYS_S = 864_000


def test_a18_purging_by_size_is_part_of_the_headroom(own: Any, kafka_bootstrap: str) -> None:
    server: Server = own(
        KINDS["mariadb-11.8"],
        flags=[
            f"--binlog-expire-logs-seconds={TEN_DAYS_S}",
            "--max-binlog-total-size=4M",
            "--max-binlog-size=1M",
            # Else nothing is purged while nobody reads.
            "--slave-connections-needed-for-purge=0",
        ],
    )
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    at = saved(settings)

    def files() -> list[str]:
        return [row[0] for row in server.execute("SHOW BINARY LOGS")]

    left: list[float] = []
    with closing(Source("kigali", settings.hospitals["kigali"].mysql)) as source:
        for _ in range(200):
            left_s, kept_s = read_headroom(source, at.position, at.ts_ms)
            if at.position.file not in files():
                break
            assert 0 <= left_s <= kept_s < TEN_DAYS_S, "the size counts, not only the age"
            left.append(left_s)
            address.execute(*["UPDATE obs SET comments = REPEAT(MD5(RAND()), 7)"] * 5)
        else:
            raise AssertionError("the server never purged the file")
        assert read_headroom(source, at.position, at.ts_ms)[0] == 0
    assert left[-1] < left[0], "it falls while the binlog grows"

    check = checked(settings)["retention"]
    assert check.ok is None
    assert "at most 4 MiB, and it grows by" in check.detail
    server.execute(check.hint.partition(";")[0])
    assert checked(settings)["retention"].ok
