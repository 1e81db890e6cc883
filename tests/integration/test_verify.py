"""Verifying finds what is missing, extra and different, and calls nothing else a difference."""

import re
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from cdc.polling import poll
from cdc.positions import Positions
from consumers import worker
from dev import hospital as generator
from dev.hospital import people, registration
from passport.errors import Fatal, NotReady
from passport.settings import Destination, Settings
from reconcile import caught_up
from reconcile.look_again import Patience
from reconcile.persons import EVERYBODY
from reconcile.report import Level, Report
from reconcile.verify import verify
from tests import passport_writes
from tests.faults.proxy import Proxy
from tests.integration.published import HOSPITAL, settings_for
from tests.servers import Address

Mongo = Database[dict[str, Any]]
Tampered = tuple[str, Any, dict[str, Any] | None]  # collection, _id, what was there
Tamper = Callable[[Mongo], Tampered]


PATIENCE = Patience(settle_s=0.05, caught_up_s=2.0)


class Way:
    """A polled hospital whose patients' rows are in MongoDB."""

    def __init__(self, address: Address, settings: Settings, mongo: Mongo) -> None:
        self.address, self.settings, self.mongo = address, settings, mongo

    def bring(self) -> None:
        """All changes to the destination."""
        poll.run(HOSPITAL, self.settings, once=True, stop=threading.Event())
        worker.run("passport", self.settings, until_caught_up=True, stop=threading.Event())

    def verify(self, level: Level = "record", persons: tuple[int, int] = EVERYBODY) -> Report:
        return verify(self.settings, "passport", level=level, persons=persons, patience=PATIENCE)

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        return self.address.execute("SET foreign_key_checks = 0", *statements)


@pytest.fixture
def settings(
    mysql_database: Address, kafka_bootstrap: str, topic: str, mongo_url: str, mongo_database: Mongo
) -> Settings:
    options = {"uri": mongo_url, "database": mongo_database.name, "link_key": "k" * 32}
    given = settings_for(
        mysql_database, kafka_bootstrap, topic, national_id_type=people.NATIONAL_ID_TYPE
    )
    return given.model_copy(
        update={"destinations": {"passport": Destination(type="mongo", options=options)}}
    )


@pytest.fixture
def way(
    mysql_database: Address,
    mongo_database: Mongo,
    settings: Settings,
) -> Way:
    """Everything brought over once."""
    with mysql_database.connect() as connection:
        generator.create(connection, seed=6, patients=60, visits=2)
        registration.passport_patients(
            mongo_database, [one for _, one in registration.registrable(connection)[::2]]
        )
    there = Way(mysql_database, settings, mongo_database)
    there.bring()
    return there


def keys(report: Report, kind: str) -> list[str]:
    return report.keys[kind]  # type: ignore[index]


def test_equal_ends_are_equal_and_nothing_is_written(way: Way) -> None:
    way.mongo.command("profile", 2)
    report = way.verify()
    way.mongo.command("profile", 0)
    written = way.mongo["system.profile"].count_documents(
        {"op": {"$in": ["insert", "update", "remove"]}}
    )
    assert report.equal, report
    assert report.rows > 100
    assert report.records > 50
    assert report.matched > 10
    assert report.rows == way.mongo["observations"].count_documents({"deleted": False})
    assert report.records == way.mongo["medicalrecords"].count_documents({"patientId": {"$ne": ""}})
    assert written == 0


def test_a20_a_hospital_of_which_nobody_is_matched_is_not_equal(way: Way) -> None:
    """It is known by identifiers that are no national ids, so that nobody of it is found."""
    kigali = way.settings.hospitals[HOSPITAL]
    huye = kigali.model_copy(update={"partition": 1, "national_id_type": people.OPENMRS_ID_TYPE})
    hospitals = {HOSPITAL: kigali, "huye": huye}
    way.settings = way.settings.model_copy(update={"hospitals": hospitals})
    poll.run("huye", way.settings, once=True, stop=threading.Event())
    way.bring()
    report = way.verify()
    assert report.hospitals[HOSPITAL].equal
    assert report.hospitals["huye"].persons > 0
    assert report.hospitals["huye"].matched == 0
    assert not report.equal
    assert "huye: nothing was compared, because nobody is matched" in report.as_text()


def test_a_second_look_is_not_needed_when_nothing_differs(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(caught_up.Target, "now", unexpected)
    assert way.verify().equal


SHOWN = {"patientId": {"$ne": ""}}


def _changed(collection: str, query: dict[str, Any], change: dict[str, Any]) -> Tamper:
    def tamper(mongo: Mongo) -> Tampered:
        before = mongo[collection].find_one_and_update(query, {"$set": change})
        assert before
        return collection, before["_id"], before

    return tamper


def _gone(collection: str, query: dict[str, Any]) -> Tamper:
    def tamper(mongo: Mongo) -> Tampered:
        before = mongo[collection].find_one_and_delete(query)
        assert before
        return collection, before["_id"], before

    return tamper


def _copied(collection: str, query: dict[str, Any], key: Any, change: dict[str, Any]) -> Tamper:
    def tamper(mongo: Mongo) -> Tampered:
        one = mongo[collection].find_one(query)
        assert one
        mongo[collection].insert_one(one | {"_id": key} | change)
        return collection, key, None

    return tamper


def _link_wrong(mongo: Mongo) -> Tampered:
    one, other = mongo["people"].find({"patientId": {"$type": "string"}}).limit(2)
    return _changed("people", {"_id": one["_id"]}, {"patientId": other["patientId"]})(mongo)


LIVE = {"deleted": False}
TAMPERED = (
    ("missing", _gone("observations", LIVE | {"row.voided": 1})),
    ("different", _changed("observations", LIVE, {"row.comments": "changed"})),
    (
        "extra",
        _copied("observations", LIVE, f"{HOSPITAL}/99999", {"obsId": 99999, "personId": 88888}),
    ),
    ("different", _changed("medicalrecords", SHOWN, {"data.details": "changed"})),
    ("missing", _changed("medicalrecords", SHOWN, {"patientId": ""})),
    ("missing", _gone("medicalrecords", SHOWN)),
    ("extra", _copied("medicalrecords", SHOWN, ObjectId(), {})),
    ("extra", _copied("medicalrecords", SHOWN, ObjectId(), {"patientId": str(ObjectId())})),
    ("different", _link_wrong),
)


def test_one_wrong_document_is_found_and_nothing_else(way: Way) -> None:
    for kind, tamper in TAMPERED:
        collection, key, before = tamper(way.mongo)
        report = way.verify()
        assert not report.equal
        assert report.missing + report.extra + report.different == 1
        assert keys(report, kind) == [f"{collection}/{key}"]
        way.mongo[collection].delete_one({"_id": key})
        if before:
            way.mongo[collection].insert_one(before)
    assert way.verify().equal


def test_the_mirror_level_finds_links_and_rows_and_says_that_records_were_left_out(
    way: Way,
) -> None:
    for kind, tamper in TAMPERED:
        collection, key, before = tamper(way.mongo)
        report = way.verify("mirror")
        assert keys(report, kind) == (
            [] if collection == "medicalrecords" else [f"{collection}/{key}"]
        )
        assert report.equal is (collection == "medicalrecords")
        way.mongo[collection].delete_one({"_id": key})
        if before:
            way.mongo[collection].insert_one(before)
    whole, quick = way.verify(), way.verify("mirror")
    assert (quick.rows, quick.matched, quick.records) == (whole.rows, whole.matched, 0)
    assert quick.hospitals[HOSPITAL].persons == whole.hospitals[HOSPITAL].persons
    assert quick.as_text().endswith("equal: links and mirror; records were not looked at")


UNPUBLISHED = (
    "UPDATE concept_name SET name = CONCAT(name, ' (new)')",
    "UPDATE person_name SET family_name = 'Somebody'",
    (
        "UPDATE obs SET value_numeric = value_numeric + 1"
        " WHERE value_numeric IS NOT NULL AND voided = 0"
    ),
)


def test_what_is_not_published_yet_differs_and_the_remedy_is_named(way: Way) -> None:
    for change in UNPUBLISHED:
        way.execute(change)
        report = way.verify()
        assert not report.equal, change
        assert report.hospitals[HOSPITAL].behind
        assert f"passport reconcile --hospital {HOSPITAL} --once" in report.hospitals[HOSPITAL].hint
        way.bring()
        assert way.verify().equal, change


def test_what_is_on_its_way_is_no_difference(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    way.execute("UPDATE obs SET voided = 1 - voided")
    taken = caught_up.Target.now

    def bringing(*arguments: Any) -> caught_up.Target:
        target = taken(*arguments)
        way.bring()
        return target

    monkeypatch.setattr(caught_up.Target, "now", bringing)
    report = way.verify()
    assert report.equal
    assert not report.hospitals[HOSPITAL].behind


def test_what_the_passport_owns_is_no_difference(way: Way) -> None:
    shown = list(way.mongo["medicalrecords"].find({"patientId": {"$ne": ""}}))
    for record in shown:
        passport_writes.read(way.mongo, record["_id"])
    read = way.mongo["medicalrecords"].count_documents({"data.medications": []})
    assert read == sum(record["type"] == "medication" for record in shown) > 0
    passport_writes.put(way.mongo, shown[0]["_id"], notes="a doctor's own words")
    assert way.verify().equal


def test_a_doctors_own_records_are_not_looked_at(way: Way) -> None:
    (record,) = way.mongo["medicalrecords"].find({"patientId": {"$ne": ""}}).limit(1)
    for ours in ("_id", "openmrsData", "rev", "applied"):
        del record[ours]
    way.mongo["medicalrecords"].insert_one(record)
    assert way.verify().equal


def test_nothing_compared_is_not_equal(way: Way) -> None:
    way.execute("DELETE FROM obs")
    way.bring()
    report = way.verify()
    assert (report.rows, report.missing, report.extra, report.different) == (0, 0, 0, 0)
    assert not report.equal


def test_values_are_in_no_report(way: Way) -> None:
    _changed("observations", LIVE, {"row.comments": "changed"})(way.mongo)
    _gone("medicalrecords", SHOWN)(way.mongo)
    words = str(way.verify().as_json())
    names = [
        name
        for (name,) in way.execute(
            "SELECT family_name FROM person_name WHERE family_name IS NOT NULL"
        )
    ]
    identifiers = [one for (one,) in way.execute("SELECT identifier FROM patient_identifier")]
    assert names
    assert identifiers
    assert not [word for word in [*names, *identifiers] if len(word) > 5 and word in words]


def test_a_hospital_that_was_never_captured_is_not_ready(
    settings: Settings, mysql_database: Address
) -> None:
    with mysql_database.connect() as connection:
        generator.create(connection, seed=1, patients=5, visits=1)
    report = verify(settings, "passport")
    assert not report.equal


def test_a_destination_of_another_type_cannot_be_verified(settings: Settings) -> None:
    other = settings.model_copy(update={"destinations": {"lines": Destination(type="jsonl")}})
    with pytest.raises(Fatal, match="can't be compared"):
        verify(other, "lines")


def test_what_differs_in_a_hospital_without_positions_names_the_command(
    settings: Settings, mysql_database: Address, mongo_database: Mongo
) -> None:
    with mysql_database.connect() as connection:
        generator.create(connection, seed=1, patients=20, visits=1)
        registration.passport_patients(
            mongo_database, [one for _, one in registration.registrable(connection)]
        )
    Positions.ensure(settings)
    with pytest.raises(NotReady, match="nothing of it has been captured"):
        verify(settings, "passport")


def test_a_range_of_persons(way: Way) -> None:
    wrong = way.mongo["observations"].find_one(LIVE)
    assert wrong
    way.mongo["observations"].update_one(
        {"_id": wrong["_id"]}, {"$set": {"row.comments": "changed"}}
    )
    person = wrong["personId"]
    ranges = {
        where: way.verify(persons=where)
        for where in ((0, person - 1), (person, person), (person + 1, 2**62))
    }
    whole = way.verify()
    assert [one.different for one in ranges.values()] == [0, 1, 0]
    assert sum(one.rows for one in ranges.values()) == whole.rows
    assert sum(one.records for one in ranges.values()) == whole.records
    assert (
        sum(one.hospitals[HOSPITAL].persons for one in ranges.values())
        == whole.hospitals[HOSPITAL].persons
    )


def test_an_interrupted_one_says_where_to_go_on(way: Way) -> None:
    whole, parts = way.verify(), []
    with closing(Proxy(way.address.port)) as proxy:
        hospital = way.settings.hospitals[HOSPITAL]
        behind = hospital.model_copy(
            update={"mysql": hospital.mysql.model_copy(update={"port": proxy.port})}
        )
        settings = way.settings.model_copy(update={"hospitals": {HOSPITAL: behind}})

        def told(done: int, _: int) -> None:
            parts.append(done)
            if len(parts) == 2:
                proxy.refuse()

        with pytest.raises(NotReady) as interrupted:
            verify(settings, "passport", progress=told, persons_at_once=10)
    assert proxy.cuts
    assert f"{parts[-1]} people up to" in interrupted.value.reason
    found = re.search(r"--from-person (\d+)", interrupted.value.hint)
    assert found
    rest = verify(way.settings, "passport", persons=(int(found[1]), 2**62))
    assert rest.equal
    assert rest.hospitals[HOSPITAL].persons == whole.hospitals[HOSPITAL].persons - parts[-1]


def test_what_an_earlier_release_wrote_is_equal_and_is_filled_in_the_background(way: Way) -> None:
    """It kept neither names of other languages nor ranges, and didn't say how it enriches."""
    observations = way.mongo["observations"]
    whole = {row["_id"]: row for row in observations.find({"deleted": False})}
    assert any("names" in row["concept"] for row in whole.values())
    assert any("computed" in row["value"] for row in whole.values())
    later = ["format", "concept.names", "value.names", "value.range", "value.computed", "moment"]
    observations.update_many({}, {"$unset": dict.fromkeys(later), "$set": {"digest": "of theirs"}})
    assert way.verify().equal, "what it could not write is no difference"

    way.mongo["progress"].update_one({"_id": HOSPITAL}, {"$set": {"rereads": []}})
    way.bring()
    left_out = {"version", "digest"}
    for row in observations.find({"deleted": False}):
        before = whole[row["_id"]]
        assert {key: row[key] for key in row if key not in left_out} == {
            key: before[key] for key in before if key not in left_out
        }
    assert way.verify().equal

    versions = {row["_id"]: row["version"] for row in observations.find()}
    way.bring()
    assert versions == {row["_id"]: row["version"] for row in observations.find()}, "once is enough"


def test_another_choice_of_locales_is_carried_out_in_the_background(way: Way) -> None:
    kigali = way.settings.hospitals[HOSPITAL]
    assert way.mongo["observations"].count_documents({"concept.names.fr": {"$exists": True}}) > 0
    update = {HOSPITAL: kigali.model_copy(update={"name_locales": ("sw",)})}
    way.settings = way.settings.model_copy(update={"hospitals": update})
    way.bring()
    assert way.mongo["observations"].count_documents({"concept.names": {"$exists": True}}) == 0
    assert way.verify().equal
