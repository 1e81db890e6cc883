"""Columns as information_schema describes them."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# Parameters: the database, a list of tables. `ColumnInfo.read` takes its rows, which come in the
# tables' own order of columns.
COLUMN_INFO_SQL = """
SELECT table_name, column_name, data_type, column_type, character_set_name, character_octet_length,
       numeric_precision, numeric_scale, datetime_precision
FROM information_schema.columns WHERE table_schema = %s AND table_name IN %s
ORDER BY table_name, ordinal_position"""


class ColumnInfo(NamedTuple):
    """A column as information_schema describes it.

    `data_type` ("varchar") is in lower case; `column_type` ("int(10) unsigned", "enum('a','b')") is
    as the server writes it. Both are "" if only the column's name is known. `charset` is None for
    what isn't text. `octets` is the most bytes that a text can have, `fsp` the number of digits of
    a second's fraction.
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
        """Return the table's name and the column that one row of `COLUMN_INFO_SQL` describes."""
        table, name, data_type, column_type, charset, octets, precision, scale, fsp = row
        column = cls(
            name,
            data_type.lower(),
            column_type,
            charset,
            octets=None if octets is None else int(octets),
            precision=None if precision is None else int(precision),
            scale=None if scale is None else int(scale),
            fsp=int(fsp or 0),
        )
        return table, column

    @property
    def quoted_name(self) -> str:
        """The name as SQL takes it."""
        return "`" + self.name.replace("`", "``") + "`"

    @property
    def unsigned(self) -> bool:
        """Is True if the numbers of the column have no sign; a YEAR never has one."""
        return " unsigned" in self.column_type or self.data_type == "year"

    @property
    def has_old_time_format(self) -> bool:
        """Is True for a time with a fraction in MariaDB's format from before MySQL 5.6."""
        return bool(self.fsp) and "mariadb-5.3" in self.column_type

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of an ENUM or a SET, in order."""
        literals = re.findall(r"'((?:[^'\\]|''|\\.)*)'", self.column_type, re.DOTALL)
        return tuple(_unescaped(literal) for literal in literals)


_ESCAPES = {"\\0": "\0", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\Z": "\x1a"}


def _unescaped(literal: str) -> str:
    """Return the text that is written between the quotes of an SQL literal."""
    return re.sub(
        r"''|\\.", lambda match: _ESCAPES.get(match[0], match[0][-1]), literal, flags=re.DOTALL
    )
