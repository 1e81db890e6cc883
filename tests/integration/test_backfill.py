"""Reading a hospital, or one of its people, once more, beside its reader."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc import backfill
from cdc.positions import Positions
from dev.stack import MariaDB, MySQL
from passport.errors import NotReady
from tests import stream
from tests.hospitals import assert_equal, hospital, reading
from tests.integration import consuming
from tests.reader_process import catch_up


def test_a_backfill_brings_what_no_stream_showed(
    own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str
) -> None:
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

    told: list[tuple[int, float]] = []
    arguments: Any = {"stop": threading.Event(), "progress": lambda *done: told.append(done)}
    rows = backfill.run("kigali", settings, first=changed, to=changed, **arguments)
    assert 0 < rows <= 200  # one chunk, not the table
    assert stream.Table.of(stream.records(settings)).rows[changed]["comments"] == "unseen"

    told.clear()
    assert backfill.run("kigali", settings, first=None, to=None, **arguments) == len(keys) - 1
    assert_equal(settings, address)
    assert told == sorted(told), "a bar never goes back"
    assert told[-1] == (len(keys) - 1, 1.0)
    assert len({share for _, share in told}) > 2


def test_without_a_stream_there_is_nothing_to_join(
    own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=1)
    settings = reading(address, kafka_bootstrap)
    Positions.ensure(settings)
    with pytest.raises(NotReady, match="kigali: no stream has been started"):
        backfill.run(
            "kigali",
            settings,
            first=None,
            to=None,
            stop=threading.Event(),
            progress=lambda *_: None,
        )
    with pytest.raises(NotReady, match="kigali: no stream has been started"):
        backfill.persons("kigali", settings, [7])


def busiest(server: MariaDB | MySQL) -> int:
    sql = "SELECT person_id FROM openmrs.obs GROUP BY person_id ORDER BY COUNT(*) DESC, 1 LIMIT 1"
    return int(server.execute(sql)[0][0])


def test_a_person_is_read_whole_again(
    own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str, tmp_path: Path
) -> None:
    kigali = own_mariadb()
    consuming.hospital(kigali, patients=5)
    given = consuming.settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    consuming.read(given)
    consuming.consume(given)
    person = busiest(kigali)
    of_theirs = f"WHERE person_id = {person} ORDER BY obs_id"
    kigali.execute(
        "USE openmrs",
        "SET SESSION sql_log_bin = 0, foreign_key_checks = 0",
        f"UPDATE obs SET comments = 'unseen' {of_theirs} LIMIT 3",
        f"DELETE FROM obs {of_theirs} DESC LIMIT 2",
    )
    consuming.read(given)
    consuming.consume(given)
    with pytest.raises(AssertionError):  # the fault happened: no destination knows
        consuming.assert_equal(given, path)
    lines = consuming.delivered(path).lines
    backfill.persons("kigali", given, [person])
    consuming.consume(given)
    found = consuming.assert_equal(given, path)
    ((rows,),) = kigali.execute(f"SELECT COUNT(*) FROM openmrs.obs WHERE person_id = {person}")
    assert found.lines - lines == rows, "theirs, and nobody else's"


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_a_person_whose_key_changes(
    own: Any, kafka_bootstrap: str, tmp_path: Path, kind: Any
) -> None:
    """obs.person_id follows by ON UPDATE CASCADE, of which MariaDB writes nothing to its binlog;
    MySQL 9.7 does.
    """
    kigali = own(kind)
    consuming.hospital(kigali, patients=5)
    old, new = busiest(kigali), 900_000
    # whatever else of a patient refers to the key without a cascade forbids the change
    kigali.execute(
        "USE openmrs",
        "SET SESSION foreign_key_checks = 0",
        f"UPDATE encounter SET visit_id = NULL WHERE patient_id = {old}",
        *[
            f"DELETE FROM {table} WHERE patient_id = {old}"
            for table in ("patient_identifier", "visit")
        ],
        f"DELETE FROM person_merge_log WHERE {old} IN (winner_person_id, loser_person_id)",
    )
    given = consuming.settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    consuming.read(given)
    consuming.consume(given)
    before = consuming.assert_equal(given, path)
    seen = len(stream.records(given))
    kigali.execute("USE openmrs", f"UPDATE person SET person_id = {new} WHERE person_id = {old}")
    ((moved,),) = kigali.execute(f"SELECT COUNT(*) FROM openmrs.obs WHERE person_id = {new}")
    assert moved > 3
    consuming.read(given)
    events = stream.records(given)[seen:]
    assert ({"person_id": old}, {"person_id": new}) in [
        one.keys for one in events if one.source.table == "person"
    ]
    assert len([*stream.changes(events)]) == (moved if kind is MySQL else 0)
    consuming.consume(given)
    after = consuming.assert_equal(given, path)
    of_old = {key for key, one in before.live.items() if one["person"]["person_id"] == old}
    assert {key for key, one in after.live.items() if one["person"]["person_id"] == new} == of_old
