"""A hospital's database made from nothing, the same for the same seed."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random

from dev.hospital import metadata, people
from dev.hospital.dictionary import Dictionary
from dev.hospital.history import COLUMNS, Chart, MetadataIds
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
    """Make OpenMRS' tables anew in the connection's current database, and fill them.

    Each of the `patients` has about `visits` visits with some 20 obs each, all before `now`. It
    commits as it goes. The same arguments give the same rows.
    """
    _make_schema(connection)
    connection.begin()
    metadata.fill(connection, seed=seed, now=now)
    connection.commit()
    rng = Random(f"hospital {seed}")
    ids = _metadata_ids(connection)
    chart = Chart(ids, rng, now, obs_id_start, first_person=len(people.STAFF))
    numbers = rng.sample(range(1, int(patients * POOL) + 20), patients)
    citizens = [people.citizen(number) for number in numbers]
    sharer = citizens[min(9, patients - 1)]
    for index, citizen in enumerate(citizens, 1):
        chart.add_patient(index, citizen, sharer, visits)
        if len(chart.rows["obs"]) >= BATCH:
            _insert_rows(connection, chart)
    chart.add_staff_obs(person=4)
    chart.add_staff_obs(person=6)
    _insert_rows(connection, chart)


def statements() -> Iterator[str]:
    """Yield the schema's CREATE TABLE statements."""
    lines = SCHEMA.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("--")]
    for statement in "\n".join(lines).split(";"):
        if statement.strip():
            yield statement.strip()


def _make_schema(connection: Connection) -> None:
    execute(connection, "SET SESSION foreign_key_checks = 0")
    for statement in statements():
        table = statement.split()[2]
        execute(connection, f"DROP TABLE IF EXISTS {table}")
    execute(connection, "DROP TABLE IF EXISTS journal")
    for statement in statements():
        execute(connection, statement)
    execute(connection, "SET SESSION foreign_key_checks = 1")


def _insert_rows(connection: Connection, chart: Chart) -> None:
    """Insert the chart's rows in one transaction, and take them out of the chart."""
    connection.begin()
    for table, columns in COLUMNS.items():
        if chart.rows[table]:
            insert_many(connection, table, columns, chart.rows[table])
            chart.rows[table].clear()
    connection.commit()


def _metadata_ids(connection: Connection) -> MetadataIds:
    def ids(table: str, key: str, condition: str = "TRUE") -> list[int]:
        sql = f"SELECT {key} AS id FROM {table} WHERE {condition} ORDER BY 1"
        return [int(row["id"]) for row in fetch(connection, sql)]

    def ids_by(table: str, column: str) -> dict[str, int]:
        sql = f"SELECT {table}_id AS id, {column} AS name FROM {table}"
        return {row["name"]: int(row["id"]) for row in fetch(connection, sql)}

    return MetadataIds(
        dictionary=Dictionary.read(connection),
        users=ids("users", "user_id", "retired = 0"),
        providers=ids("provider", "provider_id"),
        locations=ids("location", "location_id"),
        encounter_types=ids_by("encounter_type", "name"),
        roles=ids_by("encounter_role", "name"),
        identifier_types=ids_by("patient_identifier_type", "uuid"),
    )
