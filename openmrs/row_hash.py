"""Hashes of rows that the server and Python compute alike, so that rows need not be read.

A row becomes one text, the same in SQL and in Python. Its hash is the first 64 bits of the text's
SHA-256, and the hashes of many rows are combined with XOR. A CRC in place of SHA-256 would not do:
CRC is linear, so the same change in two rows, such as voiding both, could cancel out. MySQL 9 has
neither MD5 nor SHA1.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES, NULL_HASH_TEXT


class Digest(NamedTuple):
    """The number of rows in a set of rows, and the XOR of their hashes.

    Digests of disjoint sets can be combined with ``|``.
    """

    rows: int = 0
    xor: int = 0

    def __or__(self, other: "Digest") -> "Digest":
        return Digest(self.rows + other.rows, self.xor ^ other.xor)


def sql(columns: Iterable[ColumnInfo]) -> str:
    """Return the SQL aggregate that gives `Digest.xor` of a group of rows.

    It has no % in it, and needs no grant but SELECT.
    """
    texts: list[str] = []
    for column in columns:
        column_type = COLUMN_TYPES.get(column.data_type)
        hash_sql = "HEX({0})" if column_type is None else column_type.hash_sql
        texts.append(f"IFNULL({hash_sql.format(column.quoted_name)}, '{NULL_HASH_TEXT}')")
    row_text = f"CONCAT_WS('#', {', '.join(texts)})"
    return f"BIT_XOR(CAST(CONV(LEFT(SHA2({row_text}, 256), 16), 16, 10) AS UNSIGNED))"


def digest(rows: Iterable[Mapping[str, Any]], columns: Sequence[ColumnInfo]) -> Digest:
    """Return the digest of rows in their JSON form. A column that a row lacks counts as NULL."""
    total = Digest()
    for row in rows:
        row_text = "#".join(_hash_text(column, row.get(column.name)) for column in columns)
        total |= Digest(1, int(sha256(row_text.encode()).hexdigest()[:16], 16))
    return total


def _hash_text(column: ColumnInfo, value: Any) -> str:
    if value is None:
        return NULL_HASH_TEXT
    column_type = COLUMN_TYPES.get(column.data_type)
    return str(value) if column_type is None else column_type.hash_text(value)
