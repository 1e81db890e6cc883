"""Connected rows, and the records that they once had, on a real MongoDB."""

from collections.abc import Iterator
from functools import partial

import pytest

from passport.facts import Observation
from tests import observations as make
from tests.integration.test_mongo_sink import Passport, operations
from tests.observations import obs
from tests.passport_shapes import check


@pytest.fixture
def passport(mongo_url: str) -> Iterator[Passport]:
    passport = Passport(mongo_url)
    yield passport
    if passport.db.medicalrecords.estimated_document_count():
        check(passport.db)
    passport.close()


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
