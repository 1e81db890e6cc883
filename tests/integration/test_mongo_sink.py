"""The Passport's MongoDB, on a real one."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import REGISTRY
from pymongo.errors import AutoReconnect

from destinations.mongo import conflicts, reports, unmapped
from destinations.mongo.erasure import Erasure
from destinations.mongo.sink import MongoSink
from meaning.rules import load
from meaning.suggest import Suggester, known_concepts, rule_line
from passport.errors import Fatal, NotReady, Retry
from passport.facts import Author, Observation, Person
from passport.settings import PlaceholderHospital, Settings
from passport.sink import KeyRange, Outcome, Progress, connect
from tests import observations as make
from tests.eventually import eventually
from tests.integration.passport_database import (
    CANARY,
    LINK_KEY,
    Document,
    Passport,
    as_read,
    diagnosis,
    empty,
    interposed,
    one,
    operations,
    read_whole,
    story,
)
from tests.observations import HOSPITAL, obs, patient, person, version

# --- rows and records
# ---------------------------------------------------------------------------------------------


def test_a_row_becomes_a_record_of_the_patient(passport: Passport) -> None:
    patient_id = passport.register()
    outcome = passport.sink().write([obs(1, 10)])
    [record] = passport.shown(patient_id)
    assert outcome == Outcome(stored=1)
    assert record["data"]["result"] == "72 beats/min"
    assert record["syncDate"] == record["createdAt"] == make.BORN + timedelta(minutes=1)
    user = passport.db.users.find_one({"_id": ObjectId(record["createdBy"])})
    assert user is not None
    assert (user["name"], user["isActive"]) == ("Jane Smith", False)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("split", [False, True])
def test_a_voided_row_is_hidden_whatever_the_order(
    passport: Passport, order: list[int], split: bool
) -> None:
    passport.register()
    sink = passport.sink()
    events = [obs(1, 10), obs(1, 20, voided=True)]
    events = [events[index] for index in order]
    for batch in [[event] for event in events] if split else [events]:
        sink.write(batch)
    assert passport.shown() == []
    assert one(passport.db.observations, "kigali/1")["row"]["voided"] == 1


def test_row_42_a_voided_record_is_found_by_no_reader_and_comes_back_as_the_same(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    [before] = passport.shown()
    sink.write([obs(1, 20, voided=True)])
    tombstone = passport.db.medicalrecords.find_one({"_id": before["_id"]})
    assert tombstone is not None
    assert (tombstone["patientId"], tombstone["data"]) == ("", {})
    assert tombstone["openmrsData"] == {"hospitalId": HOSPITAL, "obsUuid": "obs-1"}
    sink.write([obs(1, 30)])
    [after] = passport.shown()
    assert {**after, "rev": 0} == {**before, "rev": 0}


def test_a_purged_row_leaves_a_tombstone_without_its_values(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, make.CHIEF_COMPLAINT, make.text(CANARY))])
    assert CANARY in passport.everything()
    sink.write([obs(1, 20, make.CHIEF_COMPLAINT, make.text(CANARY), deleted=True)])
    assert passport.shown() == []
    assert CANARY not in passport.everything()
    assert sink.write([obs(1, 15)]).stale == 1
    assert passport.shown() == []


def test_it_says_which_rows_were_overtaken(passport: Passport) -> None:
    """So that after a key change those alone are read again, not the batch that they came with."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 20)])
    outcome = sink.write([obs(1, 15), obs(2, 15)])
    assert (outcome.stored, outcome.stale, outcome.overtaken) == (1, 1, [f"{HOSPITAL}/1"])


def test_a_purge_of_a_row_never_seen_keeps_older_events_out(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    assert sink.write([obs(1, 20, deleted=True)]).stored == 1
    assert sink.write([obs(1, 10)]).stale == 1
    assert passport.shown() == []


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 2, 0], [2, 1, 0]])
def test_a_group_is_one_record_whatever_comes_first(passport: Passport, order: list[int]) -> None:
    passport.register()
    sink = passport.sink()
    rows = diagnosis(10)
    for index in order:
        sink.write([rows[index]])
    [record] = passport.shown()
    assert record["type"] == "condition"
    assert (record["data"]["diagnosis"], record["data"]["status"]) == ("Malaria", "Confirmed")
    assert record["openmrsData"]["memberUuids"] == ["obs-4", "obs-5"]


def test_a_members_void_and_a_headers_purge(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write(diagnosis(10))
    sink.write([replace(diagnosis(20)[2], row={**diagnosis(20)[2].row, "voided": 1})])
    assert "status" not in passport.shown()[0]["data"]
    header = passport.shown()[0]["_id"]
    sink.write([obs(3, 30, make.VISIT_DIAGNOSES, make.NO_VALUE, deleted=True)])
    [record] = passport.shown()
    assert record["_id"] != header
    assert record["openmrsData"]["obsId"] == 4


def test_a_row_that_leaves_its_group_leaves_the_record(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write(diagnosis(10))
    sink.write([obs(4, 20, make.DIAGNOSIS, make.coded(make.MALARIA), obs_group_id=None)])
    [alone] = passport.shown()
    assert alone["openmrsData"]["obsId"] == 4
    assert "memberUuids" not in alone["openmrsData"]


def test_an_edit_keeps_its_record(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    [before] = passport.shown()
    sink.write([obs(9, 20, value=make.number(80), previous_version=1, uuid="edit")])
    sink.write([obs(1, 21, voided=True)])
    [after] = passport.shown()
    assert after["data"]["details"] == "80"
    assert [after[name] for name in ("_id", "createdAt", "syncDate")] == [
        before[name] for name in ("_id", "createdAt", "syncDate")
    ]
    assert after["openmrsData"]["obsUuid"] == "edit"


def test_obs_ids_of_two_hospitals_do_not_meet(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10), obs(1, 10, value=make.number(55), who=person(hospital="huye"))])
    assert sorted(passport.details()) == ["55", "72"]


def test_replays_change_nothing(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    batch = [
        obs(1, 10),
        obs(2, 11, make.CHIEF_COMPLAINT, make.text("cough")),
        *diagnosis(12),
        obs(1, 20, voided=True),
    ]
    assert sink.write(batch) == Outcome(stored=5, stale=1)
    before = passport.everything()
    assert sink.write(batch) == Outcome(unchanged=5, stale=1)
    assert passport.sink().write(list(reversed(batch))) == Outcome(unchanged=5, stale=1)
    assert passport.everything() == before


def test_what_bson_cannot_hold_is_rejected_alone(passport: Passport) -> None:
    passport.register()
    huge = obs(2, 10, make.CHIEF_COMPLAINT, make.text("x" * 17_000_000))
    header = obs(3, 10, make.ADVERSE_EFFECT, make.NO_VALUE)
    members = [
        obs(key, 10, make.ALLERGEN, make.text("y" * 5_000_000), obs_group_id=3) for key in (5, 6)
    ]
    odd = obs(4, 10, make.CHIEF_COMPLAINT, make.text("\ud800"))
    outcome = passport.sink().write([obs(1, 10), huge, header, *members, odd])
    assert sorted(outcome.rejected) == [
        ("kigali/2", "too_large"),
        ("kigali/3", "too_large"),
        ("kigali/4", "invalid"),
    ]
    assert passport.details() == ["72"]


def test_a_document_that_a_validator_refuses_is_rejected_alone(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    passport.db.command("collMod", "observations", validator={"obsId": {"$ne": 2}})
    passport.db.command("collMod", "medicalrecords", validator={"openmrsData.obsId": {"$ne": 3}})
    outcome = sink.write([obs(1, 10), obs(2, 10), obs(3, 10)])
    assert sorted(outcome.rejected) == [("kigali/2", "invalid"), ("kigali/3", "invalid")]
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [1]


# --- whose rows
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ok", "none", "invalid", "ambiguous", "not_patient", "voided"])
def test_nothing_is_stored_of_who_is_not_matched(passport: Passport, state: str) -> None:
    sink = passport.sink()
    who = person(4711, "1199080099999999" if state == "ok" else None, state=state)
    row = obs(
        1,
        10,
        make.CHIEF_COMPLAINT,
        make.text(CANARY),
        who=who,
        author=Author(CANARY, "creator", "user/u"),
    )
    assert sink.write([row]) == Outcome(unmatched=1)
    assert list(reports.unmatched(passport.db, HOSPITAL)) == [(HOSPITAL, 4711, state)]
    assert reports.Reports(passport.db).unmatched_by(HOSPITAL) == {state: 1}
    everything = passport.everything()
    assert CANARY not in everything
    assert "1199080099999999" not in everything


def test_a23_nobody_is_made_of_a_number_that_the_hospital_has_no_person_of(
    passport: Passport,
) -> None:
    """Polling tells of every number in a range, also of those that were never given."""
    sink = passport.sink()
    nobody = Person(HOSPITAL, 0, None, "not_patient", None, version(10))
    assert sink.retain(nobody, [], version(10)) == Outcome()
    assert list(reports.unmatched(passport.db, HOSPITAL)) == []
    read_whole(sink, person(1, at=10), [])
    purged = Person(HOSPITAL, 1, None, "not_patient", None, version(20))
    sink.retain(purged, [], version(20))
    assert list(reports.unmatched(passport.db, HOSPITAL)) == [(HOSPITAL, 1, "not_patient")]


def test_a_registration_releases_what_waited(passport: Passport) -> None:
    sink = passport.sink()
    assert sink.write([obs(1, 10)]) == Outcome(unmatched=1)
    assert list(sink.wanted(HOSPITAL, 10)) == []
    patient_id = passport.register()
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    read_whole(sink, person(at=30), [obs(1, 10), obs(2, 11)])
    assert list(sink.wanted(HOSPITAL, 10)) == []
    assert len(passport.shown(patient_id)) == 2
    assert sink.write([obs(3, 20)]).overtaken == [f"{HOSPITAL}/3"], (
        "what the person's reading had not, was gone by then"
    )


def test_who_registers_while_they_are_read_whole_is_read_again(passport: Passport) -> None:
    sink = passport.sink()
    who, rows = person(at=30), [obs(1, 10), obs(2, 11)]
    assert sink.write(as_read(who, rows)) == Outcome(unmatched=2)
    patient_id = passport.register()
    sink.retain(who, [1, 2], who.version)
    assert list(sink.wanted(HOSPITAL, 10)) == [1], "the rows were written as those of nobody"
    read_whole(sink, who, rows)
    assert list(sink.wanted(HOSPITAL, 10)) == []
    assert len(passport.shown(patient_id)) == 2


def test_a_registration_is_found_after_a_restart(passport: Passport) -> None:
    sink = passport.sink()
    sink.write([obs(1, 10)])
    sink.close()
    passport.register()
    again = passport.sink()
    assert eventually(lambda: again.wanted(HOSPITAL, 10), "somebody is asked for") == [1]


def test_a_corrected_identifier_releases_too(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, who=person(national_id=None))])
    assert sink.write([obs(2, 20, who=person(at=20))]) == Outcome(stored=1)
    assert list(sink.wanted(HOSPITAL, 10)) == [1]
    read_whole(sink, person(at=21), [obs(1, 10), obs(2, 20)])
    assert len(passport.shown()) == 2
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_who_is_registered_again_while_the_hospital_is_quiet(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    read_whole(sink, person(at=30), [obs(1, 10)])
    passport.db.patients.delete_one({})
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    read_whole(sink, person(at=30), [obs(1, 10)])
    assert passport.db.observations.count_documents({}) == 0
    assert passport.shown() == []
    patient_id = passport.register()
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    read_whole(sink, person(at=30), [obs(1, 10)])
    assert len(passport.shown(patient_id)) == 1
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_a_link_moves_to_another_patient(passport: Passport) -> None:
    first, second = passport.register(), passport.register("1199080012340000")
    sink = passport.sink()
    sink.write([obs(1, 10), *diagnosis(11)])
    assert len(passport.shown(first)) == 2
    sink.write([obs(2, 20, who=person(national_id="1199080012340000", at=20))])
    assert passport.shown(first) == []
    assert len(passport.shown(second)) == 3
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_a_link_ends(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, make.CHIEF_COMPLAINT, make.text(CANARY)), *diagnosis(11)])
    assert sink.write([obs(2, 20, who=person(national_id=None, at=20))]) == Outcome(unmatched=1)
    assert passport.shown() == []
    assert passport.db.observations.count_documents({}) == 0
    assert CANARY not in passport.everything()
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_an_older_knowledge_of_a_person_does_not_win(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, who=person(national_id=None, at=10))])
    sink.write([obs(2, 20, who=person(at=20))])
    assert sink.write([obs(3, 15, who=person(national_id=None, at=15))]).unmatched == 0
    assert len(passport.shown()) == 2


def test_b3_a_reading_older_than_the_link_leaves_the_mark(passport: Passport) -> None:
    """A row's person was looked up ahead of the stream. Then the Passport changes, and they are
    read whole at the position of the stream, which is behind.
    """
    first = passport.register()
    sink = passport.sink()
    rows = [obs(1, 10), obs(2, 11)]
    sink.write([replace(row, person=person(at=100)) for row in rows])
    assert len(passport.shown(first)) == 2
    passport.db.patients.update_one({}, {"$set": {"nationalId": "1199080012340000"}})
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    read_whole(sink, person(at=50), rows)
    assert len(passport.shown(first)) == 2, "the reading is older than what the link rests on"
    assert list(sink.wanted(HOSPITAL, 10)) == [1], "it changed nothing, so it is still to be done"
    read_whole(sink, person(at=120), rows)
    assert passport.shown(first) == []
    assert list(sink.wanted(HOSPITAL, 10)) == []


@pytest.fixture
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("observations", "hospital_writer", "medicalrecords"):
        monkeypatch.setattr(f"destinations.mongo.{name}.SLICE", 4)


@pytest.mark.usefixtures("four_at_once")
def test_b15_a_person_is_retained_in_steps(passport: Passport) -> None:
    """Somebody else's row becomes theirs in between, by an event that the reading hasn't seen."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(obs_id, 10) for obs_id in range(1, 11)])
    steps = sink.retain_steps(person(at=100), {1, 2, 3, 4}, version(100), None)
    before = len(passport.shown())
    first = next(steps)
    assert not first.is_last
    assert before - len(passport.shown()) == first.outcome.stored <= 4
    sink.write([obs(10, 200), obs(11, 200)])
    rest = list(steps)
    assert [step.is_last for step in rest] == [False, False, True], "4 rows, 4 records, the end"
    shown = [record["openmrsData"]["obsId"] for record in passport.shown()]
    assert shown == [1, 2, 3, 4, 10, 11]
    assert one(passport.db.people)["floor"] == version(100)


@pytest.mark.usefixtures("four_at_once")
@pytest.mark.parametrize("national_id", ["1199080012340000", None])
def test_b15_many_rows_move_step_by_step(passport: Passport, national_id: str | None) -> None:
    """To another patient, or to nobody."""
    former, other = passport.register(), passport.register("1199080012340000")
    sink = passport.sink()
    rows = [obs(obs_id, 10) for obs_id in range(1, 11)]
    sink.write(rows)
    who = person(1, national_id, at=100)
    sink.write([replace(rows[0], person=who, version=version(100))])
    assert len(passport.shown(former)) >= 9, "not within the write"
    assert list(sink.wanted(HOSPITAL, 10)) == [1]

    who = person(1, national_id, at=120)
    begun = sink.begin_person(who)
    for row in rows[:4]:
        sink.write(as_read(who, [row]))
    left = len(passport.shown(former))
    for _ in sink.retain_steps(who, {*range(1, 11)}, version(120), begun):
        assert left - len(passport.shown(former)) <= 4
        left = len(passport.shown(former))
    assert passport.shown(former) == []
    assert len(passport.shown(other)) == (10 if national_id else 0)
    assert passport.db.observations.count_documents({}) == (10 if national_id else 0)
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_b15_who_is_matched_between_two_slices_is_wanted_again(passport: Passport) -> None:
    """The first slice was dropped as nobody's."""
    sink = passport.sink()
    rows = [obs(obs_id, 10) for obs_id in (1, 2)]
    who = person(at=100)
    begun = sink.begin_person(who)
    sink.write(as_read(who, rows[:1]))
    passport.register()
    sink.write(as_read(who, rows[1:]))
    *_, last = sink.retain_steps(who, {1, 2}, version(100), begun)
    assert last.is_last
    assert len(passport.shown()) == 1
    assert list(sink.wanted(HOSPITAL, 10)) == [1]

    begun = sink.begin_person(who)
    sink.write(as_read(who, rows))
    list(sink.retain_steps(who, {1, 2}, version(100), begun))
    assert len(passport.shown()) == 2
    assert list(sink.wanted(HOSPITAL, 10)) == []


def test_a_merge_in_place_moves_the_row(passport: Passport) -> None:
    winner, loser = passport.register(), passport.register("1199080012340000")
    sink = passport.sink()
    other = person(2, "1199080012340000")
    sink.write([obs(1, 10), obs(2, 11, who=other)])
    sink.write([obs(2, 20, who=person())])
    assert passport.shown(loser) == []
    assert [record["openmrsData"]["obsId"] for record in passport.shown(winner)] == [1, 2]


def test_a_row_that_goes_to_an_unmatched_person_is_gone(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, make.CHIEF_COMPLAINT, make.text(CANARY)), obs(2, 11)])
    moved = obs(1, 20, make.CHIEF_COMPLAINT, make.text(CANARY), who=person(2, None))
    assert sink.write([moved]) == Outcome(unmatched=1)
    assert CANARY not in passport.everything()
    assert sink.write([obs(1, 10)]).stale == 1
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [2]


@pytest.mark.parametrize("again_at", [20, 30, 40])
def test_a_row_that_went_to_an_unmatched_person_is_gone_after_a_crash_before_its_record(
    passport: Passport, monkeypatch: pytest.MonkeyPatch, again_at: int
) -> None:
    """Whichever event of the row comes next: the tombstone may be of a reading that was ahead."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])

    def crash(*_: Any) -> None:
        raise Retry("killed")

    with monkeypatch.context() as patch:
        patch.setattr(sink._writer(HOSPITAL)._records, "refresh", crash)
        with pytest.raises(Retry):
            sink.write([obs(1, 30, who=person(2, None))])
    assert one(passport.db.observations, f"{HOSPITAL}/1")["deleted"]
    assert len(passport.shown()) == 1, "the record was not reached"
    assert sink.write([obs(1, again_at, who=person(2, None))]) == Outcome(unmatched=1)
    assert passport.shown() == []


def test_the_sweep_sees_what_the_stream_missed(passport: Passport) -> None:
    passport.register()
    sink = passport.sink(sweep_s=0.2)
    sink.write([obs(1, 10)])
    # A link that says otherwise than `patients`, without any event of `patients`.
    passport.db.people.update_one({}, {"$set": {"patientId": str(ObjectId())}})
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]


def test_the_sweep_counts_who_is_not_matched_by_state(passport: Passport) -> None:
    sink = passport.sink(sweep_s=0.2)
    sink.write([obs(1, 10), obs(2, 11, who=person(2, None, state="invalid"))])
    counted = [{"hospital": HOSPITAL, "state": state} for state in ("ok", "invalid")]
    eventually(
        lambda: (
            [REGISTRY.get_sample_value("passport_people_unmatched", one) for one in counted]
            == [1, 1]
        ),
        "both are counted",
    )
    passport.register()
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    assert read_whole(sink, person(at=20), [obs(1, 10)]).stored == 1
    eventually(
        lambda: REGISTRY.get_sample_value("passport_people_unmatched", counted[0]) is None,
        "the matched one is no longer counted",
    )


def test_ambiguous_people_are_known_after_a_start(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, who=person(national_id=None, state="ambiguous"))])
    again = passport.sink()
    assert list(again.ambiguous(HOSPITAL)) == [1]
    assert list(again.ambiguous("another")) == []
    assert read_whole(again, person(at=20), [obs(1, 10)]).stored == 1
    assert list(again.ambiguous(HOSPITAL)) == []
    assert list(again.wanted(HOSPITAL, 10)) == []


def test_rows_of_a_writer_that_died_after_the_link_ended_are_swept(passport: Passport) -> None:
    passport.register()
    sink = passport.sink(sweep_s=0.2)
    sink.write([obs(1, 10)])
    row = passport.db.observations.find_one({})
    assert row is not None
    sink.write([obs(2, 20, who=person(national_id=None, at=20))])
    passport.db.observations.insert_one(row)
    again = passport.sink()
    assert eventually(lambda: again.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    again.retain(person(national_id=None, at=30), [1, 2], version(30, 0))
    assert passport.db.observations.count_documents({}) == 0
    assert list(again.wanted(HOSPITAL, 10)) == []


# --- scopes
# --------------------------------------------------------------------------------------------------


def test_a_chunk_removes_what_it_has_not(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10), obs(2, 10), obs(3, 40), obs(11, 10)])
    outcome = sink.retain(KeyRange(HOSPITAL, None, 10), [1], version(30, 0))
    assert outcome.stored == 1
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [1, 3, 11]
    again = sink.retain(KeyRange(HOSPITAL, None, 10), [1], version(30, 0))
    assert (again.stored, again.unchanged) == (0, 1)
    assert sink.retain(KeyRange(HOSPITAL, 10, None), [], version(30, 0)).stored == 1
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [1, 3]


def test_a_person_read_whole_is_all_there_is(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10), obs(2, 10), obs(3, 40)])
    read_whole(sink, person(at=30), [obs(1, 10)])
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [1, 3]
    assert sink.write([obs(2, 20)]).stale == 1
    # A row that had only left this person is another's by an event that is still to come.
    passport.register("1199080012340000")
    assert sink.write([obs(2, 20, who=person(2, "1199080012340000"))]).stored == 1


# --- the Passport's own
# --------------------------------------------------------------------------------------------


def edit(passport: Passport, **data: str) -> None:
    change: Document = {f"data.{name}": value for name, value in data.items()}
    passport.db.medicalrecords.update_one(
        {}, {"$set": {**change, "lastEditedAt": datetime.now(UTC)}}
    )


def test_row_43_a_doctors_edit_stays_and_the_hospitals_values_wait_beside_it(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    edit(passport, details="about 70")
    sink.write([obs(1, 10)])
    assert "pending" not in passport.shown()[0]["openmrsData"]
    sink.write([obs(1, 20, value=make.number(99))])
    [record] = passport.shown()
    assert record["data"]["details"] == "about 70"
    assert record["openmrsData"]["pending"]["details"] == "99"
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    assert (conflict.id, conflict.fields) == (str(record["_id"]), ("details", "result"))
    assert conflict.theirs == {"details": "99", "result": "99 beats/min"}
    sink.write([obs(1, 30)])
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    sink.write([obs(1, 40, voided=True)])
    assert passport.shown() == []
    sink.write([obs(1, 50)])
    assert passport.details() == ["about 70"]


def in_conflict(passport: Passport) -> MongoSink:
    """A doctor says about 70, the hospital has said 99 since."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    edit(passport, details="about 70")
    sink.write([obs(1, 20, value=make.number(99))])
    return sink


def resolve(passport: Passport, keep: Any) -> None:
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    conflicts.resolve(passport.db, make.settings({}).hospitals[HOSPITAL], conflict.id, keep)
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    with pytest.raises(Fatal, match="no conflict"):
        conflicts.one(passport.db, conflict.id)


def test_a_conflict_resolved_for_the_passport_comes_back_only_with_newer_values(
    passport: Passport,
) -> None:
    sink = in_conflict(passport)
    resolve(passport, "passport")
    assert passport.details() == ["about 70"]
    read_whole(sink, person(at=25), [obs(1, 20, value=make.number(99))])
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    sink.write([obs(1, 30, value=make.number(98))])
    assert passport.details() == ["about 70"]
    assert [one.theirs["details"] for one in conflicts.listed(passport.db, HOSPITAL)] == ["98"]


def test_a_conflict_resolved_for_the_hospital_follows_it_again(passport: Passport) -> None:
    sink = in_conflict(passport)
    audited = passport.db.auditlogs.count_documents({})
    resolve(passport, "hospital")
    assert passport.details() == ["99"]
    assert passport.db.auditlogs.count_documents({}) == audited + 1
    assert list(sink.wanted(HOSPITAL, 10)) == [1], (
        "its type may have changed too: it is projected anew"
    )
    read_whole(sink, person(at=25), [obs(1, 20, value=make.number(99))])
    sink.write([obs(1, 30, value=make.number(98))])
    assert passport.details() == ["98"]
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []


def test_an_edit_that_comes_while_a_conflict_is_resolved_wins(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_conflict(passport)
    again = partial(edit, passport, details="71 exactly")
    interposed(monkeypatch, conflicts.auditlogs, "write", again)
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    with pytest.raises(Retry):
        conflicts.resolve(
            passport.db, make.settings({}).hospitals[HOSPITAL], conflict.id, "hospital"
        )
    assert passport.details() == ["71 exactly"]


def test_unmapped_concepts_are_listed_with_what_is_seen_of_them(
    passport: Passport, tmp_path: Any
) -> None:
    passport.register()
    sink = passport.sink()
    stage = make.concept(40, "Stage of something", "CIEL:999999", datatype="Coded")
    peril = make.concept(41, "Peril", datatype="Coded")
    illness = make.concept(42, "Seen by the nurse", "PIH:1", datatype="Coded")
    answers = [make.coded(make.concept(50, "Stage 1")), make.coded(make.concept(51, "Stage 2"))]
    sink.write(
        [
            obs(1, 10, stage, answers[0]),
            obs(2, 10, stage, answers[1]),
            obs(3, 10, make.UNKNOWN, make.text("x")),
            obs(4, 10, peril, make.coded(make.concept(52, "Rash", cls="Symptom")), voided=True),
            obs(5, 10),
            *(obs(key, 10, illness, make.coded(make.MALARIA)) for key in (6, 7, 8, 11)),
            obs(9, 10, make.PANEL, make.NO_VALUE),
            obs(10, 10, stage, answers[0], obs_group_id=9),
        ]
    )
    found = unmapped.concepts(passport.db, HOSPITAL, load())
    assert [(one.concept["name"], one.obs) for one in found] == [
        ("Seen by the nurse", 4),
        ("Stage of something", 3),
        ("Favourite colour", 1),
    ]
    asked = {one.concept["name"]: one.question for one in found}
    assert asked["Seen by the nurse"].answers == ("Diagnosis",)
    assert asked["Seen by the nurse"].codes == ("PIH:1", "uuid:concept-42")
    assert asked["Stage of something"].sets == ("Blood count",)
    suggester = Suggester(known_concepts())
    rules = [rule_line(suggester.suggest(one), one.codes) for one in asked.values()]
    file = tmp_path / "mapping.yaml"
    file.write_text("version: 2\nrules:\n" + "\n".join(rules))
    assert unmapped.concepts(passport.db, HOSPITAL, load(file)) == []


def test_the_passports_fields_are_left_alone(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    drug = make.coded(make.concept(30, "Artemether", cls="Drug"))
    sink.write([obs(1, 10, make.DRUG_ORDER, drug)])
    assert passport.shown()[0]["data"]["medicationStatus"] == "Active"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    own = {"data.medicationStatus": "Past", "updatedAt": now, "editableBy": ["somebody"]}
    passport.db.medicalrecords.update_one({}, {"$set": own})
    before = passport.everything()
    sink.write([obs(1, 10, make.DRUG_ORDER, drug)])
    assert passport.everything() == before
    sink.write([obs(1, 20, make.DRUG_ORDER, drug, comments="after meals")])
    [record] = passport.shown()
    assert record["data"]["notes"] == "after meals"
    assert (record["data"]["medicationStatus"], record["updatedAt"], record["editableBy"]) == (
        "Past",
        now,
        ["somebody"],
    )


def test_audit_tells_each_change_once_and_nothing_of_it(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    said = make.text(CANARY)
    for batch in (
        [obs(1, 10)],
        [obs(1, 10)],
        [obs(1, 20, make.CHIEF_COMPLAINT, said)],
        [obs(1, 30, voided=True)],
    ):
        sink.write(batch)
    entries = list(passport.db.auditlogs.find())
    assert sorted(entry["action"] for entry in entries) == ["create", "delete", "update"]
    assert not any(word in repr(entries) for word in (CANARY, "Pulse", "complaint", "Jane"))


def test_the_passports_doctor_signs_before_a_placeholder(passport: Passport) -> None:
    passport.register()
    hospital, user = ObjectId(), ObjectId()
    passport.db.hospitals.insert_one(
        {
            "_id": hospital,
            "user": user,
            "name": "H",
            "address": "A",
            "contact": "C",
            "licenseNumber": "X1",
        }
    )
    doctor = {
        "licenseNumber": "D1",
        "specialization": "Cardiology",
        "openmrsProviderUuid": "provider-jane",
    }
    passport.db.doctors.insert_one(
        {"_id": ObjectId(), "user": user, "hospital": hospital, **doctor}
    )
    elsewhere = {
        **doctor,
        "_id": ObjectId("0" * 24),
        "user": ObjectId(),
        "hospital": ObjectId(),
        "licenseNumber": "D2",
    }
    passport.db.doctors.insert_one(elsewhere)
    passport.sink({"passport_hospital": str(hospital)}).write([obs(1, 10)])
    assert passport.shown()[0]["createdBy"] == str(user)
    assert passport.db.hospitals.count_documents({}) == 1
    passport.db.doctors.delete_one({"_id": elsewhere["_id"]})
    jane = {
        "email": "jane@hospital.rw",
        "name": "Jane",
        "password": f"$2b$10${'a' * 21}u{'a' * 31}",
        "role": "doctor",
    }
    passport.db.users.insert_one({"_id": user, **jane})


def test_a_configured_hospital_must_be_there(passport: Passport) -> None:
    passport.register()
    sink = passport.sink({"passport_hospital": "0" * 24})
    with pytest.raises(Fatal, match=r"hospitals\.kigali\.passport_hospital"):
        sink.write([obs(1, 10)])


def test_an_author_gets_a_new_name_unless_somebody_took_the_placeholder_over(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink({"passport_hospital": PlaceholderHospital(licence="rw-77")})
    sink.write([obs(1, 10)])
    user = ObjectId(passport.shown()[0]["createdBy"])
    sink.write([obs(1, 20, author=replace(make.JANE, name="Jane Mugisha"))])
    assert one(passport.db.users, user)["name"] == "Jane Mugisha"
    passport.db.users.update_one(
        {"_id": user}, {"$set": {"email": "jane@hospital.rw", "name": "J. M."}}
    )
    passport.sink().write([obs(1, 30, author=make.JANE)])
    assert one(passport.db.users, user)["name"] == "J. M."
    assert one(passport.db.hospitals)["licenseNumber"] == "RW-77"


def test_medical_history_is_kept_only_when_asked_for(passport: Passport) -> None:
    first, second = passport.register(), passport.register("1199080012340000")
    passport.sink().write([obs(1, 10)])
    assert one(passport.db.patients, ObjectId(first))["medicalHistory"] == []
    sink = passport.sink(link_medical_history=True)
    sink.write([obs(1, 10)])
    [record] = passport.shown()
    assert one(passport.db.patients, ObjectId(first))["medicalHistory"] == [record["_id"]]
    sink.write([obs(2, 20, voided=True, who=person(national_id="1199080012340000", at=20))])
    assert one(passport.db.patients, ObjectId(first))["medicalHistory"] == []
    assert one(passport.db.patients, ObjectId(second))["medicalHistory"] == [record["_id"]]
    sink.write([obs(1, 30, voided=True, who=person(national_id="1199080012340000", at=30))])
    assert one(passport.db.patients, ObjectId(second))["medicalHistory"] == []


def test_progress_is_kept_and_its_version_never_falls(passport: Passport) -> None:
    sink = passport.sink()
    assert sink.progress(HOSPITAL) is None
    sink.record(Progress(HOSPITAL, 100, version(50), 1_700_000_000_123))
    sink.record(Progress(HOSPITAL, 40, version(20), 1_700_000_000_000))
    assert passport.sink().progress(HOSPITAL) == Progress(
        HOSPITAL, 40, version(50), 1_700_000_000_000
    )
    [status] = passport.db.syncstatus.find()
    assert status["lastSyncTime"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


# --- whatever the way
# ---------------------------------------------------------------------------------------------


@given(st.data())
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_order_with_repeats_ends_the_same(passport: Passport, data: st.DataObject) -> None:
    events = story()
    shuffled = data.draw(
        st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=6)))
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(shuffled) - 1), max_size=6)))
    ends = []
    for batches in (
        [events],
        [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)],
    ):
        empty(passport)
        for batch in batches:
            assert not passport.sinks[0].write(batch).rejected
        ends.append(passport.state())
    assert ends[0] == ends[1]
    assert len(ends[0]["records"]) == 4


class Failing:
    """The database, of which the n-th write of `threads` does not happen (or happens, and its
    answer is lost).

    `failed`: the collections of those that did not."""

    WRITES = frozenset(
        {
            "bulk_write",
            "update_one",
            "delete_many",
            "find_one_and_update",
            "update_many",
            "insert_one",
        }
    )

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *threads: str, collection: str | None = None
    ) -> None:
        from pymongo.collection import Collection

        self.left, self.after, self.threads = -1, False, threads
        self.collection = collection  # None: of all
        self.failed: list[str] = []
        for name in self.WRITES:
            monkeypatch.setattr(Collection, name, self._wrapped(getattr(Collection, name)))

    def _wrapped(self, method: Any) -> Any:
        def call(collection: Any, *args: Any, **options: Any) -> Any:
            is_counted = self.collection in (None, collection.name)
            self.left -= is_counted and threading.current_thread().name.startswith(self.threads)
            if self.left != 0:
                return method(collection, *args, **options)
            self.left = -1
            self.failed.append(collection.name)
            if self.after:
                method(collection, *args, **options)
            raise AutoReconnect("cut")

        return call

    def at(self, number: int, after: bool) -> None:
        self.left, self.after = number, after


def crash_batches() -> list[list[Observation]]:
    """The story in pieces; its end moves person 1's link to another patient and ends person 2's."""
    events = story()
    moved, ended = person(national_id="1199080012349999", at=30), person(2, None, at=30)
    return [events[:6], events[6:11], events[11:], [obs(20, 30, who=moved), obs(21, 30, who=ended)]]


@pytest.mark.parametrize("after", [False, True])
def test_row_41_a_crash_at_any_write_heals(
    passport: Passport, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    batches = crash_batches()
    passport.sink()
    third = {"_id": ObjectId("c" * 24)}

    def run(sink: MongoSink) -> None:
        """Only the step that fails comes again: what was before it is acknowledged."""
        for batch in batches:
            heal(partial(sink.write, batch))
        heal(
            partial(sink.retain, KeyRange(HOSPITAL, None, None), [4, 6, 8, 9, 20], version(40, 0))
        )  # 10 is gone

    empty(passport)
    passport.db.patients.insert_one(patient("1199080012349999") | third)
    run(passport.sinks[0])
    expected, audited = passport.state(), audit_trail(passport)
    failing, number = Failing(monkeypatch, "MainThread", "mongo"), 0  # the sink's own
    while True:
        number += 1
        failing.at(-1, after)
        empty(passport)
        passport.db.patients.insert_one(patient("1199080012349999") | third)
        failing.at(number, after)
        fails = len(failing.failed)
        run(passport.sinks[0])
        assert passport.state() == expected, f"write number {number}"
        assert audit_trail(passport) == audited
        if len(failing.failed) == fails:
            break
    assert number > 15


def audit_trail(passport: Passport) -> set[Any]:
    return set(passport.db.auditlogs.distinct("_id"))


def heal(run: Callable[[], object]) -> None:
    try:
        run()
    except Retry:
        run()


def test_it_does_not_begin_beside_records_of_the_former_sync(passport: Passport) -> None:
    patient_id = passport.register()
    passport.sink().write([obs(1, 10)])
    [former] = passport.shown(patient_id)
    passport.db.medicalrecords.update_one(
        {"_id": former["_id"]}, {"$unset": {"openmrsData.obsUuid": ""}}
    )
    passport.sink().write([obs(2, 20)])  # it had begun before
    passport.db.observations.delete_many({})
    with pytest.raises(Fatal) as refused:
        passport.sink().write([obs(3, 30)])
    assert "passport cut-over list" in refused.value.hint
    assert passport.db.observations.find_one() is None
    passport.db.medicalrecords.delete_one({"_id": former["_id"]})
    passport.sink().write([obs(3, 30)])


# --- a doctor beside us
# ---------------------------------------------------------------------------------------------


def test_a_doctors_edit_meanwhile_is_seen(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    calls = interposed(
        monkeypatch,
        sink._writer(HOSPITAL)._records,
        "_write",
        lambda: edit(passport, details="about 70"),
    )
    sink.write([obs(1, 20, value=make.number(80))])
    assert len(calls) == 2
    assert passport.details() == ["about 70"]
    assert passport.shown()[0]["openmrsData"]["pending"]["details"] == "80"


# --- the server
# --------------------------------------------------------------------------------------------------


def test_without_a_server_it_is_not_ready() -> None:
    options = {"uri": f"mongodb://user:{CANARY}@127.0.0.1:1/?replicaSet=rs0", "link_key": LINK_KEY}
    settings = make.settings(options)
    with pytest.raises(NotReady) as failure:
        connect("passport", settings)
    assert CANARY not in str(failure.value)


@pytest.mark.parametrize(
    "wrong", [{"uri": "http://nonsense"}, {"link_key": ""}, {"uri": f"mongodb://{CANARY}:x:y/"}]
)
def test_wrong_options_are_named_and_not_quoted(wrong: dict[str, str]) -> None:
    options = {"uri": "mongodb://127.0.0.1:1/", "link_key": LINK_KEY} | wrong
    settings = make.settings(options)
    with pytest.raises(Fatal, match="options") as failure:
        connect("passport", settings)
    assert CANARY[:9] not in str(failure.value)


def ready(sink: MongoSink) -> bool:
    try:
        sink.ready()
    except NotReady:
        return False
    return True


def test_it_goes_on_after_the_server_was_killed(own_mongo: Callable[..., Any]) -> None:
    server = own_mongo()
    passport = Passport(server.url)
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    server.kill()
    with pytest.raises(Retry):
        sink.write([obs(2, 20)])
    with pytest.raises(NotReady):
        sink.ready()
    server.start()
    eventually(lambda: ready(sink), "MongoDB answers")
    sink.write([obs(2, 20)])
    assert passport.details() == ["72", "72"]
    late = person(5, "1199080012340000", at=20)
    sink.write([obs(50, 20, who=late)])
    passport.register("1199080012340000")
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [5], (
        "registrations are followed again"
    )
    passport.close()


def test_the_watch_on_registrations_goes_on_when_its_own_write_fails(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody registers while nobody looks; MongoDB is away for the moment in which that is to be
    marked.
    """
    first = passport.sink()
    first.write([obs(1, 10)])
    first.close()
    passport.register()
    failing = Failing(monkeypatch, "registrations", collection="people")
    failing.at(1, after=False)
    sink = passport.sink()
    assert eventually(lambda: sink.wanted(HOSPITAL, 10), "somebody is asked for") == [1]
    assert failing.failed == ["people"]


def test_indexes_of_the_passport_with_other_options_are_left(passport: Passport) -> None:
    passport.db.medicalrecords.create_index([("patientId", 1), ("type", 1)], name="mine")
    passport.db.medicalrecords.create_index(
        "removedAt", expireAfterSeconds=5, name="tombstones", sparse=True
    )
    passport.sink(tombstone_ttl_days=2)
    indexes = passport.db.medicalrecords.index_information()
    assert "mine" in indexes
    assert indexes["tombstones"]["expireAfterSeconds"] == 2 * 86_400


def test_a_batch_takes_few_round_trips_whatever_its_size(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    rng = random.Random(7)
    rows = [
        obs(number, 10 + number, value=make.number(rng.randrange(50, 120)))
        for number in range(1, 601)
    ]
    sink.write(rows[:1])
    counts = [
        operations(passport, partial(sink.write, part)) for part in (rows[1:11], rows[11:600])
    ]
    assert counts[1] <= 16
    assert counts[1] - counts[0] <= 5, (
        "three writes go in two halves, and larger answers may come in pieces"
    )


# --- erased
# --------------------------------------------------------------------------------------------------


def test_nobody_is_erased_before_the_consumers_know_that_they_have_left(passport: Passport) -> None:
    national_id, nowhere = "1199080012345678", cast("Settings", SimpleNamespace(hospitals={}))
    passport.register(national_id)
    sink = passport.sink()
    sink._registrations.stop()
    sink.write([obs(1, 10)])
    with pytest.raises(Fatal, match="still has a patient"):
        Erasure(passport.db, nowhere, LINK_KEY.encode(), national_id)
    passport.db.patients.delete_many({})
    with pytest.raises(NotReady, match="have yet to remove"):
        Erasure(passport.db, nowhere, LINK_KEY.encode(), national_id)
    assert len(passport.shown()) == 1
    passport.db.medicalrecords.delete_many({})
