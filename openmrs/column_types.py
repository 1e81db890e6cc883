"""Describes each column type by one row of a table: `COLUMN_TYPES`.

A value reaches Kafka on two ways, from a SELECT and from the binlog, and both must give the same
JSON. So a row says how a column of its type is selected, how the selected value becomes JSON, how
the server and Python hash it alike, and as which field types the binlog may carry it. How the bytes
of a field type are decoded is the binlog's own knowledge (cdc/binlog/field_types.py): a new type
that the servers send as a field type of old needs a row here, and nothing else.

The JSON forms:

- integers, YEAR, BIT: a number
- DOUBLE: a number, the shortest text that is this double
- FLOAT: a number, the shortest text that is this 4-byte float
- DECIMAL: a string with the declared digits, without leading zeros
- DATE, TIME: ``YYYY-MM-DD``, ``[-]HH:MM:SS[.f]``; a zero date stays ``0000-00-00``
- DATETIME: ``YYYY-MM-DDTHH:MM:SS[.f]``, the wall time as it was written, with the declared digits
- TIMESTAMP: the same in UTC, with ``Z``
- CHAR, TEXT, ENUM, SET: a string (the labels of a SET are joined by commas)
- JSON: a string, its text with one space after ``,`` and ``:`` (MariaDB: the text as written)
- BINARY, BLOB, GEOMETRY: a string in base64
"""

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any

NULL_HASH_TEXT = "~"
"""What a NULL adds to the text of a row that is hashed."""


class FieldType(IntEnum):
    """The servers' numbers for what a column is in storage and in the binlog (enum_field_types).

    TIMESTAMP, DATETIME and TIME are the formats from before MySQL 5.6. MariaDB still uses them in
    tables that were made with mysql56_temporal_format = OFF.
    """

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140  # MariaDB
    VARCHAR_COMPRESSED = 141  # MariaDB
    VECTOR = 242  # MySQL 9
    JSON = 245  # MySQL
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column type, by the name that information_schema has for it in `data_type`.

    In the two pieces of SQL ``{0}`` stands for the column's quoted name. `hash_sql` and `hash_text`
    give the same text, one of the column in SQL, one of its JSON value; neither is given a NULL.
    """

    name: str
    field_types: frozenset[FieldType]
    json_value: Callable[[str | bytes], Any]
    """Makes the JSON value of what a SELECT of `select_sql` gave."""
    hash_sql: str
    hash_text: Callable[[Any], str]
    select_sql: str = "{0}"
    is_integer: bool = False
    """Whether a column of the type may be a key: events carry keys as integers."""


# --- from what a SELECT gives to JSON


def float_value(value: float) -> float:
    """Return the double with the shortest text that is, as a 4-byte float, `value`."""
    packed = _FLOAT.pack(value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        # Rounding up the largest floats overflows: then more digits are needed.
        if abs(short) < 3.4028235e38 and _FLOAT.pack(short) == packed:
            return short
    return float(f"{value:.9g}")


_FLOAT = struct.Struct("<f")


def decimal_value(text: str) -> str:
    """Return a DECIMAL without leading zeros: ``-000.50`` is ``-0.50``, ``-0.00`` is ``0.00``.

    A SELECT pads a ZEROFILL column, the binlog does not.
    """
    sign = ""
    digits = text
    if text[0] == "-":
        sign = "-"
        digits = text[1:]
    whole, point, fraction = digits.partition(".")
    if not digits.strip("0."):
        sign = ""
    return f"{sign}{whole.lstrip('0') or '0'}{point}{fraction}"


def json_document(value: Any) -> str:
    """Return the text of a JSON document.

    MySQL stores documents parsed and writes their text anew, so a SELECT and the binlog need only
    agree with each other.
    """
    return json.dumps(value, ensure_ascii=False)


def binary_value(raw: bytes) -> str:
    """Return the base64 of bytes."""
    return b64encode(raw).decode()


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def _bytes(raw: str | bytes) -> bytes:
    return raw if isinstance(raw, bytes) else raw.encode()


def _bit_value(raw: str | bytes) -> int:
    return int.from_bytes(_bytes(raw), "big")


def _float_value(raw: str | bytes) -> float:
    return float_value(float(raw))


def _decimal_value(raw: str | bytes) -> str:
    return decimal_value(_text(raw))


def _datetime_value(raw: str | bytes) -> str:
    return _text(raw).replace(" ", "T")


def _timestamp_value(raw: str | bytes) -> str:
    return _text(raw).replace(" ", "T") + "Z"


def _json_value(raw: str | bytes) -> str:
    return json_document(json.loads(raw))


def _binary_value(raw: str | bytes) -> str:
    return binary_value(_bytes(raw))


# --- from JSON to the text that is hashed

_HASH_AS_IT_IS = "CONCAT({0})"
# A length stands before each text: so no text can look like the end of one and the start of the
# next.
_HASH_WITH_LENGTH = "CONCAT(CHAR_LENGTH({0}), ':', CONVERT({0} USING utf8mb4))"
_HASH_BYTES = "HEX({0})"
# The server rounds a FLOAT to six digits, and a DOUBLE(M,D) to D, when it writes them. It does not
# round a product.
_UNROUNDED = "{0} * 1e0"


def _text_with_length(value: Any) -> str:
    return f"{len(value)}:{value}"


def _time_as_selected(value: Any) -> str:
    return str(value).replace("T", " ").removesuffix("Z")


def double_text(value: float) -> str:
    """Return a DOUBLE as the servers write it in a string.

    Below 1e-5 the servers may write it in another way. A hash that differs only makes the caller
    compare the rows themselves.
    """
    if value == 0:
        return "0"
    number = Decimal(repr(float(value)))
    digits = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    exponent = number.adjusted()
    sign = "-" if value < 0 else ""
    if exponent >= 15:
        point = "." if digits[1:] else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{exponent}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    point = "." if fraction else ""
    return f"{sign}{whole}{point}{fraction}"


# --- the families: types that differ in their names and field types only


def _integer(name: str, field_type: FieldType) -> ColumnType:
    return ColumnType(name, frozenset({field_type}), int, _HASH_AS_IT_IS, str, is_integer=True)


def _time(
    name: str, json_value: Callable[[str | bytes], Any], *field_types: FieldType
) -> ColumnType:
    return ColumnType(name, frozenset(field_types), json_value, _HASH_AS_IT_IS, _time_as_selected)


def _characters(name: str, *field_types: FieldType) -> ColumnType:
    return ColumnType(name, frozenset(field_types), _text, _HASH_WITH_LENGTH, _text_with_length)


def _binary(name: str, *field_types: FieldType) -> ColumnType:
    # HEX and base64 never agree: whoever compares hashes reads such rows themselves.
    return ColumnType(name, frozenset(field_types), _binary_value, _HASH_BYTES, str)


_VARIABLE = (FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.VARCHAR_COMPRESSED)
_BLOBS = (FieldType.BLOB, FieldType.BLOB_COMPRESSED)

_ROWS = (
    _integer("tinyint", FieldType.TINY),
    _integer("smallint", FieldType.SHORT),
    _integer("mediumint", FieldType.INT24),
    _integer("int", FieldType.LONG),
    _integer("bigint", FieldType.LONGLONG),
    ColumnType("year", frozenset({FieldType.YEAR}), int, _HASH_AS_IT_IS, str),
    ColumnType("bit", frozenset({FieldType.BIT}), _bit_value, _HASH_BYTES, str),
    ColumnType("decimal", frozenset({FieldType.NEWDECIMAL}), _decimal_value, _HASH_AS_IT_IS, str),
    ColumnType(
        "float",
        frozenset({FieldType.FLOAT}),
        _float_value,
        hash_sql=_UNROUNDED,
        hash_text=str,
        select_sql=_UNROUNDED,
    ),
    ColumnType(
        "double",
        frozenset({FieldType.DOUBLE}),
        float,
        # Of a bare DOUBLE column the server writes all digits. Of an expression MySQL drops some.
        hash_sql=_HASH_AS_IT_IS,
        hash_text=double_text,
        select_sql=_UNROUNDED,
    ),
    _time("date", _text, FieldType.DATE, FieldType.NEWDATE),
    _time("time", _text, FieldType.TIME, FieldType.TIME2),
    _time("datetime", _datetime_value, FieldType.DATETIME, FieldType.DATETIME2),
    _time("timestamp", _timestamp_value, FieldType.TIMESTAMP, FieldType.TIMESTAMP2),
    _characters("char", FieldType.STRING),
    _characters("varchar", *_VARIABLE),
    _characters("tinytext", *_BLOBS),
    _characters("text", *_BLOBS),
    _characters("mediumtext", *_BLOBS),
    _characters("longtext", *_BLOBS),
    _characters("enum", FieldType.ENUM),
    _characters("set", FieldType.SET),
    ColumnType(
        "json", frozenset({FieldType.JSON}), _json_value, _HASH_WITH_LENGTH, _text_with_length
    ),
    _binary("binary", FieldType.STRING),
    _binary("varbinary", *_VARIABLE),
    _binary("tinyblob", *_BLOBS),
    _binary("blob", *_BLOBS),
    _binary("mediumblob", *_BLOBS),
    _binary("longblob", *_BLOBS),
    _binary("geometry", FieldType.GEOMETRY),
    _binary("point", FieldType.GEOMETRY),
    _binary("linestring", FieldType.GEOMETRY),
    _binary("polygon", FieldType.GEOMETRY),
    _binary("multipoint", FieldType.GEOMETRY),
    _binary("multilinestring", FieldType.GEOMETRY),
    _binary("multipolygon", FieldType.GEOMETRY),
    _binary("geomcollection", FieldType.GEOMETRY),
    _binary("geometrycollection", FieldType.GEOMETRY),
)

COLUMN_TYPES = {row.name: row for row in _ROWS}
"""The types whose values can be carried, by `data_type`. Columns of other types are refused."""
