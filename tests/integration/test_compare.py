"""Beside a real stream: what no event told of is found and repaired, and a healthy pipeline
publishes nothing.
"""

import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bson import ObjectId
from pymongo.database import Database
from structlog.testing import capture_logs

from cdc import reader
from cdc.publisher import Publisher
from consumers import worker
from dev import hospital as generator
from dev.hospital import people, registration
from openmrs.connection import server_version
from passport.errors import Fatal, NotReady, Retry
from passport.event import Event, encode_event
from passport.settings import Destination, LoadBudget, Settings
from reconcile import caught_up, compare
from reconcile.look_again import Patience
from reconcile.mongo_reader import opened
from reconcile.report import Report
from reconcile.verify import verify as verify_hospitals
from tests.beside import beside
from tests.eventually import eventually
from tests.integration.published import HOSPITAL, read, settings_for
from tests.servers import Address

Mongo = Database[dict[str, Any]]
COPY = (
    "person_id, concept_id, encounter_id, obs_datetime, location_id, value_numeric,"
    " creator, date_created, status"
)


PATIENCE = Patience(settle_s=0.05, caught_up_s=2.0)


def verify(settings: Settings, destination: str, *, repair: bool = False) -> Report:
    return verify_hospitals(settings, destination, repair=repair, patience=PATIENCE)


class Way:
    """A streamed hospital whose patients' rows are in MongoDB."""

    def __init__(self, address: Address, settings: Settings, mongo: Mongo) -> None:
        self.address, self.settings, self.mongo = address, settings, mongo

    def bring(self) -> None:
        """All that the binlog tells, to the destination."""
        reader.run(HOSPITAL, self.settings, until_caught_up=True, stop=threading.Event())
        worker.run("passport", self.settings, until_caught_up=True, stop=threading.Event())

    def compare(self) -> int:
        stop = threading.Event()
        with opened(self.settings, "passport") as mongo:
            return compare.Comparison(HOSPITAL, self.settings, mongo, stop, PATIENCE).run()

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        return self.address.execute("SET foreign_key_checks = 0", *statements)

    def unseen(self, *statements: str) -> None:
        """Changes that the binlog doesn't have."""
        self.execute("SET SESSION sql_log_bin = 0", *statements)

    def events(self) -> list[Event]:
        return read(self.settings.kafka.bootstrap, self.settings.kafka.topic)

    def repairs(self) -> list[Event]:
        """What comparing or `verify --repair` asked for."""
        return [event for event in self.events() if event.kind == "notice" and event.op == "r"]

    def matched(self) -> list[int]:
        return [
            one["personId"] for one in self.mongo["people"].find({"patientId": {"$type": "string"}})
        ]


@pytest.fixture
def way(
    flavour_database: Address,
    kafka_bootstrap: str,
    topic: str,
    mongo_url: str,
    mongo_database: Mongo,
) -> Way:
    """Everything brought over once."""
    options = {"uri": mongo_url, "database": mongo_database.name, "link_key": "k" * 32}
    given = settings_for(
        flavour_database,
        kafka_bootstrap,
        topic,
        capture="binlog",
        national_id_type=people.NATIONAL_ID_TYPE,
    )
    destination = {"passport": Destination(type="mongo", options=options)}
    cdc = given.cdc.model_copy(update={"heartbeat_s": 0.2})
    settings = given.model_copy(update={"destinations": destination, "cdc": cdc})
    with flavour_database.connect() as connection:
        version = server_version(connection)
        if version.flavour == "mysql" and not version.is_mysql(8, 0, 4):
            pytest.skip("the tests' own SQL needs REGEXP_REPLACE")
        generator.create(connection, seed=6, patients=60, visits=2)
        registration.passport_patients(
            mongo_database, [one for _, one in registration.registrable(connection)[::2]]
        )
    there = Way(flavour_database, settings, mongo_database)
    there.bring()
    return there


def test_a_healthy_pipeline_publishes_nothing(way: Way) -> None:
    way.execute("UPDATE obs SET voided = 1 - voided WHERE obs_id % 7 = 0")
    way.bring()
    assert way.compare() == 0
    assert not way.repairs()
    assert way.matched()


UNSEEN = (
    (
        f"INSERT INTO obs ({COPY}, uuid) SELECT {COPY}, UUID() FROM obs"
        " WHERE person_id = @person LIMIT 1"
    ),
    "UPDATE obs SET voided = 1 WHERE person_id = @person AND voided = 0",
    "DELETE FROM obs WHERE person_id = @person",
    "UPDATE patient_identifier SET voided = 1 WHERE patient_id = @person",
)


def test_row_50_what_the_binlog_does_not_have_is_repaired(way: Way) -> None:
    for number, (person, change) in enumerate(zip(way.matched(), UNSEEN, strict=False), 1):
        before = len(way.events())
        way.unseen(f"SET @person = {person}", change)
        way.bring()
        seen = [event for event in way.events()[before:] if event.kind != "heartbeat"]
        assert not seen, change  # invisible to the stream
        assert not verify(way.settings, "passport").equal, change
        assert way.compare() == 1
        key_change = way.repairs()[-1]
        assert len(way.repairs()) == number
        assert key_change.source.table == "person"
        assert key_change.keys == ({"person_id": person},)
        way.bring()
        assert verify(way.settings, "passport").equal, change
        assert way.compare() == 0


def test_what_a_trigger_does_behind_a_statement_is_repaired(way: Way) -> None:
    """Statement-based, on a table that nobody watches: the binlog has its text, which does not name
    obs.
    """
    person = way.matched()[0]
    action = (
        "UPDATE obs SET voided = 1, date_voided = NOW() WHERE person_id = NEW.person AND voided = 0"
    )
    way.execute(
        "CREATE TABLE billing (person INT)",
        f"CREATE TRIGGER billed AFTER INSERT ON billing FOR EACH ROW {action}",
    )
    way.bring()
    before = len(way.events())
    changed = way.execute(
        "SET SESSION binlog_format = STATEMENT",
        f"INSERT INTO billing VALUES ({person})",
        f"SELECT COUNT(*) FROM obs WHERE person_id = {person} AND voided = 0",
    )
    assert changed == ((0,),), "the trigger did it"
    way.bring()
    assert not [event for event in way.events()[before:] if event.kind != "heartbeat"], (
        "no stream shows it"
    )
    assert not verify(way.settings, "passport").equal
    assert way.compare() == 1
    way.bring()
    assert verify(way.settings, "passport").equal


def test_a_patient_whom_the_stream_never_told_of_is_found(way: Way) -> None:
    unknown = way.execute("SELECT MAX(patient_id) + 1 FROM patient")[0][0]
    (person, *_) = way.matched()
    way.unseen(
        "INSERT INTO person (person_id, gender, creator, date_created, uuid)"
        f" SELECT {unknown}, 'F', 1, NOW(), UUID()",
        f"INSERT INTO patient (patient_id, creator, date_created) VALUES ({unknown}, 1, NOW())",
        "INSERT INTO patient_identifier"
        " (patient_id, identifier, identifier_type, preferred, creator, date_created, uuid)"
        f" SELECT {unknown}, '1199980012345678', patient_identifier_type_id, 1, 1, NOW(), UUID()"
        f" FROM patient_identifier_type WHERE uuid = '{people.NATIONAL_ID_TYPE}'",
        f"INSERT INTO obs ({COPY}, uuid)"
        f" SELECT {COPY.replace('person_id', str(unknown))}, UUID() FROM obs"
        f" WHERE person_id = {person}",
    )
    registration.passport_patients(way.mongo, ["1199980012345678"])
    way.bring()
    assert way.mongo["observations"].count_documents({"personId": unknown}) == 0
    assert way.compare() == 1
    way.bring()
    assert way.mongo["observations"].count_documents({"personId": unknown}) > 0
    assert verify(way.settings, "passport").equal


def test_somebody_whom_the_hospital_no_longer_has_goes(way: Way) -> None:
    (person, *_) = way.matched()
    way.unseen(
        f"DELETE FROM obs WHERE person_id = {person}",
        f"DELETE FROM patient_identifier WHERE patient_id = {person}",
        f"DELETE FROM patient WHERE patient_id = {person}",
        f"DELETE FROM person WHERE person_id = {person}",
    )
    assert way.compare() == 1
    way.bring()
    assert way.mongo["observations"].count_documents({"personId": person, "deleted": False}) == 0
    assert person not in way.matched()
    assert verify(way.settings, "passport").equal
    assert way.compare() == 0


def test_what_is_on_its_way_is_no_difference(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    way.execute("UPDATE obs SET voided = 1 - voided")
    taken = caught_up.Target.now

    def bringing(*arguments: Any) -> caught_up.Target:
        target = taken(*arguments)
        way.bring()
        return target

    monkeypatch.setattr(caught_up.Target, "now", bringing)
    assert way.compare() == 0
    assert not way.repairs()


def test_a_destination_that_is_behind_is_not_judged(way: Way) -> None:
    way.execute("UPDATE obs SET voided = 1 - voided")
    with pytest.raises(NotReady, match="behind"):
        way.compare()
    assert not way.repairs()


def test_a_snapshot_that_is_applied_in_part_is_not_judged(way: Way) -> None:
    """Its rows have one version: by that alone the destination would be there with the first of
    them.
    """
    query = {"_id": HOSPITAL}
    at = way.mongo["progress"].find_one(query)
    assert at
    way.mongo["observations"].delete_one({"personId": way.matched()[0]})
    way.mongo["progress"].update_one(query, {"$set": {"offset": 3}})
    with pytest.raises(NotReady, match="behind"):
        way.compare()
    assert verify(way.settings, "passport").hospitals[HOSPITAL].behind
    assert not way.repairs()
    way.mongo["progress"].update_one(query, {"$set": {"offset": at["offset"]}})
    assert way.compare() == 1


def test_numbers_and_texts_at_their_limits_are_equal(way: Way) -> None:
    (person, *_) = way.matched()
    numbers = (
        "1e22",
        "-1e15",
        "0.1",
        "1e-7",
        "-5e-324",
        "1.7976931348623157e308",
        "123456789.123456789",
        "-0.0",
        "3e-5",
    )
    texts = (
        "'#|~'",
        "'日本語'",
        "''",
        "'a''b\\\\c'",
        "REPEAT('é', 30000)",
        "'line\\nbreak'",
        "'  trailing  '",
    )
    into = (
        f"INSERT INTO obs ({COPY.replace('value_numeric, ', '')}, value_numeric, value_text, uuid)"
    )
    columns = COPY.replace("value_numeric, ", "")
    for value in [*(f"{number}, NULL" for number in numbers), *(f"NULL, {text}" for text in texts)]:
        way.execute(
            f"{into} SELECT {columns}, {value}, UUID() FROM obs WHERE person_id = {person} LIMIT 1"
        )
    way.bring()
    assert way.compare() == 0
    assert verify(way.settings, "passport").equal


def test_a_polled_hospital_is_not_compared_here(way: Way) -> None:
    polled = way.settings.hospitals[HOSPITAL].model_copy(update={"capture": "polling"})
    settings = way.settings.model_copy(update={"hospitals": {HOSPITAL: polled}})
    with pytest.raises(Fatal, match="polling"):
        compare.run(HOSPITAL, settings, "passport", once=True, stop=threading.Event())


@pytest.mark.parametrize("mysql_flavour", ["mariadb"], indirect=True)
def test_a_record_of_an_older_epoch_that_lands_late_brings_no_row_back(way: Way) -> None:
    """A reader was cut off with the record of a new row unsent; the row went in the gap, and left
    no tombstone.
    """
    names = {name: f"{way.settings.kafka.topic}.{name}" for name in ("topic", "positions_topic")}
    cut_off = way.settings.model_copy(update={"kafka": way.settings.kafka.model_copy(update=names)})
    stop = threading.Event()
    reader.run(HOSPITAL, cut_off, until_caught_up=True, stop=stop)
    held = Publisher(way.settings.kafka, HOSPITAL, 0)
    person = f"SELECT {COPY}, UUID() FROM obs WHERE person_id = {way.matched()[0]} LIMIT 1"
    [(born,)] = way.execute(
        f"INSERT INTO obs ({COPY}, uuid) {person}", "SELECT MAX(obs_id) FROM obs"
    )
    reader.run(HOSPITAL, cut_off, until_caught_up=True, stop=stop)
    records = [
        event for event in read(cut_off.kafka.bootstrap, cut_off.kafka.topic) if event.kind == "row"
    ]
    [late] = [event for event in records if event.row["obs_id"] == born]
    way.execute(f"DELETE FROM obs WHERE obs_id = {born}")
    reader.run(HOSPITAL, way.settings, until_caught_up=True, stop=stop, new_epoch=True)
    assert late.source.version[:10] < way.events()[-1].source.version[:10]
    held.send("row", encode_event(late))
    held.flush()
    held.close()
    assert way.events()[-1] == late, "Kafka takes it: there is no fence"
    worker.run("passport", way.settings, until_caught_up=True, stop=stop)
    assert way.mongo["observations"].find_one({"obsId": born}) is None
    assert verify(way.settings, "passport").equal


def test_comparing_waits_for_its_quiet_hours(way: Way) -> None:
    now = datetime.now(ZoneInfo(way.settings.hospitals[HOSPITAL].timezone))
    later, open_now = ((now + timedelta(hours=one)).strftime("%H:%M") + "-" for one in (2, -1))
    end = (now + timedelta(hours=3)).strftime("%H:%M")
    assert [line["event"] for line in said(way, later + end)] == ["comparing waits"]
    assert [line["event"] for line in said(way, open_now + end)] == ["compared"]


def said(way: Way, hours: str) -> list[Any]:
    """By comparing with these hours, until it has said something."""
    hospital = way.settings.hospitals[HOSPITAL].model_copy(update={"compare_hours": hours})
    settings = way.settings.model_copy(update={"hospitals": {HOSPITAL: hospital}})
    stop = threading.Event()
    with capture_logs() as lines:
        thread = threading.Thread(
            target=compare.run,
            args=(HOSPITAL, settings, "passport"),
            kwargs={"once": False, "stop": stop},
        )
        thread.start()
        try:
            eventually(lambda: bool(lines), "a line is printed")
            stop.wait(1.5)  # one that waits goes on waiting
        finally:
            stop.set()
            thread.join(30)
    assert not thread.is_alive()
    return lines


def test_verify_repairs_who_differs(way: Way) -> None:
    one, other = way.matched()[:2]
    way.mongo["observations"].delete_one({"personId": one, "deleted": False})
    way.mongo["medicalrecords"].update_one(
        {"openmrsData.personId": other}, {"$set": {"data.title": "tampered"}}
    )
    report = verify(way.settings, "passport", repair=True)
    assert not report.equal
    assert report.hospitals[HOSPITAL].asked == 2
    assert [key["person_id"] for change in way.repairs() for key in change.keys] == sorted(
        (one, other)
    )
    way.bring()
    assert verify(way.settings, "passport", repair=True).equal
    assert len(way.repairs()) == 1


def test_a13_an_alter_does_not_wait_for_comparing(way: Way) -> None:
    """Comparing is held up by its budget for several seconds, and ALTERs come all the while."""
    hospital = way.settings.hospitals[HOSPITAL]
    rows = way.execute("SELECT COUNT(*) FROM obs")[0][0]
    budget = LoadBudget(rows_per_s=max(1, rows * 15 // 100 // 6))
    slow = hospital.model_copy(update={"load_budget": budget})
    settings = way.settings.model_copy(update={"hospitals": {HOSPITAL: slow}})

    def alter() -> float:
        began_at = time.monotonic()
        way.execute("ALTER TABLE obs COMMENT = 'x'")
        return time.monotonic() - began_at

    alone_s = max(alter() for _ in range(3))
    has_ended = threading.Event()

    def compare_slowly(_: threading.Event) -> None:
        # An ALTER may interrupt a read: it is begun again.
        with opened(settings, "passport") as mongo, suppress(Retry):
            compare.Comparison(HOSPITAL, settings, mongo, threading.Event(), PATIENCE).run()
        has_ended.set()

    waited_s = []
    with beside(compare_slowly):
        while not has_ended.wait(0.2):
            waited_s.append(alter() - alone_s)
    assert len(waited_s) > 5, "it was at work meanwhile"
    assert max(waited_s) < 1


def test_b19_verify_removes_the_records_that_no_row_explains_and_says_which(way: Way) -> None:
    """One is left beside a patient's own, the other is shown to somebody who isn't matched."""
    record = way.mongo["medicalrecords"].find_one({"patientId": {"$ne": ""}})
    assert record is not None
    keys = sorted([ObjectId(), ObjectId()])
    nobody = record["openmrsData"] | {"personId": 88888, "obsId": 99999}
    stray = {"patientId": str(ObjectId()), "openmrsData": nobody}
    way.mongo["medicalrecords"].insert_many(
        [record | {"_id": keys[0]}, record | {"_id": keys[1]} | stray]
    )
    found = verify(way.settings, "passport")
    assert (found.extra, found.missing, found.different) == (2, 0, 0)
    command = f"passport verify --repair --hospital {HOSPITAL}   # repairs what differs"
    assert command in found.as_text()
    assert way.mongo["medicalrecords"].count_documents(
        {"_id": {"$in": keys}, "patientId": {"$ne": ""}}
    ) == len(keys)

    def consume(stop: threading.Event) -> None:
        worker.run("passport", way.settings, until_caught_up=False, stop=stop)

    with beside(consume):
        repaired = verify_hospitals(
            way.settings, "passport", repair=True, patience=Patience(settle_s=0.05)
        )
    assert repaired.hospitals[HOSPITAL].asked == 2
    assert repaired.hospitals[HOSPITAL].removed == 2
    assert repaired.removed == [f"medicalrecords/{key}" for key in keys]
    assert f"removed: medicalrecords/{keys[0]}" in repaired.as_text()
    way.bring()
    assert verify(way.settings, "passport").equal
