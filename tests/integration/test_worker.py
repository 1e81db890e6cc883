"""The consumer between real servers: hospital, Kafka, a file."""

import itertools
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from prometheus_client import REGISTRY

from consumers import dead_letters
from destinations.jsonl import JsonLines
from dev.hospital import Clinic
from dev.stack import MariaDB, MySQL
from passport import sink as sinks
from passport.errors import Fatal
from passport.event import (
    ENVELOPE,
    EventSource,
    HeartbeatEvent,
    RowEvent,
    Transaction,
    encode_event,
)
from passport.settings import LoadBudget, Settings
from passport.version import LOWEST
from tests import consumer_process, stream
from tests.eventually import eventually, seconds_until
from tests.integration import consuming
from tests.integration.consuming import (
    Delivered,
    Server,
    assert_equal,
    consume,
    delivered,
    hospital,
    read,
    running,
    settings,
)
from tests.servers import fresh_name

Own = Callable[..., Server]


@pytest.fixture
def kigali(own_mariadb: Own) -> Server:
    server = own_mariadb()
    hospital(server)
    return server


def many_at_one_place(server: Server, rows: int) -> None:
    """More obs, all at location 2."""
    row = "person_id, concept_id, obs_datetime, date_created, creator"
    server.execute(
        "USE openmrs",
        f"INSERT INTO obs ({row}, location_id, uuid) SELECT {row}, 2, UUID()"
        f" FROM (SELECT {row} FROM obs LIMIT 1) some, seq_1_to_{rows}",
    )


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def equal_soon(given: Settings, path: Path, seconds: float = 90) -> Delivered:
    end = time.monotonic() + seconds
    while True:
        try:
            return assert_equal(given, path)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_a_working_clinic_arrives_whole(
    own: Own, kind: type[Server], kafka_bootstrap: str, tmp_path: Path
) -> None:
    server = own(kind)
    hospital(server)
    given = settings({"kigali": server}, kafka_bootstrap, path := tmp_path / "out")
    for seed in (1, 2):  # the second time starts in the middle of everything
        with running(given), server.connect(database="openmrs", autocommit=False) as connection:
            done = Clinic(connection, seed=seed).run(5, rate=30)
    assert done.total() > 20
    read(given)
    consume(given)
    found = assert_equal(given, path)
    assert any(one["origin"] == "reread" for one in found.rows.values())
    assert any(one["origin"] == "person" for one in found.rows.values())


def test_the_whole_topic_again_changes_nothing(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    with kigali.connect(database="openmrs", autocommit=False) as connection:
        Clinic(connection, seed=5).run(2)
    read(given)
    consume(given)
    before = assert_equal(given, path)
    path.with_name("out.progress.json").unlink()
    consume(given)
    after = assert_equal(given, path)
    assert after.lines >= before.lines + len(before.rows) > before.lines > 0, (
        "every row was delivered again"
    )
    assert {key: one["version"] for key, one in after.rows.items()} == {
        key: one["version"] for key, one in before.rows.items()
    }


@pytest.mark.parametrize("kind", [MariaDB, pytest.param(MySQL, marks=pytest.mark.long)])
def test_a_table_of_names_that_became_another_is_looked_up_again_without_a_snapshot(
    own: Own, kind: type[Server], kafka_bootstrap: str, tmp_path: Path
) -> None:
    server = own(kind)
    hospital(server, patients=4)
    given = settings({"kigali": server}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    before = assert_equal(given, path)
    names = {one["concept"]["name"] for one in before.live.values()}
    rows = _count_of_rows(given)

    server.execute(
        "USE openmrs",
        "SET foreign_key_checks = 0",
        "TRUNCATE TABLE concept_name",
        "CREATE TABLE _location_new LIKE location",
        "INSERT INTO _location_new SELECT * FROM location",
        "UPDATE _location_new SET name = CONCAT(name, ' rebuilt')",
        "RENAME TABLE location TO _location_old, _location_new TO location",
    )
    read(given)
    consume(given)
    after = assert_equal(given, path)
    assert names.isdisjoint(one["concept"]["name"] for one in after.live.values())
    assert any("rebuilt" in (one["place"] or {}).get("name", "") for one in after.live.values())
    assert _count_of_rows(given) == rows, "no snapshot was taken"


def _count_of_rows(given: Settings) -> int:
    return sum(event.kind == "row" for event in stream.records(given))


CHANGES = {
    "concept renamed": "UPDATE concept_name SET name = CONCAT(name, ' renamed')",
    "concept name voided": "UPDATE concept_name SET voided = 1 WHERE locale_preferred = 0",
    "class renamed": "UPDATE concept_class SET name = CONCAT(name, ' renamed')",
    "datatype renamed": "UPDATE concept_datatype SET name = CONCAT(name, ' renamed')"
    " WHERE name = 'Boolean'",
    "units changed": "UPDATE concept_numeric SET units = 'stone'",
    "mapping changed": "UPDATE concept_reference_term SET code = CONCAT(code, '-9')",
    "source renamed": "UPDATE concept_reference_source SET name = CONCAT(name, ' renamed')",
    "mapping taken away": "DELETE FROM concept_reference_map",
    "drug renamed": "UPDATE drug SET name = CONCAT(name, ' renamed')",
    "location renamed": "UPDATE location SET name = CONCAT(name, ' renamed')",
    "encounter moved": "UPDATE encounter SET encounter_datetime = encounter_datetime -"
    " INTERVAL 1 DAY",
    "encounter type renamed": "UPDATE encounter_type SET name = CONCAT(name, ' 2')",
    "visit type renamed": "UPDATE visit_type SET name = CONCAT(name, ' renamed')",
    "visit moved": "UPDATE visit SET location_id = 2, uuid = REVERSE(uuid)",
    "encounters without visit": "UPDATE encounter SET visit_id = NULL",
    "provider of encounters voided": "UPDATE encounter_provider SET voided = 1",
    "provider retired": "UPDATE provider SET retired = 1, uuid = REVERSE(uuid)",
    "orderer changed": "UPDATE orders SET orderer = (SELECT MAX(provider_id) FROM provider)",
    "user is another person": "UPDATE users SET person_id = 1",
    "staff renamed": "UPDATE person_name SET family_name = CONCAT(family_name, ' II')",
    "staff without names": "UPDATE person_name SET voided = 1",
}


def test_every_kind_of_key_change_reaches_its_obs(
    own_mariadb: Own, kafka_bootstrap: str, tmp_path: Path
) -> None:
    kigali = own_mariadb()
    hospital(kigali, patients=4)
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    before = assert_equal(given, path)
    with running(given):
        for what, sql in CHANGES.items():
            kigali.execute("USE openmrs", sql)
            after = equal_soon(given, path)
            assert after.live != before.live, f"{what}: nothing to see"
            before = after


def produce(given: Settings, partition: int, *values: bytes | None) -> None:
    """As somebody else may, for whom the topic has no limit."""
    admin = KafkaAdminClient(bootstrap_servers=given.kafka.bootstrap)
    no_limit = {"max.message.bytes": str(2**25)}
    admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, given.kafka.topic, no_limit)], incremental=True
    )
    admin.close()
    producer = KafkaProducer(bootstrap_servers=given.kafka.bootstrap, max_request_size=2**25)
    for value in values:
        producer.send(given.kafka.topic, key=b"somebody", value=value, partition=partition).get(10)
    producer.close()


def test_poison_is_parked_and_the_rest_goes_on(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    secret = "1199080099999999"
    source = EventSource(
        "kigali", "UTC", "openmrs", "obs", "b.000001", 4, 1, "", "s", 1, LOWEST, "binlog"
    )
    foreign = EventSource(
        "butare", "UTC", "openmrs", "obs", "b.000001", 4, 1, "", "s", 1, LOWEST, "binlog"
    )
    row = {"obs_id": 1, "person_id": secret}
    produce(
        given,
        0,
        b"{" + secret.encode(),
        None,
        json.dumps({"v": 99, "kind": "row", "secret": secret}).encode(),
        encode_event(
            RowEvent(
                v=ENVELOPE,
                op="c",
                before=None,
                after=row,
                source=source,
                transaction=Transaction(id="t", last=True),
                ts_ms=1,
            )
        ),
        encode_event(HeartbeatEvent(v=ENVELOPE, source=foreign, ts_ms=1)),
        b"x" * 20_000_000,
    )
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'after the poison' WHERE obs_id = 3")
    read(given)
    consume(given)
    found = assert_equal(given, path)
    assert found.rows["kigali", 3]["row"]["comments"] == "after the poison"
    letters = dead_letters.listed(given)
    assert [letter.reason for letter in letters] == [
        "malformed",
        "malformed",
        "unknown_version",
        "malformed",
        "unknown_hospital",
        "malformed",
    ]
    assert all(
        letter.hospital == "kigali" and secret not in letter.id + letter.reason
        for letter in letters
    )
    assert [len(letter.value) > 0 for letter in letters] == [
        True,
        False,
        True,
        True,
        True,
        False,
    ], "20 MB stay there"
    assert [(letter.destination, letter.partition) for letter in letters] == [("file", 0)] * 6
    consume(given)
    assert len(dead_letters.listed(given)) == 6


@pytest.mark.parametrize("refuses", [False, True], ids=["hangs", "refuses connections"])
def test_a_hospital_that_is_away_waits_alone(
    own_mariadb: Own, kafka_bootstrap: str, tmp_path: Path, *, refuses: bool
) -> None:
    servers = {"kigali": own_mariadb(), "butare": own_mariadb()}
    for seed, server in enumerate(servers.values()):
        hospital(server, seed=seed, patients=5)
    many_at_one_place(servers["kigali"], 2_500)
    given = settings(servers, kafka_bootstrap, path := tmp_path / "out")
    with running(given):
        eventually(lambda: path.exists() and len(delivered(path).rows) > 0, "nothing came")
        equal_soon(given, path)
        away, working = servers["kigali"], servers["butare"]
        before = metric("passport_reread_rows_total", hospital="kigali")
        away.execute("USE openmrs", "UPDATE location SET name = CONCAT(name, ' 2')")
        eventually(
            lambda: metric("passport_reread_rows_total", hospital="kigali") > before,
            "nothing is read again",
        )
        away.kill() if refuses else away.pause()
        eventually(
            lambda: metric("passport_consumer_paused", hospital="kigali", destination="file") == 1,
            "not paused",
        )
        comments = itertools.count()
        wait_for_server_s = given.hospitals["kigali"].mysql.connect_timeout_s

        def seconds_of_a_change() -> float:
            comment = f"number {next(comments)}"
            working.execute(
                "USE openmrs", f"UPDATE obs SET comments = '{comment}' WHERE obs_id = 3"
            )
            return seconds_until(
                lambda: delivered(path).rows["butare", 3]["row"]["comments"] == comment,
                "butare's change is delivered",
            )

        def three_in_a_row_arrive_sooner() -> bool:
            """A worker that waits for kigali's server delays one of three; a busy machine may too,
            but not every time.
            """
            took = [seconds_of_a_change() for _ in range(3)]
            assert metric("passport_consumer_paused", hospital="butare", destination="file") == 0
            assert metric("passport_consumer_paused", hospital="kigali", destination="file") == 1
            return max(took) < wait_for_server_s

        eventually(three_in_a_row_arrive_sooner, "butare's changes don't wait for kigali's server")
        away.start() if refuses else away.resume()
        eventually(
            lambda: metric("passport_consumer_paused", hospital="kigali", destination="file") == 0,
            "still paused",
        )
        equal_soon(given, path)


def test_a_hospital_that_refuses_stops_alone_and_says_why(
    own_mariadb: Own, kafka_bootstrap: str, tmp_path: Path
) -> None:
    servers = {"kigali": own_mariadb(), "butare": own_mariadb()}
    for seed, server in enumerate(servers.values()):
        hospital(server, seed=seed, patients=3)
    given = settings(servers, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    wrong = given.hospitals["kigali"].model_copy(update={"national_id_type": "no-such-type"})
    broken = given.model_copy(update={"hospitals": {**given.hospitals, "kigali": wrong}})
    with running(broken, "butare"):
        eventually(
            lambda: metric("passport_consumer_paused", hospital="kigali", destination="file") == 1,
            "not paused",
        )
        eventually(lambda: path.exists() and len(delivered(path).rows) > 0, "butare waits")
        consume_until_equal_one(given, path, "butare")
    assert {key[0] for key in delivered(path).rows} == {"butare"}
    with pytest.raises(Fatal, match="no patient identifier type 'no-such-type'") as stopped:
        consume(broken)
    assert "National ID" in str(stopped.value)
    consume(given)
    assert_equal(given, path)


def consume_until_equal_one(given: Settings, path: Path, name: str) -> None:
    eventually(
        lambda: delivered(path).live.keys() == consuming.at_the_source(given, name).keys(),
        f"{name} isn't whole",
    )


def test_the_lower_of_both_offsets_is_where_it_starts(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    kept = {one: one.read_bytes() for one in (path, path.with_name("out.progress.json"))}
    consume(given)
    progress = path.with_name("out.progress.json")
    assert progress.read_bytes() == kept[progress], (
        "a start alone changes no progress, its times included"
    )
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'written, then lost' WHERE obs_id = 3")
    read(given)
    consume(given)
    for one, content in kept.items():  # the destination is restored from a backup
        one.write_bytes(content)
    consume(given)
    found = assert_equal(given, path)
    assert found.rows["kigali", 3]["row"]["comments"] == "written, then lost"


def test_a_gap_in_the_topic_is_said(kigali: Server, kafka_bootstrap: str, tmp_path: Path) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    offset = json.loads(path.with_name("out.progress.json").read_text())["kigali"]["offset"]
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'lost' WHERE obs_id = 3")
    read(given)
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'kept' WHERE obs_id = 4")
    read(given)
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.delete_records({TopicPartition(given.kafka.topic, 0): offset + 1})
    admin.close()
    with structlog.testing.capture_logs() as said:
        consume(given)
    gap, *_ = (
        one for one in said if one["event"] == "gap in the topic"
    )  # again, if the group is rearranged then
    assert gap["hint"] == "passport backfill --hospital kigali"
    assert delivered(path).rows["kigali", 4]["row"]["comments"] == "kept"


def identifiers(server: Server) -> list[tuple[int, str]]:
    """Two patients in state ok, and their ids."""
    rows: Any = server.execute(
        "USE openmrs",
        "SELECT i.patient_id, MIN(i.identifier) FROM patient_identifier i"
        " JOIN patient_identifier_type t"
        " ON t.patient_identifier_type_id = i.identifier_type"
        " JOIN patient p ON p.patient_id = i.patient_id"
        " JOIN obs o ON o.person_id = i.patient_id"
        f" WHERE t.uuid = '{consuming.NATIONAL_ID_TYPE}' AND i.voided = 0"
        " AND p.voided = 0 AND i.identifier REGEXP '^[0-9]{16}$'"
        " GROUP BY i.patient_id HAVING COUNT(DISTINCT i.identifier) = 1",
    )
    return list(rows)


@pytest.mark.parametrize("watched", [True, False], ids=["while it runs", "while it is down"])
def test_ids_that_two_patients_share(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path, *, watched: bool
) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    good = [one for one in identifiers(kigali) if delivered(path).states["kigali", one[0]] == "ok"]
    (first, shared), (second, own_id) = good[0], good[1]

    def states() -> list[str]:
        found = delivered(path).states
        return [found["kigali", first], found["kigali", second]]

    def change(identifier: str) -> None:
        whose = (
            f"patient_id = {second} AND REPLACE(identifier, '-', '') IN ('{shared}', '{own_id}')"
        )
        sql = f"UPDATE patient_identifier SET identifier = '{identifier}' WHERE {whose}"
        if watched:
            with running(given):
                kigali.execute("USE openmrs", sql)
                time.sleep(2)
        else:
            kigali.execute("USE openmrs", sql)
        read(given)
        consume(given)
        assert_equal(given, path)

    assert states() == ["ok", "ok"]
    change(f"{shared[:4]}-{shared[4:]}")
    assert states() == ["ambiguous", "ambiguous"]
    change(own_id)
    assert states() == ["ok", "ok"]


EARLIER_CONTRACT = """
from destinations import jsonl

Options, ORDER = jsonl.Options, jsonl.ORDER


def connect(options, settings, destination):
    return Earlier(jsonl.connect(options, settings, destination))


class Earlier:
    \"\"\"Without `ambiguous`: who is, it wants by itself, once after a start.\"\"\"

    def __init__(self, lines):
        self._lines = lines
        self._unsure = {"kigali": list(lines.ambiguous("kigali"))}
        self.write, self.progress, self.record = lines.write, lines.progress, lines.record
        self.counts, self.ready, self.close = lines.counts, lines.ready, lines.close

    def retain(self, scope, keys, version):
        if hasattr(scope, "person_id") and scope.person_id in self._unsure[scope.hospital]:
            self._unsure[scope.hospital].remove(scope.person_id)
        return self._lines.retain(scope, keys, version)

    def wanted(self, hospital, limit):
        return self._unsure[hospital][:limit]
"""


def test_a_destination_of_the_earlier_contract_still_works(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = fresh_name()
    (tmp_path / package).mkdir()
    (tmp_path / package / "earlier.py").write_text(EARLIER_CONTRACT)
    path = tmp_path / "out"
    destinations = {
        consuming.DESTINATION: {"type": f"{package}.earlier", "options": {"path": str(path)}}
    }
    given = settings({"kigali": kigali}, kafka_bootstrap, path, destinations=destinations)
    read(given)
    with structlog.testing.capture_logs() as said:
        consume(given)
    assert "destination of an earlier contract" in [one["event"] for one in said]
    good = [one for one in identifiers(kigali) if delivered(path).states["kigali", one[0]] == "ok"]
    (first, shared), (second, own_id) = good[0], good[1]
    for identifier, state in ((shared, "ambiguous"), (own_id, "ok")):
        kigali.execute(
            "USE openmrs",
            f"UPDATE patient_identifier SET identifier = '{identifier}'"
            f" WHERE patient_id = {second} AND identifier IN ('{shared}', '{own_id}')",
        )
        read(given)
        consume(given)
        assert_equal(given, path)
        states = delivered(path).states
        assert (states["kigali", first], states["kigali", second]) == (state, state)


def test_killed_and_rearranged_it_loses_nothing(
    own_mariadb: Own, kafka_bootstrap: str, tmp_path: Path
) -> None:
    servers = {"kigali": own_mariadb(), "butare": own_mariadb()}
    for seed, server in enumerate(servers.values()):
        hospital(server, seed=seed, patients=5)
    given = settings(servers, kafka_bootstrap, path := tmp_path / "out")
    chance, killed = Random(7), 0
    workers = [consumer_process.spawn(given, "file", tmp_path) for _ in range(2)]
    try:
        with running(given, consumer=False):
            for turn in range(8):
                for seed, server in enumerate(servers.values()):
                    with server.connect(database="openmrs", autocommit=False) as connection:
                        Clinic(connection, seed=10 * turn + seed).run(1, rate=20)
                victim = chance.randrange(2)
                assert workers[victim].poll() is None, (tmp_path / "consumer.log").read_text()[
                    -2000:
                ]
                workers[victim].send_signal(signal.SIGKILL)
                killed += workers[victim].wait() == -signal.SIGKILL
                time.sleep(chance.random())
                workers[victim] = consumer_process.spawn(given, "file", tmp_path)
    finally:
        for process in workers:
            process.terminate()
    # The newest one may not have its handler yet.
    assert {process.wait(20) for process in workers} <= {0, -signal.SIGTERM}
    assert killed == 8
    with running(given):  # the last one killed keeps its place in the group for a while
        found = equal_soon(given, path)
    assert len(found.rows) > 300


@pytest.mark.long
def test_a_large_re_enrichment_goes_on_where_its_consumer_was_killed(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    many, lives = 10_000, 4
    many_at_one_place(kigali, many)
    given = settings({"kigali": kigali}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    kigali.execute("USE openmrs", "UPDATE location SET name = 'Maternity' WHERE location_id = 2")
    read(given)
    slow = given.hospitals["kigali"].model_copy(
        update={"load_budget": LoadBudget(rows_per_s=2_000)}
    )
    slowly = given.model_copy(update={"hospitals": {"kigali": slow}})
    for life in range(1, lives + 1):
        consumer = consumer_process.spawn(slowly, "file", tmp_path)
        eventually(
            lambda: obs_read_again(path) >= 2_000 * life,  # noqa: B023
            "nothing is read again",
        )
        consumer.send_signal(signal.SIGKILL)
        assert consumer.wait() == -signal.SIGKILL
        assert obs_read_again(path) < many, "it was killed in the middle"
    consume(given)
    assert_equal(given, path)
    assert many < obs_read_again(path) < many + (lives + 1) * 1_000


def obs_read_again(path: Path) -> int:
    """Lines of obs read again."""
    return path.read_text().count('"origin": "reread"')


def test_a_destination_with_wrong_options_names_them(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    given = settings({"kigali": kigali}, kafka_bootstrap, tmp_path / "out")
    wrong = given.destinations["file"].model_copy(update={"options": {"pth": "a-secret-value"}})
    broken = given.model_copy(update={"destinations": {"file": wrong}})
    with pytest.raises(
        Fatal, match=r"destinations\.file\.options\.path: Field required"
    ) as stopped:
        sinks.connect("file", broken)
    assert "a-secret-value" not in str(stopped.value)
    with pytest.raises(Fatal, match="there is no destination 'mongo', only: file"):
        sinks.connect("mongo", given)


def test_the_sink_is_the_one_of_the_settings(
    kigali: Server, kafka_bootstrap: str, tmp_path: Path
) -> None:
    sink = sinks.connect(
        "file", settings({"kigali": kigali}, kafka_bootstrap, tmp_path / "a" / "out")
    )
    assert isinstance(sink, JsonLines)
    assert (tmp_path / "a" / "out").exists()
    sink.close()
