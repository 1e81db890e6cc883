"""Makes of what a SELECT gives the one JSON form of values and rows.

A SELECT gives the values that column_types.py converts only if it selects `select_list`, on a
connection with ``charset=utf8mb4``, ``conv={}`` (then PyMySQL leaves numbers and times as the
server's text) and ``SET time_zone = '+00:00'``.
"""

from collections.abc import Iterable
from json.encoder import encode_basestring as quoted
from typing import Any

from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES


def supported(data_type: str) -> bool:
    """Return whether values of this type have a JSON form."""
    return data_type in COLUMN_TYPES


def select_list(columns: Iterable[ColumnInfo]) -> str:
    """Return the SQL expressions whose values `json_value` takes, in the order of the columns."""
    expressions: list[str] = []
    for column in columns:
        name = column.quoted_name
        column_type = COLUMN_TYPES.get(column.data_type)
        expression = name if column_type is None else column_type.select_sql.format(name)
        # An expression is given the column's name, by which rows are read.
        expressions.append(name if expression == name else f"{expression} AS {name}")
    return ", ".join(expressions)


def json_value(column: ColumnInfo, selected: str | bytes | None) -> Any:
    """Return the JSON value of what a SELECT gave. Raises KeyError if the type isn't supported."""
    return None if selected is None else COLUMN_TYPES[column.data_type].json_value(selected)


def row_text(names: Iterable[str], values: Iterable[Any]) -> str:
    """Return the JSON text of a row: the same bytes that the binlog decoder makes."""
    members = [
        f"{quoted(name)}:{value_text(value)}" for name, value in zip(names, values, strict=True)
    ]
    return "{" + ",".join(members) + "}"


def value_text(value: Any) -> str:
    """Return the JSON text of one JSON value."""
    if value is None:
        return "null"
    return quoted(value) if isinstance(value, str) else repr(value)
