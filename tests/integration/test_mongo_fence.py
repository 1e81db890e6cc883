"""One writer at a time for each hospital, on a real MongoDB."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bson import ObjectId
from pymongo import MongoClient, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import WriteConcernError

from destinations.mongo.erasure import Erasure
from destinations.mongo.fence import Fence
from destinations.mongo.sink import MongoSink
from passport.errors import Overtaken, Retry
from passport.facts import Observation
from passport.settings import Settings
from passport.sink import Progress
from tests import observations as make
from tests.integration.passport_database import (
    CANARY,
    LINK_KEY,
    Document,
    Passport,
    diagnosis,
    empty,
    one,
    read_whole,
    story,
)
from tests.observations import HOSPITAL, obs, patient, person, version

OLD_NAME = make.concept(5, "Pulse", "CIEL:5087", cls="Test", datatype="Numeric")
NEW_NAME = make.concept(5, "Heart rate", "CIEL:5087", cls="Test", datatype="Numeric")
CALLS = ("find", "find_one", "bulk_write", "update_one", "delete_many", "find_one_and_update")


def written(passport: Passport) -> Document:
    """What consumers write; the watch on registrations writes beside them."""
    names = ("observations", "medicalrecords", "people", "auditlogs", "progress", "syncstatus")
    return {name: list(passport.db[name].find()) for name in (*names, "fences", "users")}


def generation(passport: Passport) -> int:
    return int(one(passport.db.fences, HOSPITAL)["generation"])


# --- whoever was frozen


class Frozen:
    """A writer, in a thread of its own, that is frozen before its next write to a collection."""

    NAME = "frozen"

    def __init__(self, patch: pytest.MonkeyPatch, collection: str) -> None:
        self.is_frozen, self._go = threading.Event(), threading.Event()
        self.ended = threading.Event()
        self.calls_of_others = 0
        self._wake_at = -1
        self._collection = collection
        self.raised: BaseException | None = None
        for name in CALLS:
            patch.setattr(Collection, name, self._wrapped(name, getattr(Collection, name)))

    def begin(self, work: Callable[[], object]) -> None:
        """Let it work until it is frozen."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # looked at by the test
                self.raised = error
            self.ended.set()

        threading.Thread(target=run, name=self.NAME, daemon=True).start()
        assert self.is_frozen.wait(20)

    def wake_after(self, calls: int) -> None:
        """Let it go on, to its end, after so many calls of others from now."""
        self.calls_of_others, self._wake_at = 0, calls

    def wake(self) -> None:
        self._go.set()
        assert self.ended.wait(70)

    def _wrapped(self, name: str, method: Any) -> Any:
        def call(collection: Collection[Document], *args: Any, **options: Any) -> Any:
            if threading.current_thread().name == self.NAME:
                if (name, collection.name) == ("bulk_write", self._collection):
                    self.is_frozen.set()
                    assert self._go.wait(60)
                return method(collection, *args, **options)
            answer = method(collection, *args, **options)
            is_main = threading.current_thread() is threading.main_thread()
            if self.is_frozen.is_set() and is_main:
                self.calls_of_others += 1
                if self.calls_of_others == self._wake_at:
                    self.wake()
            return answer

        return call


def test_b2_no_record_of_a_frozen_writer_outlives_the_link(passport: Passport) -> None:
    """One is about to insert a record when the other ends the link; it goes on after each call of
    the other.
    """
    patient_id = passport.register()
    first, second = passport.sink(), passport.sink()
    ended = person(national_id=None, at=30)
    number, calls, overtaken = 1, 1, 0
    while number <= calls:
        with pytest.MonkeyPatch.context() as patch:
            forget(passport)
            first.take(HOSPITAL)
            first.write([obs(1, 10)])
            frozen = Frozen(patch, "medicalrecords")
            frozen.begin(partial(first.write, [obs(2, 20)]))
            assert len(passport.shown(patient_id)) == 1, "it is frozen before its insert"
            frozen.wake_after(number)
            second.take(HOSPITAL)
            read_whole(second, ended, [obs(1, 10), obs(2, 20)])
            calls = frozen.calls_of_others
            if not frozen.ended.is_set():
                frozen.wake()
            if frozen.raised is not None:
                assert isinstance(frozen.raised, Overtaken)
                overtaken += 1
        assert passport.shown(patient_id) == [], f"after call {number}"
        number += 1
    assert overtaken > 8, "it has lost the hospital before most of these calls"


def test_a_frozen_transaction_is_ended_by_who_takes_the_hospital(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would hold what it wrote for a minute: from the next writer, and from a doctor."""
    passport.register()
    first, second = passport.sink(), passport.sink()
    first.take(HOSPITAL)
    first.write([obs(1, 10)])
    frozen = Frozen(monkeypatch, "medicalrecords")
    frozen.begin(partial(first.write, [obs(1, 20, value=make.number(80))]))
    opened = passport.client.admin.command("serverStatus")["transactions"]["currentOpen"]
    assert opened >= 1, "it is frozen inside its transaction"
    began = time.monotonic()
    second.take(HOSPITAL)
    second.write([obs(1, 30, value=make.number(90))])
    took_s = time.monotonic() - began
    assert passport.details() == ["90"]
    frozen.wake()
    assert isinstance(frozen.raised, Overtaken)
    assert passport.details() == ["90"]
    lifetime = {"getParameter": 1, "transactionLifetimeLimitSeconds": 1}
    limit_s = passport.client.admin.command(lifetime)["transactionLifetimeLimitSeconds"]
    assert took_s < limit_s / 2


def test_who_may_end_no_session_waits_for_its_transaction(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may still commit: so nobody else has the hospital before it has."""
    passport.register()
    first, second = passport.sink(), passport.sink()
    first.take(HOSPITAL)
    frozen = Frozen(monkeypatch, "medicalrecords")
    frozen.begin(partial(first.write, [obs(1, 10)]))
    monkeypatch.setattr(Fence, "_end", lambda *_: None)
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(second.take, HOSPITAL)
        with pytest.raises(TimeoutError):
            taking.result(timeout=1)
        frozen.wake()
        taking.result()
    assert frozen.raised is None
    assert len(passport.shown()) == 1
    assert generation(passport) == 2


def test_a_commit_whose_session_is_ended_is_one(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wait for a majority is interrupted, and says so, though all is written."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    commit = ClientSession.commit_transaction
    interrupted: list[int] = []

    def commit_and_interrupt(session: ClientSession) -> None:
        commit(session)
        if not interrupted:
            interrupted.append(1)
            raise WriteConcernError("interrupted", 11601)

    monkeypatch.setattr(ClientSession, "commit_transaction", commit_and_interrupt)
    assert sink.write([obs(2, 20)]).stored == 1
    assert interrupted
    assert len(passport.shown()) == 2


def test_a_row_that_an_earlier_release_wrote_meanwhile_stays(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a writer doesn't know the fence."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10)])
    newer = {"$set": {"version": version(30), "digest": "another"}}

    def write() -> None:
        passport.db.observations.update_one({"_id": f"{HOSPITAL}/1"}, newer)

    overtaking = Overtaking(monkeypatch, sink, 1, write)
    with pytest.raises(Retry, match="earlier release"):
        sink.write([obs(1, 20, value=make.number(80))])
    assert overtaking.happened
    assert one(passport.db.observations, f"{HOSPITAL}/1")["version"] == version(30)


def test_b10_a_frozen_writers_older_name_does_not_win(passport: Passport) -> None:
    """Both write the same state of a row. One read the concept's name before it was changed."""
    passport.register()
    first, second = passport.sink(), passport.sink()
    first.take(HOSPITAL)
    as_read_before = obs(1, 10, OLD_NAME)
    second.take(HOSPITAL)
    second.write([obs(1, 10, NEW_NAME)])
    with pytest.raises(Overtaken):
        first.write([as_read_before])
    assert [record["data"]["testName"] for record in passport.shown()] == ["Heart rate"]


def test_b10_an_older_state_of_a_person_that_comes_late_unlinks_nobody(passport: Passport) -> None:
    """The same was read of the person twice, and what was read in between comes last."""
    passport.register()
    sink = passport.sink()
    sink.write([obs(1, 10, who=person(at=10))])
    sink.write([obs(2, 30, who=person(at=30))])
    late = person(at=20, state="ambiguous", national_id=None)
    sink.write([obs(3, 20, who=late)])
    assert one(passport.db.people, f"{HOSPITAL}/1")["state"] == "ok"
    assert len(passport.shown()) == 3


# --- what a fence is


def test_the_last_to_take_a_hospital_writes_alone(passport: Passport) -> None:
    passport.register()
    first, second = passport.sink(), passport.sink()
    first.take(HOSPITAL)
    first.write([obs(1, 10)])
    second.take(HOSPITAL)
    assert generation(passport) == 2
    newer = Progress(HOSPITAL, 7, version(50), 1_700_000_000_123)
    for act in (
        partial(first.write, [obs(2, 20)]),
        partial(first.retain, person(at=30), [], version(30, 0)),
        partial(first.record, newer),
    ):
        before = written(passport)
        with pytest.raises(Overtaken):
            act()
        assert written(passport) == before
    second.write([obs(2, 20)])
    first.take(HOSPITAL)
    first.write([obs(3, 30)])
    assert [record["openmrsData"]["obsId"] for record in passport.shown()] == [1, 2, 3]
    with pytest.raises(Overtaken):
        second.record(newer)


def test_one_hospitals_fence_is_not_anothers(passport: Passport) -> None:
    passport.register()
    first, second = passport.sink(), passport.sink()
    first.take(HOSPITAL)
    second.take("huye")
    first.write([obs(1, 10)])
    second.write([obs(1, 10, who=person(hospital="huye"))])
    assert len(passport.shown()) == 2


def test_an_update_that_changes_nothing_would_not_meet_another_writer(
    mongo_url: str, mongo_database: Any
) -> None:
    """A fact about MongoDB: so each transaction counts `writes` in the fence's document."""
    with MongoClient[Document](mongo_url) as client, client.start_session() as session:
        fences = client[mongo_database.name].fences
        fences.insert_one({"_id": "h", "generation": 1, "writes": 0})
        for change, is_met in (({"generation": 1}, False), ({"writes": 1}, True)):
            fences.update_one({"_id": "h"}, {"$set": {"generation": 1, "writes": 0}})
            session.start_transaction()
            fences.update_one({"_id": "h", "generation": 1}, {"$set": change}, session=session)
            with ThreadPoolExecutor(1) as threads:
                taking = threads.submit(
                    fences.update_one, {"_id": "h"}, {"$inc": {"generation": 1}}
                )
                if not is_met:
                    taking.result()
                session.commit_transaction()
                taking.result()
        fences.drop()


def test_only_what_mongodb_refuses_is_left_out(mongo_database: Any) -> None:
    """One refused document makes the whole transaction void: the others come in others."""
    mongo_database.create_collection("things", validator={"number": {"$ne": 13}})
    fence = Fence(mongo_database, HOSPITAL)
    upserts = [
        {"things": [UpdateOne({"_id": number}, {"$set": {"number": number}}, upsert=True)]}
        for number in range(30)
    ]
    written = fence.write(upserts)
    assert written.failed == {13: "invalid"}
    assert mongo_database.things.count_documents({}) == 29
    changes = [{"things": [UpdateOne({"_id": n}, {"$inc": {"times": 1}})]} for n in (1, 13)]
    assert fence.write(changes, guarded="things").missed
    assert mongo_database.things.find_one({"times": 1}) is None, "all of it or nothing"
    assert fence.write(changes).matched["things"] == 1
    fence.close()
    mongo_database.things.drop()
    mongo_database.fences.drop()


# --- two writers


class Overtaking:
    """Lets another writer take the hospital and write, just before a sink's n-th transaction."""

    def __init__(
        self, patch: pytest.MonkeyPatch, sink: MongoSink, number: int, other: Callable[[], object]
    ) -> None:
        self.happened = False
        self._number, self._other = number, other
        self._fence = sink._fence(HOSPITAL)
        self._write = self._fence.write
        patch.setattr(self._fence, "write", self)

    def __call__(self, changes: Sequence[Any], **options: Any) -> Any:
        self._number -= bool(changes)
        if changes and self._number == 0:
            self.happened = True
            self._other()
        return self._write(changes, **options)


def taken(sink: MongoSink, rows: Sequence[Observation]) -> None:
    sink.take(HOSPITAL)
    sink.write(rows)


@pytest.mark.parametrize(
    ("before", "late", "others", "shown"),
    [
        ([], [obs(1, 10)], [obs(1, 20, voided=True)], []),
        (
            [obs(1, 10)],
            [obs(1, 20, value=make.number(80))],
            [obs(1, 30, value=make.number(90))],
            [(1, "90")],
        ),
        ([], [diagnosis(10)[1]], [diagnosis(10)[0]], [(3, "Malaria")]),
        (
            [obs(1, 10)],
            [obs(2, 20, make.CHIEF_COMPLAINT, make.text(CANARY))],
            [obs(3, 30, who=person(national_id=None, at=30))],
            [],
        ),
    ],
    ids=["voided", "newer", "header", "link ended"],
)
def test_a_writer_that_has_seen_less_loses(
    passport: Passport,
    before: list[Observation],
    late: list[Observation],
    others: list[Observation],
    shown: list[tuple[int, str]],
) -> None:
    """Whichever of its transactions is the first that comes late. Then it comes again."""
    passport.register()
    slow, quick = passport.sink(), passport.sink()
    number = 0
    while True:
        number += 1
        forget(passport)
        taken(slow, before)
        with pytest.MonkeyPatch.context() as patch:
            overtaking = Overtaking(patch, slow, number, partial(taken, quick, others))
            try:
                slow.write(late)
            except Overtaken:
                assert overtaking.happened
            else:
                assert not overtaking.happened, f"transaction {number} was let through"
        if not overtaking.happened:
            break
        taken(slow, late)
        assert [(content(record)) for record in passport.shown()] == shown
        assert shown or CANARY not in passport.everything()
    assert number > 2


def content(record: Document) -> tuple[int, str]:
    data = record["data"]
    return record["openmrsData"]["obsId"], data.get("diagnosis") or data["details"]


def forget(passport: Passport) -> None:
    """As if nothing had ever come from the hospital."""
    for name in ("observations", "medicalrecords", "people", "auditlogs"):
        passport.db[name].delete_many({})


def test_two_writers_at_once_end_as_one_does(passport: Passport) -> None:
    """Both replay everything, in pieces of their own and out of step, and take the hospital from
    each other; the links of both persons change on the way.
    """
    moved, ended = person(national_id="1199080012349999", at=30), person(2, None, at=30)
    events = [*story(), obs(20, 30, who=moved), obs(21, 30, who=ended), obs(22, 31, who=moved)]
    empty(passport)
    third = passport.register("1199080012349999")
    passport.sinks[0].write(events)
    expected = passport.state()
    assert {record["patientId"] for record in expected["records"].values()} == {third}
    lost = 0
    for seed in range(5):
        empty(passport)
        passport.db.patients.insert_one(patient("1199080012349999") | {"_id": ObjectId(third)})
        with ThreadPoolExecutor(2) as threads:
            replays = [
                threads.submit(replay, passport, events, seed * 2 + writer) for writer in range(2)
            ]
            lost += sum(each.result() for each in replays)
        assert passport.state() == expected, f"seed {seed}"
    assert lost, "they met"


def replay(passport: Passport, events: list[Observation], seed: int) -> int:
    """Return how often another writer took the hospital."""
    rng, sink = random.Random(seed), passport.sink()
    start = lost = 0
    sink.take(HOSPITAL)
    while start < len(events):
        size = rng.randint(1, 6)
        try:
            sink.write(events[start : start + size])
        except Overtaken:
            lost += 1
            time.sleep(rng.uniform(0, 0.02 * lost))
            sink.take(HOSPITAL)
        else:
            start += size
    sink.close()
    return lost


def test_a_row_that_goes_to_an_unmatched_person_is_gone_after_a_crash_too(
    passport: Passport,
) -> None:
    """Its tombstone is in the mirror, and its record still there: the row comes again."""
    patient_id = passport.register()
    slow, quick = passport.sink(), passport.sink()
    gone = [obs(1, 20, who=person(2, None, at=20))]
    number, happened = 0, True
    while happened:
        number += 1
        forget(passport)
        taken(slow, [obs(1, 10)])
        assert len(passport.shown(patient_id)) == 1
        with pytest.MonkeyPatch.context() as patch:
            overtaking = Overtaking(patch, slow, number, partial(quick.take, HOSPITAL))
            with suppress(Overtaken):
                slow.write(gone)
        happened = overtaking.happened
        taken(slow, gone)
        assert passport.shown(patient_id) == [], f"transaction {number}"
    assert number > 2


# --- an erasure


def test_a_writer_that_is_overtaken_by_an_erasure_leaves_nothing(
    passport: Passport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links were read, then the patient left and the link was erased, then the rows are written."""
    passport.register()
    sink = passport.sink()
    sink._registrations.stop()
    sink.write([obs(1, 10)])

    def erase() -> None:
        passport.db.patients.delete_many({})
        Fence(passport.db, HOSPITAL).take()
        for name in ("people", "observations", "medicalrecords"):
            passport.db[name].delete_many({})

    overtaking = Overtaking(monkeypatch, sink, 1, erase)
    with pytest.raises(Overtaken):
        sink.write([obs(1, 20), obs(2, 20, row=2)])
    assert overtaking.happened
    assert list(passport.db.observations.find()) == []
    assert passport.shown() == []


def test_an_erasure_that_is_overtaken_erases_nothing(passport: Passport) -> None:
    """The person is registered again, and comes back, between its questions and its deletions."""
    national_id, nowhere = "1199080012345678", cast("Settings", SimpleNamespace(hospitals={}))
    sink = passport.sink()
    sink._registrations.stop()
    sink.write([obs(1, 10)])
    fence = Fence(passport.db, HOSPITAL)
    fence.take()
    erasure = Erasure(passport.db, nowhere, LINK_KEY.encode(), national_id)
    assert erasure.count()["people"] == 1
    passport.register(national_id)
    sink.take(HOSPITAL)
    read_whole(sink, person(at=20), [obs(1, 10)])
    with pytest.raises(Overtaken):
        erasure.run(fence)
    fence.close()
    assert len(passport.shown()) == passport.db.people.count_documents({}) == 1
