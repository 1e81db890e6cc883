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
from consumers import replay, worker
from consumers.replay import Replayed
from dev import hospital as generator
from dev.hospital import people, registration
from dev.hospital.clinic import Clinic
from dev.stack import MariaDB
from passport import sink as sinks
from passport.settings import Destination, Settings
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
