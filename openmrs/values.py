"""One JSON form of a column's value, whether a SELECT or the binlog gave it.

A SELECT gives comparable values only on a connection with ``charset=utf8mb4``, ``conv={}`` (PyMySQL
then leaves numbers and times as the server's text) and ``SET time_zone = '+00:00'``, of the
expressions of `select_list`.

====================================
========================================================================== integers, YEAR, BIT
number DOUBLE                                number, the shortest text that is this double FLOAT
number, the shortest text that is this 4-byte float DECIMAL                               string,
digits as declared, no leading zeros DATE, TIME                            ``YYYY-MM-DD``,
``[-]HH:MM:SS[.f]``; zero dates stay ``0000-00-00`` DATETIME
``YYYY-MM-DDTHH:MM:SS[.f]``, the wall time as written; `f` has the declared digits TIMESTAMP
the same in UTC with ``Z`` CHAR, TEXT, ENUM, SET                 string (a SET's labels joined by
commas) JSON                                  string: its text with one space after ``,`` and ``:``
(MariaDB: as written) BINARY, BLOB, GEOMETRY                string, base64
====================================
==========================================================================
"""

import json
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring as quoted
from typing import Any, NamedTuple

# Parameters: the database, a list of tables. Columns as `ColumnInfo.read` takes them, in the
# table's own order.
COLUMN_INFO_SQL = """
SELECT table_name, column_name, data_type, column_type, character_set_name, character_octet_length,
       numeric_precision, numeric_scale, datetime_precision
FROM information_schema.columns WHERE table_schema = %s AND table_name IN %s
ORDER BY table_name, ordinal_position"""


class ColumnInfo(NamedTuple):
    """A column as information_schema describes it.

    `data_type` ("varchar") and `column_type` ("int(10) unsigned", "enum('a','b')") as the server
    writes them, lower case; `charset` None for what is not text; `octets`: most bytes of a text;
    `fsp`: digits of a second's fraction.
    """

    name: str
    data_type: str
    column_type: str
    charset: str | None = None
    octets: int | None = None
    precision: int | None = None
    scale: int | None = None
    fsp: int = 0

    @classmethod
    def read(cls, row: Sequence[Any]) -> tuple[str, "ColumnInfo"]:
        """The table's name and the column, of one row of `COLUMN_INFO_SQL`."""
        table, name, data_type, column_type, charset, octets, precision, scale, fsp = row
        octets, precision, scale = (
            None if number is None else int(number) for number in (octets, precision, scale)
        )
        return table, cls(
            name, data_type.lower(), column_type, charset, octets, precision, scale, int(fsp or 0)
        )

    @property
    def unsigned(self) -> bool:
        return " unsigned" in self.column_type or self.data_type == "year"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of an ENUM or a SET, in order."""
        return tuple(
            map(_unescaped, re.findall(r"'((?:[^'\\]|''|\\.)*)'", self.column_type, re.DOTALL))
        )


_ESCAPES = {"\\0": "\0", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\Z": "\x1a"}


def _unescaped(label: str) -> str:
    return re.sub(
        r"''|\\.", lambda found: _ESCAPES.get(found[0], found[0][-1]), label, flags=re.DOTALL
    )


def select_list(columns: Iterable[ColumnInfo]) -> str:
    """The SQL expressions whose values `canonical` takes, in the given order."""
    return ", ".join(map(_expression, columns))


def _expression(column: ColumnInfo) -> str:
    name = "`" + column.name.replace("`", "``") + "`"
    # The server rounds a FLOAT to six digits, and a DOUBLE(M,D) to D, when it writes them; not so a
    # product.
    return f"{name} * 1e0 AS {name}" if column.data_type in ("float", "double") else name


def canonical(column: ColumnInfo, raw: str | bytes | None) -> Any:
    """The JSON value of what a SELECT gave. KeyError when the column's type is not known here."""
    return None if raw is None else _CANONICAL[column.data_type](raw)


def row_text(names: Iterable[str], values: Iterable[Any]) -> str:
    """The JSON text of a row, the same bytes that the binlog decoder writes."""
    return (
        "{"
        + ",".join(f"{quoted(n)}:{value_text(v)}" for n, v in zip(names, values, strict=True))
        + "}"
    )


def value_text(value: Any) -> str:
    """The JSON text of one canonical value."""
    if value is None:
        return "null"
    return quoted(value) if isinstance(value, str) else repr(value)


def supported(data_type: str) -> bool:
    """Whether values of this type have a canonical form."""
    return data_type in _CANONICAL


_FLOAT = struct.Struct("<f")


def float_value(value: float) -> float:
    """The double with the shortest text that is, as a 4-byte float, `value`."""
    packed = _FLOAT.pack(value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        # Rounding up the largest floats overflows: then more digits are needed.
        if abs(short) < 3.4028235e38 and _FLOAT.pack(short) == packed:
            return short
    return float(f"{value:.9g}")


def decimal_value(text: str) -> str:
    """``-000.50`` -> ``-0.50``, ``-0.00`` -> ``0.00`` (a ZEROFILL column is padded by a SELECT)."""
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
    whole, dot, fraction = digits.partition(".")
    if not digits.strip("0."):
        sign = ""
    return f"{sign}{whole.lstrip('0') or '0'}{dot}{fraction}"


def json_value(value: Any) -> str:
    """The text of a JSON document: MySQL writes it anew anyway, so the two ends need only agree."""
    return json.dumps(value, ensure_ascii=False)


def binary_value(raw: bytes) -> str:
    """Base64."""
    return b64encode(raw).decode()


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def _bytes(raw: str | bytes) -> bytes:
    return raw if isinstance(raw, bytes) else raw.encode()


_CANONICAL: dict[str, Callable[[str | bytes], Any]] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), int),
    "double": float,
    "float": lambda raw: float_value(float(raw)),
    "decimal": lambda raw: decimal_value(_text(raw)),
    "bit": lambda raw: int.from_bytes(_bytes(raw), "big"),
    "datetime": lambda raw: _text(raw).replace(" ", "T"),
    "timestamp": lambda raw: _text(raw).replace(" ", "T") + "Z",
    "json": lambda raw: json_value(json.loads(raw)),
    **dict.fromkeys(("date", "time", "char", "varchar", "enum", "set"), _text),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext"), _text),
    **dict.fromkeys(("binary", "varbinary"), lambda raw: binary_value(_bytes(raw))),
    **dict.fromkeys(
        ("tinyblob", "blob", "mediumblob", "longblob"), lambda raw: binary_value(_bytes(raw))
    ),
    **dict.fromkeys(
        ("geometry", "point", "linestring", "polygon"), lambda raw: binary_value(_bytes(raw))
    ),
    **dict.fromkeys(
        ("multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection"),
        lambda raw: binary_value(_bytes(raw)),
    ),
}
