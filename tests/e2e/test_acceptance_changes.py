"""Acceptance rows 8 to 23: how obs change, and what is killed, lost and repeated on the way. Two
hospitals at work, the real roles, and the oracle after each row."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dev import hospital as generator
from dev.hospital import corrections, encounters, patients
from tests import passport_writes
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.topic import applied, end_of, events, obs_of, raw, send
from tests.e2e.ward import Ward, equal, eventually, new_id


@dataclass
class Set:
    stage: Stage
    kigali: Ward
    huye: Ward
    consumer: Role
    readers: dict[str, Role]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    """Kigali's clinic works while its reader takes the first snapshot."""
    hospitals = [
        Hospital(key, number, generator.NATIONAL_ID_TYPE)
        for number, key in enumerate(("kigali", "huye"))
    ]
    with opened(tmp_path_factory.mktemp("changes"), *hospitals) as stage:
        for number, hospital in enumerate(hospitals):
            stage.fill(
                hospital,
                every=2,
                seed=51 + number,
                patients=14,
                visits=2,
                obs_id_start=1 + number * 50,
            )
        stage.grant()
        with hospitals[0].at_work(8, rate=40):
            readers = stage.readers()
            consumer = stage.role("consume", "--destination", "passport")
            eventually(
                lambda: stage.db["progress"].count_documents({}) == 2, "both hospitals came", 40
            )
            time.sleep(1)
        yield Set(stage, Ward(stage, "kigali"), Ward(stage, "huye"), consumer, readers)


def test_row_21_what_is_written_during_the_snapshot_is_there_once(scene: Set) -> None:
    equal(scene.stage)
    came = [
        (event["source"]["origin"], obs_of(event))
        for event in events(scene.stage, 0)
        if event.get("op")
    ]
    assert {origin for origin, _ in came} == {"snapshot", "binlog"}, "both took part"
    read = ", ".join(str(obs) for origin, obs in came if origin == "snapshot")
    scene.kigali.run(
        f"UPDATE obs SET value_numeric = 71 WHERE value_numeric > 0 AND obs_id IN ({read})"
    )
    equal(scene.stage)  # what was read before it is older


def test_row_8_a_voided_obs_disappears(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    obs = ward.obs(person)
    ward.shown(obs)
    ward.do(corrections.void, obs)
    ward.hidden(obs)
    equal(scene.stage)


def test_row_9_an_unvoided_obs_is_back_as_the_same_record(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    obs = ward.obs(person)
    before = ward.shown(obs)
    ward.do(corrections.void, obs)
    ward.hidden(obs)
    ward.do(corrections.unvoid, obs)
    after = ward.shown(obs)
    assert [after[name] for name in ("_id", "createdAt", "syncDate", "data")] == [
        before[name] for name in ("_id", "createdAt", "syncDate", "data")
    ]
    equal(scene.stage)


def test_row_10_edits_are_one_record_with_the_latest_value_and_a_history(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    obs = ward.obs(person)
    before = ward.shown(obs)
    for _ in range(3):
        ward.do(corrections.edit, ward.newest(obs))
    ward.run(
        f"UPDATE obs SET value_numeric = 55 WHERE obs_id = {ward.newest(obs)}"
    )  # in place, as 1.x does
    last = ward.shown(ward.newest(obs), details="55")
    assert ward.records(person) == [last]
    assert [last[name] for name in ("_id", "createdAt", "syncDate")] == [
        before[name] for name in ("_id", "createdAt", "syncDate")
    ]
    mirrored = scene.stage.db["observations"].find({"hospital": "kigali", "personId": person})
    assert sorted(one["row"]["voided"] for one in mirrored) == [0, 1, 1, 1], (
        "the history is kept in the mirror"
    )
    equal(scene.stage)


def test_row_11_what_is_purged_is_gone_and_leaves_an_empty_tombstone(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    alone, group = ward.obs(person), ward.diagnosis(person)
    key = ward.shown(alone)["_id"]
    ward.shown(group[0])
    ward.do(corrections.purge, alone)
    ward.do(corrections.purge_group, group[0])
    ward.hidden(alone)
    ward.hidden(group[0])
    left = scene.stage.db["medicalrecords"].find_one({"_id": key})
    assert left is not None
    assert (left["patientId"], left["data"]) == ("", {})
    mirrored = scene.stage.db["observations"].find({"hospital": "kigali", "personId": person})
    assert all(one["deleted"] and "value_numeric" not in one["row"] for one in mirrored)
    equal(scene.stage)


def test_row_12_archiving_voided_rows_changes_no_record(scene: Set) -> None:
    """Old versions go, whether their successor still names them or not, and what was voided."""
    ward, person = scene.kigali, scene.kigali.patient()
    kept, cleared, voided = (
        ward.obs(person),
        ward.obs(person, "5089"),
        ward.obs(person, value_numeric=80),
    )
    ward.next_second()  # what is edited is younger than what it replaces
    for obs in (kept, cleared):
        ward.do(corrections.edit, obs)
    ward.do(corrections.void, voided)
    newest = [ward.newest(obs) for obs in (kept, cleared)]
    before = [ward.shown(obs) for obs in newest]
    ward.hidden(voided)
    ward.run(
        "SET foreign_key_checks = 0",
        f"DELETE FROM obs WHERE obs_id = {kept}",
        "SET foreign_key_checks = 1",
    )
    ward.do(corrections.archive, cleared)
    ward.run(f"DELETE FROM obs WHERE obs_id = {voided}")
    gone = {"hospital": "kigali", "personId": person, "deleted": True}
    eventually(
        lambda: scene.stage.db["observations"].count_documents(gone) == 3, "all are archived"
    )
    equal(scene.stage)  # records follow the rows
    after = [ward.shown(obs) for obs in newest]
    assert len(ward.records(person)) == 2
    assert [one["data"] for one in after] == [one["data"] for one in before]
    named = [
        {name: one[0][name] for name in ("_id", "createdAt", "syncDate")} for one in (after, before)
    ]
    assert named[0] == named[1], "and it is the same record, as long as the link is there"


def test_row_13_a_merge_moves_the_records_to_the_winner_and_doubles_none(scene: Set) -> None:
    ward = scene.kigali
    digits = new_id()
    registered, winner, loser = ward.register(digits), ward.patient(digits), ward.patient()
    visit = ward.encounter(loser)
    mine, theirs, voided = (
        ward.obs(winner),
        ward.obs(loser, encounter_id=visit, value_numeric=80),
        ward.obs(loser),
    )
    group = ward.diagnosis(loser)
    ward.do(corrections.void, voided)
    before = [ward.shown(obs) for obs in (mine, theirs, group[0])]
    ward.hidden(voided)
    passport_writes.put(scene.stage.db, before[1]["_id"], notes="a doctor's words")
    ward.do(patients.merge, winner, loser)
    ward.shown(ward.newest(theirs))
    ward.shown(ward.newest(group[0]))
    ward.hidden(theirs)
    assert len(ward.records(winner)) == 3
    equal(scene.stage)
    named = ("_id", "createdAt", "syncDate")
    for old in before:
        moved = scene.stage.db["medicalrecords"].find_one({"_id": old["_id"]}) or {}
        assert moved["patientId"] == registered
        assert [moved[name] for name in named] == [old[name] for name in named]
    assert ward.shown(ward.newest(theirs))["data"]["notes"] == "a doctor's words"
    assert ward.records(loser) == []
    assert ward.sql("SELECT person_id FROM obs WHERE obs_id = %s", voided) == [(winner,)], (
        "voided rows move in place"
    )
    assert ward.sql("SELECT COUNT(*) FROM person_merge_log WHERE loser_person_id = %s", loser)[
        0
    ] == (1,)
    eventually(lambda: ward.state(loser) == "voided", "the loser is voided")
    equal(scene.stage)
    ward.run(
        f"UPDATE obs SET person_id = {winner} WHERE obs_id = {group[1]}"
    )  # and in place, as 1.x does
    equal(scene.stage)
    moved = ward.obs(ward.patient(), value_numeric=82)
    before = ward.shown(moved)
    ward.run(f"UPDATE obs SET person_id = {winner} WHERE obs_id = {moved}")
    eventually(
        lambda: (ward.record(moved) or before)["patientId"] == registered, "a live row moves too"
    )
    assert ward.record(moved)["_id"] == before["_id"]  # type: ignore[index]
    equal(scene.stage)


def test_row_14_encounters_visits_and_patients_that_are_moved_voided_and_restored(
    scene: Set,
) -> None:
    ward = scene.kigali
    person, other = ward.patient(), ward.patient()
    with ward.work() as work:
        stamp = {
            "visit_type_id": ward.known.visit_types[0],
            "date_started": "2025-03-04 08:00:00",
            **work.created(),
        }
        visit = work.insert("visit", {"patient_id": person, **stamp})
    encounter = ward.encounter(person, visit_id=visit)
    at = {
        "encounter_id": encounter,
        "obs_datetime": "2025-03-04 10:00:00",
        "location_id": ward.known.locations[0],
    }
    obs = ward.obs(person, **at)
    with ward.work() as work:  # a tree three deep
        top = work.insert_obs(
            {
                **work.created(),
                **at,
                "person_id": person,
                "concept_id": ward.concept("1019"),
                "obs_group_id": None,
            }
        )
        mid = work.insert_obs(
            {
                **work.created(),
                **at,
                "person_id": person,
                "concept_id": ward.concept("159947"),
                "obs_group_id": top,
            }
        )
        leaf = {
            "person_id": person,
            "concept_id": ward.concept("1284"),
            "value_coded": ward.concept("116128"),
        }
        work.insert_obs({**work.created(), **at, **leaf, "obs_group_id": mid})
    ward.shown(obs)
    ward.shown(mid)
    for action in (encounters.change_date, encounters.change_location, encounters.change_provider):
        ward.do(action, encounter)
    moved = ward.shown(ward.newest(obs))
    place = ward.sql(
        "SELECT l.name FROM encounter e JOIN location l USING (location_id)"
        " WHERE encounter_id = %s",
        encounter,
    )
    assert moved["openmrsData"]["locationName"] == place[0][0]
    for undo, redo, key in (
        (encounters.void, encounters.unvoid, encounter),
        (encounters.void_visit, encounters.unvoid_visit, visit),
        (patients.void, patients.unvoid, person),
    ):
        ward.next_second()
        ward.do(undo, key)
        eventually(lambda: ward.records(person) == [], f"nothing after {undo.__name__}")
        equal(scene.stage)
        ward.do(redo, key)
        eventually(lambda: len(ward.records(person)) == 2, f"all back after {redo.__name__}")
        equal(scene.stage)
    ward.do(encounters.transfer, encounter, other)
    eventually(lambda: len(ward.records(other)) == 2 and not ward.records(person), "transferred")
    equal(scene.stage)


def test_row_15_old_events_out_of_order_change_nothing(scene: Set) -> None:
    """A tenth of the topic comes again, shuffled; then all that two rows were, newest first."""
    ward, person = scene.kigali, scene.kigali.patient()
    ward.shown(ward.obs(person))
    applied(scene.stage, "kigali")
    eventually(
        lambda: not scene.stage.db["people"].count_documents({"pending": {"$exists": True}}),
        "nobody waits",
    )
    edited, voided = (
        ward.obs(person),
        ward.obs(person, value_numeric=80),
    )  # newer than the person was read
    for value in (73, 74, 75):
        ward.run(f"UPDATE obs SET value_numeric = {value} WHERE obs_id = {edited}")
    ward.do(corrections.void, voided)
    equal(scene.stage)
    before = shown(scene.stage)
    records = raw(scene.stage, 0)
    again = random.Random(5).sample(records, len(records) // 10)
    assert len(again) > 50
    versions = {
        obs: [one for one in records if obs_of(json.loads(one.value)) == obs]
        for obs in (edited, voided)
    }
    older = [one for found in versions.values() for one in reversed(found[:-1])]
    assert len(older) == 4
    for sent in (again, older):
        send(scene.stage, sent)
        applied(scene.stage, "kigali")
        assert shown(scene.stage) == before
    equal(scene.stage)


def test_row_16_poison_is_parked_and_what_follows_goes_on(scene: Set) -> None:
    ward, person = scene.kigali, scene.kigali.patient()
    obs = ward.obs(person)
    ward.shown(obs)
    found = [one for one in raw(scene.stage, 0) if b'"op"' in one.value]
    event = next(
        one for one in found if (json.loads(one.value).get("after") or {}).get("obs_id") == obs
    )
    broken = json.loads(event.value)
    broken["after"]["value_numeric"] = "not a number"
    send(scene.stage, [event._replace(value=json.dumps(broken).encode())])
    later = ward.obs(person, value_numeric=81)
    ward.shown(later)
    letters = json.loads(scene.stage.run("dead-letters", "list", "--json").stdout)
    assert [(one["hospital"], one["reason"]) for one in letters] == [("kigali", "malformed")]
    assert ward.record(obs) is not None
    settled = scene.stage.run("dead-letters", "retry", letters[0]["id"])
    assert settled.returncode == 0, settled.stderr
    assert json.loads(scene.stage.run("dead-letters", "list", "--json").stdout) == []
    equal(scene.stage)


def test_row_17_obs_of_an_unknown_patient_wait_for_the_identifier(scene: Set) -> None:
    ward = scene.kigali
    person, digits = ward.patient(""), "1199070012345601"
    ward.register(digits)
    obs = ward.obs(person)
    eventually(lambda: ward.state(person) == "none", "the obs came")
    assert (
        scene.stage.db["observations"].count_documents({"hospital": "kigali", "personId": person})
        == 0
    )
    listed = json.loads(scene.stage.run("unmatched", "list", "--json").stdout)
    assert {"hospital": "kigali", "person_id": person, "state": "none"} in listed
    ward.identify(person, digits)
    ward.shown(obs)
    equal(scene.stage)


def test_row_18_answers_that_look_alike_are_all_kept(scene: Set) -> None:
    """Several choices: same person, question and second; and twice the same answer."""
    ward, person = scene.kigali, scene.kigali.patient()
    answers = ("116128", "117399", "116128")
    chosen = [ward.obs(person, "1284", value_coded=ward.concept(answer)) for answer in answers]
    for obs in chosen:
        ward.shown(obs)
    assert [one["data"]["details"] for one in ward.records(person)] == [
        "Malaria",
        "Hypertension",
        "Malaria",
    ]
    equal(scene.stage)


def test_row_19_the_same_obs_id_at_two_hospitals_is_two_records(scene: Set) -> None:
    people = [ward.patient() for ward in (scene.kigali, scene.huye)]
    for ward, person in zip((scene.kigali, scene.huye), people, strict=True):
        ward.obs(person, obs_id=9_000_001)
        ward.shown(9_000_001)
    found = list(scene.stage.db["medicalrecords"].find({"openmrsData.obsId": 9_000_001}))
    assert len({one["_id"] for one in found}) == len({one["patientId"] for one in found}) == 2
    equal(scene.stage)


def test_row_23_a_hospital_that_is_away_delays_no_other(scene: Set) -> None:
    stage, kigali, huye = scene.stage, scene.kigali, scene.huye
    people = kigali.patient(), huye.patient()
    equal(stage)
    assert scene.consumer.stop() == 0
    end = end_of(stage, 1)
    waiting = huye.obs(people[1])
    eventually(
        lambda: any(waiting == obs_of(one) for one in events(stage, 1, end)),
        "huye's reader has sent it",
    )
    server = huye.hospital.sql
    server.kill()
    scene.consumer.start()
    scene.consumer.says("partition paused")
    began = time.monotonic()
    kigali.shown(kigali.obs(people[0]))
    print(f"kigali's obs {time.monotonic() - began:.2f} s after its commit, huye away")
    assert huye.record(waiting) is None
    server.start()
    huye.connect()
    huye.shown(waiting)
    equal(stage)


def test_row_22_killed_readers_and_consumers_lose_nothing_and_another_takes_over(
    scene: Set,
) -> None:
    stage, ward = scene.stage, scene.kigali
    clinic = generator.Clinic(ward.hospital.connect(autocommit=False), seed=9, rate=60)
    second = stage.role("consume", "--destination", "passport")
    second.says("partitions assigned")
    clinic.run(1.5)
    scene.consumer.kill()
    scene.readers["kigali"].kill()
    clinic.run(1.5)
    scene.readers["kigali"].start()
    clinic.run(1)
    scene.huye.obs(scene.huye.patient())  # whichever of the two hospitals was the first consumer's
    equal(stage, 90)
    second.require_running()
    scene.consumer.start()
    assert second.stop() == 0
    ward.shown(ward.obs(ward.patient()))


def test_row_20_a_rebuild_ends_the_same_with_the_same_dates(scene: Set) -> None:
    stage = scene.stage
    equal(stage)
    before = shown(stage)
    assert len(before) > 200
    # What a doctor has written in the Passport is in its record alone, and goes with it.
    edited = set(stage.db["medicalrecords"].distinct("_id", {"lastEditedAt": {"$ne": None}}))
    assert scene.consumer.stop() == 0
    for name in ("observations", "medicalrecords", "people", "progress", "auditlogs"):
        stage.db.drop_collection(name)
    scene.consumer.start()
    equal(stage, 90)
    after = shown(stage)
    # An `_id` is that of the oldest version: of what was archived meanwhile nothing tells.
    kept = before.keys() & after.keys() - edited
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert len(after) == len(before)
    assert len(before.keys() & after.keys()) >= len(before) - 3


def test_row_53_each_hospital_tells_its_lag_what_is_parked_and_the_rows_of_both_ends(
    scene: Set,
) -> None:
    stage, ward = scene.stage, scene.kigali
    person = ward.patient()
    ward.shown(ward.obs(person))
    equal(stage)
    assert scene.consumer.stop() == 0
    before = told(stage)  # a rebuild parks what was parked again
    for _ in range(40):
        ward.obs(person)
    [letter] = [one for one in raw(stage, 1) if b'"op"' in one.value][-1:]
    send(stage, [letter._replace(value=b'{"v": 99}')])
    eventually(
        lambda: told(stage)["kigali"]["lag_records"] >= before["kigali"]["lag_records"] + 40,
        "lag in records",
    )
    eventually(lambda: told(stage)["kigali"]["last_event_s"] > 5, "lag in seconds", 40)
    scene.consumer.start()
    equal(stage)
    eventually(lambda: max(one["lag_records"] for one in told(stage).values()) < 10, "no lag", 40)
    after = told(stage)
    assert after["huye"]["dead_letters"] == {**before["huye"]["dead_letters"], "unknown_version": 1}
    assert after["kigali"]["dead_letters"] == before["kigali"]["dead_letters"]
    ends = json.loads(stage.run("verify", "--json").stdout)["hospitals"]
    for key in stage.hospitals:
        assert after[key]["stored"] == stage.db["observations"].count_documents(
            {"hospital": key, "deleted": False}
        )
        assert (ends[key]["rows"], ends[key]["missing"], ends[key]["extra"]) == (
            rows_of_the_matched(stage, key),
            0,
            0,
        )


def told(stage: Stage) -> dict[str, Any]:
    """What `passport status` says, by hospital."""
    return {one["hospital"]: one for one in json.loads(stage.run("status", "--json").stdout)}


def rows_of_the_matched(stage: Stage, key: str) -> int:
    """How many obs the hospital has of those whom the Passport knows, by its own count."""
    people = [
        one["personId"]
        for one in stage.db["people"].find({"hospital": key, "patientId": {"$ne": None}})
    ]
    with stage.hospitals[key].connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT COUNT(*) FROM obs WHERE person_id IN ({', '.join(map(str, people))})"
        )
        return int(cursor.fetchone()[0])


# --- the records


def shown(stage: Stage) -> dict[Any, Any]:
    """What must not move: each record's dates and content."""
    found = stage.db["medicalrecords"].find({"patientId": {"$ne": ""}})
    names = ("patientId", "type", "data", "createdAt", "syncDate")
    return {one["_id"]: {name: one[name] for name in names} for one in found}
