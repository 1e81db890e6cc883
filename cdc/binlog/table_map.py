"""TABLE_MAP events: which columns a table's row images carry, by name.

The server says the names only with ``binlog_row_metadata=FULL``; else they are those of the column
list that was read from information_schema, and only if it agrees with the event in every type and
length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cdc.binlog.charsets import decoder
from openmrs.values import ColumnInfo, supported
from passport.errors import Fatal

TINY, SHORT, LONG, FLOAT, DOUBLE, NULL, TIMESTAMP, LONGLONG, INT24 = 1, 2, 3, 4, 5, 6, 7, 8, 9
DATE, TIME, DATETIME, YEAR, NEWDATE, VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = range(10, 20)
BLOB_COMPRESSED, VARCHAR_COMPRESSED, VECTOR, JSON = 140, 141, 242, 245
NEWDECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY = 246, 247, 248, 252, 253, 254, 255

INTEGERS = frozenset({TINY, SHORT, INT24, LONG, LONGLONG})
_OLD_TIMES = frozenset({TIMESTAMP, DATETIME, TIME})
_NUMBERS = INTEGERS | {FLOAT, DOUBLE, NEWDECIMAL, YEAR}
_NO_META = INTEGERS | {NULL, TIMESTAMP, DATE, TIME, DATETIME, YEAR, NEWDATE}
_META_OF_1 = {
    FLOAT,
    DOUBLE,
    BLOB,
    GEOMETRY,
    JSON,
    VECTOR,
    BLOB_COMPRESSED,
    TIMESTAMP2,
    DATETIME2,
    TIME2,
}
_META_OF_2 = {VARCHAR, VAR_STRING, VARCHAR_COMPRESSED, STRING, ENUM, SET, NEWDECIMAL, BIT}
_TEXTS = {
    "mysql": {VARCHAR, VAR_STRING, STRING, BLOB, VECTOR},
    "mariadb": {VARCHAR, VAR_STRING, STRING, BLOB, GEOMETRY, BLOB_COMPRESSED, VARCHAR_COMPRESSED},
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the event says it.

    `size`: of BLOBs the width of the length in front, of texts the most bytes, of FLOAT, ENUM, SET
    and BIT the bytes; `precision` and `scale` of DECIMAL. `unsigned` and `charset` None: not said.
    `charset` "binary": bytes.
    """

    type: int
    size: int = 0
    precision: int = 0
    scale: int = 0
    name: str = ""
    unsigned: bool | None = None
    charset: str | None = None
    labels: tuple[str, ...] | None = None


class ByteReader:
    """Reads numbers and texts from bytes, front to back."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos

    def take(self, size: int) -> bytes:
        self.pos += size
        if self.pos > len(self.data):
            raise ValueError("the event is too short")
        return self.data[self.pos - size : self.pos]

    def number(self, size: int) -> int:
        """Little endian."""
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """A length-encoded integer."""
        first = self.number(1)
        return first if first < 251 else self.number({252: 2, 253: 3, 254: 8}[first])

    def until(self, end: int) -> Iterator[int]:
        """Length-encoded integers up to `end`."""
        while self.pos < end:
            yield self.packed()

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.pos)


class Named(NamedTuple):
    """Start of a TABLE_MAP event: whose it is, and where its columns begin."""

    database: str
    table: str
    columns_at: int


def named(event: bytes, at: int) -> Named:
    """Database and table of a TABLE_MAP event; `at`: where its table id begins."""
    reader = ByteReader(event, at + 8)
    database = reader.take(reader.number(1)).decode()
    reader.take(1)
    table = reader.take(reader.number(1)).decode()
    return Named(database, table, reader.pos + 1)


def columns(event: bytes, at: int, flavour: str, charsets: Mapping[int, str]) -> list[Column]:
    """The columns from `at` on; `charsets`: by collation id. ValueError when something is not
    understood.
    """
    reader = ByteReader(event, at)
    types = reader.take(reader.packed())
    meta = ByteReader(reader.take(reader.packed()))
    found = [_column(kind, meta) for kind in types]
    reader.take((len(types) + 7) // 8)  # which are nullable
    _Metadata(found, _TEXTS[flavour], charsets).read(reader)
    return found


def _column(kind: int, meta: ByteReader) -> Column:
    if kind in _NO_META:
        return Column(kind)
    if kind in _META_OF_1:
        return Column(kind, meta.number(1))
    if kind not in _META_OF_2:
        raise ValueError(f"column type {kind}")
    first, second = meta.take(2)
    if kind in (VARCHAR, VAR_STRING, VARCHAR_COMPRESSED):
        return Column(kind, first | second << 8)
    if kind == NEWDECIMAL:
        return Column(kind, 0, first, second)
    if kind == BIT:
        return Column(kind, second + (first > 0), first + 8 * second)
    return _string(first, second)


def _string(first: int, second: int) -> Column:
    """CHAR, ENUM and SET hide their type and two more bits of the length in the first byte."""
    if first in (ENUM, SET):
        return Column(first, second)
    return Column(first | 0x30, second | (first & 0x30 ^ 0x30) << 4)


class _Metadata:
    """The optional part: (type, length, value), each about the columns of some types, counted among
    those.
    """

    def __init__(self, found: list[Column], texts: set[int], charsets: Mapping[int, str]) -> None:
        self._columns = found
        self._texts = texts
        self._charsets = charsets
        self._labels: dict[int, Iterator[tuple[bytes, ...]]] = {}

    def read(self, reader: ByteReader) -> None:
        readers: dict[int, Callable[[ByteReader], None]] = {
            1: self._signedness,
            2: lambda part: self._default_charset(part, self._texts),
            3: lambda part: self._charset_each(part, self._texts),
            4: self._names,
            5: lambda part: self._read_labels(part, SET),
            6: lambda part: self._read_labels(part, ENUM),
            10: lambda part: self._default_charset(part, {ENUM, SET}),
            11: lambda part: self._charset_each(part, {ENUM, SET}),
        }
        while reader.pos < len(reader.data):
            kind, size = reader.number(1), reader.packed()
            part = ByteReader(reader.take(size))
            if kind in readers:
                readers[kind](part)
        self._decode_labels()

    def _of(self, types: set[int] | frozenset[int]) -> list[int]:
        return [index for index, column in enumerate(self._columns) if column.type in types]

    def _signedness(self, part: ByteReader) -> None:
        bits = part.rest()
        for bit, index in enumerate(self._of(_NUMBERS)):
            said = bool(bits[bit >> 3] << (bit & 7) & 0x80)
            self._columns[index] = replace(self._columns[index], unsigned=said)

    def _default_charset(self, part: ByteReader, types: set[int]) -> None:
        default = part.packed()
        numbers = list(part.until(len(part.data)))
        others = dict(zip(numbers[::2], numbers[1::2], strict=True))
        for nth, index in enumerate(self._of(types)):
            self._set_charset(index, others.get(nth, default))

    def _charset_each(self, part: ByteReader, types: set[int]) -> None:
        for index, collation in zip(self._of(types), part.until(len(part.data)), strict=True):
            self._set_charset(index, collation)

    def _set_charset(self, index: int, collation: int) -> None:
        charset = self._charsets.get(collation, f"collation {collation}")
        self._columns[index] = replace(self._columns[index], charset=charset)

    def _names(self, part: ByteReader) -> None:
        for index, column in enumerate(self._columns):
            self._columns[index] = replace(column, name=part.take(part.packed()).decode())

    def _read_labels(self, part: ByteReader, kind: int) -> None:
        lists = []
        while part.pos < len(part.data):
            lists.append(tuple(part.take(part.packed()) for _ in range(part.packed())))
        self._labels[kind] = iter(lists)

    def _decode_labels(self) -> None:
        """Last, since the character set of labels may be said after them."""
        for index, column in enumerate(self._columns):
            if column.type in self._labels:
                raw, decode = next(self._labels[column.type]), decoder(column.charset or "utf8mb4")
                if decode:  # else refused where it is wanted
                    self._columns[index] = replace(column, labels=tuple(map(decode, raw)))


_BLOBS = frozenset({BLOB, BLOB_COMPRESSED})
_TYPES: dict[str, frozenset[int]] = {
    "tinyint": frozenset({TINY}),
    "smallint": frozenset({SHORT}),
    "mediumint": frozenset({INT24}),
    "int": frozenset({LONG}),
    "bigint": frozenset({LONGLONG}),
    "float": frozenset({FLOAT}),
    "double": frozenset({DOUBLE}),
    "decimal": frozenset({NEWDECIMAL}),
    "bit": frozenset({BIT}),
    "year": frozenset({YEAR}),
    "date": frozenset({DATE, NEWDATE}),
    "time": frozenset({TIME, TIME2}),
    "datetime": frozenset({DATETIME, DATETIME2}),
    "timestamp": frozenset({TIMESTAMP, TIMESTAMP2}),
    "char": frozenset({STRING}),
    "binary": frozenset({STRING}),
    "varchar": frozenset({VARCHAR, VAR_STRING, VARCHAR_COMPRESSED}),
    "varbinary": frozenset({VARCHAR, VAR_STRING, VARCHAR_COMPRESSED}),
    "enum": frozenset({ENUM}),
    "set": frozenset({SET}),
    "json": frozenset({JSON}),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext"), _BLOBS),
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob"), _BLOBS),
}


def completed(
    found: Sequence[Column], listed: Sequence[ColumnInfo] | None, table: str
) -> list[Column]:
    """The event's columns with what it did not say (names, signs, character sets, labels) from the
    column list.

    Fatal when the event has no names and the list is missing or is not this table's.
    """
    if not all(column.name for column in found):
        if listed is None or len(listed) != len(found):
            raise changed(table, f"{len(found)} columns, the column list has {len(listed or ())}")
        for column, info in zip(found, listed, strict=True):
            if not _agrees(column, info):
                raise changed(
                    table, f"column {info.name} is not {info.data_type} of the listed size"
                )
        return [_filled(column, info) for column, info in zip(found, listed, strict=True)]
    by_name = {info.name: info for info in listed or ()}
    return [_filled(column, by_name.get(column.name)) for column in found]


class ColumnsChanged(Fatal):
    """Rows without column names, and a column list that is older or newer than they are."""


def changed(table: str, why: str) -> ColumnsChanged:
    return ColumnsChanged(
        f"binlog: the column list of {table} is not the one its rows were written with: {why}",
        hint="SET GLOBAL binlog_row_metadata = 'FULL'; then: passport cdc run --hospital HOSPITAL --new-epoch",
    )


def _filled(column: Column, info: ColumnInfo | None) -> Column:
    if info is not None and info.fsp and column.type in _OLD_TIMES:
        raise Fatal(
            f"binlog: column {info.name} has a fraction in MariaDB's old format, whose length no event says",
            hint="SET GLOBAL mysql56_temporal_format = ON at the source, then ALTER TABLE ... FORCE",
        )
    if info is None or (column.name and not _agrees(column, info)):
        return column  # the list is older or newer than this event, which names its columns itself
    if not supported(info.data_type):
        return replace(
            column, name=info.name, charset=info.data_type
        )  # no codec: refused if it is wanted
    return replace(
        column,
        name=info.name,
        unsigned=info.unsigned if column.unsigned is None else column.unsigned,
        charset=column.charset or info.charset or "binary",
        labels=column.labels or info.labels or None,
    )


def _agrees(column: Column, info: ColumnInfo) -> bool:
    types = _TYPES.get(info.data_type)
    if types is not None and column.type not in types:
        return False
    if column.unsigned not in (None, info.unsigned) or column.charset not in (
        None,
        info.charset or "binary",
    ):
        return False
    if column.type in (VARCHAR, STRING):
        return info.octets is None or info.octets == column.size
    if column.type == NEWDECIMAL:
        return (info.precision, info.scale) == (column.precision, column.scale)
    if column.type in (TIMESTAMP2, DATETIME2, TIME2):
        return info.fsp == column.size
    return True
