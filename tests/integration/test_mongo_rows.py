"""Connected rows, and the records that they once had, on a real MongoDB."""

from functools import partial
from itertools import permutations

import pytest
from msgspec.structs import replace

from destinations.mongo.sink import MongoSink
from passport.facts import Observation
from tests import observations as make
from tests.integration.passport_database import Passport, diagnosis, operations, read_whole
from tests.observations import obs, person


def edits(first: int, last: int) -> list[Observation]:
    """Return the rows of an obs that was edited so often: each voids the one before it."""
    rows = []
    for obs_id in range(first, last + 1):
        previous = obs_id - 1 if obs_id > 1 else None
        value = make.number(obs_id)
        is_old = obs_id < last
        rows.append(obs(obs_id, 10, value=value, voided=is_old, previous_version=previous))
    return rows


def one_more_edit(newest: int) -> list[Observation]:
    """Return what OpenMRS writes when the newest row of a chain is edited."""
    voided = obs(newest, 20, value=make.number(newest), voided=True, previous_version=newest - 1)
    edited = obs(newest + 1, 20, value=make.number(61), row=2, previous_version=newest)
    return [voided, edited]


def test_b13_an_obs_may_be_edited_any_number_of_times(passport: Passport) -> None:
    """It had to be 199 at most, and each edit took a round trip for each edit before it."""
    patient_id = passport.register()
    sink = passport.sink()
    for first, last in ((1, 10), (11, 1_200)):
        sink.write(edits(first, last))
        edit = partial(sink.write, one_more_edit(last))
        assert operations(passport, edit) <= 60, f"round trips after {last} edits"
        assert passport.details(patient_id) == ["61"]
        sink.write([obs(last + 1, 30, value=make.number(60), previous_version=last)])
    assert passport.db.observations.count_documents({}) == 1_201


def test_b13_a_first_version_that_comes_last_is_still_the_first(passport: Passport) -> None:
    """The record has its _id of a row from which the others are more than one leap away."""
    patient_id = passport.register()
    sink = passport.sink()
    rows = edits(1, 700)
    sink.write(rows[1:])
    [before] = passport.shown(patient_id)
    sink.write(rows[:1])
    [after] = passport.shown(patient_id)
    assert after["_id"] != before["_id"]
    assert after["openmrsData"]["obsId"] == 700


# --- a uuid that changes in place
# ------------------------------------------------------------------------------------------------


def results(passport: Passport, patient_id: str | None = None) -> list[tuple[int, str]]:
    """Return the obs_id and the text of each record that is shown."""
    shown = passport.shown(patient_id)
    return [(record["openmrsData"]["obsId"], record["data"]["details"]) for record in shown]


def test_b1_a_record_ends_when_its_row_gets_another_uuid(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    [before] = passport.shown(patient_id)
    sink.write([obs(1, 20, uuid="second", value=make.number(55))])
    assert results(passport, patient_id) == [(1, "55")]
    assert passport.shown(patient_id)[0]["_id"] != before["_id"]
    # Again, and back to the first one: each time one record is shown.
    sink.write([obs(1, 30, uuid="third", value=make.number(56))])
    assert results(passport) == [(1, "56")]
    sink.write([obs(1, 40, value=make.number(57))])
    assert results(passport) == [(1, "57")]
    assert passport.shown()[0]["_id"] == before["_id"]
    sink.write([obs(1, 50, voided=True, value=make.number(57))])
    assert results(passport) == []
    row = passport.db.observations.find_one({})
    assert row is not None
    assert len(row["formerRecords"]) == 2


def test_b1_a_groups_record_ends_when_its_header_gets_another_uuid(passport: Passport) -> None:
    passport.register()
    sink = passport.sink()
    sink.write(diagnosis(10))
    [before] = passport.shown()
    sink.write([obs(3, 20, make.VISIT_DIAGNOSES, make.NO_VALUE, uuid="second")])
    [after] = passport.shown()
    assert after["_id"] != before["_id"]
    sink.write([obs(4, 30, make.DIAGNOSIS, make.coded(make.MALARIA), obs_group_id=3, voided=True)])
    assert results(passport) == []


def test_b1_an_edits_record_ends_when_its_first_version_gets_another_uuid(
    passport: Passport,
) -> None:
    passport.register()
    sink = passport.sink()
    sink.write(edits(1, 3))
    [before] = passport.shown()
    sink.write([obs(1, 20, uuid="second", voided=True, value=make.number(1))])
    [after] = passport.shown()
    assert (after["openmrsData"]["obsId"], after["data"]["details"]) == (3, "3")
    assert after["_id"] != before["_id"]
    # An archive job deletes it: it still names the record, and its first uuid none.
    sink.write([obs(1, 30, uuid="second", deleted=True)])
    assert [record["_id"] for record in passport.shown()] == [after["_id"]]


@pytest.mark.parametrize("national_id", ["1199080012340000", None], ids=["matched", "unmatched"])
def test_b1_a_row_that_goes_to_somebody_else_under_another_uuid_takes_its_record_along(
    passport: Passport, national_id: str | None
) -> None:
    former, other = passport.register(), passport.register("1199080012340000")
    sink = passport.sink()
    sink.write([obs(1, 10), obs(2, 11)])
    sink.write([obs(1, 20, uuid="second", who=person(2, national_id))])
    assert results(passport, former) == [(2, "72")]
    assert results(passport, other) == ([(1, "72")] if national_id else [])
    # The row comes back, and is purged under its third uuid.
    sink.write([obs(1, 30, uuid="third")])
    assert results(passport, other) == []
    assert results(passport, former) == [(1, "72"), (2, "72")]
    sink.write([obs(1, 40, uuid="third", deleted=True)])
    assert results(passport) == [(2, "72")]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_b1_a_uuid_that_passes_to_another_row_shows_that_one(
    passport: Passport, order: tuple[int, ...]
) -> None:
    """Two rows exchange their uuids, by way of a third one. Whoever reads twice sees any order."""
    patient_id = passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, value=make.number(51)), obs(2, 10, value=make.number(52))])
    steps = [
        obs(1, 20, uuid="between", value=make.number(51)),
        obs(2, 21, uuid="obs-1", value=make.number(52)),
        obs(1, 22, uuid="obs-2", value=make.number(51)),
    ]
    for index in order:
        sink.write([steps[index]])
    assert results(passport, patient_id) == [(1, "51"), (2, "52")]
    sink.write([obs(2, 30, uuid="obs-1", voided=True, value=make.number(52))])
    assert results(passport, patient_id) == [(1, "51")]


# --- records that no row explains
# ------------------------------------------------------------------------------------------------


def leave_a_record_behind(passport: Passport, sink: MongoSink) -> None:
    """Do as the last release did: the record of an earlier uuid is known to no row."""
    sink.write([obs(1, 10), obs(2, 10)])
    [left, _] = passport.shown()
    sink.write([obs(1, 20, uuid="second", value=make.number(55))])
    passport.db.observations.update_many({}, {"$unset": {"formerRecords": ""}})
    passport.db.medicalrecords.replace_one({"_id": left["_id"]}, left)
    assert results(passport) == [(1, "72"), (1, "55"), (2, "72")]


def test_b1_a_person_who_is_read_whole_keeps_no_record_that_no_row_explains(
    passport: Passport,
) -> None:
    patient_id = passport.register()
    sink = passport.sink()
    leave_a_record_behind(passport, sink)
    rows = [obs(1, 20, uuid="second", value=make.number(55)), obs(2, 10)]
    read_whole(sink, person(at=30), [*rows, *edits(11, 14), *diagnosis(10, 21)])
    assert results(passport, patient_id)[:2] == [(1, "55"), (2, "72")]
    assert [obs_id for obs_id, _ in results(passport, patient_id)] == [1, 2, 14, 21]


@pytest.mark.parametrize("uuid", ["person-1", None], ids=["left", "purged"])
def test_b1_a_person_who_has_left_keeps_no_record_that_no_row_explains(
    passport: Passport, uuid: str | None
) -> None:
    passport.register()
    sink = passport.sink()
    leave_a_record_behind(passport, sink)
    sink._registrations.stop()
    passport.db.patients.delete_many({})
    if uuid is None:
        passport.db.people.delete_many({})
        passport.db.observations.delete_many({})
    read_whole(sink, replace(person(at=30), uuid=uuid), [])
    assert results(passport) == []


def test_b1_a_record_is_of_the_person_whose_row_makes_it(passport: Passport) -> None:
    """A person who is read whole sees, by a fault, what another one's row makes."""
    patient_id, other = passport.register(), passport.register("1199080012340000")
    sink = passport.sink()
    sink.write([obs(1, 10), obs(2, 10, who=person(2, "1199080012340000"))])
    passport.db.medicalrecords.update_many({}, {"$set": {"patientId": patient_id}})
    read_whole(sink, person(at=30), [obs(1, 10)])
    assert results(passport, patient_id) == [(1, "72")]
    assert results(passport, other) == [(2, "72")]
