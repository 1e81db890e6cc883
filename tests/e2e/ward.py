"""A hospital of the stage, at which a test does one thing at a time to rows that it chooses.

It also tells what MongoDB shows of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any

from dev.hospital import passport_patients, people
from dev.hospital.recording import add_identifier
from dev.hospital.sql import Row
from dev.hospital.work import Metadata, Work
from tests.e2e.stage import Hospital, Stage
from tests.eventually import eventually
from tests.oracle.compare import Comparison

Document = dict[str, Any]
_serials = count(7_000_000)


class Chosen(Work):
    """The generator's actions, on these keys in turn instead of random ones."""

    keys: Iterator[int]

    def pick(self, table: str, key: str, condition: str) -> Row:
        [row] = self.fetch(
            f"SELECT * FROM `{table}` t WHERE {key} = %s AND {condition} FOR UPDATE",
            next(self.keys),
        )
        return row

    def row(self, obs: int) -> Row:
        [row] = self.fetch("SELECT * FROM obs WHERE obs_id = %s FOR UPDATE", obs)
        return row

    def pick_group(self, condition: str) -> Row:
        return self.pick("obs", "obs_id", f"t.voided = 0 AND {condition}")


class Ward:
    """One hospital. Every call is one transaction."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage, self.key = stage, key
        self.hospital: Hospital = stage.hospitals[key]
        self.connect()

    def connect(self) -> None:
        """Connect, also again after the server was away."""
        self.connection = self.hospital.connect(autocommit=False)
        self.known = Metadata.read(self.connection)
        self.connection.commit()

    @contextmanager
    def work(self, *keys: int) -> Iterator[Chosen]:
        self.connection.begin()
        [(now,)] = self.sql("SELECT NOW()")
        work = Chosen(self.connection, self.known, Random(1), now, None)
        work.keys = iter(keys)
        yield work
        self.connection.commit()

    def do(self, action: Callable[[Work], Any], *keys: int) -> Any:
        """Do one of the generator's actions to the rows with these keys."""
        with self.work(*keys) as work:
            return action(work)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement within the transaction that is open, and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def run(self, *statements: str) -> None:
        """Run several statements in one transaction."""
        self.connection.begin()
        for statement in statements:
            self.sql(statement)
        self.connection.commit()

    def next_second(self) -> None:
        """Wait for the next second.

        OpenMRS restores together what was voided in one second. What was voided before needs
        another stamp.
        """
        self.sql("DO SLEEP(1)")

    # -- people

    def patient(
        self, identifier: str | None = None, *, registered: bool = True, named: str = "Test"
    ) -> int:
        """Insert a new patient, register it in the Passport, and return its person_id.

        It gets a new national id, or `identifier`, or none if that is "".
        """
        digits = new_id() if identifier is None else identifier
        with self.work() as work:
            person = work.insert(
                "person", {"gender": "F", "birthdate": "1990-01-01", **work.created()}
            )
            name = {
                "person_id": person,
                "preferred": 1,
                "given_name": named,
                "family_name": "Person",
            }
            work.insert("person_name", {**name, **work.created()})
            stamp = work.created()
            del stamp["uuid"]
            work.insert("patient", {"patient_id": person, **stamp})
            if digits:
                add_identifier(work, person, digits, preferred=True)
        if registered and digits:
            self.register(digits)
        return person

    def register(self, written: str) -> str:
        """Register the patient in the Passport, and return patients._id in hex."""
        digits = "".join(filter(str.isdigit, written))
        return str(passport_patients(self.stage.db, [digits])[digits])

    def identify(self, person: int, written: str, *, preferred: bool = True) -> None:
        with self.work() as work:
            add_identifier(work, person, written, preferred=preferred)

    # -- what is written down

    def encounter(self, person: int, **columns: Any) -> int:
        with self.work() as work:
            row = {"encounter_type": min(self.known.encounter_types.values()), "patient_id": person}
            row |= {
                "encounter_datetime": "2025-03-04 10:00:00",
                "location_id": self.known.locations[0],
                **columns,
            }
            return work.insert("encounter", {**row, **work.created()})

    def obs(self, person: int, concept: str = "5087", **columns: Any) -> int:
        """Insert an obs, and return its obs_id. `concept` is the dictionary's key.

        It is a pulse of 72 unless `columns` have another value.
        """
        if not any(name.startswith("value_") for name in columns):
            columns["value_numeric"] = 72
        with self.work() as work:
            row = {
                "person_id": person,
                "concept_id": self.concept(concept),
                "obs_datetime": "2025-03-04 10:05:00",
            }
            row |= {"creator": self.known.users[0]}
            return work.insert_obs({**work.created(), **row, **columns})

    def concept(self, key: str) -> int:
        return int(self.known.dictionary.concepts[key])

    def group(self, person: int, header: str, *members: tuple[str, Row]) -> list[int]:
        """Insert a header without a value and its members in one transaction; return their ids."""
        with self.work() as work:
            row = {"person_id": person, "obs_datetime": "2025-03-04 10:05:00"}
            ids = [work.insert_obs({**work.created(), **row, "concept_id": self.concept(header)})]
            for concept, value in members:
                member = {
                    **row,
                    "concept_id": self.concept(concept),
                    "obs_group_id": ids[0],
                    **value,
                }
                ids.append(work.insert_obs({**work.created(), **member}))
        return ids

    def diagnosis(self, person: int, answer: str = "116128") -> list[int]:
        """Insert a diagnosis: the header, malaria, presumed, primary. Return their ids."""
        coded = [("1284", answer), ("159394", "159393"), ("159946", "159943")]
        members = [(question, {"value_coded": self.concept(value)}) for question, value in coded]
        return self.group(person, "159947", *members)

    def newest(self, obs: int) -> int:
        """Return the obs_id of the last version."""
        self.connection.rollback()
        while found := self.sql("SELECT obs_id FROM obs WHERE previous_version = %s", obs):
            obs = found[0][0]
        return obs

    # -- what MongoDB shows

    def record(self, obs: int) -> Document | None:
        """Return the record anchored at this obs, if a reader finds it."""
        named = {
            "openmrsData.hospitalId": self.key,
            "openmrsData.obsId": obs,
            "patientId": {"$ne": ""},
        }
        return self.stage.db["medicalrecords"].find_one(named)

    def records(self, person: int) -> list[Document]:
        named = {
            "openmrsData.hospitalId": self.key,
            "openmrsData.personId": person,
            "patientId": {"$ne": ""},
        }
        return list(self.stage.db["medicalrecords"].find(named).sort("openmrsData.obsId"))

    def shown(self, obs: int, **data: str) -> Document:
        """Wait until the record is there, with these fields in `data`, and return it."""

        def expected_record() -> Document | None:
            record = self.record(obs)
            if record is None:
                return None
            for name, value in data.items():
                if record["data"].get(name) != value:
                    return None
            return record

        what = f"the record of obs {self.key}/{obs}"
        if data:
            what += " with other values"
        record = eventually(expected_record, what)
        assert record is not None
        return record

    def hidden(self, obs: int) -> None:
        """Wait until no reader finds the record."""
        eventually(lambda: self.record(obs) is None, f"obs {self.key}/{obs} is no longer shown")

    def state(self, person: int) -> str | None:
        found = self.stage.db["people"].find_one({"_id": f"{self.key}/{person}"})
        return found and found["state"]


def new_id() -> str:
    return people.national_id(1990, "F", next(_serials))


def equal(stage: Stage, within_s: float = 90, *, be_it_nothing: bool = False) -> Comparison:
    """Wait until MongoDB holds what the oracle expects."""
    comparison = Comparison()

    def is_equal() -> bool:
        nonlocal comparison
        comparison = stage.compare()
        return not comparison.differences

    eventually(is_equal, lambda: str(comparison), within_s)
    return comparison if be_it_nothing else comparison.require_equal()
