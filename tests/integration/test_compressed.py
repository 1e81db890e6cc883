"""Compressed transactions of MySQL, which are decompressed as they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc.binlog.changes import Commit, RowChange
from cdc.binlog.packets import LARGE
from cdc.binlog.stream import BinlogStream
from cdc.positions import Positions
from passport.errors import Gap
from tests import stream
from tests.hospitals import assert_equal, hospital, log, reading, saved
from tests.integration.taps import Tap, of
from tests.integration.test_huge_transaction import peak_mb, rows_and_ends
from tests.integration.test_silent_loss import events
from tests.reader_process import catch_up, spawn

PEAK_MB = 150
# What can't be compressed: base64 keeps three quarters of its size.
RANDOM = "CONCAT(" + ", ".join(["TO_BASE64(RANDOM_BYTES(1024))"] * 20) + ")"
INSERT = f"""
INSERT INTO openmrs.obs (person_id, concept_id, obs_datetime, date_created, creator, value_text,
uuid)
SELECT a.person_id, a.concept_id, a.obs_datetime, a.date_created, a.creator, {RANDOM}, UUID()
FROM openmrs.obs a, openmrs.obs b, openmrs.obs c LIMIT {{rows}}"""
COMPRESSED = "SET SESSION binlog_transaction_compression = ON"
UNCHECKED = "SET foreign_key_checks = 0, unique_checks = 0"


@pytest.mark.parametrize(
    ("mb", "rows"),
    [(40, 2_000), pytest.param(1_000, 47_500, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
def test_a9_a_compressed_transaction_is_read_in_little_memory(
    own_mysql: Callable[..., Any], kafka_bootstrap: str, tmp_path: Path, mb: int, rows: int
) -> None:
    server = own_mysql(flags=["--max-allowed-packet=1G", "--max-binlog-cache-size=4G"])
    settings = reading(hospital(server, patients=5), kafka_bootstrap)
    catch_up(settings)
    before = len(stream.raw(settings))
    file = server.execute("SHOW BINARY LOGS")[-1][0]
    server.execute(COMPRESSED, UNCHECKED, INSERT.format(rows=rows))
    sizes = [
        int(row[4]) - int(row[1])
        for row in server.execute(f"SHOW BINLOG EVENTS IN '{file}'")
        if row[2] == "Transaction_payload"
    ]
    assert max(sizes) > mb * 0.8e6, "it is one event"
    process = spawn(settings, tmp_path, "caught-up")
    peak = peak_mb(process)
    assert process.wait() == 0, log(tmp_path)
    print(f"{max(sizes) / 1e6:.0f} MB compressed, peak {peak:.0f} MB")
    assert 0 < peak <= PEAK_MB
    assert rows_and_ends(settings, before) == (rows, 1)


def damage_payload(tap: Tap, file_name: str) -> None:
    """Change one byte within the first compressed transaction of a file, a large one."""
    in_file = events(tap, tap.end()._replace(file=file_name, pos=4))
    number = [kind for kind, _ in in_file].index("Transaction_payload")
    end = in_file[number][1]
    assert end - in_file[number - 1][1] > LARGE
    [file] = tap.server.data.rglob(file_name)
    written = bytearray(file.read_bytes())
    written[end - LARGE // 2] ^= 1
    file.write_bytes(written)


TABLE = "CREATE TABLE obs (obs_id INT PRIMARY KEY, void_reason INT, value_text MEDIUMTEXT)"


def test_a9_a_damaged_compressed_transaction_is_never_committed(own_mysql: Any) -> None:
    """Its rows were given before its checksum, at its end, was found wrong: that is a gap."""
    tap = Tap(own_mysql())
    tap.execute(TABLE)
    start = tap.end()
    rows = ", ".join(f"({number}, 1, {RANDOM})" for number in range(200))
    tap.execute(COMPRESSED, f"INSERT INTO obs VALUES {rows}", "INSERT INTO obs VALUES (999, 1, '')")
    damage_payload(tap, start.file)
    read: list[Any] = []

    def read_to_the_end(tapped: BinlogStream) -> None:
        while not of(Commit, read):
            read.extend(tapped.poll(1))

    with pytest.raises(Gap, match="wrong checksum of a compressed transaction"):
        read_to_the_end(tap.stream(start))
    assert of(RowChange, read)
    assert not of(Commit, read)


def test_a9_what_was_published_of_a_damaged_transaction_is_mended(
    own_mysql: Any, kafka_bootstrap: str
) -> None:
    server = own_mysql()
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    server.execute(COMPRESSED, UNCHECKED, INSERT.format(rows=150))
    tap = Tap(server, database="other")
    damage_payload(tap, before.position.file)
    catch_up(settings)
    after = saved(settings)
    assert after.epoch > before.epoch
    assert after.next_row is None
    assert_equal(settings, address)
    assert Positions(settings.kafka).load("kigali") == after


def test_large_rows_of_a_table_that_is_not_watched_are_passed_over(own_mysql: Any) -> None:
    """In a compressed transaction and outside, in one packet and in several."""
    tap = Tap(own_mysql(flags=["--max-allowed-packet=256M"]))
    tap.execute(TABLE, "CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)")
    start = tap.end()
    big = "INSERT INTO big (b) VALUES (REPEAT(RANDOM_BYTES(1000), {}))"
    for compression in ("OFF", "ON"):
        first = 1 if compression == "OFF" else 3
        tap.execute(
            f"SET SESSION binlog_transaction_compression = {compression}",
            "BEGIN",
            f"INSERT INTO obs VALUES ({first}, 1, 'before')",
            big.format(3_000),
            big.format(100_000),
            f"INSERT INTO obs VALUES ({first + 1}, 1, 'after')",
            "COMMIT",
        )
    items = tap.read(start)
    texts = [row.after.partition("value_text")[2] for row in of(RowChange, items)]
    assert texts == ['":"before"}', '":"after"}'] * 2
    assert of(Commit, items)[-1].at == tap.end()
