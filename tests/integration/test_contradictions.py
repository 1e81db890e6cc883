"""A link whose hospital and Passport say different things of the person, on a real MongoDB."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from destinations.mongo import decisions
from destinations.mongo.contradictions import PassportPatient, contradictions
from destinations.mongo.sink import MongoSink
from passport.errors import Fatal
from passport.facts import Person
from tests import observations as make
from tests.eventually import eventually
from tests.integration.passport_database import Passport, read_whole
from tests.observations import HOSPITAL, obs, person
from tests.passport_shapes import check

# The patient of the tests is a woman, born on 1990-08-01.
WOMAN = person(birth_year=1990, sex="female")
MAN = replace(WOMAN, birth_year=1959, sex="male")
ROWS = [obs(1, 10), obs(2, 11)]


@pytest.fixture
def passport(passport: Passport) -> Iterator[Passport]:
    yield passport
    check(passport.db)


def at(who: Person, position: int) -> Person:
    return replace(who, version=make.version(position, 0))


def link(passport: Passport) -> dict[str, Any]:
    document = passport.db.people.find_one({"_id": WOMAN.key})
    assert document is not None
    return document


def wanted(sink: MongoSink) -> None:
    """Wait until the person is to be read whole."""
    eventually(lambda: list(sink.wanted(HOSPITAL, 10)) == [1], "the person is asked for")


def decide(passport: Passport, sink: MongoSink, verdict: Any, position: int) -> None:
    """As the command does; then the consumer reads the person, until nothing is left to do."""
    hospital = make.settings({}).hospitals[HOSPITAL]
    decisions.decide(passport.db, HOSPITAL, hospital, 1, verdict, "agnes")
    while sink.wanted(HOSPITAL, 10):
        read_whole(sink, at(MAN, position), ROWS)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (WOMAN, []),
        (MAN, ["birth_year", "sex"]),
        (replace(WOMAN, birth_year=1991), ["birth_year"]),
        (replace(WOMAN, birth_year=1995, is_birth_estimated=True), []),
        (replace(WOMAN, birth_year=1985, is_birth_estimated=True), []),
        (replace(WOMAN, birth_year=1996, is_birth_estimated=True), ["birth_year"]),
        (replace(WOMAN, sex="male"), ["sex"]),
        (replace(WOMAN, birth_year=None, sex=None), []),
    ],
)
def test_b6_what_contradicts(who: Person, expected: list[str]) -> None:
    assert contradictions(who, PassportPatient.of(make.patient())) == expected


def test_b6_what_one_side_does_not_know_contradicts_nothing() -> None:
    unknown = {"dateOfBirth": None, "gender": "prefer_not_to_say"}
    assert contradictions(MAN, PassportPatient.of(make.patient() | unknown)) == []
    # Midnight of New Year in Kigali, and in Honolulu.
    for born in (datetime(1989, 12, 31, 22, tzinfo=UTC), datetime(1990, 1, 1, 10, tzinfo=UTC)):
        patient = PassportPatient.of(make.patient() | {"dateOfBirth": born})
        assert contradictions(WOMAN, patient) == []


def test_b6_a_contradicting_link_is_counted_and_shown(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink(sweep_s=0.2)
    read_whole(sink, at(MAN, 20), ROWS)
    assert len(passport.shown(patient_id)) == 2
    assert link(passport)["contradicts"] == ["birth_year", "sex"]
    assert link(passport)["state"] == "ok"
    assert sink.counts(HOSPITAL)["contradicting"] == 1
    labels = {"hospital": HOSPITAL, "field": "sex"}
    eventually(
        lambda: REGISTRY.get_sample_value("passport_people_contradicting", labels) == 1,
        "the metric counts it",
    )
    text = repr(link(passport))
    assert "1959" not in text.replace(link(passport)["version"], "")
    read_whole(sink, at(WOMAN, 30), ROWS)
    assert "contradicts" not in link(passport)
    assert sink.counts(HOSPITAL)["contradicting"] == 0


def test_b6_off_compares_nothing(passport: Passport) -> None:
    passport.register()
    read_whole(passport.sink(contradictions="off"), at(MAN, 20), ROWS)
    assert "contradicts" not in link(passport)
    assert len(passport.shown()) == 2


def test_b6_a_contradicting_link_waits_for_an_operator(passport: Passport) -> None:
    patient_id = passport.register()
    sink = passport.sink(contradictions="ask")
    read_whole(sink, at(MAN, 20), ROWS)
    assert passport.shown() == []
    assert passport.db.observations.count_documents({}) == 0
    assert list(sink.unmatched(HOSPITAL)) == [(HOSPITAL, 1, "contradicting")]
    assert link(passport)["candidateId"] == patient_id

    decide(passport, sink, "link", 30)
    assert len(passport.shown(patient_id)) == 2
    decide(passport, sink, "refuse", 40)
    assert passport.shown() == []
    assert list(sink.unmatched(HOSPITAL)) == [(HOSPITAL, 1, "refused")]
    decide(passport, sink, None, 50)
    assert link(passport)["state"] == "contradicting"

    told = [
        entry["details"].partition(", ")[2]
        for entry in passport.db.auditlogs.find({"details": {"$regex": "^Link of"}}).sort("_id")
    ]
    assert sorted(told) == [
        "decided: link, by agnes",
        "decided: refuse, by agnes",
        "the decision taken back, by agnes",
    ]
    for entry in passport.db.auditlogs.find({"details": {"$regex": "^Link of"}}):
        assert str(entry["patient"]) == patient_id


def test_b6_a_decision_is_about_one_id_and_one_patient(passport: Passport) -> None:
    first, second = passport.register(), passport.register("1199080012340000")
    sink = passport.sink(contradictions="ask")
    read_whole(sink, at(MAN, 20), ROWS)
    decide(passport, sink, "link", 30)
    assert len(passport.shown(first)) == 2
    corrected = replace(at(MAN, 40), national_id="1199080012340000")
    read_whole(sink, corrected, ROWS)
    assert passport.shown(first) == []
    assert link(passport)["state"] == "contradicting"
    assert link(passport)["candidateId"] == second


def test_b6_a_corrected_date_of_birth_is_compared_at_once(passport: Passport) -> None:
    """In the Passport here; the hospital's is a key change of `person`, as any other."""
    patient_id = passport.register()
    sink = passport.sink(contradictions="ask")
    read_whole(sink, at(MAN, 20), ROWS)
    assert list(sink.wanted(HOSPITAL, 10)) == []
    right = {"dateOfBirth": datetime(1959, 7, 28, tzinfo=UTC), "gender": "male"}
    passport.db.patients.update_one({}, {"$set": right})
    wanted(sink)
    while sink.wanted(HOSPITAL, 10):
        read_whole(sink, at(MAN, 20), ROWS)
    assert len(passport.shown(patient_id)) == 2
    passport.db.patients.update_one({}, {"$set": {"gender": "female"}})
    wanted(sink)
    read_whole(sink, at(MAN, 30), ROWS)
    assert passport.shown() == []
    passport.db.patients.update_one({}, {"$unset": {"gender": ""}})
    wanted(sink)
    passport.db.patients.update_one({}, {"$set": {"gender": "female"}})  # as its schema has it


@pytest.mark.parametrize("sweep_s", [300, 0.2])
def test_b6_a_patient_who_leaves_is_waited_for_no_longer(
    passport: Passport, sweep_s: float
) -> None:
    passport.register()
    sink = passport.sink(contradictions="ask", sweep_s=sweep_s)
    read_whole(sink, at(MAN, 20), ROWS)
    assert link(passport)["state"] == "contradicting"
    passport.db.patients.delete_many({})
    wanted(sink)
    read_whole(sink, at(MAN, 20), ROWS)
    assert link(passport)["state"] == "ok"
    assert "candidateId" not in link(passport)


def test_b6_the_setting_is_followed_by_links_that_are_there(passport: Passport) -> None:
    patient_id = passport.register()
    counting = passport.sink()
    read_whole(counting, at(MAN, 20), ROWS)
    counting.close()
    asking = passport.sink(contradictions="ask")
    wanted(asking)
    read_whole(asking, at(MAN, 20), ROWS)
    assert passport.shown() == []
    asking.close()
    counting = passport.sink()
    wanted(counting)
    while counting.wanted(HOSPITAL, 10):
        read_whole(counting, at(MAN, 30), ROWS)
    assert len(passport.shown(patient_id)) == 2


def test_b6_there_is_nothing_to_decide_of_whom_no_patient_is_known(passport: Passport) -> None:
    sink = passport.sink()
    read_whole(sink, at(WOMAN, 20), ROWS)
    hospital = make.settings({}).hospitals[HOSPITAL]
    with pytest.raises(Fatal, match="nothing to decide"):
        decisions.decide(passport.db, HOSPITAL, hospital, 1, "link", "agnes")
    with pytest.raises(Fatal):
        decisions.one(passport.db, HOSPITAL, 999)
