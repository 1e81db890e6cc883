"""One text a row, the same in SQL and in Python; SHA-256 of it, whose first 64 bits are XORed over
many rows.

XOR of a CRC would not do: CRC is linear, so two rows voided at once could cancel out. MySQL 9 has
neither MD5 nor SHA1.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

from openmrs.values import ColumnInfo

TEXTS = frozenset(
    {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"}
)
NUMBERS = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "year", "decimal", "double"}
)
TIMES = frozenset({"date", "time", "datetime", "timestamp"})
NULL = "~"


class Digest(NamedTuple):
    """Of a set of rows: their number and the XOR of their hashes. Digests of disjoint sets add up."""

    rows: int = 0
    xor: int = 0

    def __or__(self, other: "Digest") -> "Digest":
        return Digest(self.rows + other.rows, self.xor ^ other.xor)


def sql(columns: Iterable[ColumnInfo]) -> str:
    """The SQL aggregate that gives `Digest.xor` of a group of rows; no % in it, needs no grant but
    SELECT.
    """
    text = f"CONCAT_WS('#', {', '.join(map(_expression, columns))})"
    return f"BIT_XOR(CAST(CONV(LEFT(SHA2({text}, 256), 16), 16, 10) AS UNSIGNED))"


def _expression(column: ColumnInfo) -> str:
    name = "`" + column.name.replace("`", "``") + "`"
    if column.data_type in TEXTS:
        # A length before each text: no text can look like the end of one and the start of the next.
        return f"IFNULL(CONCAT(CHAR_LENGTH({name}), ':', CONVERT({name} USING utf8mb4)), '{NULL}')"
    if column.data_type in NUMBERS | TIMES:
        # Of a bare DOUBLE column: all its digits. Of an expression MySQL drops some.
        return f"IFNULL(CONCAT({name}), '{NULL}')"
    if column.data_type == "float":
        return f"IFNULL({name} * 1e0, '{NULL}')"
    return f"IFNULL(HEX({name}), '{NULL}')"


def digest(rows: Iterable[Mapping[str, Any]], columns: Sequence[ColumnInfo]) -> Digest:
    """The same of rows in their JSON form; a row without one of the columns counts as NULL there."""
    total = Digest()
    for row in rows:
        text = "#".join(_text(column, row.get(column.name)) for column in columns)
        total |= Digest(1, int(sha256(text.encode()).hexdigest()[:16], 16))
    return total


def _text(column: ColumnInfo, value: Any) -> str:
    if value is None:
        return NULL
    if column.data_type in TEXTS:
        return f"{len(value)}:{value}"
    if column.data_type == "double":
        return double_text(float(value))
    if column.data_type in TIMES:
        return str(value).replace("T", " ").removesuffix("Z")
    return str(value)


def double_text(value: float) -> str:
    """A DOUBLE as the servers write it. Those under 1e-5 may differ: whoever compares looks at such
    rows themselves.
    """
    if value == 0:
        return "0"
    number = Decimal(repr(value))
    digits = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    sign, exponent = "-" if value < 0 else "", number.adjusted()
    if exponent >= 15:
        return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{exponent}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}{'.' if fraction else ''}{fraction}"
