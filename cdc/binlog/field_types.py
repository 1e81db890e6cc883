"""The formats in which columns lie in the binlog, one row a field type: `FIELD_FORMATS`.

A TABLE_MAP event has a few bytes of metadata about each column (lengths, digits), a ROWS event its
values. What the values mean as SQL types is in openmrs/column_types.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted
from time import gmtime
from typing import Any, Literal, NamedTuple

from cdc.binlog.byte_reader import ByteReader
from cdc.binlog.charsets import text_decoder
from cdc.binlog.compression import column_value
from cdc.binlog.decimals import DecimalColumn
from cdc.binlog.jsonb import json_text
from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES, FieldType, binary_value, float_value
from passport.errors import Fatal

Flavour = Literal["mariadb", "mysql"]

INTEGER_KEYS = frozenset(
    field_type
    for column_type in COLUMN_TYPES.values()
    if column_type.is_integer
    for field_type in column_type.field_types
)
"""The field types of columns that may be keys."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a TABLE_MAP event describes it.

    `size` is, for a BLOB, the width in bytes of the length in front of the value; for a text, the
    most bytes it can have; for FLOAT, ENUM, SET and BIT, the bytes of a value; for times, the
    digits of a second's fraction. `precision` and `scale` are those of a DECIMAL. `unsigned` and
    `charset` are None if the event doesn't have them. The charset "binary" means bytes.
    """

    type: int
    size: int = 0
    precision: int = 0
    scale: int = 0
    name: str = ""
    unsigned: bool | None = None
    charset: str | None = None
    labels: tuple[str, ...] | None = None


class Layout(NamedTuple):
    """One column in a row image, as a piece of the generated decoder (rows_event.py).

    `unpack` is the struct code of a fixed-size value, or if `prefixed` of the length in front of
    it. `text` is the format of a Python expression of JSON text, to stand in an f-string; ``{0}``
    is the unpacked value. If it is None the value can only be stepped over. `function` is what the
    expression calls ``F``.
    """

    unpack: str
    prefixed: bool = False
    text: str | None = None
    function: Callable[[Any], str] | None = None


# The expressions are run once a row, so they call as little as possible.
_NUMBER = "{{{0}}}"
_REPR = "{{{0}!r}}"
_CALL = "{{F({0})}}"
_UTF8 = "{{Q({0}.decode('utf-8','replace'))}}"
_PREFIX = {1: "B", 2: "H", 3: "3s", 4: "I"}


@dataclass(frozen=True, slots=True)
class FieldFormat:
    """A field type in TABLE_MAP events (`read_metadata`, `agrees`) and in row images (`layout`).

    `agrees` compares the sizes of the event's column and of information_schema's, where both say
    them. `is_number`: the list of signs counts the type. `charset_listed_by`: the flavours whose
    list of character sets counts it.
    """

    read_metadata: Callable[[int, ByteReader], Column]
    layout: Callable[[Column], Layout]
    agrees: Callable[[Column, ColumnInfo], bool] = lambda _column, _info: True
    is_number: bool = False
    charset_listed_by: tuple[Flavour, ...] = ()
    has_unknown_fraction: bool = False
    """MariaDB's old times have fractions too, whose length no event says."""


# --- metadata in TABLE_MAP


def _no_metadata(field_type: int, _: ByteReader) -> Column:
    return Column(field_type)


def _one_byte(field_type: int, metadata: ByteReader) -> Column:
    return Column(field_type, metadata.number(1))


def _two_byte_size(field_type: int, metadata: ByteReader) -> Column:
    return Column(field_type, metadata.number(2))


def _decimal_metadata(field_type: int, metadata: ByteReader) -> Column:
    precision = metadata.number(1)
    scale = metadata.number(1)
    return Column(field_type, precision=precision, scale=scale)


def _bit_metadata(field_type: int, metadata: ByteReader) -> Column:
    bits = metadata.number(1)
    whole_bytes = metadata.number(1)
    return Column(field_type, whole_bytes + (bits > 0), bits + 8 * whole_bytes)


def _string_metadata(_: int, metadata: ByteReader) -> Column:
    """Read CHAR, ENUM and SET, which are all sent as STRING.

    The first byte is the type. In a CHAR two of its bits, inverted, are the high bits of the size.
    """
    first, second = metadata.take(2)
    if first in (FieldType.ENUM, FieldType.SET):
        return Column(first, second)
    return Column(first | 0x30, second | (first & 0x30 ^ 0x30) << 4)


def _same_octets(column: Column, info: ColumnInfo) -> bool:
    return info.octets is None or info.octets == column.size


def _same_digits(column: Column, info: ColumnInfo) -> bool:
    return (info.precision, info.scale) == (column.precision, column.scale)


def _same_fraction(column: Column, info: ColumnInfo) -> bool:
    return info.fsp == column.size


# --- numbers in row images


def _integer(struct_code: str) -> Callable[[Column], Layout]:
    def layout_of(column: Column) -> Layout:
        return Layout(struct_code.upper() if column.unsigned else struct_code, text=_NUMBER)

    return layout_of


def _int24(column: Column) -> Layout:
    if column.unsigned:
        return Layout("3s", text="{{I({0},'little')}}")
    return Layout("3s", text="{{I({0},'little',signed=True)}}")


def _year(_: Column) -> Layout:
    # Stored as years since 1900; 0 is the year 0000.
    return Layout("B", text="{{{0} and 1900+{0}}}")


def _float(_: Column) -> Layout:
    return Layout("f", text=_CALL, function=lambda value: repr(float_value(value)))


def _double(_: Column) -> Layout:
    return Layout("d", text=_REPR)


def _decimal(column: Column) -> Layout:
    number = DecimalColumn(column.precision, column.scale)
    return Layout(f"{number.size}s", text='"{{F({0})}}"', function=number.text)


def _bit(column: Column) -> Layout:
    return Layout(f"{column.size}s", text="{{I({0},'big')}}")


# --- texts and bytes


def _string(column: Column) -> Layout:
    unpack = _PREFIX[1 if column.size <= 255 else 2]
    if column.type == FieldType.STRING and column.charset == "binary":
        size = column.size  # BINARY(n) is sent without the zeros at its end
        return Layout(unpack, True, _CALL, lambda raw: quoted(binary_value(raw.ljust(size, b"\0"))))
    return Layout(unpack, True, *_characters(column.charset or "unknown"))


def _blob(column: Column) -> Layout:
    return Layout(_PREFIX[column.size], True, *_characters(column.charset or "unknown"))


def _geometry(column: Column) -> Layout:
    return Layout(_PREFIX[column.size], True, *_characters(column.charset or "binary"))


def _json(column: Column) -> Layout:
    return Layout(_PREFIX[column.size], True, _CALL, lambda raw: quoted(json_text(raw)))


def _blob_compressed(column: Column) -> Layout:
    return _compressed(column, column.size)


def _varchar_compressed(column: Column) -> Layout:
    return _compressed(column, 1 if column.size <= 255 else 2)


def _compressed(column: Column, prefix_size: int) -> Layout:
    quote = _quoting(column.charset or "unknown")
    if quote is None:
        return Layout(_PREFIX[prefix_size], True)
    return Layout(_PREFIX[prefix_size], True, _CALL, lambda raw: quote(column_value(raw)))


def _characters(charset: str) -> tuple[str | None, Callable[[Any], str] | None]:
    """Return `text` and `function` of a Layout; None for a character set that isn't decoded."""
    if charset in ("utf8mb4", "utf8mb3", "utf8"):
        return _UTF8, None
    quote = _quoting(charset)
    return (None, None) if quote is None else (_CALL, quote)


def _quoting(charset: str) -> Callable[[bytes], str] | None:
    if charset == "binary":
        return lambda raw: quoted(binary_value(raw))
    decode = text_decoder(charset)
    return None if decode is None else lambda raw: quoted(decode(raw))


def _enum(column: Column) -> Layout:
    if column.labels is None:
        return Layout(_PREFIX[column.size])
    # Label 0 is the empty text of a value that was no label.
    texts = [quoted(label) for label in ("", *column.labels)]
    return Layout(_PREFIX[column.size], text=_CALL, function=texts.__getitem__)


def _set(column: Column) -> Layout:
    labels = column.labels

    def text(raw: bytes) -> str:
        bits = int.from_bytes(raw, "little")
        return quoted(",".join(label for bit, label in enumerate(labels or ()) if bits >> bit & 1))

    return Layout(f"{column.size}s", text=_CALL if labels else None, function=text)


# --- times: days and times of day recur, so their texts are kept


class Days(dict[int, str]):
    """22 bits (year * 13 + month, day) -> ``2024-02-29``."""

    def __missing__(self, bits: int) -> str:
        months, day = divmod(bits, 32)
        year, month = divmod(months, 13)
        if len(self) >= 200_000:
            self.clear()
        text = self[bits] = f"{year:04d}-{month:02d}-{day:02d}"
        return text


class Times(dict[int, str]):
    """17 bits (hour, minute, second) -> ``23:59:59``: at most 86,400 texts."""

    def __missing__(self, bits: int) -> str:
        text = self[bits] = f"{bits >> 12:02d}:{bits >> 6 & 63:02d}:{bits & 63:02d}"
        return text


DAYS = Days()
TIMES = Times()


def _fraction_bytes(fsp: int) -> int:
    return (fsp + 1) // 2


def _fraction(value: int, fsp: int) -> str:
    """Return ``.12`` or "". The value has as many digits as its bytes hold: 2, 4 or 6."""
    return f".{value:0{2 * _fraction_bytes(fsp)}d}"[: fsp + 1] if fsp else ""


def _date(_: Column) -> Layout:
    return Layout("3s", text=_CALL, function=_date_text)


def _date_text(raw: bytes) -> str:
    bits = int.from_bytes(raw, "little")
    return f'"{bits >> 9:04d}-{bits >> 5 & 15:02d}-{bits & 31:02d}"'


def _datetime2(column: Column) -> Layout:
    if column.size == 0:
        return Layout("5s", text='"{{D[(w:=I({0},"big"))>>17&4194303]}}T{{T[w&131071]}}"')
    fsp, size = column.size, _fraction_bytes(column.size)

    def text(raw: bytes) -> str:
        bits, part = int.from_bytes(raw[:5], "big"), int.from_bytes(raw[5:], "big")
        return f'"{DAYS[bits >> 17 & 0x3FFFFF]}T{TIMES[bits & 0x1FFFF]}{_fraction(part, fsp)}"'

    return Layout(f"{5 + size}s", text=_CALL, function=text)


def _timestamp2(column: Column) -> Layout:
    fsp, size = column.size, _fraction_bytes(column.size)

    def text(raw: bytes) -> str:
        return _instant(
            int.from_bytes(raw[:4], "big"), _fraction(int.from_bytes(raw[4:], "big"), fsp)
        )

    return Layout(f"{4 + size}s", text=_CALL, function=text)


def _timestamp(_: Column) -> Layout:
    return Layout("I", text=_CALL, function=lambda seconds: _instant(seconds, ""))


def _instant(seconds: int, fraction: str) -> str:
    # Zero seconds is MySQL's zero date, not 1970.
    if seconds == 0 and not fraction.strip(".0"):
        return f'"0000-00-00T00:00:00{fraction}Z"'
    utc = gmtime(seconds)
    day = f"{utc.tm_year:04d}-{utc.tm_mon:02d}-{utc.tm_mday:02d}"
    return f'"{day}T{utc.tm_hour:02d}:{utc.tm_min:02d}:{utc.tm_sec:02d}{fraction}Z"'


def _time2(column: Column) -> Layout:
    fsp, size = column.size, _fraction_bytes(column.size)
    zero = 0x800000 << 8 * size  # negative times are stored below it

    def text(raw: bytes) -> str:
        value = int.from_bytes(raw, "big") - zero
        whole, part = divmod(abs(value), 1 << 8 * size)
        clock = f"{whole >> 12:02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}"
        return f'"{"-" if value < 0 else ""}{clock}{_fraction(part, fsp)}"'

    return Layout(f"{3 + size}s", text=_CALL, function=text)


def _time(_: Column) -> Layout:
    return Layout("3s", text=_CALL, function=_time_text)


def _time_text(raw: bytes) -> str:
    """Return a time in the format from before MySQL 5.6: the decimal number hhmmss."""
    value = int.from_bytes(raw, "little", signed=True)
    clock = abs(value)
    sign = "-" if value < 0 else ""
    return f'"{sign}{clock // 10000:02d}:{clock // 100 % 100:02d}:{clock % 100:02d}"'


def _datetime(_: Column) -> Layout:
    return Layout("Q", text=_CALL, function=_datetime_text)


def _datetime_text(value: int) -> str:
    """Return a time in the format from before MySQL 5.6: the decimal number YYYYMMDDhhmmss."""
    digits = f"{value:014d}"
    day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"
    return f'"{day}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}"'


# --- the table

_MYSQL: tuple[Flavour, ...] = ("mysql",)
_MARIADB: tuple[Flavour, ...] = ("mariadb",)
_BOTH: tuple[Flavour, ...] = ("mysql", "mariadb")

# Keyed by int: an event has the plain number, which may be of no type that is known here.
FIELD_FORMATS: dict[int, FieldFormat] = {
    FieldType.TINY: FieldFormat(_no_metadata, _integer("b"), is_number=True),
    FieldType.SHORT: FieldFormat(_no_metadata, _integer("h"), is_number=True),
    FieldType.INT24: FieldFormat(_no_metadata, _int24, is_number=True),
    FieldType.LONG: FieldFormat(_no_metadata, _integer("i"), is_number=True),
    FieldType.LONGLONG: FieldFormat(_no_metadata, _integer("q"), is_number=True),
    FieldType.FLOAT: FieldFormat(_one_byte, _float, is_number=True),
    FieldType.DOUBLE: FieldFormat(_one_byte, _double, is_number=True),
    FieldType.NEWDECIMAL: FieldFormat(_decimal_metadata, _decimal, _same_digits, is_number=True),
    FieldType.YEAR: FieldFormat(_no_metadata, _year, is_number=True),
    FieldType.BIT: FieldFormat(_bit_metadata, _bit),
    FieldType.DATE: FieldFormat(_no_metadata, _date),
    FieldType.NEWDATE: FieldFormat(_no_metadata, _date),
    FieldType.TIME: FieldFormat(_no_metadata, _time, has_unknown_fraction=True),
    FieldType.TIME2: FieldFormat(_one_byte, _time2, _same_fraction),
    FieldType.DATETIME: FieldFormat(_no_metadata, _datetime, has_unknown_fraction=True),
    FieldType.DATETIME2: FieldFormat(_one_byte, _datetime2, _same_fraction),
    FieldType.TIMESTAMP: FieldFormat(_no_metadata, _timestamp, has_unknown_fraction=True),
    FieldType.TIMESTAMP2: FieldFormat(_one_byte, _timestamp2, _same_fraction),
    FieldType.STRING: FieldFormat(_string_metadata, _string, _same_octets, charset_listed_by=_BOTH),
    FieldType.ENUM: FieldFormat(_string_metadata, _enum),
    FieldType.SET: FieldFormat(_string_metadata, _set),
    FieldType.VARCHAR: FieldFormat(_two_byte_size, _string, _same_octets, charset_listed_by=_BOTH),
    FieldType.VAR_STRING: FieldFormat(_two_byte_size, _string, charset_listed_by=_BOTH),
    FieldType.VARCHAR_COMPRESSED: FieldFormat(
        _two_byte_size, _varchar_compressed, charset_listed_by=_MARIADB
    ),
    FieldType.BLOB: FieldFormat(_one_byte, _blob, charset_listed_by=_BOTH),
    FieldType.BLOB_COMPRESSED: FieldFormat(_one_byte, _blob_compressed, charset_listed_by=_MARIADB),
    FieldType.JSON: FieldFormat(_one_byte, _json),
    FieldType.VECTOR: FieldFormat(_one_byte, _blob, charset_listed_by=_MYSQL),
    FieldType.GEOMETRY: FieldFormat(_one_byte, _geometry, charset_listed_by=_MARIADB),
}


def read_column(field_type: int, metadata: ByteReader) -> Column:
    """Return a column of a TABLE_MAP event, still without its name.

    Raises ValueError if the type is not known here: then the length of its metadata isn't either.
    """
    if field_type not in FIELD_FORMATS:
        raise ValueError(f"column type {field_type}")
    return FIELD_FORMATS[field_type].read_metadata(field_type, metadata)


def layout(column: Column) -> Layout:
    """Return how values of the column are decoded. Raises Fatal if the type is not known here."""
    if column.type not in FIELD_FORMATS:
        raise Fatal(
            f"binlog: column type {column.type} is not known",
            hint="report the type and the server's version",
        )
    return FIELD_FORMATS[column.type].layout(column)
