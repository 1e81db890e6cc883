"""The positions topic and the partitions, on a real broker."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from cdc import positions_file as backup
from cdc import topics
from cdc.kafka import topic_configs
from cdc.positions import Positions, Saved, Snapshot
from cdc.publisher import Publisher
from cdc.resume import unusable
from openmrs.column_info import ColumnInfo
from openmrs.connection import end_of_binlog, identity
from passport.errors import Fatal, Gap, NotReady
from passport.settings import Settings
from passport.version import Position
from tests import stream
from tests.hospitals import assert_equal, clinic, hospital, reading, saved
from tests.reader_process import catch_up
from tests.servers import Address, fresh_name

NOWHERE = Address("mariadb", "127.0.0.1", 1, "nobody", "")
SAVED = Saved(
    "kigali",
    0,
    "mariadb-7",
    1,
    5,
    Position("binlog.000002", 100),
    columns={"obs": [ColumnInfo("obs_id", "int", "int(11)")]},
    snapshot=Snapshot(),
)


def settings_for(bootstrap: str, **changes: Any) -> Settings:
    return stream.settings(NOWHERE.settings(), bootstrap, fresh_name(), **changes)


def partitions(settings: Settings) -> dict[str, int]:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
    found = topics.partition_counts(admin)
    admin.close()
    return found


def test_a_position_is_one_servers(mysql_url: str) -> None:
    """Of another one at the same address nothing else need tell: its files may have the same names
    and be longer.
    """
    with Address.parse("mariadb", mysql_url).connect() as connection:
        position = end_of_binlog(connection)
        assert position is not None
        here = replace(SAVED, server=identity(connection), position=position)
        assert unusable(here, connection) == ""
        assert unusable(replace(here, server="mariadb-7"), connection).startswith("another server")


def test_topics_are_made_and_grow(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    kafka = settings.kafka
    assert [
        partitions(settings)[name]
        for name in (kafka.topic, kafka.positions_topic, kafka.dead_letters_topic)
    ] == [
        1,
        1,
        1,
    ]
    later = settings.hospitals["kigali"].model_copy(update={"partition": 4})
    grown = settings.model_copy(update={"hospitals": {**settings.hospitals, "butare": later}})
    Positions.ensure(grown)
    Positions.ensure(grown)
    assert partitions(settings)[kafka.topic] == 5
    Positions.ensure(settings)
    assert partitions(settings)[kafka.topic] == 5, "it never shrinks"
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    configs = topic_configs(admin, [kafka.topic, kafka.positions_topic])
    admin.close()
    assert configs[kafka.positions_topic]["cleanup.policy"] == "compact"
    assert configs[kafka.topic]["cleanup.policy"] == "delete"
    assert configs[kafka.topic]["retention.ms"] == "-1"


def test_the_highest_is_loaded_not_the_last(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    positions = Positions(settings.kafka)
    assert positions.load("kigali") is None
    positions.save(replace(SAVED, position=Position("binlog.000010", 4)))
    positions.save(SAVED)
    positions.save(replace(SAVED, hospital="butare", partition=1, epoch=99))
    found = positions.load("kigali")
    assert found is not None
    assert found.position == Position("binlog.000010", 4)
    positions.close()


def test_a_partition_is_one_hospitals_for_good(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    positions = Positions(settings.kafka)
    positions.save(SAVED)
    positions.load("kigali", partition=0)
    positions.load("butare", partition=1)
    with pytest.raises(Fatal, match=r"butare.*kigali"):
        positions.load("butare", partition=0)
    with pytest.raises(Fatal, match="kigali"):
        positions.load("kigali", partition=2)
    positions.close()


def test_positions_need_one_partition(kafka_bootstrap: str, create_topic: Any) -> None:
    settings = settings_for(kafka_bootstrap)
    create_topic(settings.kafka.positions_topic, partitions=2)
    with pytest.raises(Fatal, match="must have one"):
        Positions.ensure(settings)


def test_a_strange_record_stops_it(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap)
    producer.send(settings.kafka.positions_topic, key=b"kigali", value=b"{}").get(10)
    producer.close()
    with pytest.raises(Fatal, match="not a position"):
        Positions(settings.kafka).load("kigali")


def test_without_kafka_it_says_so(own_kafka: Any) -> None:
    kafka = own_kafka()
    settings = settings_for(kafka.url)
    kafka.kill()
    began = time.monotonic()
    for attempt in (
        Positions.ensure,
        lambda s: Positions(s.kafka).save(SAVED),
        lambda s: Positions(s.kafka).load("k"),
    ):
        with pytest.raises(NotReady, match=r"Kafka at 127\.0\.0\.1"):
            attempt(settings)
    assert time.monotonic() - began < 40


def test_what_is_acknowledged_is_counted_in_order(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    publisher = Publisher(settings.kafka, "kigali", 0)
    assert [publisher.send("heartbeat", b"x" * 100) for _ in range(3_000)] == [*range(1, 3_001)]
    seen = [publisher.acked()]
    publisher.flush()
    seen.append(publisher.acked())
    publisher.close()
    assert seen[0] <= seen[1] == publisher.sent == 3_000


def test_a_topic_that_ends_before_what_it_acknowledged_is_a_gap(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    first = Publisher(settings.kafka, "kigali", 0)
    first.send("heartbeat", b"x")
    first.flush()
    first.close()
    for end_offset, lost in ((first.end_offset, False), (first.end_offset + 2, True)):
        publisher = Publisher(settings.kafka, "kigali", 0, end_offset)
        publisher.send("heartbeat", b"x")
        with pytest.raises(Gap, match="its end was lost") if lost else nullcontext():
            publisher.flush()
        publisher.close()


def test_a_record_that_no_topic_takes_stops_the_hospital(kafka_bootstrap: str) -> None:
    settings = settings_for(kafka_bootstrap)
    Positions.ensure(settings)
    publisher = Publisher(settings.kafka, "kigali", 0)
    with pytest.raises(Fatal, match="larger"):
        publisher.send("notice", bytes(17 * 1024 * 1024))
    publisher.close()


def test_a_lost_positions_topic_costs_a_snapshot_and_no_epoch_comes_twice(
    own_mariadb: Any, kafka_bootstrap: str
) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    before = saved(settings)
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    admin.delete_topics([settings.kafka.positions_topic])
    admin.close()
    time.sleep(1.1)
    address.execute("DELETE FROM obs ORDER BY obs_id DESC LIMIT 1")
    catch_up(settings)
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, address)


def test_from_polling_to_the_binlog_is_a_new_epoch(own_mariadb: Any, kafka_bootstrap: str) -> None:
    address = hospital(own_mariadb(), patients=3)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    positions = Positions(settings.kafka)
    polled = replace(saved(settings), capture="polling", epoch=saved(settings).epoch + 10**6, run=3)
    positions.save(polled)
    positions.close()
    catch_up(settings)
    assert saved(settings).epoch > polled.epoch
    assert saved(settings).capture == "binlog"
    assert saved(settings).run == 0


def test_a_backup_brings_the_readers_back_and_moves_none_backwards(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path
) -> None:
    address = hospital(own_mariadb(), patients=2)
    given = reading(address, kafka_bootstrap)
    catch_up(given)
    before, file = saved(given), tmp_path / "positions"
    assert backup.save(given, file) == ["kigali"]
    with clinic(address):
        time.sleep(1)
    lost = given.kafka.model_copy(
        update={"positions_topic": f"{given.kafka.positions_topic}.again"}
    )
    again = given.model_copy(update={"kafka": lost})
    assert backup.restore(again, file) == {"kigali": "restored"}
    assert saved(again) == before
    catch_up(again)
    assert saved(again).epoch == before.epoch, "no snapshot was needed"
    assert_equal(again, address)
    further = saved(again)
    assert backup.restore(again, file) == {"kigali": "left alone"}
    assert saved(again) == further
    file.write_text("{}")
    with pytest.raises(Fatal, match="no backup"):
        backup.restore(again, file)
