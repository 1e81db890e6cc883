"""A person with very many obs is read in slices: others don't wait, and nothing that happens to the
person in the middle is lost.

Slices are small here, and a consumer is played whose rounds the test calls one by one. So anything
happens between whichever two slices, also the consumer's end. The reader and the servers are real.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from kafka import KafkaConsumer, TopicPartition

from consumers import worker
from consumers.apply import Applier
from consumers.dead_letters import DeadLetters
from consumers.partition import Partition
from destinations.mongo.sink import MongoSink
from dev import hospital as generator
from dev.hospital import corrections, patients
from passport.configuration import load
from passport.facts import Observation
from passport.kafka import Record, own_record
from passport.settings import Settings
from passport.sink import Outcome, Progress, connect
from passport.version import LOWEST
from tests.beside import beside
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.e2e.topic import TOPIC
from tests.e2e.ward import Ward, new_id
from tests.eventually import eventually, seconds_until
from tests.oracle.compare import Comparison

KIGALI = "kigali"
SLICE = 3  # obs that are read at once
AT_ONCE = 4  # rows and records of MongoDB that one step has
OBS = 10
ROUNDS = 200


class Scene:
    """One hospital, its reader, and what the topic has. `Consumer` applies it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ward = Ward(stage, KIGALI)
        self.settings: Settings = load(stage.config)[0]
        self.topic: list[Record] = []
        self._place = TopicPartition(TOPIC, 0)
        self._topic = KafkaConsumer(bootstrap_servers=stage.kafka.url)
        stage.readers()
        eventually(lambda: TOPIC in self._topic.topics(), "the reader has made the topic")
        self._topic.assign([self._place])
        self._topic.seek(self._place, 0)
        self.nobody = self.ward.patient("", registered=False)
        self.published()

    def published(self) -> None:
        """Wait until all that was committed is in the topic."""
        marker = self.ward.obs(self.nobody)
        eventually(lambda: self._has_come(marker), "the reader has published it")

    def big(self, *, registered: bool = True) -> "Big":
        """Insert a person with many obs, whose patient is registered now or later."""
        national_id = new_id()
        return Big(self, self.ward.patient(national_id, registered=registered), national_id)

    def _has_come(self, obs: int) -> bool:
        for records in self._topic.poll(100).values():
            self.topic += map(own_record, records)
        sought = b'"obs_id":%d,' % obs
        return any(record.value and sought in record.value for record in self.topic)

    def close(self) -> None:
        self._topic.close()


class Big:
    """A person with many obs, and what may happen to them."""

    def __init__(self, scene: Scene, person: int, national_id: str) -> None:
        self.scene, self.ward = scene, scene.ward
        self.person, self.national_id = person, national_id
        self.other = self.ward.patient()
        self.stray = self.ward.obs(self.other)  # its obs_id is lower than those of the person
        self.obs = [self.ward.obs(person, value_numeric=60 + number) for number in range(OBS)]
        scene.published()

    def ask(self) -> None:
        """Have the person be read whole, as `passport backfill --person` does."""
        self.ward.run(f"UPDATE person SET birthdate_estimated = 1 - birthdate_estimated"
                      f" WHERE person_id = {self.person}")  # fmt: skip

    def values_change(self) -> None:
        first, last = self.obs[0], self.obs[-1]
        self.ward.run(f"UPDATE obs SET value_numeric = 199 WHERE obs_id IN ({first}, {last})")

    def an_obs_is_voided(self) -> None:
        self.ward.do(corrections.void, self.obs[0])

    def an_obs_is_purged(self) -> None:
        self.ward.run(f"DELETE FROM obs WHERE obs_id = {self.obs[1]}")

    def an_obs_comes(self) -> None:
        self.ward.obs(self.person, value_numeric=190)

    def an_obs_moves_in(self) -> None:
        self.ward.run(f"UPDATE obs SET person_id = {self.person} WHERE obs_id = {self.stray}")

    def an_obs_moves_away(self) -> None:
        self.ward.run(f"UPDATE obs SET person_id = {self.other} WHERE obs_id = {self.obs[2]}")

    def the_id_is_another(self) -> None:
        national_id = new_id()
        self.ward.register(national_id)
        self.ward.run(
            f"UPDATE patient_identifier SET identifier = '{national_id}'"
            f" WHERE patient_id = {self.person}"
        )

    def the_id_ends(self) -> None:
        self.ward.run(
            f"UPDATE patient_identifier SET voided = 1, voided_by = 1, date_voided = NOW(),"
            f" void_reason = 'x' WHERE patient_id = {self.person}"
        )

    def they_are_merged(self) -> None:
        self.ward.do(patients.merge, self.other, self.person)

    def the_account_is_deleted(self) -> None:
        self.scene.stage.db["patients"].delete_one({"nationalId": self.national_id})
        self._marked()

    def the_patient_registers(self) -> None:
        self.ward.register(self.national_id)
        self._marked()

    def _marked(self) -> None:
        query = {"_id": f"{KIGALI}/{self.person}", "pending": {"$exists": True}}
        people = self.scene.stage.db["people"]
        eventually(lambda: people.find_one(query), "who watches registrations has seen it")


class Consumer:
    """What the worker does for one hospital, a round at a time. It may be dropped at any moment."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        settings = scene.settings
        self.sink = cast("MongoSink", connect("passport", settings))
        self.sink.take(KIGALI)
        progress = self.sink.progress(KIGALI)
        offset = 0 if progress is None else progress.offset
        self.partition = Partition(0, KIGALI, settings.hospitals[KIGALI], settings.consumer, offset)
        if progress is not None:
            self.partition.lookups.seen(progress.version)
            self.partition.reenrichment.restore(progress.rereads)
        self._received = offset
        letters = DeadLetters(settings.kafka, "passport")
        self._applier = Applier("passport", self.sink, letters, newest_wins=True)
        self.slices = 0  # of big persons, and steps, after which there was more to do

    def round(self) -> None:
        partition = self.partition
        partition.receive(self._scene.topic[self._received :])
        self._received = len(self._scene.topic)
        if items := partition.take(1_000):
            self._applier.batch(partition, items)
        if partition.lookups.newest > LOWEST:
            partition.reenrichment.add_persons(self._wanted(), None, None)
        self._applier.reenrich(partition)
        self.slices += bool(partition.reenrichment.big_persons())
        rereads = partition.reenrichment.as_json()
        self.sink.record(Progress(KIGALI, partition.offset, partition.lookups.newest, 0, rereads))

    def go_on(self, slices: int) -> None:
        """Go on until so many slices or steps more are done, or all is done."""
        end = self.slices + slices
        while self.slices < end and not self.is_done:
            self.round()

    def finish(self) -> None:
        for _ in range(ROUNDS):
            self.round()
            if self.is_done:
                return
        raise AssertionError("it doesn't come to its end")

    @property
    def is_done(self) -> bool:
        partition = self.partition
        is_applied = partition.next == len(self._scene.topic) and not partition.buffered
        return is_applied and not partition.reenrichment.pending() and not self._wanted()

    def close(self) -> None:
        self.partition.close()
        self.sink.close()

    def _wanted(self) -> set[int]:
        return {*self.sink.wanted(KIGALI, 50)} - self.partition.reenrichment.big_persons()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    kigali = Hospital(
        KIGALI,
        0,
        generator.NATIONAL_ID_TYPE,
        settings={"load_budget": {"rows_per_s": 1_000_000, "queries_per_s": 1_000_000}},
    )
    folder = tmp_path_factory.mktemp("big")
    with opened(folder, kigali) as stage:
        stage.fill(kigali, every=2, seed=51, patients=4, visits=1)
        stage.grant()
        found = Scene(stage)
        yield found
        found.close()


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("consumers.waiting", "consumers.reenrich"):
        monkeypatch.setattr(f"{name}.SLICE", SLICE)
    for name in ("observations", "hospital_writer", "medicalrecords"):
        monkeypatch.setattr(f"destinations.mongo.{name}.SLICE", AT_ONCE)


MEANWHILE: Sequence[Callable[[Big], None]] = (
    Big.values_change,
    Big.an_obs_is_voided,
    Big.an_obs_is_purged,
    Big.an_obs_comes,
    Big.an_obs_moves_in,
    Big.an_obs_moves_away,
    Big.the_id_is_another,
    Big.the_id_ends,
    Big.they_are_merged,
    Big.the_account_is_deleted,
    Big.the_patient_registers,
)
SLICES = OBS // SLICE + 1
MOST_SLICES = 200
MANY, MILLION = 500_000, 1_000_000
SLOW_S = 1_800.0
LAST = 12  # there are fewer slices and steps of an undisturbed person


def played(scene: Scene, meanwhile: Callable[[Big], None], at: int, *, killed: bool) -> Comparison:
    """Let something happen at a slice of a big person, and return how MongoDB ends."""
    big = scene.big(registered=meanwhile is not Big.the_patient_registers)
    consumer = Consumer(scene)
    consumer.finish()
    big.ask()
    scene.published()
    consumer.go_on(at)
    if at <= SLICES:
        assert consumer.partition.reenrichment.big_persons() == {big.person}, "in the middle"
    meanwhile(big)
    scene.published()
    if killed:
        consumer.round()
        consumer.close()
        consumer = Consumer(scene)
    consumer.finish()
    consumer.close()
    return scene.stage.compare()


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize(
    "meanwhile",
    [Big.an_obs_moves_in, Big.the_id_ends, Big.they_are_merged],
    ids=lambda act: act.__name__,
)
def test_b15_what_happens_in_the_middle_is_not_lost(
    scene: Scene, meanwhile: Callable[[Big], None]
) -> None:
    for at in (2, 4):
        played(scene, meanwhile, at, killed=at == 4).require_equal()


@pytest.mark.long
@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=lambda act: act.__name__)
def test_b15_whatever_happens_at_whichever_slice(
    scene: Scene, meanwhile: Callable[[Big], None], killed: bool
) -> None:
    for at in range(1, LAST):
        played(scene, meanwhile, at, killed=killed).require_equal()


@pytest.mark.usefixtures("small_slices")
def test_b15_rows_that_only_the_destination_has_go_in_steps(scene: Scene) -> None:
    """The id ends, and all obs are gone from the hospital when the person is read."""
    big = scene.big()
    consumer = Consumer(scene)
    consumer.finish()
    big.the_id_ends()
    scene.published()
    scene.ward.run(f"DELETE FROM obs WHERE person_id = {big.person}")
    consumer.go_on(1)
    assert consumer.partition.reenrichment.big_persons() == {big.person}
    assert 0 < read_so_far(scene.stage, big.person) <= OBS
    scene.published()
    consumer.finish()
    consumer.close()
    assert read_so_far(scene.stage, big.person) == 0
    scene.stage.compare().require_equal()


@pytest.mark.usefixtures("small_slices")
def test_b15_somebody_elses_event_comes_before_the_big_persons_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed when the first rows of the big person are written. From then on that person
    gets obs as quickly as they are read, up to MOST_SLICES, until the event has come.
    """
    big = scene.big()
    consumer = Consumer(scene)
    consumer.finish()
    consumer.close()
    order: list[str] = []
    committed: list[int] = []
    write = MongoSink.write

    def watched(sink: MongoSink, observations: Sequence[Observation]) -> Outcome:
        outcome = write(sink, observations)
        if any(observation.obs_id in committed for observation in observations):
            order.append("event")
        if any(is_read_whole(observation) for observation in observations):
            order.append("slice")
            if not committed:
                committed.append(scene.ward.obs(big.other))
                scene.published()
            if "event" not in order and order.count("slice") < MOST_SLICES:
                insert_obs(scene.ward, big.obs[0], SLICE)
        return outcome

    def is_read_whole(observation: Observation) -> bool:
        return observation.origin == "person" and observation.person.person_id == big.person

    monkeypatch.setattr(MongoSink, "write", watched)
    big.ask()
    with beside(partial(consumed, scene.settings)):
        eventually(lambda: "event" in order, "the event is applied")
        event_at = order.index("event")
        eventually(lambda: "slice" in order[event_at:], "there was more of the big person", 20)
    assert event_at < MOST_SLICES


def consumed(settings: Settings, stop: threading.Event) -> None:
    worker.run("passport", settings, until_caught_up=False, stop=stop)


@pytest.mark.long
def test_b15_a_person_of_half_a_million_obs(tmp_path: Path) -> None:
    """Others wait no second for them, and the consumer stays within 300 MB. It knows the national
    ids of a million patients, too, and is killed once in the middle.
    """
    kigali = Hospital(KIGALI, 0, generator.NATIONAL_ID_TYPE)
    with opened(tmp_path, kigali) as stage:
        stage.fill(kigali, every=2, seed=51, patients=6, visits=1)
        stage.grant()
        ward = Ward(stage, KIGALI)
        national_id = new_id()
        person, other = ward.patient(national_id, registered=False), ward.patient()
        insert_patients(ward, MILLION)
        first = ward.obs(person)
        stage.readers()
        consumer = stage.role("consume", "--destination", "passport")
        ward.shown(ward.obs(other))
        insert_obs(ward, first, MANY)

        ward.register(national_id)
        eventually(lambda: read_so_far(stage, person) > MANY // 10, "it goes on", SLOW_S)
        peak_mb = peak_of(consumer)
        consumer.kill()
        consumer.start()
        seconds: list[float] = []
        while stage.db["people"].count_documents({"personId": person, "pending": "read"}):
            consumer.require_running()
            obs = ward.obs(other)
            seconds.append(seconds_until(partial(ward.record, obs), "it is shown"))
            if len(seconds) == 100:
                ward.run(f"UPDATE obs SET value_numeric = 199 WHERE obs_id = {first}")
        peak_mb = max(peak_mb, peak_of(consumer))
        seconds.sort()
        p50, p95 = seconds[len(seconds) // 2], seconds[len(seconds) * 95 // 100]
        print(f"others: {len(seconds)}, p50 {p50:.2f} s, p95 {p95:.2f}, most {seconds[-1]:.2f};"
              f" {peak_mb} MB")  # fmt: skip
        ward.shown(first, details="199")
        assert shown(stage, person) == at_the_hospital(ward, person)
        assert len(seconds) > 100
        assert p95 < 1
        assert peak_mb < 300


def insert_patients(ward: Ward, count: int) -> None:
    """Insert patients with a national id each, and no obs."""
    [(last,)] = ward.sql("SELECT MAX(person_id) FROM person")
    row, values = "creator, date_created", "1, NOW()"
    id_type, place = ward.known.national_id, ward.known.locations[0]
    ward.run(
        f"INSERT INTO person (person_id, gender, birthdate, uuid, {row})"
        f" SELECT {last} + seq, 'F', '1990-01-01', UUID(), {values} FROM seq_1_to_{count}",
        f"INSERT INTO patient (patient_id, {row})"
        f" SELECT {last} + seq, {values} FROM seq_1_to_{count}",
        f"INSERT INTO patient_identifier (patient_id, identifier, identifier_type, preferred,"
        f" location_id, uuid, {row}) SELECT {last} + seq, CONCAT('91', LPAD(seq, 14, '0')),"
        f" {id_type}, 1, {place}, UUID(), {values} FROM seq_1_to_{count}",
    )


def insert_obs(ward: Ward, pattern: int, count: int) -> None:
    """Insert copies of an obs of which the reader hears nothing."""
    row = "person_id, concept_id, obs_datetime, date_created, creator, value_numeric, status"
    with ward.hospital.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(
            f"INSERT INTO obs ({row}, uuid) SELECT {row}, UUID()"
            f" FROM (SELECT {row} FROM obs WHERE obs_id = {pattern}) pattern, seq_1_to_{count}"
        )
        connection.commit()


def read_so_far(stage: Stage, person: int) -> int:
    return int(stage.db["observations"].count_documents({"personId": person}))


def peak_of(role: Role) -> int:
    """Return the most memory that the process has had, in MB."""
    assert role.process is not None
    status = Path(f"/proc/{role.process.pid}/status").read_text(encoding="utf-8")
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+)", status)
    return int(kilobytes) // 1024


def shown(stage: Stage, person: int) -> dict[int, float]:
    records = stage.db["medicalrecords"].find(
        {"openmrsData.personId": person, "patientId": {"$ne": ""}},
        {"openmrsData.obsId": 1, "data.details": 1},
    )
    return {one["openmrsData"]["obsId"]: float(one["data"]["details"]) for one in records}


def at_the_hospital(ward: Ward, person: int) -> dict[int, float]:
    ward.connection.rollback()
    return dict(ward.sql(f"SELECT obs_id, value_numeric FROM obs WHERE person_id = {person}"))
