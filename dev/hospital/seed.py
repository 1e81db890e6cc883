"""A hospital's database made from nothing, the same for the same seed."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random

from dev.hospital import metadata, people
from dev.hospital.dictionary import Dictionary
from dev.hospital.history import COLUMNS, Chart, Known
from dev.hospital.sql import Connection, execute, fetch, insert_many

SCHEMA = Path(__file__).with_name("schema.sql")
NOW = datetime(2026, 1, 15, 12, 0, 0)  # noqa: DTZ001  # a hospital's clock has no zone
BATCH = 5_000  # obs of one transaction
POOL = 1.5  # citizens for each patient: hospitals share about two thirds of theirs


def create(
    connection: Connection,
    *,
    seed: int,
    patients: int = 300,
    visits: int = 4,
    obs_id_start: int = 1,
    now: datetime = NOW,
) -> None:
    """Drops and makes OpenMRS' tables in the connection's current database and fills them: `visits`
    visits a patient, some 20 obs each, all before `now`. Commits as it goes. The same arguments
    give the same rows."""
    _schema(connection)
    connection.begin()
    metadata.fill(connection, seed=seed, now=now)
    connection.commit()
    _patients(connection, Random(f"hospital {seed}"), patients, visits, obs_id_start, now)


def statements() -> Iterator[str]:
    """The schema's CREATE TABLE statements."""
    lines = [
        line
        for line in SCHEMA.read_text(encoding="utf-8").splitlines()
        if not line.startswith("--")
    ]
    yield from (one.strip() for one in "\n".join(lines).split(";") if one.strip())


def _schema(connection: Connection) -> None:
    execute(connection, "SET SESSION foreign_key_checks = 0")
    for statement in statements():
        table = statement.split()[2]
        execute(connection, f"DROP TABLE IF EXISTS {table}")
    execute(connection, "DROP TABLE IF EXISTS journal")
    for statement in statements():
        execute(connection, statement)
    execute(connection, "SET SESSION foreign_key_checks = 1")


def _patients(
    connection: Connection,
    rng: Random,
    patients: int,
    visits: int,
    obs_id_start: int,
    now: datetime,
) -> None:
    chart = Chart(_known(connection), rng, now, obs_id_start, first_person=len(people.STAFF))
    crowd = [
        people.citizen(number)
        for number in rng.sample(range(1, int(patients * POOL) + 20), patients)
    ]
    sharer = crowd[min(9, patients - 1)]
    for index, person in enumerate(crowd, 1):
        chart.add_patient(index, person, sharer, visits)
        if len(chart.rows["obs"]) >= BATCH:
            _flush(connection, chart)
    chart.add_staff_obs(person=4)
    chart.add_staff_obs(person=6)
    _flush(connection, chart)


def _flush(connection: Connection, chart: Chart) -> None:
    connection.begin()
    for table, columns in COLUMNS.items():
        if chart.rows[table]:
            insert_many(connection, table, columns, chart.rows[table])
            chart.rows[table].clear()
    connection.commit()


def _known(connection: Connection) -> Known:
    def ids(sql: str) -> list[int]:
        return [int(row["id"]) for row in fetch(connection, sql)]

    def by(table: str, name: str) -> dict[str, int]:
        return {
            row["name"]: int(row["id"])
            for row in fetch(connection, f"SELECT {table}_id id, {name} name FROM {table}")
        }

    return Known(
        dictionary=Dictionary.read(connection),
        users=ids("SELECT user_id AS id FROM users WHERE retired = 0 ORDER BY 1"),
        providers=ids("SELECT provider_id AS id FROM provider ORDER BY 1"),
        locations=ids("SELECT location_id AS id FROM location ORDER BY 1"),
        encounter_types=by("encounter_type", "name"),
        roles=by("encounter_role", "name"),
        identifier_types=by("patient_identifier_type", "uuid"),
    )
