"""Large work that key changes ask for: an obs that waits is read once, and what is stored with the
progress goes on.
"""

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from consumers.lookups import Lookups
from consumers.reenrich import LITTLE_S, STORED_KEYS, ReenrichmentQueue, Slice
from consumers.waiting import SLICE, Request
from dev.hospital import NATIONAL_ID_TYPE, create
from openmrs.connection import end_of_binlog, identity
from openmrs.read import Source
from passport.event import ENVELOPE, EventSource, KeyChangeEvent
from passport.settings import Hospital, LoadBudget
from passport.version import Version
from tests.servers import Address

EPOCH, PLACE = 1_700_000_000, 2
MANY = 5 * SLICE


class Ward:
    """A hospital where MANY obs and a few more are at one place."""

    def __init__(self, address: Address) -> None:
        self.address = address
        values = {
            "name": "Kigali",
            "partition": 0,
            "timezone": "Africa/Kigali",
            "national_id_type": NATIONAL_ID_TYPE,
        }
        hospital = Hospital.model_validate(
            {**values, "locales": ("en",), "mysql": address.settings()}
        )
        self.lookups = Lookups(
            "kigali", hospital, Source("kigali", hospital.mysql), entries=10_000, ttl_s=60
        )
        self.lookups.seen(str(Version(EPOCH, 1, 4, 0)))

    def queue(self) -> ReenrichmentQueue:
        return ReenrichmentQueue(self.lookups, LoadBudget(rows_per_s=1_000_000_000))

    def rename(self, name: str) -> KeyChangeEvent:
        with self.address.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"UPDATE location SET name = '{name}' WHERE location_id = {PLACE}")
        event = self.key_change("location", PLACE)
        self.lookups.seen(event.source.version)
        self.lookups.evict(event)
        return event

    def rows_read(self) -> int:
        """By the lookups' own connection."""
        with self.lookups.source.connection().cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(
                int(count)
                for name, count in cursor.fetchall()
                if not name.startswith("Handler_read_rnd")
            )

    def key_change(self, owner: str, *keys: int, table: str = "") -> KeyChangeEvent:
        """Of something that changes now: rows of `table` that belong to these of `owner`."""
        connection = self.lookups.source.connection()
        at, server = end_of_binlog(connection), identity(connection)
        assert at is not None
        version = str(Version(EPOCH, at.number, at.pos, 1))
        source = EventSource(
            "kigali",
            "UTC",
            "o",
            table or owner,
            at.file,
            at.pos,
            1,
            "",
            server,
            1,
            version,
            "binlog",
        )
        changed = tuple({f"{owner}_id": key} for key in keys)
        return KeyChangeEvent(v=ENVELOPE, op="u", keys=changed, source=source, ts_ms=1)


@pytest.fixture
def ward(mysql_database: Address) -> Iterator[Ward]:
    row = "person_id, concept_id, obs_datetime, date_created, creator"
    with mysql_database.connect() as connection, connection.cursor() as cursor:
        create(connection, seed=1, patients=3)
        cursor.execute(
            f"INSERT INTO obs ({row}, location_id, uuid) SELECT {row}, {PLACE}, UUID() FROM"
            f" (SELECT {row} FROM obs LIMIT 1) some, seq_1_to_{MANY}"
        )
        connection.commit()
    ward = Ward(mysql_database)
    yield ward
    ward.lookups.close()


def read(queue: ReenrichmentQueue, slices: int = 1_000_000) -> dict[int, list[str]]:
    """The place's name as read, by obs_id, once for each time."""
    found: dict[int, list[str]] = {}
    while slices and queue.pending():
        piece = queue.read()
        assert piece is not None
        for one in piece.observations:
            if one.row["location_id"] == PLACE:  # others are there because of their encounter
                assert one.place is not None
                found.setdefault(one.obs_id, []).append(one.place.name)
        queue.finish(piece)
        slices -= bool(piece.observations)
    return found


def test_an_obs_that_waits_is_read_once_however_often_the_name_changes(ward: Ward) -> None:
    queue = ward.queue()
    queue.add_key_change(ward.rename("one"), 10, frozenset())
    first = read(queue, 2)
    queue.add_key_change(ward.rename("two"), 11, frozenset())
    assert queue.read() is not None
    queue.add_key_change(ward.rename("three"), 12, frozenset())
    rest = read(queue)
    assert {*map(tuple, first.values())} == {("one",)}
    assert len(first) > SLICE
    assert {*map(tuple, rest.values())} == {("three",)}
    assert rest.keys() >= first.keys()
    assert len(rest) > MANY


def test_what_is_left_is_stored_and_goes_on(ward: Ward) -> None:
    queue = ward.queue()
    queue.add_key_change(ward.rename("one"), 10, frozenset())
    assert queue.held_offset() == 10
    assert queue.read() is not None
    assert queue.held_offset() is None, "the progress has it"
    first = read(queue, 2)
    again = ward.queue()
    again.restore(json.loads(json.dumps(queue.as_json())))
    assert again.pending() > 0
    rest = read(again)
    assert not first.keys() & rest.keys()
    assert first.keys() | rest.keys() == read_whole(ward).keys()
    assert again.as_json() == []


def test_when_a_whole_table_became_another_everyone_is_read_once_also_over_a_crash(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.reenrich.PERSONS", 2)
    with ward.address.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute("TRUNCATE TABLE location")
        cursor.execute("SELECT DISTINCT person_id FROM obs ORDER BY person_id")
        everyone = [person_id for (person_id,) in cursor.fetchall()]
    assert len(everyone) > 2
    event = replace(ward.key_change("location"), op="r")
    ward.lookups.seen(event.source.version)
    ward.lookups.evict(event)

    queue = ward.queue()
    queue.add_key_change(event, 10)
    assert queue.held_offset() is None, "the progress has it"
    first = queue.read()
    assert first is not None
    assert [person.person_id for person, _ in first.persons] == everyone[:2]
    assert all(observation.place is None for observation in first.observations)
    stored = json.loads(json.dumps(queue.as_json()))
    queue.finish(first)

    again = ward.queue()
    again.restore(stored)
    assert sorted(_persons_read(again)) == everyone, "what was not finished before the crash, too"
    assert sorted(_persons_read(queue)) == everyone[2:]
    assert queue.as_json() == again.as_json() == []
    assert Request.from_json(stored[0]).keys == {}, "which an earlier release has nothing to do for"


def _persons_read(queue: ReenrichmentQueue) -> list[int]:
    persons = []
    while queue.pending():
        piece = queue.read()
        if piece is not None:
            persons += [person.person_id for person, _ in piece.persons]
            queue.finish(piece)
    return persons


def big_person(ward: Ward) -> tuple[int, list[int]]:
    """Return the person who has MANY obs, and their obs_ids."""
    with ward.address.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT person_id FROM obs GROUP BY 1 ORDER BY COUNT(*) DESC LIMIT 1")
        ((person_id,),) = cursor.fetchall()
        cursor.execute("SELECT obs_id FROM obs WHERE person_id = %s ORDER BY obs_id", (person_id,))
        return person_id, [obs_id for (obs_id,) in cursor.fetchall()]


def next_piece(queue: ReenrichmentQueue) -> Slice:
    while queue.pending():
        if (piece := queue.read()) is not None:
            return piece
    raise AssertionError("nothing waits")


def obs_ids(piece: Slice) -> list[int]:
    return [observation.obs_id for observation in piece.observations]


def test_b15_slices_of_a_big_person_are_read_once_and_others_in_between(ward: Ward) -> None:
    person_id, ids = big_person(ward)
    queue = ward.queue()
    queue.add_key_change(ward.key_change("person", person_id), 10)
    read_ids: list[int] = []
    versions = []
    first = next_piece(queue)
    assert first.persons == []
    assert len(first.observations) == SLICE
    # It is not written, as when the destination is away: the slice comes again.
    ((other,),) = ward.address.execute(
        f"SELECT MIN(patient_id) FROM patient WHERE patient_id != {person_id}"
    )
    queue.add_persons([other], 11, None)
    others_at = None
    whole = []
    while queue.pending():
        piece = next_piece(queue)
        if any(person.person_id == other for person, _ in piece.persons):
            others_at = len(read_ids)
        elif piece.persons:
            whole += piece.persons
            assert piece.version == first.version <= versions[0], "as old as the first slice"
        else:
            assert len(piece.observations) <= SLICE
            assert queue.held_offset() == 10
            read_ids += obs_ids(piece)
            versions.append(piece.version)
            ward.address.execute("UPDATE location SET name = CONCAT(name, '+')")
        queue.finish(piece)
    assert read_ids == ids
    assert versions == sorted({*versions}), "each slice has a position of its own"
    assert others_at is not None
    assert others_at < len(ids), "somebody else was read in between"
    [(person, keys)] = whole
    assert (person.person_id, list(keys)) == (person_id, ids)
    assert queue.held_offset() is None


def test_b15_a_new_epoch_begins_a_big_person_anew(ward: Ward) -> None:
    person_id, ids = big_person(ward)
    queue = ward.queue()
    queue.add_key_change(ward.key_change("person", person_id), 10)
    piece = next_piece(queue)
    queue.finish(piece)
    ward.lookups.seen(str(Version(EPOCH + 1, 1, 4, 0)), identity(ward.lookups.source.connection()))
    again = next_piece(queue)
    assert obs_ids(again) == obs_ids(piece) == ids[:SLICE]
    assert again.version[:10] > piece.version[:10]


def test_b15_who_is_asked_for_in_the_middle_is_read_again(ward: Ward) -> None:
    person_id, ids = big_person(ward)
    queue = ward.queue()
    queue.add_key_change(ward.key_change("person", person_id), 10)
    queue.finish(next_piece(queue))
    queue.add_key_change(ward.key_change("person", person_id), 20)
    assert queue.big_persons() == {person_id}
    wholes = 0
    held = []
    read_ids: list[int] = []
    while queue.pending():
        held.append(queue.held_offset())
        piece = next_piece(queue)
        wholes += len(piece.persons)
        read_ids += obs_ids(piece)
        queue.finish(piece)
    assert wholes == 2
    assert read_ids == ids[SLICE:] + ids
    assert {*held} == {10, 20}
    assert held == sorted(held)


def test_b15_a_big_person_is_one_of_everyone(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the middle of one leads to no gap."""
    person_id, ids = big_person(ward)
    everyone = [
        other for (other,) in ward.address.execute("SELECT DISTINCT person_id FROM obs ORDER BY 1")
    ]
    monkeypatch.setattr("consumers.reenrich.PERSONS", everyone.index(person_id) + 1)
    queue = ward.queue()
    queue.add_key_change(replace(ward.key_change("location"), op="r"), 10)
    read_ids: list[int] = []
    while len(read_ids) < len(ids) - SLICE:
        piece = next_piece(queue)
        read_ids += [one.obs_id for one in piece.observations if one.obs_id in ids]
        queue.finish(piece)
    again = ward.queue()
    again.restore(json.loads(json.dumps(queue.as_json())))
    assert person_id in _persons_read(again)


def read_whole(ward: Ward) -> dict[int, list[str]]:
    queue = ward.queue()
    queue.add_key_change(ward.rename("all"), 10, frozenset())
    return read(queue)


def test_b8_obs_that_were_copied_from_a_patient_are_read_when_that_patient_is_voided(
    ward: Ward,
) -> None:
    with ward.address.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT MIN(patient_id), MAX(patient_id) FROM patient WHERE voided = 0")
        loser, winner = cursor.fetchone() or (0, 0)
        cursor.execute("SELECT MIN(obs_id) FROM obs WHERE person_id = %s", (loser,))
        ((original,),) = cursor.fetchall()
        row = "concept_id, obs_datetime, date_created, creator"
        cursor.execute(
            f"INSERT INTO obs ({row}, person_id, previous_version, uuid) SELECT {row}, %s, obs_id,"
            " UUID() FROM obs WHERE obs_id = %s",
            (winner, original),
        )
        copy = cursor.lastrowid
        cursor.execute("UPDATE patient SET voided = 1 WHERE patient_id = %s", (loser,))
        connection.commit()
    queue = ward.queue()
    queue.add_key_change(ward.key_change("patient", loser), 10)
    rows_read = {}
    while queue.pending():
        piece = queue.read()
        if piece is not None:
            rows_read |= {one.obs_id: one for one in piece.observations}
            queue.finish(piece)
    assert rows_read[copy].first is not None
    assert rows_read[copy].first.persons == (loser,)


def test_few_obs_do_not_wait_for_many(ward: Ward) -> None:
    queue = ward.queue()
    queue.add_key_change(ward.rename("one"), 10, frozenset())
    assert queue.read() is not None
    queue.add_key_change(ward.key_change("encounter", 1), 11, frozenset())
    piece = queue.read()
    assert piece is not None
    assert 0 < len(piece.observations) < SLICE
    assert {one.row["encounter_id"] for one in piece.observations} == {1}


def test_while_records_wait_few_obs_wait_for_more_but_not_for_ever(ward: Ward) -> None:
    now = 0.0
    queue = ReenrichmentQueue(ward.lookups, LoadBudget(rows_per_s=1_000_000_000), lambda: now)
    read_by: list[set[int]] = []
    while not any(read_by):
        now += LITTLE_S / 10
        queue.add_key_change(
            ward.key_change("encounter", len(read_by) + 1), 10 + len(read_by), frozenset()
        )
        piece = queue.read(busy=True)
        read_by.append({one.row["encounter_id"] for one in piece.observations} if piece else set())
        assert queue.held_offset() == 10
    assert len(read_by[-1]) > 1
    assert now > LITTLE_S


def test_in_a_backlog_nothing_waits_for_its_end(ward: Ward) -> None:
    """Each batch has a key change, and each has a name that many obs have.

    One call of `read` comes to a batch.
    """
    now = 0.0
    queue = ReenrichmentQueue(ward.lookups, LoadBudget(rows_per_s=1_000_000_000), lambda: now)
    queue.add_persons([1], None, None)
    queue.add_key_change(ward.rename("one"), 1, frozenset())
    whole, places = set[int](), set[str]()
    for offset in range(10, 60):
        now += LITTLE_S / 5
        queue.add_key_change(ward.key_change("encounter", 1 + offset % 3), offset, frozenset())
        if piece := queue.read(busy=True):
            whole |= {person.person_id for person, _ in piece.persons}
            places |= {one.place.name for one in piece.observations if one.place}
            queue.finish(piece)
        assert offset - (queue.held_offset() or offset) < 20, "the offset follows"
    assert whole == {1}
    assert "one" in places


def test_few_obs_that_waited_are_read_as_soon_as_no_record_waits(ward: Ward) -> None:
    queue = ward.queue()
    queue.add_key_change(ward.key_change("encounter", 1), 10, frozenset())
    assert queue.read(busy=True) is None
    assert queue.held_offset() == 10
    piece = queue.read()
    assert piece is not None
    assert {one.row["encounter_id"] for one in piece.observations} == {1}


def test_a_small_key_change_reads_few_rows_of_a_large_table(flavour_database: Address) -> None:
    """What is listed in the order of its key must not be looked for by that key."""
    row = "person_id, concept_id, obs_datetime, date_created, creator, location_id, value_numeric"
    with flavour_database.connect() as connection, connection.cursor() as cursor:
        create(connection, seed=1, patients=10)
        for _ in range(7):
            cursor.execute(f"INSERT INTO obs ({row}, uuid) SELECT {row}, UUID() FROM obs")
        connection.commit()
        cursor.execute("SELECT COUNT(*) FROM obs")
        assert cursor.fetchall()[0][0] > 50_000
        cursor.execute("ANALYZE TABLE obs")
    ward = Ward(flavour_database)
    for table in ("encounter", "encounter_provider", "visit", "orders"):
        queue = ward.queue()
        queue.add_key_change(
            ward.key_change(table.removesuffix("_provider").removesuffix("s"), 1, table=table),
            10,
            frozenset(),
        )
        before = ward.rows_read()
        read(queue)
        assert ward.rows_read() - before < 2_000, table
    person_id, ids = big_person(ward)
    assert len(ids) > 5 * SLICE
    queue = ward.queue()
    queue.add_persons([person_id], 10, None)
    read(queue, 1)
    before = ward.rows_read()
    read(queue, 3)
    assert ward.rows_read() - before < 3 * 3 * SLICE, "the slices of a person, too"
    ward.lookups.close()


def test_work_of_many_keys_holds_its_offset(ward: Ward) -> None:
    """A progress that carried them all would outgrow what it is stored in."""
    queue = ward.queue()
    queue.add_key_change(ward.key_change("location", *range(1, STORED_KEYS + 2)), 10, frozenset())
    assert queue.read() is not None
    assert queue.held_offset() == 10
    assert queue.as_json() == []
    assert len(read(queue)) > MANY
    assert queue.held_offset() is None
