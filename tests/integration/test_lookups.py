"""What is looked up at a real hospital, with how few queries, and for how long it is believed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumers.lookups import Lookups, RowToEnrich
from dev.hospital import NATIONAL_ID_TYPE, OPENMRS_ID_TYPE, create
from openmrs.connection import end_of_binlog, identity
from openmrs.read import END_OF_BINLOG, Source, SourcePosition
from openmrs.tables import OBS
from passport.errors import Fatal
from passport.event import ENVELOPE, EventSource, KeyChangeEvent
from passport.facts import Interpretation, ReferenceRange
from passport.settings import Hospital
from passport.version import Position, Version
from tests.servers import Address

EPOCH = 1_700_000_000
Make = Callable[..., Lookups]


@pytest.fixture
def seeded(flavour_database: Address) -> Address:
    with flavour_database.connect() as connection:
        create(connection, seed=1, patients=30)
    return flavour_database


@pytest.fixture
def make(seeded: Address) -> Iterator[Make]:
    made: list[Lookups] = []

    def lookups(**changes: Any) -> Lookups:
        values = {
            "name": "Kigali",
            "partition": 0,
            "timezone": "Africa/Kigali",
            "national_id_type": NATIONAL_ID_TYPE,
        }
        hospital = Hospital(**{**values, "locales": ("en",), "mysql": seeded.settings(), **changes})
        made.append(
            Lookups("kigali", hospital, Source("kigali", hospital.mysql), entries=10_000, ttl_s=60)
        )
        made[-1].seen(str(Version(EPOCH, 1, 4, 0)))
        return made[-1]

    yield lookups
    for one in made:
        one.close()


def test_b21_a_mapping_of_another_type_is_not_what_the_concept_is(
    make: Make, seeded: Address
) -> None:
    """A concept that is narrower than malaria is not malaria."""
    lookups = make()
    before = {
        observation.obs_id: observation.concept
        for observation in lookups.observations(rows(lookups))
        if observation.concept is not None and observation.concept.mappings
    }
    assert before
    with seeded.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO concept_reference_map (concept_reference_term_id, concept_map_type_id,"
            " creator, date_created, concept_id, uuid)"
            " SELECT MIN(t.concept_reference_term_id), k.concept_map_type_id, 1, NOW(),"
            " c.concept_id, UUID() FROM concept c, concept_reference_term t, concept_map_type k"
            " WHERE k.name = 'NARROWER-THAN' GROUP BY c.concept_id, k.concept_map_type_id"
        )
        assert cursor.rowcount > 0
        connection.commit()
    lookups = make()
    after = {
        observation.obs_id: observation.concept
        for observation in lookups.observations(rows(lookups))
        if observation.obs_id in before
    }
    assert after == before


def rows(lookups: Lookups, where: str = "1 = 1") -> list[RowToEnrich]:
    with lookups.source.read_at(END_OF_BINLOG) as reading:
        return [
            RowToEnrich(row, lookups.newest, False, "stream")
            for row in reading.facts(OBS, f"{where} ORDER BY obs_id")
        ]


def questions(lookups: Lookups) -> int:
    with lookups.source.connection().cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
        ((_, count),) = cursor.fetchall()
    return int(count)


def place(lookups: Lookups) -> SourcePosition:
    """Where the server is now."""
    connection = lookups.source.connection()
    position = end_of_binlog(connection)
    assert position is not None
    return SourcePosition(position, "", identity(connection))


def key_change(table: str, at: Position, **key: int) -> KeyChangeEvent:
    version = str(Version(EPOCH, at.number, at.pos, 1))
    source = EventSource(
        "kigali", "UTC", "o", table, at.file, at.pos, 1, "", "s", 1, version, "binlog"
    )
    return KeyChangeEvent(v=ENVELOPE, op="u", source=source, ts_ms=1, keys=(key,))


def test_a_thousand_misses_are_few_queries(make: Make) -> None:
    lookups = make()
    asked = rows(lookups)[:1000]
    assert len({row["encounter_id"] for row, *_ in asked}) > 50
    before = questions(lookups)
    cold = lookups.observations(asked, place(lookups))
    assert questions(lookups) - before <= 30  # 20 for the facts, the others open the read
    before = questions(lookups)
    assert lookups.observations(asked) == cold
    assert questions(lookups) - before == 1  # this question


def test_what_is_known_depends_on_nothing_but_the_row(make: Make) -> None:
    together, alone = make(), make()
    asked = rows(together)[:200]
    for one, other in zip(
        together.observations(asked), [alone.observations([one])[0] for one in asked], strict=True
    ):
        assert one.row == other.row
        assert (one.concept, one.value, one.author, one.place, one.encounter) == (
            other.concept,
            other.value,
            other.author,
            other.place,
            other.encounter,
        )


def test_b8_the_first_version_of_what_a_merge_copied_is_read(make: Make, seeded: Address) -> None:
    """Nothing is asked for an edit that comes together with the row that it replaces."""
    ((loser, winner),) = seeded.execute(
        "SELECT MIN(person_id), MAX(person_id) FROM obs JOIN patient ON patient_id = person_id"
        " WHERE obs.voided = 0"
    )
    lookups = make()
    (old, *_) = rows(lookups, f"person_id = {loser} AND voided = 0 AND previous_version IS NULL")
    row = old.row
    copy = {**row, "obs_id": 900_001, "person_id": winner, "previous_version": row["obs_id"]}
    edit = {**copy, "obs_id": 900_002, "previous_version": 900_001}
    asked = [old._replace(row=copy), old._replace(row=edit)]
    [unmerged, _] = lookups.observations(asked)
    assert unmerged.first is None, "they are two persons"

    seeded.execute(f"UPDATE patient SET voided = 1 WHERE patient_id = {loser}")
    [merged, edited] = lookups.observations(asked)
    assert merged.first is not None
    assert merged.first.uuid == row["uuid"]
    assert merged.first.created == lookups.observations([old])[0].created
    assert (merged.first.rows, merged.first.persons) == ((row["obs_id"],), (loser,))
    assert edited.first is None, "the copy says it"

    together = [asked[0]._replace(row={**copy, "previous_version": None}), asked[1]]
    before = questions(lookups)
    lookups.observations(together)
    assert questions(lookups) - before == 1  # this question


def test_b8_the_first_version_is_followed_through_what_others_of_the_batch_name(
    make: Make, seeded: Address
) -> None:
    """A merge moves the voided versions, and then the next one copies what it had copied."""
    ((loser, winner),) = seeded.execute(
        "SELECT MIN(person_id), MAX(person_id) FROM obs JOIN patient ON patient_id = person_id"
        " WHERE obs.voided = 0"
    )
    lookups = make()
    (some, *_) = rows(lookups, f"person_id = {loser} AND voided = 0 AND previous_version IS NULL")
    columns = "concept_id, obs_datetime, date_created, creator"
    versions = ((900_001, winner, "NULL"), (900_002, winner, 900_001), (900_003, loser, 900_002))
    for obs_id, person_id, previous in versions:
        seeded.execute(
            f"INSERT INTO obs (obs_id, person_id, previous_version, voided, uuid, {columns})"
            f" SELECT {obs_id}, {person_id}, {previous}, 1, UUID(), {columns} FROM obs"
            f" WHERE obs_id = {some.row['obs_id']}"
        )
    seeded.execute(f"UPDATE patient SET voided = 1 WHERE patient_id = {loser}")
    (replaced,) = rows(lookups, "obs_id = 900003")
    copy = {**some.row, "obs_id": 900_004, "person_id": winner, "previous_version": 900_003}
    [_, copied] = lookups.observations([replaced, some._replace(row=copy)])
    assert copied.first is not None
    assert copied.first.rows == (900_003, 900_002, 900_001)


def test_what_was_not_there_is_found_when_it_comes(make: Make, seeded: Address) -> None:
    lookups = make()
    ((row, version, deleted, origin), *_) = rows(lookups, "value_coded IS NULL")
    unknown = {**row, "concept_id": 999_999, "location_id": 999}
    asked = RowToEnrich(unknown, version, deleted, origin)
    assert lookups.observations([asked])[0].concept is None
    seeded.execute(
        "INSERT INTO location (location_id, name, creator, date_created, uuid)"
        " VALUES (999, 'New ward', 1, NOW(), 'new-ward')",
        "SET foreign_key_checks = 0",
        "INSERT INTO concept (concept_id, datatype_id, class_id, creator, date_created, uuid)"
        " VALUES (999999, 1, 1, 1, NOW(), 'new-concept')",
    )
    found = lookups.observations([asked])[0]
    assert (found.concept and found.concept.name, found.place and found.place.name) == (
        "Concept new-concept",
        "New ward",
    )


def test_a_key_change_makes_it_look_again(make: Make, seeded: Address) -> None:
    lookups = make()
    asked = rows(lookups, "location_id IS NOT NULL")[0]
    (first,) = lookups.observations([asked])
    assert first.place is not None
    seeded.execute(
        f"UPDATE location SET name = 'Renamed' WHERE location_id = {first.place.location_id}"
    )
    here = place(lookups)
    assert lookups.observations([asked])[0].place == first.place  # nobody has told
    lookups.evict(key_change("location", here.position, location_id=first.place.location_id))
    (again,) = lookups.observations([asked], here)
    assert again.place is not None
    assert again.place.name == "Renamed"
    before = questions(lookups)
    lookups.evict(
        key_change("location", Position(here.position.file, 4), location_id=first.place.location_id)
    )
    assert lookups.observations([asked])[0].place == again.place
    assert questions(lookups) - before == 1  # read later than that key change: still good


def test_a_new_epoch_forgets_everything(make: Make, seeded: Address) -> None:
    lookups = make()
    asked = rows(lookups, "location_id IS NOT NULL")[0]
    lookups.observations([asked])
    seeded.execute("UPDATE location SET name = 'Restored'")
    assert not lookups.seen(str(Version(EPOCH + 1, 1, 4, 0)))
    assert lookups.seen(str(Version(EPOCH, 9, 4, 0)))
    found = lookups.observations([asked])[0].place
    assert found is not None
    assert found.name == "Restored"


def test_a_position_of_another_server_blocks_nobody(make: Make) -> None:
    lookups = make()
    asked = rows(lookups)[:10]
    elsewhere = SourcePosition(Position("binlog.000999", 999_999_999), "", "another server")
    assert len(lookups.observations(asked, elsewhere)) == 10


def patients(seeded: Address, lookups: Lookups) -> list[tuple[int, str]]:
    """Patients in state ok, and their ids."""
    ids: Any = seeded.execute("SELECT patient_id FROM patient ORDER BY patient_id")
    found = lookups.persons([one for (one,) in ids]).values()
    return [
        (person.person_id, person.national_id) for person in found if person.national_id is not None
    ]


def rename(seeded: Address, patient_id: int, old: str, new: str) -> None:
    where = (
        f"patient_id = {patient_id} AND identifier REGEXP '^[^0-9]*{'[^0-9]*'.join(old)}[^0-9]*$'"
    )
    seeded.execute(f"UPDATE patient_identifier SET identifier = '{new}' WHERE {where}")


def test_an_id_of_two_patients_is_nobodys(make: Make, seeded: Address) -> None:
    lookups = make()
    (first, one), (second, two) = patients(seeded, lookups)[:2]
    rename(seeded, second, two, f"{one[:3]} {one[3:]}")
    lookups.evict(
        key_change(
            "patient_identifier",
            place(lookups).position,
            patient_identifier_id=1,
            patient_id=second,
        )
    )
    assert lookups.persons([first])[first].state == "ok"  # the other one has not been read yet
    assert lookups.persons([second])[second].state == "ambiguous"
    assert lookups.affected_patients() == {first}
    assert lookups.persons([first])[first].state == "ambiguous"
    assert lookups.holders_of_same_ids([second]) == {first}
    rename(seeded, second, one, two)
    lookups.evict(
        key_change(
            "patient_identifier",
            place(lookups).position,
            patient_identifier_id=1,
            patient_id=second,
        )
    )
    assert lookups.persons([second])[second].state == "ok"
    assert lookups.affected_patients() == {first}
    assert lookups.persons([first])[first].national_id == one


def test_ids_that_changed_unseen_are_found_when_the_index_is_read_again(
    make: Make, seeded: Address
) -> None:
    lookups = make()
    (first, one), (second, two) = patients(seeded, lookups)[:2]
    rename(seeded, second, two, one)
    lookups.clear(identities=True)
    lookups.persons([first])
    assert lookups.affected_patients() == {first, second}


def test_states_of_persons(make: Make, seeded: Address) -> None:
    lookups = make()
    (first, _), (second, two) = patients(seeded, lookups)[:2]
    staff = seeded.execute(
        "SELECT MIN(person_id) FROM person WHERE person_id NOT IN (SELECT patient_id FROM patient)"
    )[0][0]
    seeded.execute(f"UPDATE person SET voided = 1 WHERE person_id = {first}")
    rename(seeded, second, two, "12345")
    lookups.clear(identities=True)
    found = lookups.persons([first, second, staff, 999_999])
    assert [found[one].state for one in (first, second, staff, 999_999)] == [
        "voided",
        "invalid",
        "not_patient",
        "not_patient",
    ]
    assert found[999_999].uuid is None
    assert all(one.national_id is None for one in found.values())


def test_an_identifier_type_that_is_not_there_is_fatal(make: Make) -> None:
    with pytest.raises(Fatal) as refused:
        make(national_id_type="no-such-type").persons([1])
    assert "hospital kigali" in str(refused.value)
    assert NATIONAL_ID_TYPE in str(refused.value)
    assert "hospitals.kigali.national_id_type" in refused.value.hint
    assert make(national_id_type=OPENMRS_ID_TYPE).persons([1])[1].state == "not_patient"


def test_names_for_readers_and_a_name_of_another_locale_that_is_changed(
    make: Make, seeded: Address
) -> None:
    lookups = make(name_locales=("fr", "rw"))
    ((concept,),) = seeded.execute(
        "SELECT concept_id FROM concept_name WHERE name = 'Pouls' AND locale = 'fr'"
    )
    (pulse, *_) = rows(lookups, f"concept_id = {concept} AND voided = 0")
    named = lookups.observations([pulse])[0].concept
    assert named is not None
    assert (named.name, named.names) == ("Pulse", (("en", "Pulse"), ("fr", "Pouls")))

    seeded.execute("UPDATE concept_name SET name = 'Fréquence' WHERE name = 'Pouls'")
    at = place(lookups)
    lookups.evict(key_change("concept_name", at.position, concept_id=concept))
    again = lookups.observations([pulse], at)[0].concept
    assert again is not None
    assert again.names == (("en", "Pulse"), ("fr", "Fréquence"))


def test_the_range_that_openmrs_applied_holds_before_that_of_the_question(
    make: Make, seeded: Address
) -> None:
    lookups = make()
    ((concept,),) = seeded.execute("SELECT concept_id FROM concept_name WHERE name = 'Pulse'")
    pulses = rows(lookups, f"concept_id = {concept} AND voided = 0")[:2]
    first = pulses[0].row["obs_id"]
    for observation in lookups.observations(pulses):
        bounds = observation.value.reference_range
        assert bounds is not None
        assert (bounds.low_normal, bounds.high_normal, bounds.source) == (55, 100, "concept")

    seeded.execute(
        "INSERT INTO obs_reference_range (obs_id, low_normal, hi_normal, hi_critical, uuid)"
        f" VALUES ({first}, 1, 2, 3, UUID())"
    )
    at = place(lookups)
    assert lookups.observations(pulses, at)[0].value.reference_range != (
        known := ReferenceRange(None, None, 1, 2, 3, None, "obs")
    ), "nobody has said yet that it is new"
    lookups.evict(key_change("obs_reference_range", at.position, obs_id=first))
    [with_own, without] = lookups.observations(pulses, at)
    assert with_own.value.reference_range == known
    assert with_own.value.interpretation == Interpretation("CRITICALLY_HIGH", "range")
    assert without.value.reference_range is not None
    assert without.value.reference_range.source == "concept"


def test_an_older_openmrs_has_no_ranges_of_its_own_and_is_not_asked(
    make: Make, seeded: Address
) -> None:
    seeded.execute("DROP TABLE obs_reference_range")
    lookups = make()
    numbers = rows(lookups, "value_numeric IS NOT NULL")[:50]
    assert lookups.source.lacks("obs_reference_range")
    sources = set()
    for observation in lookups.observations(numbers):
        if observation.value.reference_range is not None:
            sources.add(observation.value.reference_range.source)
    assert sources == {"concept"}
    before = questions(lookups)
    lookups.observations(numbers)
    assert questions(lookups) - before == 1  # this question
