"""A stretch of the topic applied again: nothing undone, what was lost is back, and the group's
offsets stay.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from pymongo.database import Database

from cdc import backfill, reader
from cdc.publisher import Publisher
from consumers import replay, worker
from consumers.partition import RowRecord, parse_record
from consumers.replay import Replayed
from dev import hospital as generator
from dev.hospital import people, registration
from dev.hospital.clinic import Clinic
from dev.stack import MariaDB
from passport import sink as sinks
from passport.kafka import OffsetRange, read_range
from passport.settings import Destination, Settings
from tests.beside import beside
from tests.eventually import eventually
from tests.integration.published import HOSPITAL, settings_for
from tests.servers import Address

Mongo = Database[dict[str, Any]]
PASSPORT_OWN = ("patients", "users", "doctors", "hospitals")
# How far a person was read whole: it moves whenever they are read again, and shows nowhere.
MOVING = {"floor", "rev", "version", "at", "updatedAt", "lastSyncTime"}


class Way:
    """A streamed hospital whose patients' rows are in MongoDB."""

    def __init__(self, address: Address, settings: Settings, mongo: Mongo) -> None:
        self.address, self.settings, self.mongo = address, settings, mongo

    def read(self) -> None:
        reader.run(HOSPITAL, self.settings, until_caught_up=True, stop=threading.Event())

    def bring(self) -> None:
        self.read()
        worker.run("passport", self.settings, until_caught_up=True, stop=threading.Event())

    def work(self, steps: int, seed: int) -> None:
        with closing(self.address.connect(autocommit=False)) as connection:
            clinic = Clinic(connection, seed=seed)
            for _ in range(steps):
                clinic.step()

    def replay(
        self, start: int | None = None, end: int | None = None, *, dry_run: bool = False
    ) -> Replayed:
        stop, destination = threading.Event(), "passport"
        with closing(sinks.connect(destination, self.settings)) as sink:
            return replay.run(
                destination,
                self.settings,
                sink,
                HOSPITAL,
                start=start,
                end=end,
                dry_run=dry_run,
                stop=stop,
                progress=lambda *_: None,
            )

    def content(self) -> Mapping[str, Any]:
        """What the Passport shows and the mirror holds."""
        records = self.mongo["medicalrecords"].find({"patientId": {"$ne": ""}})
        rows = self.mongo["observations"].find({"deleted": False})
        found = {f"{doc['_id']}": doc for doc in [*records, *rows]}
        return {
            key: {k: v for k, v in doc.items() if k not in MOVING} for key, doc in found.items()
        }

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        return {name: list(self.mongo[name].find()) for name in self.mongo.list_collection_names()}

    def restore(self, dump: Mapping[str, list[dict[str, Any]]]) -> None:
        for name in self.mongo.list_collection_names():
            self.mongo[name].delete_many({})
            if dump.get(name):
                self.mongo[name].insert_many(dump[name])

    def empty(self) -> None:
        self.restore({name: docs for name, docs in self.dump().items() if name in PASSPORT_OWN})

    def progress(self) -> list[dict[str, Any]]:
        return list(self.mongo["progress"].find())

    def takings(self) -> int:
        """How often a writer has taken the hospital."""
        return int(
            (self.mongo["fences"].find_one({"_id": HOSPITAL}) or {"generation": 0})["generation"]
        )

    def committed(self) -> dict[Any, Any]:
        admin = KafkaAdminClient(bootstrap_servers=self.settings.kafka.bootstrap)
        found = admin.list_group_offsets(["passport.passport"])
        admin.close()
        return dict(found)


@pytest.fixture
def way(
    own_mariadb: Callable[..., MariaDB],
    kafka_bootstrap: str,
    topic: str,
    mongo_url: str,
    mongo_database: Mongo,
) -> Way:
    """Brought over, then worked on, and brought over again."""
    server = own_mariadb()
    server.execute("CREATE DATABASE openmrs")
    address = Address.parse("mariadb", server.url)._replace(database="openmrs")
    options = {"uri": mongo_url, "database": mongo_database.name, "link_key": "k" * 32}
    given = settings_for(
        address, kafka_bootstrap, topic, capture="binlog", national_id_type=people.NATIONAL_ID_TYPE
    )
    settings = given.model_copy(
        update={"destinations": {"passport": Destination(type="mongo", options=options)}}
    )
    with address.connect() as connection:
        generator.create(connection, seed=6, patients=30, visits=2)
        registration.passport_patients(
            mongo_database, [one for _, one in registration.registrable(connection)[::2]]
        )
    there = Way(address, settings, mongo_database)
    there.bring()
    there.work(80, seed=1)
    there.bring()
    return there


def test_replaying_everything_changes_nothing_and_moves_no_offset(way: Way) -> None:
    before, progress = way.content(), way.progress()
    assert len(before) > 200
    done = way.replay()
    assert way.content() == before
    assert way.progress() == progress
    assert done.complete
    assert done.applied == 0
    assert done.reread > 0, "what key changes ask for is read as it is now"
    assert done.rows > 500
    assert done.unchanged > 0
    assert done.stale > 0, "rows that changed later"


def test_row_20_an_emptied_mongodb_is_rebuilt_from_the_topic_as_it_was(way: Way) -> None:
    """createdAt, syncDate and every _id too: no edit lock opens anew."""
    before = way.content()
    way.empty()
    assert not way.content()
    done = way.replay()
    assert done.complete
    assert done.applied > 100
    assert way.content() == before


def test_an_old_dump_is_made_equal_by_the_changes_since(way: Way) -> None:
    dump, at = way.dump(), way.replay(dry_run=True).end
    way.work(60, seed=2)
    way.bring()
    before, progress = way.content(), way.progress()
    way.restore(dump | {"progress": progress})  # as its running consumer would have it
    assert way.content() != before
    done = way.replay(start=at)
    assert done.first == at
    assert done.applied > 0
    assert way.content() == before


def test_where_the_topic_does_not_reach_back_a_snapshot_does(way: Way) -> None:
    before = way.content()
    end = way.replay(dry_run=True).end
    admin = KafkaAdminClient(bootstrap_servers=way.settings.kafka.bootstrap)
    admin.delete_records({TopicPartition(way.settings.kafka.topic, 0): end - 20})
    admin.close()
    way.empty()
    done = way.replay()
    assert done.first == end - 20
    assert not done.complete
    assert way.content() != before
    backfill.run(
        HOSPITAL,
        way.settings,
        first=None,
        to=None,
        stop=threading.Event(),
        progress=lambda *_: None,
    )
    assert way.replay().complete
    assert way.content() == before


def test_a_dry_run_counts_and_writes_nothing(way: Way) -> None:
    way.empty()
    done = way.replay(dry_run=True)
    assert done.records == done.end - done.first > 0
    assert done.rows > 0
    assert (done.applied, done.unchanged, done.stale) == (0, 0, 0)
    assert not way.content()


def test_a_stretch_is_taken_by_offset_or_time(way: Way) -> None:
    end = way.replay(dry_run=True).end
    assert way.replay(start=end - 7, end=end - 2, dry_run=True).records == 5
    assert replay.offset(way.settings, HOSPITAL, 0) == 0
    assert replay.offset(way.settings, HOSPITAL, 2**42) == end


def test_b9_a_late_record_that_is_replayed_brings_no_purged_row_back(way: Way) -> None:
    """A reader that was cut off sends a row of its epoch behind the snapshot of the next one, which
    knows that the row is gone.
    """
    [matched] = way.mongo["people"].find({"patientId": {"$ne": None}}).limit(1)
    shown = {"personId": matched["personId"], "deleted": False, "related": {"$exists": False}}
    named = way.mongo["observations"].distinct("related")
    [row] = way.mongo["observations"].find({**shown, "_id": {"$nin": named}}).limit(1)
    whole = OffsetRange(0, way.replay(dry_run=True).end)
    items = [
        parse_record(record, HOSPITAL)
        for records in read_range(way.settings.kafka, way.settings.kafka.topic, 0, whole)
        for record in records
    ]
    late = [
        item.record.value
        for item in items
        if isinstance(item, RowRecord) and item.event.row["obs_id"] == row["obsId"]
    ][-1]
    assert late is not None
    with closing(way.address.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute("DELETE FROM obs WHERE obs_id = %s", (row["obsId"],))
    reader.run(HOSPITAL, way.settings, until_caught_up=True, stop=threading.Event(), new_epoch=True)
    publisher = Publisher(way.settings.kafka, HOSPITAL, 0)
    publisher.send("row", late)
    publisher.flush()
    publisher.close()
    worker.run("passport", way.settings, until_caught_up=True, stop=threading.Event())
    is_there = {"_id": row["_id"], "deleted": False}
    assert way.mongo["observations"].find_one(is_there) is None
    # Nor is there a tombstone where the row was born and purged while the reader was cut off.
    way.mongo["observations"].delete_one({"_id": row["_id"]})
    end = way.replay(dry_run=True).end
    done = way.replay(start=end - 1)
    assert (done.rows, done.applied, done.stale) == (1, 0, 1)
    assert way.mongo["observations"].find_one(is_there) is None


def test_a_command_and_a_living_consumer_both_come_to_their_end(way: Way) -> None:
    """They take the hospital from each other all the time: the clinic works, and everything is
    replayed in small batches.
    """
    small = way.settings.consumer.model_copy(update={"batch_records": 10, "retry_max_s": 0.5})
    way.settings = way.settings.model_copy(update={"consumer": small})
    first = way.takings()
    end = way.replay(dry_run=True).end

    def clinic(stop: threading.Event) -> None:
        seed = 10
        while not stop.is_set():
            seed += 1
            way.work(5, seed)

    def read(stop: threading.Event) -> None:
        reader.run(HOSPITAL, way.settings, until_caught_up=False, stop=stop)

    def consume(stop: threading.Event) -> None:
        worker.run("passport", way.settings, until_caught_up=False, stop=stop)

    with beside(read, consume):
        with beside(clinic):
            eventually(lambda: way.takings() > first, "the consumer has begun")
            before, replays = way.takings(), 0

            def replayed_and_met() -> bool:
                nonlocal replays
                replays += 1
                assert way.replay(start=end - 150).records >= 150
                return way.takings() - before - replays > 4

            eventually(replayed_and_met, "each has taken it back from the other")
        end = way.replay(dry_run=True).end
        eventually(lambda: way.progress()[0]["offset"] >= end, "the consumer has caught up")
    way.bring()
    content = way.content()
    assert way.replay().applied == 0
    assert way.content() == content
