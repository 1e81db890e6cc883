"""A column type is one row of one table: both its halves are there, and they fit each other."""

import pytest

from cdc.binlog.byte_reader import ByteReader
from cdc.binlog.field_types import FIELD_FORMATS, INTEGER_KEYS, layout, read_column
from cdc.binlog.table_map import complete
from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES, ColumnType, FieldType
from openmrs.row_hash import digest, sql
from openmrs.values import json_value, select_list

METADATA = {
    FieldType.STRING: bytes([FieldType.STRING, 3]),
    FieldType.ENUM: bytes([FieldType.ENUM, 1]),
    FieldType.SET: bytes([FieldType.SET, 1]),
    FieldType.NEWDECIMAL: bytes([5, 2]),
    FieldType.TIME2: b"\0",
    FieldType.DATETIME2: b"\0",
    FieldType.TIMESTAMP2: b"\0",
}
SELECTED = {"json": "{}", "date": "2024-02-29", "bit": b"\1"}


def info(column_type: ColumnType) -> ColumnInfo:
    charset = "utf8mb4" if column_type.hash_sql.startswith("CONCAT(CHAR_LENGTH") else None
    return ColumnInfo(
        "x",
        column_type.name,
        f"{column_type.name}('a')",
        charset,
        precision=5,
        scale=2,
    )


ROWS = [
    pytest.param(column_type, field_type, id=f"{column_type.name}-{field_type.name}")
    for column_type in COLUMN_TYPES.values()
    for field_type in sorted(column_type.field_types)
]


@pytest.mark.parametrize(("column_type", "field_type"), ROWS)
def test_a_type_is_decoded_from_each_of_its_field_types(
    column_type: ColumnType, field_type: FieldType
) -> None:
    metadata = ByteReader(METADATA.get(field_type, b"\2\0"))
    column = read_column(field_type, metadata)
    assert column.type == field_type
    [completed] = complete([column], [info(column_type)], "obs")
    assert layout(completed).text is not None


@pytest.mark.parametrize("column_type", COLUMN_TYPES.values(), ids=lambda row: row.name)
def test_a_type_is_selected_converted_and_hashed(column_type: ColumnType) -> None:
    column = info(column_type)
    assert "`x`" in select_list([column])
    assert "`x`" in sql([column])
    value = json_value(column, SELECTED.get(column_type.name, "1"))
    hashes = [digest([{"x": image}], [column]).xor for image in (value, None)]
    assert len({*hashes}) == 2


def test_each_field_type_has_a_format_and_a_type_but_vector() -> None:
    """VECTOR is only stepped over."""
    assert {*FIELD_FORMATS} == {*FieldType}
    carried = {
        field_type
        for column_type in COLUMN_TYPES.values()
        for field_type in column_type.field_types
    }
    assert {*FieldType} - carried == {FieldType.VECTOR}


def test_keys_are_integers() -> None:
    names = {row.name for row in COLUMN_TYPES.values() if row.is_integer}
    assert names == {"tinyint", "smallint", "mediumint", "int", "bigint"}
    assert {field_type.name for field_type in FieldType if field_type in INTEGER_KEYS} == {
        "TINY",
        "SHORT",
        "INT24",
        "LONG",
        "LONGLONG",
    }
