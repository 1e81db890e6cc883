"""The benchmark's hospital.

The generator makes it, and its years are then done again, an encounter at a time.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pymysql

from dev import hospital as generator
from dev.hospital.history import OBS_COLUMNS
from tests.e2e.stage import Hospital, Stage

PATIENTS = 1_300  # of whom a good 1,000 can be matched
OBS_A_VISIT = 20
LATER = 50  # encounters between an entry and its correction
TABLES = ("encounter", "encounter_provider", "orders", "obs")
_VOID = ("voided", "voided_by", "date_voided", "void_reason")


def fill(stage: Stage, hospital: Hospital, rows: int) -> int:
    """Make about `rows` obs of PATIENTS patients, and register everybody who can be matched.

    Return how many of the obs are theirs.
    """
    with hospital.connect() as connection:
        visits = max(1, round(rows / PATIENTS / OBS_A_VISIT))
        generator.create(connection, seed=5, patients=PATIENTS, visits=visits)
        able = dict(generator.registrable(connection))
        generator.passport_patients(stage.db, able.values())
        # As the Passport's own schema has it.
        stage.db["patients"].create_index("nationalId", unique=True)
        return count_of(connection, list(able))


def set_aside(hospital: Hospital) -> None:
    """Move encounters and obs to another database.

    What is left is a hospital that has registered its patients.
    """
    with hospital.connect() as connection:
        _run(connection, "SET foreign_key_checks = 0", "CREATE DATABASE aside")
        for table in TABLES:
            _run(
                connection,
                f"CREATE TABLE aside.{table} AS SELECT * FROM {table}",
                f"TRUNCATE TABLE {table}",
            )
        _run(
            connection,
            "CREATE INDEX id ON aside.encounter (encounter_id)",
            "CREATE INDEX encounter ON aside.encounter_provider (encounter_id)",
            "CREATE INDEX encounter ON aside.orders (encounter_id)",
            "CREATE UNIQUE INDEX id ON aside.obs (obs_id)",
            "CREATE TABLE aside.replaced (PRIMARY KEY (obs_id)) AS"
            " SELECT DISTINCT previous_version AS obs_id FROM aside.obs"
            " WHERE previous_version IS NOT NULL",
        )


def work(hospital: Hospital) -> tuple[int, int]:
    """Write what was set aside, an encounter a transaction, and its corrections later.

    Return the numbers of transactions and of edited obs.
    """
    with hospital.connect(autocommit=False) as connection:
        _run(connection, "SET foreign_key_checks = 0")
        entries, edits = _plan(connection)
        waiting: deque[list[int]] = deque()
        done = 0
        edited = 0
        for encounter, ids in entries:
            _enter(connection, encounter, ids)
            waiting.extend(edits.pop(encounter, []))
            while len(waiting) > LATER:
                edited += _correct(connection, waiting.popleft())
                done += 1
            done += 1
        for new in waiting:
            edited += _correct(connection, new)
        return done + len(waiting), edited


def stir(hospital: Hospital) -> None:
    """Make two events of obs, after which it is as it was."""
    with hospital.connect() as connection:
        _run(
            connection,
            "SET foreign_key_checks = 0",
            "INSERT INTO obs (obs_id, person_id, concept_id, obs_datetime, creator, date_created,"
            " voided, uuid) VALUES (1, 0, 0, NOW(), 1, NOW(), 0, UUID())",
            "DELETE FROM obs WHERE obs_id = 1",
        )


def count(hospital: Hospital) -> int:
    """Return the number of all rows of obs."""
    with hospital.connect() as connection:
        return int(next(_rows(connection, "SELECT COUNT(*) FROM obs"))[0])


def _plan(
    connection: "pymysql.Connection[Any]",
) -> tuple[list[tuple[Any, list[int]]], dict[Any, list[list[int]]]]:
    """Return what is to be written, and the corrections of it.

    The first is a list of (encounter, obs_ids as first written) in order. The second has the trees
    of new versions by encounter.
    """
    entered: dict[Any, list[int]] = defaultdict(list)
    edits: dict[Any, list[list[int]]] = defaultdict(list)
    tree: dict[int, list[int]] = {}
    columns = "obs_id, encounter_id, person_id, obs_group_id, previous_version"
    rows = _rows(connection, f"SELECT {columns} FROM aside.obs ORDER BY obs_id")
    for obs, encounter, person, group, previous in rows:
        where = encounter or f"person {person}"
        if previous is None:
            entered[where].append(obs)
        elif group in tree:
            tree[group].append(obs)
        else:
            edits[where].append([obs])
        if previous is not None:
            tree[obs] = tree[group] if group in tree else edits[where][-1]
    return list(entered.items()), edits


def _enter(connection: "pymysql.Connection[Any]", encounter: Any, ids: Sequence[int]) -> None:
    if isinstance(encounter, int):
        for table in TABLES[:3]:
            _run(
                connection,
                f"INSERT INTO {table} SELECT * FROM aside.{table} WHERE encounter_id = {encounter}",
            )
    _insert(connection, ids)
    connection.commit()


def _insert(connection: "pymysql.Connection[Any]", ids: Sequence[int]) -> None:
    """Insert obs as first written: what has a successor was not voided yet."""
    replaced = "EXISTS (SELECT 1 FROM aside.replaced r WHERE r.obs_id = s.obs_id)"
    columns = {
        name: f"IF({replaced}, {'0' if name == 'voided' else 'NULL'}, s.{name})" for name in _VOID
    }
    _insert_as(connection, ids, columns)


def _insert_as(
    connection: "pymysql.Connection[Any]", ids: Sequence[int], columns: Mapping[str, str]
) -> None:
    values = ", ".join(columns.get(name, f"s.{name}") for name in OBS_COLUMNS)
    _run(
        connection,
        f"INSERT INTO obs ({', '.join(OBS_COLUMNS)}) SELECT {values} FROM aside.obs s"
        f" WHERE s.obs_id IN ({_list(ids)}) ORDER BY s.obs_id",
    )


def _correct(connection: "pymysql.Connection[Any]", new: Sequence[int]) -> int:
    """Edit as OpenMRS does: insert the new versions, then void the old ones."""
    void = ", ".join(f"o.{name} = s.{name}" for name in _VOID)
    _insert_as(connection, new, {})
    _run(
        connection,
        f"UPDATE obs o JOIN aside.obs s USING (obs_id) SET {void} WHERE o.obs_id IN"
        f" (SELECT previous_version FROM aside.obs WHERE obs_id IN ({_list(new)}))",
    )
    connection.commit()
    return len(new)


def count_of(connection: "pymysql.Connection[Any]", people: Sequence[int]) -> int:
    """Return the number of rows of obs of these persons."""
    sql = f"SELECT COUNT(*) FROM obs WHERE person_id IN ({_list(people)})"
    return int(next(_rows(connection, sql))[0])


def _list(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))


def _rows(connection: "pymysql.Connection[Any]", sql: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        yield from cursor.fetchall()


def _run(connection: "pymysql.Connection[Any]", *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
