"""Tells who a hospital's patients are: the national id of each person, or why there is none."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from openmrs.national_id import LENGTHS, IdentifierType
from openmrs.read import ConsistentRead
from passport.errors import Fatal, Origin
from passport.facts import Person, PersonState, Sex
from passport.settings import Hospital

# How many rows one query gives, when all identifiers are read.
IDENTIFIERS_AT_ONCE = 10_000

# What OpenMRS and its imports write for a person's gender. Anything else says nothing here.
SEXES: Mapping[str, Sex] = {"F": "female", "FEMALE": "female", "M": "male", "MALE": "male"}


@dataclass(frozen=True, slots=True)
class PersonFacts:
    """The rows of person, patient and patient_identifier that say who one person is.

    `identifiers` are the pairs (national id, preferred) of the identifiers that are not voided. The
    national id is None if the identifier can't be one. The rest: see `passport.facts.Person`.
    """

    uuid: str | None
    patient: bool
    voided: bool
    identifiers: tuple[tuple[str | None, bool], ...]
    birth_year: int | None = None
    is_birth_estimated: bool = False
    sex: Sex | None = None

    def live_ids(self) -> list[str]:
        """Return the ids that the person holds as a live patient."""
        if not self.patient or self.voided:
            return []
        return [national_id for national_id, _ in self.identifiers if national_id is not None]


UNKNOWN = PersonFacts(None, False, False, ())


_COLUMNS = "(id INTEGER, patient INTEGER, PRIMARY KEY (id, patient)) WITHOUT ROWID"
# The rows that one table of holders has and the other one has not, by their databases.
_MISSING = """SELECT id, patient FROM {0}.holders mine WHERE NOT EXISTS
  (SELECT 1 FROM {1}.holders theirs WHERE theirs.id = mine.id AND theirs.patient = mine.patient)"""


class Holders:
    """An index of the live patients by national id, so that an id that two of them hold is seen.

    It is a table in memory: 40 MB for a million ids, a fifth of what Python's own types take. Only
    ids of 10 to 16 digits are kept, as the numbers that `_packed` makes of them.
    """

    def __init__(self) -> None:
        # Nothing of it may be written to a disk, not even while it sorts.
        self._index = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._index.executescript(
            f"""PRAGMA temp_store = MEMORY;
            CREATE TABLE holders {_COLUMNS};
            CREATE INDEX ids ON holders (patient);"""
        )

    def of(self, national_id: str) -> set[int]:
        """Return the live patients who hold the id."""
        return self._holding([_packed(national_id)])

    def replace(self, patient_id: int, ids: Iterable[str]) -> set[int]:
        """Set all ids that a patient holds now.

        Return the other patients who hold an id that this one gained or lost.
        """
        new = {_packed(national_id) for national_id in ids if _valid(national_id)}
        old = self._ids_of(patient_id)
        for packed in old - new:
            self._index.execute(
                "DELETE FROM holders WHERE id = ? AND patient = ?", (packed, patient_id)
            )
        for packed in new - old:
            self._index.execute("INSERT INTO holders VALUES (?, ?)", (packed, patient_id))
        return self._holding(old ^ new) - {patient_id}

    def holders_of_same_ids(self, patient_id: int) -> set[int]:
        """Return the other patients who hold an id of this one."""
        return self._holding(self._ids_of(patient_id)) - {patient_id}

    def reload(self, pairs: Iterable[tuple[int, str]]) -> set[int]:
        """Set the pairs (patient, national id) of all patients.

        Return the patients who hold other ids than before, and those who share or shared one.
        Nobody, if the index was empty.
        """
        packed = ((_packed(written), patient) for patient, written in pairs if _valid(written))
        index = self._index
        if index.execute("SELECT 1 FROM holders LIMIT 1").fetchone() is None:
            with index:
                index.execute("BEGIN")
                index.executemany("INSERT OR IGNORE INTO holders VALUES (?, ?)", packed)
            return set()
        # A database of its own: its memory is given back when it is detached.
        index.execute("ATTACH ':memory:' AS loaded")
        try:
            with index:
                index.execute("BEGIN")
                index.execute(f"CREATE TABLE loaded.holders {_COLUMNS}")
                index.executemany("INSERT OR IGNORE INTO loaded.holders VALUES (?, ?)", packed)
                lost = index.execute(_MISSING.format("main", "loaded")).fetchall()
                gained = index.execute(_MISSING.format("loaded", "main")).fetchall()
                index.executemany("DELETE FROM main.holders WHERE id = ? AND patient = ?", lost)
                index.executemany("INSERT INTO main.holders VALUES (?, ?)", gained)
        finally:
            index.execute("DETACH loaded")
        changed = {patient for _, patient in lost + gained}
        return changed | self._holding({packed_id for packed_id, _ in lost + gained})

    def _ids_of(self, patient_id: int) -> set[int]:
        rows = self._index.execute("SELECT id FROM holders WHERE patient = ?", (patient_id,))
        return {packed for (packed,) in rows}

    def _holding(self, packed_ids: Iterable[int]) -> set[int]:
        patients: set[int] = set()
        for packed in packed_ids:
            rows = self._index.execute("SELECT patient FROM holders WHERE id = ?", (packed,))
            patients.update(patient for (patient,) in rows)
        return patients


def _packed(national_id: str) -> int:
    """Return an id as a number of 64 bits. The 1 in front keeps leading zeros."""
    return int("1" + national_id)


def _valid(national_id: str) -> bool:
    return len(national_id) in LENGTHS


def stated(person_id: int, facts: PersonFacts, holders: Holders) -> tuple[PersonState, str | None]:
    """Return a person's state, and the national id if the state is ``ok``."""
    if not facts.patient:
        return "not_patient", None
    if facts.voided:
        return "voided", None
    ids = {national_id for national_id, is_preferred in facts.identifiers if is_preferred}
    if not ids:
        ids = {national_id for national_id, _ in facts.identifiers}
    if len(ids) != 1:
        return ("ambiguous" if ids else "none"), None
    national_id = ids.pop()
    if national_id is None:
        return "invalid", None
    if any(other != person_id for other in holders.of(national_id)):
        return "ambiguous", None
    return "ok", national_id


class Identities:
    """The national ids of one hospital's patients.

    `affected_patients` collects the patients whose state may be another one since someone else's
    ids have changed. Whoever reads them again takes them out.
    """

    def __init__(self, hospital_id: str, hospital: Hospital) -> None:
        self._hospital_id = hospital_id
        self._type_uuid = hospital.national_id_type
        self._type: IdentifierType | None = None
        self._holders = Holders()
        self.affected_patients: set[int] = set()

    def clear(self) -> None:
        """Let the next read load all identifiers again.

        Patients whose identifiers have changed meanwhile become affected patients.
        """
        self._type = None

    def holders_of_same_ids(self, person_ids: Iterable[int]) -> set[int]:
        """Return the others who hold a national id of one of these persons."""
        others: set[int] = set()
        for person_id in person_ids:
            others |= self._holders.holders_of_same_ids(person_id)
        return others

    def read(
        self, reading: ConsistentRead, person_ids: Sequence[int], version: str
    ) -> dict[int, Person]:
        """Return the persons by id, as they are in this read; every id is there.

        Raises Fatal if the hospital has no such identifier type as the settings name.
        """
        identifier_type = self._type or self._load(reading)
        facts = _facts(reading, person_ids, identifier_type)
        for person_id, person_facts in facts.items():
            ids = person_facts.live_ids()
            self.affected_patients |= self._holders.replace(person_id, ids)

        # Only now, since whether an id is ambiguous depends on what the other persons hold.
        persons = {}
        for person_id in person_ids:
            person_facts = facts[person_id]
            state, national_id = stated(person_id, person_facts, self._holders)
            persons[person_id] = Person(
                hospital=self._hospital_id,
                person_id=person_id,
                uuid=person_facts.uuid,
                state=state,
                national_id=national_id,
                version=version,
                birth_year=person_facts.birth_year,
                is_birth_estimated=person_facts.is_birth_estimated,
                sex=person_facts.sex,
            )
        return persons

    def _load(self, reading: ConsistentRead) -> IdentifierType:
        identifier_type = self._find_type(reading)
        held = _held_ids(reading, identifier_type)
        self.affected_patients |= self._holders.reload(held)
        self._type = identifier_type
        return identifier_type

    def _find_type(self, reading: ConsistentRead) -> IdentifierType:
        types = reading.rows(
            "SELECT patient_identifier_type_id AS id, name, uuid, retired, format, validator"
            " FROM patient_identifier_type"
        )
        for row in types:
            if row["uuid"] == self._type_uuid:
                return IdentifierType(row["id"], row["format"] or "", row["validator"] or "")
        raise Fatal(
            f"hospital {self._hospital_id}: it has no patient identifier type "
            f"{self._type_uuid!r}; it has",
            details=[f"{row['uuid']}  {row['name']}" for row in types if not row["retired"]],
            origin=Origin.hospital(self._hospital_id),
            hint=f"set hospitals.{self._hospital_id}.national_id_type"
            " to the uuid of the national id",
        )


def _held_ids(
    reading: ConsistentRead, identifier_type: IdentifierType
) -> Iterator[tuple[int, str]]:
    """Yield (patient, national id) of all live patients.

    There may be millions, so no answer has all of them.
    """
    read_identifier = identifier_type.reader()
    after = -1
    rows = None
    while rows is None or len(rows) == IDENTIFIERS_AT_ONCE:
        rows = reading.rows(
            """SELECT i.patient_identifier_id AS id, i.patient_id, i.identifier
            FROM patient_identifier i
            JOIN patient p ON p.patient_id = i.patient_id AND p.voided = 0
            JOIN person n ON n.person_id = i.patient_id AND n.voided = 0
            WHERE i.voided = 0 AND i.identifier_type = %s AND i.patient_identifier_id > %s
            ORDER BY i.patient_identifier_id LIMIT %s""",
            (identifier_type.type_id, after, IDENTIFIERS_AT_ONCE),
        )
        for row in rows:
            national_id = read_identifier(row["identifier"])
            if national_id is not None:
                yield row["patient_id"], national_id
        if rows:
            after = rows[-1]["id"]


def _facts(
    reading: ConsistentRead, person_ids: Sequence[int], identifier_type: IdentifierType
) -> dict[int, PersonFacts]:
    """Return the facts of each of these persons; a person who isn't there is UNKNOWN."""
    read_identifier = identifier_type.reader()
    identifiers: dict[int, list[tuple[str | None, bool]]] = {}
    for row in reading.rows(
        """SELECT patient_id, identifier, preferred FROM patient_identifier
        WHERE voided = 0 AND identifier_type = %s AND patient_id IN %s""",
        (identifier_type.type_id, person_ids),
    ):
        identifiers.setdefault(row["patient_id"], []).append(
            (read_identifier(row["identifier"]), bool(row["preferred"]))
        )
    rows = reading.rows(
        """SELECT n.person_id, n.uuid, n.voided, p.patient_id, p.voided AS patient_voided,
          YEAR(n.birthdate) AS birth_year, n.birthdate_estimated, n.gender
        FROM person n LEFT JOIN patient p ON p.patient_id = n.person_id
        WHERE n.person_id IN %s""",
        (person_ids,),
    )
    facts = dict.fromkeys(person_ids, UNKNOWN)
    for row in rows:
        person_id = row["person_id"]
        facts[person_id] = PersonFacts(
            uuid=row["uuid"],
            patient=row["patient_id"] is not None,
            voided=bool(row["voided"] or row["patient_voided"]),
            identifiers=tuple(identifiers.get(person_id, ())),
            birth_year=row["birth_year"] or None,  # 0 of a zero date
            is_birth_estimated=bool(row["birthdate_estimated"]),
            sex=SEXES.get((row["gender"] or "").strip().upper()),
        )
    return facts
