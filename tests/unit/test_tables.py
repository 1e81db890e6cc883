"""The registry of tables, and what is derived from it."""

import pytest

from cdc.checks.grants import grants, table_grants
from openmrs.tables import (
    FACT_TABLES,
    KEY_COLUMNS,
    OPTIONAL_TABLES,
    REFERENCE_TABLES,
    WATCHED,
    FactTable,
)
from passport import event
from passport.settings import Hospital, MySQL

HOSPITAL = Hospital(
    name="Kigali",
    partition=0,
    timezone="Africa/Kigali",
    national_id_type="t",
    mysql=MySQL(host="localhost", user="passport"),
)


@pytest.mark.parametrize("table", FACT_TABLES.values(), ids=FACT_TABLES)
def test_a_fact_table_names_columns_that_it_carries(table: FactTable) -> None:
    assert table.columns[0] == table.key
    assert len(set(table.columns)) == len(table.columns)
    assert {table.person, *table.stamps, *table.refers, *table.optional} <= {*table.columns}
    assert set(table.refers.values()) <= REFERENCE_TABLES.keys()


def test_a_reference_table_is_walked_by_a_key_that_it_has() -> None:
    for table in REFERENCE_TABLES.values():
        assert table.walked_by in table.keys
        assert not table.person or table.person in table.keys
        assert not table.has_secrets or {*table.keys} <= {*table.columns}


def test_the_columns_of_rows_on_the_wire_are_those_of_the_registry() -> None:
    assert {table.name: table.key for table in FACT_TABLES.values()} == event.KEY_COLUMNS
    assert tuple(event.ObsRow.__annotations__) == FACT_TABLES["obs"].columns
    assert event.ObsRow.__optional_keys__ == FACT_TABLES["obs"].optional


def test_each_watched_table_is_granted_and_secrets_are_not() -> None:
    statements = table_grants(HOSPITAL, "'passport'@'%'")
    assert statements.keys() == {*WATCHED} == {*FACT_TABLES, *KEY_COLUMNS}
    assert statements["obs"] == "GRANT SELECT ON `openmrs`.`obs` TO 'passport'@'%';"
    assert statements["users"] == (
        "GRANT SELECT (user_id, person_id, uuid, retired), REFERENCES"
        " ON `openmrs`.`users` TO 'passport'@'%';"
    )


def test_a_table_that_may_be_absent_is_granted_last_so_that_nothing_else_fails() -> None:
    lines = [line for line in grants("kigali", HOSPITAL).splitlines() if line[:5] == "GRANT"]
    of_optional = {line for line in lines for table in OPTIONAL_TABLES if f"`{table}`" in line}
    assert len(of_optional) == len(OPTIONAL_TABLES) > 0
    assert {*lines[-len(of_optional) :]} == of_optional
