"""What an allow-listed column may be, before a reader starts."""

import pytest

from cdc.schema import refuse_undecodable, undecodable_columns
from openmrs.column_info import ColumnInfo
from passport.errors import Fatal

KEY = ColumnInfo("obs_id", "int", "int(11)")


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (ColumnInfo("comments", "vector", "vector(3)"), "type vector"),
        (ColumnInfo("comments", "inet6", "inet6"), "type inet6"),
        (ColumnInfo("uuid", "uuid", "uuid"), "type uuid"),
        (ColumnInfo("comments", "varchar", "varchar(9)", "gbk", 18), "character set gbk"),
        (ColumnInfo("status", "enum", "enum('a')", "cp1256", 1), "character set cp1256"),
        (
            ColumnInfo("obs_datetime", "datetime", "datetime(3) /* mariadb-5.3 */", fsp=3),
            "MariaDB's old format",
        ),
        (ColumnInfo("obs_id", "varchar", "varchar(9)", "latin1", 9), "a key of type varchar"),
    ],
)
def test_what_cannot_be_decoded_is_named(column: ColumnInfo, why: str) -> None:
    (found,) = undecodable_columns({"obs": [column]})
    assert found.startswith(f"obs.{column.name}: ")
    assert why in found
    with pytest.raises(Fatal, match=f"kigali.*{why}") as caught:
        refuse_undecodable("kigali", {"obs": [KEY, column]})
    assert "passport check --hospital kigali" in caught.value.hint


def test_a_key_of_a_table_of_notices_is_an_integer() -> None:
    assert undecodable_columns(
        {"person": [ColumnInfo("person_id", "char", "char(38)", "utf8mb4", 152)]}
    )
    assert not undecodable_columns({"person": [ColumnInfo("uuid", "uuid", "uuid")]})


def test_other_columns_may_be_what_they_like() -> None:
    lists = {
        "obs": [KEY, ColumnInfo("site_note", "vector", "vector(3)")],
        "site": [ColumnInfo("id", "uuid", "uuid")],
    }
    refuse_undecodable("kigali", lists)
