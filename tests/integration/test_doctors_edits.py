"""What doctors write in the Passport is theirs, and their patient's, whatever the hospital does."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from destinations.mongo import conflicts
from destinations.mongo.sink import MongoSink
from passport.facts import FirstVersion, Observation
from reconcile import differences
from tests import observations as make
from tests import passport_writes as doctor
from tests.eventually import eventually
from tests.integration.passport_database import Passport, diagnosis, interposed, read_whole
from tests.observations import HOSPITAL, obs, person
from tests.passport_shapes import check

Document = dict[str, Any]
OTHER_ID = "1199080012340000"
DRUG = make.coded(make.concept(30, "Amoxicillin", cls="Drug"))
WORDS = "stopped: rash"
AS_COMPLAINT = make.concept(5, "Pulse", "CIEL:5219", datatype="Numeric", units="beats/min")


@pytest.fixture
def passport(passport: Passport) -> Iterator[Passport]:
    yield passport
    check(passport.db)


def medicine(at: int, **changes: Any) -> Observation:
    return obs(1, at, make.DRUG_ORDER, DRUG, **changes)


def edited_medicine(passport: Passport) -> tuple[str, MongoSink, Document]:
    """A medicine of a patient that a doctor has edited: patient, sink, and the record."""
    patient_id = passport.register()
    sink = passport.sink()
    sink.write([medicine(10)])
    [record] = passport.shown(patient_id)
    doctor.put(passport.db, record["_id"], notes=WORDS)
    [record] = passport.shown(patient_id)
    assert record["data"]["medicationStatus"] == "Past"
    return patient_id, sink, record


def without_stamps(record: Document) -> Document:
    """Return the record without our stamp, and without an empty list that Mongoose writes."""
    data = {name: value for name, value in record["data"].items() if value != []}
    return {**record, "rev": 0, "data": data}


def hidden(passport: Passport, record: Document) -> None:
    """Assert that the record is a tombstone: no reader finds it, and it says nothing."""
    [tombstone] = passport.db.medicalrecords.find({"_id": record["_id"]})
    assert (tombstone["patientId"], tombstone["data"], tombstone["editableBy"]) == ("", {}, [])
    assert tombstone["openmrsData"] == {"hospitalId": HOSPITAL, "obsUuid": "obs-1"}
    assert "lastEditedAt" not in tombstone
    kept = repr(list(passport.db.keptedits.find()))
    assert "Amoxicillin" not in kept, "the hospital's words"
    assert "Kigali Hospital" not in kept


def test_b7_an_edit_survives_void_and_unvoid(passport: Passport) -> None:
    patient_id, sink, before = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    hidden(passport, before)
    sink.write([medicine(30)])
    [after] = passport.shown(patient_id)
    assert without_stamps(after) == without_stamps(before)
    assert list(passport.db.keptedits.find()) == []
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []


def test_b7_an_edit_survives_an_id_that_two_patients_hold_for_a_moment(
    passport: Passport,
) -> None:
    patient_id, sink, before = edited_medicine(passport)
    read_whole(sink, person(at=20, state="ambiguous", national_id=None), [medicine(10)])
    hidden(passport, before)
    for at in (30, 31):
        read_whole(sink, person(at=at), [medicine(10)])
    [after] = passport.shown(patient_id)
    assert without_stamps(after) == without_stamps(before)


def test_b7_the_status_of_a_medicine_that_nobody_edited_survives(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    sink.write([medicine(10)])
    [record] = passport.shown(patient_id)
    doctor.read(passport.db, record["_id"])
    sink.write([medicine(20, voided=True)])
    sink.write([medicine(30)])
    [after] = passport.shown(patient_id)
    assert after["data"]["medicationStatus"] == "Past"


def test_b7_an_edit_outlives_its_tombstone(passport: Passport) -> None:
    """MongoDB deletes a tombstone when it is old. The id may be ambiguous for longer than that."""
    patient_id, sink, before = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    passport.db.medicalrecords.delete_one({"_id": before["_id"]})
    sink.write([medicine(30)])
    [after] = passport.shown(patient_id)
    for name in ("lastEditedAt", "editableBy", "type"):
        assert after[name] == before[name]
    assert without_stamps(after)["data"] == without_stamps(before)["data"]
    doctor.put(passport.db, before["_id"], notes="again")
    sink.write([medicine(40, voided=True)])
    sink.write([medicine(50)])
    assert passport.shown(patient_id)[0]["data"]["notes"] == "again"


def test_b7_an_edit_stays_kept_while_mongodb_refuses_its_record(passport: Passport) -> None:
    patient_id, sink, before = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    passport.db.command("collMod", "medicalrecords", validator={"patientId": ""})
    outcome = sink.write([medicine(30)])
    assert [reason for _, reason in outcome.rejected] == ["invalid"]
    hidden(passport, before)
    passport.db.command("collMod", "medicalrecords", validator={})
    sink.write([medicine(40)])
    [after] = passport.shown(patient_id)
    assert without_stamps(after) == without_stamps(before)


def test_b7_what_the_hospital_changed_meanwhile_is_a_conflict(passport: Passport) -> None:
    patient_id, sink, record = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    sink.write([medicine(30, comments="after meals")])
    [after] = passport.shown(patient_id)
    assert after["data"]["notes"] == WORDS
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    assert (conflict.id, conflict.fields) == (str(record["_id"]), ("notes",))
    assert conflict.theirs == {"notes": "after meals"}


def test_b7_an_edit_never_comes_to_another_patient(passport: Passport) -> None:
    patient_id, sink, before = edited_medicine(passport)
    other = passport.register(OTHER_ID)
    # Straight from one patient to the other, then hidden and shown to them again, then back.
    elsewhere = person(at=20, national_id=OTHER_ID)
    read_whole(sink, elsewhere, [medicine(10)])
    shown_to(passport, other)
    read_whole(sink, person(at=30, national_id=None), [medicine(10)])
    hidden(passport, before)
    for at in (40, 41):
        read_whole(sink, person(at=at, national_id=OTHER_ID), [medicine(10)])
    shown_to(passport, other)
    read_whole(sink, person(at=50), [medicine(10)])
    assert passport.shown(other) == []
    [after] = passport.shown(patient_id)
    assert without_stamps(after) == without_stamps(before)


def shown_to(passport: Passport, other: str) -> None:
    """Assert that only `other` is shown the medicine, as if nobody had edited it."""
    [record] = passport.shown()
    assert record["patientId"] == other
    assert WORDS not in repr(record)
    assert (record["editableBy"], record.get("lastEditedAt")) == ([], None)
    assert "pending" not in record["openmrsData"]


def test_b7_nothing_is_kept_of_somebody_who_leaves(passport: Passport) -> None:
    _, sink, _ = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    assert WORDS in passport.everything()
    passport.db.patients.delete_many({})
    eventually(lambda: WORDS not in passport.everything(), "the edit of who left is gone")


def test_b7_nothing_is_kept_of_somebody_who_left_before(passport: Passport) -> None:
    _, sink, before = edited_medicine(passport)
    sink._registrations.stop()
    passport.db.patients.delete_many({})
    read_whole(sink, person(at=20), [])
    hidden(passport, before)
    assert WORDS not in passport.everything()


def test_b7_the_sweep_finds_what_is_kept_of_former_patients(passport: Passport) -> None:
    _, sink, _ = edited_medicine(passport)
    sink.write([medicine(20, voided=True)])
    sink.close()
    passport.db.patients.delete_many({})
    # The change stream would tell of it if it went on from where it was.
    passport.db.leases.delete_many({})
    assert WORDS in passport.everything()
    passport.sink()
    eventually(lambda: WORDS not in passport.everything(), "the edit of who left is gone")


def test_b7_an_edit_that_comes_while_its_record_is_hidden_is_kept(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient_id, sink, before = edited_medicine(passport)
    records = sink._writer(HOSPITAL)._records
    calls = interposed(
        monkeypatch,
        records,
        "_write",
        lambda: doctor.put(passport.db, before["_id"], notes="stopped: fever"),
    )
    sink.write([medicine(20, voided=True)])
    assert len(calls) == 2, "the first write must have failed"
    hidden(passport, before)
    sink.write([medicine(30)])
    assert passport.shown(patient_id)[0]["data"]["notes"] == "stopped: fever"


def test_b7_a_record_of_an_older_release_keeps_its_edit_too(passport: Passport) -> None:
    patient_id, sink, before = edited_medicine(passport)
    passport.db.medicalrecords.update_one({"_id": before["_id"]}, {"$unset": {"stated": ""}})
    sink.write([medicine(20, voided=True)])
    sink.write([medicine(30)])
    [after] = passport.shown(patient_id)
    assert without_stamps(after) == without_stamps(before)


def test_b7_a_diagnosis_keeps_the_medicines_that_a_doctor_added(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    sink.write(diagnosis(10))
    [record] = passport.shown(patient_id)
    added = [{"name": "Coartem", "dosage": "4", "medicationStatus": "Active"}]
    doctor.put(passport.db, record["_id"], medications=added)
    sink.write(voided(diagnosis(20)))
    assert passport.shown() == []
    sink.write(diagnosis(30))
    [after] = passport.shown(patient_id)
    assert after["data"]["medications"] == added


def voided(rows: Sequence[Observation]) -> list[Observation]:
    return [replace(row, row={**row.row, "voided": 1}) for row in rows]


# --- merges


def merged_copy(at: int, **changes: Any) -> Observation:
    """The medicine's obs as the winner (person 2) has it after a merge: a row of their own."""
    winner = person(2, OTHER_ID, at=at)
    created = make.BORN + timedelta(minutes=1)
    copy = obs(9, at, make.DRUG_ORDER, DRUG, who=winner, previous_version=1, **changes)
    return replace(copy, first=FirstVersion("obs-1", created, (1,), (1,)))


def is_moved(passport: Passport, winner: str, before: Document) -> None:
    """Assert that the winner has the loser's record, as it was."""
    [after] = passport.shown()
    assert (after["_id"], after["patientId"]) == (before["_id"], winner)
    for name in ("syncDate", "createdAt", "editableBy", "lastEditedAt"):
        assert after[name] == before[name], name
    assert after["data"]["medicationStatus"] == "Past"
    assert after["data"]["notes"] == WORDS
    assert (after["openmrsData"]["obsId"], after["openmrsData"]["personId"]) == (9, 2)


def test_b8_a_merge_moves_a_record_with_its_id_dates_status_and_edit(passport: Passport) -> None:
    _, sink, before = edited_medicine(passport)
    winner = passport.register(OTHER_ID)
    sink.write([medicine(20, voided=True), merged_copy(20, row=2)])
    is_moved(passport, winner, before)
    gone = person(at=20, state="voided", national_id=None)
    read_whole(sink, gone, [medicine(20, voided=True)])
    is_moved(passport, winner, before)


def test_row_13_a_merge_moves_a_record_that_nobody_has_edited(passport: Passport) -> None:
    loser = passport.register()
    sink = passport.sink()
    sink.write([medicine(10)])
    [before] = passport.shown(loser)
    winner = passport.register(OTHER_ID)
    sink.write([medicine(20, voided=True), merged_copy(20, row=2)])
    [after] = passport.shown(winner)
    assert (after["_id"], after["createdAt"]) == (before["_id"], before["createdAt"])
    assert passport.shown(loser) == []


def test_b8_the_loser_is_hidden_before_the_winners_rows_come(passport: Passport) -> None:
    _, sink, before = edited_medicine(passport)
    winner = passport.register(OTHER_ID)
    gone = person(at=20, state="voided", national_id=None)
    read_whole(sink, gone, [medicine(20, voided=True)])
    hidden(passport, before)
    sink.write([merged_copy(20, row=2)])
    is_moved(passport, winner, before)
    assert list(passport.db.keptedits.find()) == []


def test_b8_a_merge_of_somebody_who_was_never_shown_keeps_the_dates(passport: Passport) -> None:
    winner = passport.register(OTHER_ID)
    sink = passport.sink()
    sink.write([merged_copy(20)])
    [record] = passport.shown(winner)
    assert record["syncDate"] == record["createdAt"] == make.BORN + timedelta(minutes=1)
    assert record["openmrsData"]["dateCreated"] == make.BORN + timedelta(minutes=9)


def test_b8_a_later_edit_keeps_the_merged_record(passport: Passport) -> None:
    _, sink, before = edited_medicine(passport)
    winner = passport.register(OTHER_ID)
    sink.write([medicine(20, voided=True), merged_copy(20, row=2)])
    newer = obs(10, 30, make.DRUG_ORDER, DRUG, who=person(2, OTHER_ID), previous_version=9)
    sink.write([newer, merged_copy(30, row=2, voided=True)])
    [after] = passport.shown(winner)
    assert (after["_id"], after["createdAt"]) == (before["_id"], before["createdAt"])
    assert after["openmrsData"]["obsId"] == 10
    assert after["data"]["notes"] == WORDS


def test_b8_an_older_version_that_moves_in_place_does_not_end_the_record(
    passport: Passport,
) -> None:
    """The loser's versions that were voided before the merge are not copied: they move."""
    _, sink, before = edited_medicine(passport)
    winner = passport.register(OTHER_ID)
    two = obs(2, 15, make.DRUG_ORDER, DRUG, previous_version=1)
    sink.write([two, medicine(15, voided=True, row=2)])
    copy = merged_copy(20, row=3)
    copy = replace(
        copy,
        row={**copy.row, "previous_version": 2},
        first=FirstVersion("obs-1", make.BORN + timedelta(minutes=1), (2, 1), (1,)),
    )
    gone = person(at=20, state="voided", national_id=None)
    read_whole(sink, gone, [])
    sink.write([copy])
    is_moved(passport, winner, before)
    sink.write([medicine(20, voided=True, row=4, who=person(2, OTHER_ID, at=20))])
    is_moved(passport, winner, before)


# --- conflicts


def test_b11_an_edit_is_seen_although_the_hospitals_clock_is_ahead(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    sink.write([replace(obs(1, 10), created=tomorrow)])
    [record] = passport.shown(patient_id)
    doctor.put(passport.db, record["_id"], result="71, measured again")
    [record] = passport.shown(patient_id)
    assert record["lastEditedAt"] < record["syncDate"]
    sink.write([replace(obs(1, 20, value=make.number(73)), created=tomorrow)])
    [record] = passport.shown(patient_id)
    assert record["data"]["result"] == "71, measured again"
    assert record["openmrsData"]["pending"]["result"] == "73 beats/min"


def become_complaint(passport: Passport) -> tuple[MongoSink, conflicts.Conflict]:
    """The concept becomes a complaint after a doctor's edit. Return the conflict, too."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    [record] = passport.shown()
    doctor.put(passport.db, record["_id"], notes=WORDS)
    sink.write([obs(1, 20, AS_COMPLAINT)])
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    return sink, conflict


def test_b12_keep_passport_is_kept_when_the_type_changed_too(passport: Passport) -> None:
    sink, conflict = become_complaint(passport)
    assert (conflict.type, conflict.theirs["type"]) == ("test", "visit")
    resolve(passport, conflict.id, "passport")
    sink.write([obs(1, 20, AS_COMPLAINT)])
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    assert passport.shown()[0]["type"] == "test"


def test_b12_keep_hospital_takes_its_type_too(passport: Passport) -> None:
    _, conflict = become_complaint(passport)
    resolve(passport, conflict.id, "hospital")
    assert passport.shown()[0]["type"] == "visit"


# --- deleted in the Passport, and what comes late


def actions(passport: Passport) -> list[str]:
    entries = passport.db.auditlogs.find().sort("accessTime")
    return [entry["action"] for entry in entries]


def test_b12_each_change_is_audited_after_mongodb_has_deleted_the_tombstone(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink()
    for at in (10, 30, 50):
        sink.write([obs(1, at)])
        sink.write([obs(1, at + 10, voided=True)])
        assert passport.shown() == []
        passport.db.medicalrecords.delete_many({"removedAt": {"$exists": True}})
    assert actions(passport) == ["create", "delete"] * 3


def deleted(passport: Passport) -> tuple[MongoSink, Document]:
    """A record that a doctor has deleted, and its hospital has changed since."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10), obs(2, 10, row=2)])
    [record, other] = passport.shown()
    doctor.delete(passport.db, record["_id"])
    sink.write([obs(1, 20, value=make.number(73))])
    assert [record["_id"] for record in passport.shown()] == [other["_id"]]
    return sink, record


def test_a_record_that_a_doctor_deleted_does_not_come_back(passport: Passport) -> None:
    sink, record = deleted(passport)
    [conflict] = conflicts.listed(passport.db, HOSPITAL)
    assert (conflict.id, conflict.type) == (str(record["_id"]), "deleted")
    assert sink.counts(HOSPITAL)["conflicts"] == 1
    [tombstone] = passport.db.medicalrecords.find({"_id": record["_id"]})
    assert "73" not in repr(tombstone)
    assert differences.records({record["_id"]: record}, {record["_id"]: tombstone}).counts == {
        "missing": 0,
        "extra": 0,
        "different": 0,
    }
    read_whole(sink, person(at=30), [obs(1, 20, value=make.number(73)), obs(2, 10)])
    assert len(passport.shown()) == 1
    resolve(passport, conflict.id, "passport")
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    sink.write([obs(1, 40, value=make.number(74))])
    assert len(passport.shown()) == 1
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []


def test_a_record_that_a_doctor_deleted_comes_back_when_somebody_decides_so(
    passport: Passport,
) -> None:
    sink, record = deleted(passport)
    resolve(passport, str(record["_id"]), "hospital")
    assert list(sink.wanted(HOSPITAL, 10)) == [1]
    rows = [obs(1, 20, value=make.number(73)), obs(2, 10)]
    read_whole(sink, person(at=30), rows)
    [again] = [shown for shown in passport.shown() if shown["_id"] == record["_id"]]
    assert again["data"]["result"] == "73 beats/min"
    assert list(conflicts.listed(passport.db, HOSPITAL)) == []
    assert actions(passport).count("create") == 3


def test_a_medicine_that_is_read_while_it_is_hidden_leaves_the_tombstone_empty(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink(sweep_s=0.2)
    sink.write([medicine(10)])
    [record] = passport.shown()
    opened = doctor.opened(passport.db, record["_id"])
    sink.write([medicine(20, voided=True)])
    doctor.save_read(passport.db, opened)
    eventually(lambda: data_of(passport, record) == {}, "the tombstone is empty again")
    hidden(passport, record)


def test_an_edit_that_is_saved_after_its_record_was_hidden_is_kept(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    sink.write([medicine(10)])
    [record] = passport.shown()
    opened = doctor.opened(passport.db, record["_id"])
    sink.write([medicine(20, voided=True)])
    doctor.save_put(passport.db, opened, notes=WORDS)
    assert data_of(passport, record)["notes"] == WORDS, "as Mongoose does"
    sink.close()
    sink = passport.sink(sweep_s=0.2)
    eventually(lambda: data_of(passport, record) == {}, "the tombstone is empty again")
    sink.write([medicine(30)])
    [after] = passport.shown(patient_id)
    assert after["data"]["notes"] == WORDS
    assert after["lastEditedAt"] is not None


def data_of(passport: Passport, record: Document) -> Document:
    [found] = passport.db.medicalrecords.find({"_id": record["_id"]})
    data: Document = found["data"]
    return data


def resolve(passport: Passport, record: str, keep: Any) -> None:
    conflicts.resolve(passport.db, make.settings({}).hospitals[HOSPITAL], record, keep)
