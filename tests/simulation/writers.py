"""Two consumers of one hospital, a doctor and a played MongoDB: the product's own code writes.

Every call of a writer to the database, and the moment between reading the hospital and writing, is
a place where it may stand still, for as long as the others like. A schedule says who goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import pytest
from bson import ObjectId
from msgspec.structs import replace
from pymongo import InsertOne

import tests.simulation.world
from destinations.mongo import (
    fence,
    hospital_writer,
    medicalrecords,
    observations,
    people,
    progress,
)
from destinations.mongo.client import Mongo
from destinations.mongo.fence import Fence
from destinations.mongo.hospital_writer import HospitalWriter
from destinations.mongo.people import People
from meaning.rules import MappingRules
from passport.errors import Overtaken, Retry
from passport.facts import Observation, Person
from passport.sink import Progress
from tests import observations as make
from tests.observations import HOSPITAL, obs, patient, version
from tests.simulation.mongo import Document, Server
from tests.simulation.world import BrokenPromise, Process, World

KEY = b"only for tests, 32 characters up"
IDS = ("1199080012345678", "1199080012340000")  # of the Passport's two patients
PATIENTS = tuple(ObjectId(letter * 24) for letter in "ab")
BATCH = 2  # events
MOST_TRIES = 50
END = object()
MOST_CALLS = 20_000  # a history takes a tenth of that, unless they overtake each other often
SETTINGS = make.settings({"uri": "mongodb://nowhere", "link_key": "k" * 32}).hospitals[HOSPITAL]
EDITED_AT = datetime(2026, 12, 1, tzinfo=UTC)
NOTE = "as the doctor says"


class Event(NamedTuple):
    """A record of the topic. A row event has the row as it was; the others name what changed."""

    kind: str
    key: int
    pos: int
    row: "Row | None" = None


class Row(NamedTuple):
    person: int
    value: int
    voided: bool = False


class OneHospital:
    """What the hospital says now, its topic, and all that was ever a patient's."""

    def __init__(self) -> None:
        self.pos = 1
        self.name = "name 0"
        self.ids: dict[int, str | None] = {1: IDS[0], 2: IDS[1]}
        self.rows: dict[int, tuple[Row, int]] = {}  # and the position of the last change
        self.topic: list[Event] = []
        self.values: set[tuple[int, int, str]] = set()  # that ever were: person, obs_id, value
        self.links: set[tuple[int, str]] = set()  # that ever were: person, patient

    def put(self, obs_id: int, person: int, value: int, *, voided: bool = False) -> None:
        self.pos += 10
        row = Row(person, value, voided)
        self.rows[obs_id] = row, self.pos
        self._published(Event("row", obs_id, self.pos, row))

    def rename(self) -> None:
        self.pos += 10
        self.name = f"name {self.pos}"
        self._published(Event("name", 0, self.pos))

    def identify(self, person: int, national_id: str | None) -> None:
        self.pos += 10
        self.ids[person] = national_id
        self._published(Event("person", person, self.pos))

    def person(self, person_id: int) -> Person:
        national_id = self.ids[person_id]
        holders = [other for other in self.ids.values() if other == national_id]
        is_ambiguous = national_id is not None and len(holders) > 1
        if is_ambiguous:
            return make.person(person_id, None, at=self.pos + 5, state="ambiguous")
        return make.person(person_id, national_id, at=self.pos + 5)

    def observation(self, obs_id: int, row: Row, pos: int) -> Observation:
        """Return a row enriched as the hospital is now."""
        asked = make.concept(5, self.name, "CIEL:5087", cls="Test", datatype="Numeric")
        value = make.number(row.value)
        who = self.person(row.person)
        return obs(obs_id, pos, asked, value, who=who, voided=row.voided)

    def read_again(self, obs_ids: Sequence[int]) -> list[Observation]:
        """Return rows as a read of now gives them."""
        rows = [self.observation(obs_id, self.rows[obs_id][0], self.pos) for obs_id in obs_ids]
        return [replace(row, version=version(self.pos + 5, 0), origin="reread") for row in rows]

    def shown(self) -> set[tuple[str, int, str]]:
        """Return what patients are to see: patient, obs_id and value."""
        return {
            (str(PATIENTS[IDS.index(national_id)]), obs_id, str(row.value))
            for obs_id, (row, _) in self.rows.items()
            if not row.voided and (national_id := self.person(row.person).national_id)
        }

    def _published(self, event: Event) -> None:
        self.topic.append(event)
        for obs_id, (row, _) in self.rows.items():
            self.values.add((row.person, obs_id, str(row.value)))
        for person_id in self.ids:
            if national_id := self.person(person_id).national_id:
                self.links.add((person_id, str(PATIENTS[IDS.index(national_id)])))

    def was_ever(self, patient_id: str, obs_id: int, value: str) -> bool:
        """Return whether a person who was once this patient's has ever had the value."""
        return any(
            (person_id, obs_id, value) in self.values
            for person_id, linked in self.links
            if linked == patient_id
        )


class BigPerson(NamedTuple):
    """A person who is being read in slices, for an event at `offset` of the topic."""

    offset: int
    person: int
    slices: Iterator[None]


class Writer:
    """A consumer of the hospital: it takes the hospital, and then applies all that the topic has.

    A key change is applied after the rows of its batch. Those needn't be read again for it, as they
    have been enriched after it. Some persons are read in slices, with events in between.
    """

    def __init__(self, history: "History") -> None:
        self._hospital = history.hospital
        self._world = history.world
        self._database = cast("Mongo", history.server.database())
        self._rules = history.rules
        self._fence = Fence(self._database, HOSPITAL)
        self._people = People(self._database, KEY)
        self._count = history.world.count
        self._reads_in_slices = history.reads_in_slices
        self._big: list[BigPerson] = []
        self._again: dict[int, BigPerson] = {}

    def run(self) -> None:
        tries = 0
        while True:
            try:
                self._follow()
                return
            except Overtaken:
                self._count("overtaken")
            except Retry as error:
                self._count("tried again")
                tries += 1
                if tries > MOST_TRIES:
                    raise BrokenPromise(f"no end: {error.reason}") from None

    def _follow(self) -> None:
        self._big = []
        self._again = {}
        self._fence.take()
        writer = HospitalWriter(
            self._database,
            HOSPITAL,
            SETTINGS,
            self._rules,
            self._people,
            self._fence,
            link_medical_history=False,
        )
        stored = progress.read(self._database, HOSPITAL)
        offset = stored.offset if stored else 0
        while True:
            batch = self._hospital.topic[offset : offset + BATCH]
            if batch:
                self._apply(writer, batch, offset)
            offset += len(batch)
            for person_id in self._people.wanted(HOSPITAL, 10):
                if not any(big.person == person_id for big in self._big):
                    self._read_whole(writer, person_id, offset)
            self._read_slice()
            newest = version(self._hospital.topic[offset - 1].pos) if offset else ""
            held = min([offset, *(big.offset for big in (*self._big, *self._again.values()))])
            done = Progress(HOSPITAL, held, newest, 1)
            progress.store(done, str(writer.authors.hospital), self._fence)
            is_idle = offset == len(self._hospital.topic) and not self._big
            if is_idle and not self._people.wanted(HOSPITAL, 1):
                return

    def _apply(self, writer: HospitalWriter, batch: Sequence[Event], offset: int) -> None:
        hospital = self._hospital
        rows = {event.key: event for event in batch if event.row is not None}
        enriched = [
            hospital.observation(event.key, event.row, event.pos)
            for event in rows.values()
            if event.row is not None
        ]
        self._world.call("enriched")
        overtaken = writer.write(enriched).overtaken if enriched else []
        written = {key for key in rows if f"{HOSPITAL}/{key}" not in overtaken}
        for event in batch:
            if event.kind == "name":
                again = hospital.read_again(sorted(hospital.rows.keys() - written))
                self._world.call("read again")
                if again:
                    writer.write(again)
            elif event.kind == "person":
                # Whoever holds the same id is read, too.
                for person_id in hospital.ids:
                    self._read_whole(writer, person_id, offset)

    def _read_slice(self) -> None:
        """Do the next slice or step of the person who waits longest."""
        if not self._big:
            return
        big = self._big.pop(0)
        if next(big.slices, END) is not END:
            self._big.append(big)
        elif big.person in self._again:
            self._big.append(self._again.pop(big.person))

    def _slices(self, writer: HospitalWriter, person_id: int) -> Iterator[None]:
        """Write a person's rows one by one, each as it is then; then retain them."""
        hospital = self._hospital
        keys: list[int] = []
        since = ""
        begun: int | None = None
        while True:
            rest = [
                key
                for key, (row, _) in sorted(hospital.rows.items())
                if row.person == person_id and key not in keys
            ]
            rest = [key for key in rest if not keys or key > keys[-1]][:1]
            who = hospital.person(person_id)
            rows = [replace(row, person=who, origin="person") for row in hospital.read_again(rest)]
            since = since or who.version
            self._world.call("read slice")
            if begun is None:
                begun = writer.begin_person(who)
            if not rest:
                break
            writer.write(rows)
            self._count("slice")
            keys += rest
            yield
        for step in writer.retain_steps(who, set(keys), since, begun):
            if not step.is_last:
                self._count("step")
                yield

    def _read_whole(self, writer: HospitalWriter, person_id: int, offset: int) -> None:
        hospital = self._hospital
        if self._reads_in_slices:
            big = BigPerson(offset, person_id, self._slices(writer, person_id))
            is_being_read = any(other.person == person_id for other in self._big)
            if is_being_read:
                self._again.setdefault(person_id, big)
            else:
                self._big.append(big)
            return
        keys = [key for key, (row, _) in hospital.rows.items() if row.person == person_id]
        who = hospital.person(person_id)
        rows = [replace(row, person=who, origin="person") for row in hospital.read_again(keys)]
        read_at = version(hospital.pos + 5, 0)
        self._world.call("read whole")
        if rows:
            writer.write(rows)
        writer.retain_person(who, set(keys), read_at)


class History:
    """A hospital, its Passport, and who works on it. `schedule` yields whose turn it is."""

    def __init__(
        self, rules: MappingRules, seed: int = 1, *, reads_in_slices: bool = False
    ) -> None:
        self.rules = rules
        self.reads_in_slices = reads_in_slices
        self.world = World(seed)
        self.world.enough = self._is_turn_over
        self._calls_left = 0
        self.server = Server(self.world)
        self.hospital = OneHospital()
        self.met = False  # the second writer began before the first one had come to its end
        self.is_second_at_its_end = False
        self.edited: dict[ObjectId, str] = {}  # whose the records are that the doctor edited
        database = self.server.database()
        self.world.quiet = True
        for key, national_id in zip(PATIENTS, IDS, strict=True):
            document = patient(national_id) | {"_id": key}
            database.patients.bulk_write([InsertOne(document)])
        self.server.watch = self._watch

    def writers(self, count: int) -> list[Process]:
        self.world.quiet = False
        return [Process(self.world, Writer(self).run) for _ in range(count)]

    def turn(self, process: Process, calls: int = 1) -> None:
        """Let a process go on until it has made so many calls."""
        self._calls_left = calls
        if not process.ended and not process.dead:
            self.world.run(process)

    def edit(self) -> None:
        """A doctor edits a record that is shown."""
        is_quiet, self.world.quiet = self.world.quiet, True
        records = list(self.server.database().medicalrecords.find({"patientId": {"$ne": ""}}))
        if records and not self._is_held(records[0]["_id"]):
            record = self.world.rng.choice(records[:1])
            edit = {"$set": {"data.notes": NOTE, "lastEditedAt": EDITED_AT}}
            self.server.database().medicalrecords.update_one({"_id": record["_id"]}, edit)
            self.edited[record["_id"]] = record["patientId"]
            self.world.count("edited")
        self.world.quiet = is_quiet

    def finish(self) -> None:
        """Let one consumer apply what is left, and compare the end."""
        self.world.quiet = True
        self.world.process = None
        Writer(self).run()
        records = self._shown()
        shown = {(one["patientId"], one["openmrsData"]["obsId"]) for one in records}
        wanted = {(patient_id, obs_id) for patient_id, obs_id, _ in self.hospital.shown()}
        if shown != wanted:
            raise BrokenPromise(f"shown {sorted(shown)}, and should be {sorted(wanted)}")
        for record in records:
            if "lastEditedAt" in record:
                continue  # the hospital's values wait beside it
            if value_of(record) not in self.hospital.shown():
                raise BrokenPromise(f"an old value stays: {value_of(record)}")
            if record["data"]["testName"] != self.hospital.name:
                raise BrokenPromise(f"an old name stays: {record['data']['testName']}")

    def _is_turn_over(self) -> bool:
        self._calls_left -= 1
        return self._calls_left <= 0

    def _watch(self) -> None:
        """Look at the Passport after each commit, as anybody may at any moment."""
        records = self._shown()
        obs_ids = [record["openmrsData"]["obsId"] for record in records]
        if len(obs_ids) != len(set(obs_ids)):
            raise BrokenPromise(f"an obs twice: {sorted(obs_ids)}")
        for record in records:
            if not self.hospital.was_ever(*value_of(record)):
                raise BrokenPromise(f"never theirs: {value_of(record)}")
        owners = {record["_id"]: record["patientId"] for record in records}
        for key, owner in list(self.edited.items()):
            if owners.get(key) != owner:
                del self.edited[key]  # it was taken from this patient meanwhile
        for record in records:
            if record["_id"] in self.edited and record["data"].get("notes") != NOTE:
                raise BrokenPromise("an edit is lost")

    def _shown(self) -> list[Document]:
        found = self.server.database().medicalrecords._found(self.server.documents, {})
        return [record for record in found if record["patientId"]]

    def _is_held(self, key: ObjectId) -> bool:
        return self.server.holder(("medicalrecords", key)) is not None


def value_of(record: Document) -> tuple[str, int, str]:
    openmrs = record["openmrsData"].get("pending") or record["data"]
    return record["patientId"], record["openmrsData"]["obsId"], openmrs["details"]


def one_after_the_other(first: Callable[[], Any], *others: Callable[[], Any]) -> tuple[Any, ...]:
    """Stand in for `in_parallel`: the others come first, as if they were quicker."""
    answers = [other() for other in others]
    return (first(), *answers)


def play(patch: pytest.MonkeyPatch, world: World) -> None:
    """Let the product's modules run in the world's time, one thing at a time."""
    for module in (hospital_writer, people):
        patch.setattr(module, "in_parallel", one_after_the_other)
    patch.setattr(fence, "time", world)
    patch.setattr(tests.simulation.world, "MOST_CALLS", MOST_CALLS)
    patch.setattr(fence, "random", world.rng)


# --- histories


Change = Callable[[OneHospital], None]


def small_histories() -> Iterator[tuple[str, Change, Change]]:
    """Yield (name, what is there, what happens when the first writer stands still)."""

    def two_rows(hospital: OneHospital) -> None:
        hospital.put(1, 1, 70)
        hospital.put(2, 1, 71)

    def link_ends(hospital: OneHospital) -> None:
        hospital.identify(1, None)

    def void(hospital: OneHospital) -> None:
        hospital.put(1, 1, 70, voided=True)

    def swap(hospital: OneHospital) -> None:
        hospital.ids[2] = None
        hospital.identify(1, IDS[1])
        hospital.identify(2, IDS[0])

    def move(hospital: OneHospital) -> None:
        hospital.put(2, 2, 72)

    yield "the link ends", two_rows, link_ends
    yield "a row is voided", two_rows, void
    yield "a name changes", two_rows, OneHospital.rename
    yield "ids are swapped", two_rows, swap
    yield "a row moves", two_rows, move


def interleaved(
    rules: MappingRules,
    before: Change,
    meanwhile: Change,
    turns: Sequence[int],
) -> History:
    """Run two writers: each has so many turns, one after the other; then both come to their end."""
    history = History(rules)
    with pytest.MonkeyPatch.context() as patch:
        play(patch, history.world)
        before(history.hospital)
        writers = history.writers(2)
        for number, count in enumerate(turns):
            history.turn(writers[number], count)
            if number == 0:
                history.met = not writers[0].ended
                meanwhile(history.hospital)
        history.is_second_at_its_end = writers[1].ended
        for process in writers:
            history.turn(process, 100_000)
        history.finish()
    return history


def random_history(rules: MappingRules, seed: int) -> History:
    """Run two writers, which may die and begin anew, while the hospital and a doctor work."""
    history = History(rules, seed, reads_in_slices=seed % 2 == 0)
    rng = history.world.rng
    hospital = history.hospital
    with pytest.MonkeyPatch.context() as patch:
        play(patch, history.world)
        if history.reads_in_slices:
            for module in (observations, hospital_writer, medicalrecords):
                patch.setattr(module, "SLICE", 2)
        writers = history.writers(2)
        actions = rng.randint(4, 10)
        while actions or not all(process.ended or process.dead for process in writers):
            draw = rng.random()
            if actions and draw < 0.06:
                actions -= 1
                act(hospital, history)
            elif draw < 0.065:
                victim = rng.randrange(2)
                writers[victim].die()
                history.world.count("killed")
                writers[victim] = Process(history.world, Writer(history).run)
            elif draw < 0.09:
                history.edit()
            else:
                number = rng.randrange(2)
                history.turn(writers[number], rng.choice((1, 3, 10, 60)))
                if writers[number].ended and actions:
                    writers[number] = Process(history.world, Writer(history).run)
        history.finish()
    return history


def act(hospital: OneHospital, history: History) -> None:
    """Do something at the hospital."""
    rng = history.world.rng
    kind = rng.choice(("put", "put", "void", "rename", "end", "swap", "share"))
    history.world.count(kind)
    obs_id, person = rng.randint(1, 3), rng.randint(1, 2)
    if kind == "put":
        hospital.put(obs_id, person, rng.randint(50, 99))
    elif kind == "void" and obs_id in hospital.rows:
        row, _ = hospital.rows[obs_id]
        hospital.put(obs_id, row.person, row.value, voided=True)
    elif kind == "rename":
        hospital.rename()
    elif kind == "end":
        hospital.identify(person, None)
    elif kind == "swap":
        hospital.ids[1], hospital.ids[2] = hospital.ids[2], hospital.ids[1]
        hospital.identify(1, hospital.ids[1])
        hospital.identify(2, hospital.ids[2])
    elif kind == "share":
        hospital.identify(person, IDS[0])
