"""A2: positions are small, the broker compacts them within minutes, and a start streams them, with
its lease kept.
"""

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
)
from structlog.testing import capture_logs

from cdc import lease, topics
from cdc.kafka import topic_configs
from cdc.lease import Lease, ReaderName
from cdc.positions import HospitalRecords, Positions, Saved, Snapshot
from dev.stack import Kafka as Broker
from openmrs.column_info import ColumnInfo
from passport.errors import Retry
from passport.settings import Kafka, Settings
from passport.version import Position
from tests import stream
from tests.eventually import eventually
from tests.hospitals import assert_equal, clinic, hospital, reading, saved
from tests.positions_topic import COMPACTING, HOUR_MS, append, end_segment, keys, records
from tests.reader_process import catch_up, running
from tests.servers import Address, fresh_name
from tests.topic_reader import end_of_topic

COLUMN = ColumnInfo("value_complex", "varchar", "varchar(1000)", "utf8mb4", 4000)
SAVED = Saved(
    "kigali",
    0,
    "mariadb-7",
    1_700_000_000,
    1_700_000_001,
    Position("binlog.000009", 4),
    columns={"obs": [COLUMN] * 300},
    snapshot=Snapshot(1, "done"),
)
LATER_EPOCH = replace(SAVED, epoch=SAVED.epoch + 100)


def settings_for(bootstrap: str, **changes: Any) -> Settings:
    nowhere = Address("mariadb", "127.0.0.1", 1, "nobody", "")
    return stream.settings(nowhere.settings(), bootstrap, fresh_name(), **changes)


@pytest.fixture(scope="module")
def compacting(module_own: Callable[..., Broker]) -> str:
    """The address of a broker that looks often for something to compact."""
    return module_own(Broker, settings=COMPACTING).url


def configs_of(kafka: Kafka) -> dict[str, str]:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    configs = topic_configs(admin, [kafka.positions_topic])
    admin.close()
    return configs[kafka.positions_topic]


def saves(kafka: Kafka) -> list[int]:
    """Return the size of each record that says where the reader is, in full or not."""
    found = records(kafka)
    return [len(value) for key, value in found if value and b"/columns/" not in key]


def test_a2_a_save_of_a_real_hospital_is_small_and_its_columns_come_once(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    with running(settings), clinic(address, rate=20):
        eventually(lambda: len(saves(settings.kafka)) > 10, "ten saves")
    sizes = saves(settings.kafka)
    in_full = [size for size in sizes if size > 1_000]
    assert min(in_full) > 15_000, "the columns of a real hospital are large"
    # When the epoch begins, when its file's date is known, and at the end.
    assert len(in_full) <= 3
    assert len([key for key in keys(settings.kafka) if "/columns/" in key]) == 1
    assert saved(settings).columns["obs"]
    catch_up(settings)
    assert_equal(settings, address)


def test_nothing_is_saved_while_nothing_changes(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap, cdc={"checkpoint_s": 0.05, "heartbeat_s": 0.2})
    catch_up(settings)
    before = records(settings.kafka)
    sent = len(stream.raw(settings))
    with running(settings):
        eventually(lambda: len(stream.raw(settings)) > sent + 5, "five heartbeats")
    assert records(settings.kafka) == before


def test_a2_the_broker_compacts_an_hour_of_saves(compacting: str) -> None:
    settings = settings_for(compacting)
    Positions.ensure(settings)
    topic = HospitalRecords("kigali")
    moved = [replace(SAVED, position=Position("binlog.000009", 4 + pos)) for pos in range(3_600)]
    written = [record for saved in moved for record in topic.write(saved, in_full=False)]
    append(settings.kafka, written, timestamp_ms=int(time.time() * 1000) - HOUR_MS)
    end_segment(settings.kafka)
    eventually(lambda: len(records(settings.kafka)) < 10, "they are compacted")
    assert saved(settings) == moved[-1]


def test_a2_a_topic_of_before_is_made_to_compact_and_a_quicker_one_is_left(
    kafka_bootstrap: str, create_topic: Any
) -> None:
    settings = settings_for(kafka_bootstrap)
    create_topic(settings.kafka.positions_topic, cleanup_policy="compact", segment_ms="30000")
    assert int(configs_of(settings.kafka)["segment.bytes"]) == 2**30, "as it was before"
    Positions.ensure(settings)
    configs = configs_of(settings.kafka)
    assert configs["segment.ms"] == "30000"
    assert float(configs["min.cleanable.dirty.ratio"]) == 0.01
    assert not topics.slow_compaction(configs)
    assert configs["cleanup.policy"] == "compact"


@pytest.mark.parametrize("denied", [ACLOperation.ALTER_CONFIGS, ACLOperation.DESCRIBE_CONFIGS])
def test_who_may_not_alter_the_topic_goes_on_with_a_warning(
    own_kafka: Any, denied: ACLOperation
) -> None:
    broker = own_kafka(
        settings=[
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=true",
        ]
    )
    settings = settings_for(broker.url)
    topic = settings.kafka.positions_topic
    admin = KafkaAdminClient(bootstrap_servers=broker.url)
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
    for operation, permission in (
        (ACLOperation.ALL, ACLPermissionType.ALLOW),
        (denied, ACLPermissionType.DENY),
    ):
        pattern = ResourcePattern(ResourceType.TOPIC, topic)
        admin.create_acls([ACL("User:ANONYMOUS", "*", operation, permission, pattern)])
    admin.close()
    with capture_logs() as logs:
        Positions.ensure(settings)
    assert [entry["topic"] for entry in logs if entry["log_level"] == "warning"] == [topic]
    if denied == ACLOperation.ALTER_CONFIGS:
        assert topics.slow_compaction(configs_of(settings.kafka)), "it was refused"
    positions = Positions(settings.kafka)
    positions.save(SAVED)
    assert positions.load("kigali") == SAVED
    positions.close()


def test_a2_a_late_save_moves_nobody_back_when_the_topic_is_compacted(compacting: str) -> None:
    """The reader that stood still had the lease before. It writes when the other one has ended."""
    settings = settings_for(compacting)
    Positions.ensure(settings)
    late, other = Positions(settings.kafka), Positions(settings.kafka)
    late.save(SAVED)
    other.load("kigali")
    other.save(LATER_EPOCH)
    late.save(replace(SAVED, position=Position("binlog.000009", 5)))
    written = len(records(settings.kafka))
    end_segment(settings.kafka)
    eventually(lambda: len(records(settings.kafka)) < written, "the topic is compacted")
    assert saved(settings) == LATER_EPOCH

    # It also cleans up behind the late one.
    other.load("kigali")
    other.save(replace(LATER_EPOCH, position=Position("binlog.000009", 6)))
    end_segment(settings.kafka)
    eventually(
        lambda: not [key for key in keys(settings.kafka) if f"/{SAVED.epoch}/" in key],
        lambda: f"no key is of the older epoch: {keys(settings.kafka)}",
    )
    late.close()
    other.close()


def test_a_late_save_of_an_earlier_run_gives_no_run_twice(compacting: str) -> None:
    settings = settings_for(compacting)
    Positions.ensure(settings)
    polled = replace(SAVED, capture="polling", columns={}, snapshot=None)
    late, other = Positions(settings.kafka), Positions(settings.kafka)
    late.save(replace(polled, run=5, position=Position("poll.0", 10)))
    for run in (6, 7, 8):
        other.load("kigali")
        other.save(replace(polled, run=run, position=Position("poll.0", 2 * run)))
    late.save(replace(polled, run=5, position=Position("poll.0", 11)))
    written = len(records(settings.kafka))
    end_segment(settings.kafka)
    eventually(lambda: len(records(settings.kafka)) < written, "the topic is compacted")
    assert saved(settings).run == 8
    late.close()
    other.close()


def test_without_its_columns_a_position_is_of_no_use(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    other = {"positions_topic": f"{settings.kafka.positions_topic}.again"}
    again = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=other)})
    Positions.ensure(again)
    kept = [(key, value) for key, value in records(settings.kafka) if b"/position/" in key]
    append(again.kafka, kept)
    address.execute("DELETE FROM obs ORDER BY obs_id DESC LIMIT 1")
    with capture_logs() as logs:
        catch_up(again)
    assert "column lists" in str([entry for entry in logs if "new epoch" in entry["event"]])
    assert saved(again).epoch > before.epoch
    assert_equal(again, address)


LOAD = """
import pickle, resource, sys
from cdc.positions import Positions
kafka = pickle.loads(bytes.fromhex(sys.argv[1]))
Positions(kafka).load("huye")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
saved = Positions(kafka).load("kigali")
print(saved.position.pos, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a2_a_start_holds_no_more_than_one_position(kafka_bootstrap: str) -> None:
    """The saves are in full, as the release before wrote them: a quarter of an hour of them."""
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    count = 900
    moved = (replace(SAVED, position=Position("binlog.000009", pos)) for pos in range(count))
    append(settings.kafka, ((b"kigali", saved.encode()) for saved in moved))
    assert end_of_topic(kafka_bootstrap, settings.kafka.positions_topic) == count
    assert len(SAVED.encode()) > 15_000
    command = [sys.executable, "-c", LOAD, pickle.dumps(settings.kafka).hex()]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pos, grown_mb = map(int, answer.split())
    assert pos == count - 1
    assert grown_mb < 20


def test_a2_the_lease_is_kept_while_the_topic_is_read(
    own_kafka: Any, mysql_database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker stands still meanwhile, for longer than a lease lasts that nobody keeps."""
    monkeypatch.setattr(lease, "WAIT_TIMEOUT_S", 2)
    monkeypatch.setattr(lease, "PING_S", 0.2)
    broker = own_kafka()
    settings = settings_for(broker.url)
    Positions.ensure(settings)
    # More than one answer of the broker.
    append(settings.kafka, ((b"kigali", SAVED.encode()) for _ in range(400)))

    kept, forgotten = (Lease(fresh_name(), mysql_database.settings()) for _ in range(2))
    for held in (kept, forgotten):
        name = ReaderName(held.hospital, "cluster", settings.kafka.topic)
        assert held.take(name, threading.Event())
    session = forgotten.connection.thread_id()
    paused: list[bool] = []

    def keep() -> None:
        kept.keep()
        if not paused:
            broker.pause()
            paused.append(True)
        sessions = "SELECT 1 FROM information_schema.processlist WHERE id = %d"
        if not mysql_database.execute(sessions % session):
            broker.resume()

    positions = Positions(settings.kafka)
    assert positions.load("kigali", keep=keep) == SAVED
    kept.keep(now=True)
    assert not kept.was_retaken()
    with pytest.raises(Retry):
        forgotten.keep(now=True)
    for opened in (kept, forgotten, positions):
        opened.close()
