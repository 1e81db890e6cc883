"""How each column type lies in a row image, and how its value is written as JSON (see
openmrs.values).

A `Layout` is a piece of the generated decoder: what to unpack, and the expression that makes JSON
text of it.
"""

from collections.abc import Callable
from json.encoder import encode_basestring as quoted
from time import gmtime
from typing import Any, NamedTuple

from cdc.binlog import table_map as t
from cdc.binlog.charsets import decoder
from cdc.binlog.compression import column_value
from cdc.binlog.decimals import DecimalColumn
from cdc.binlog.jsonb import json_text
from openmrs.values import binary_value, float_value
from passport.errors import Fatal


class Layout(NamedTuple):
    """One column in a row image.

    `unpack`: struct code of a fixed-size value, or of the length in front of it when `prefixed`.
    `text`: format of a Python expression of JSON text (``{0}`` is the unpacked value), to stand in
    an f-string; None: not decodable. `function`: what the expression calls ``F``.
    """

    unpack: str
    prefixed: bool = False
    text: str | None = None
    function: Callable[[Any], str] | None = None


_NUMBER = "{{{0}}}"
_REPR = "{{{0}!r}}"
_CALL = "{{F({0})}}"
_INTEGER = {t.TINY: "b", t.SHORT: "h", t.LONG: "i", t.LONGLONG: "q"}
_PREFIX = {1: "B", 2: "H", 3: "3s", 4: "I"}


def layout(column: t.Column) -> Layout:
    """Of any known column; Fatal when even its length is not known."""
    kind = column.type
    if kind in _INTEGER:
        return Layout(_INTEGER[kind].upper() if column.unsigned else _INTEGER[kind], text=_NUMBER)
    if kind in _LAYOUTS:
        return _LAYOUTS[kind](column)
    if kind in (t.VARCHAR, t.VAR_STRING, t.STRING):
        return _string(column)
    if kind in (t.BLOB, t.GEOMETRY, t.VECTOR):
        return Layout(_PREFIX[column.size], True, *_characters(column))
    if kind == t.JSON:
        return Layout(_PREFIX[column.size], True, _CALL, lambda raw: quoted(json_text(raw)))
    if kind in (t.BLOB_COMPRESSED, t.VARCHAR_COMPRESSED):
        return _compressed(column)
    raise Fatal(
        f"binlog: column type {kind} is not known", hint="report the type and the server's version"
    )


def _string(column: t.Column) -> Layout:
    unpack = _PREFIX[1 if column.size <= 255 else 2]
    if column.type == t.STRING and column.charset == "binary":
        size = column.size  # BINARY(n) is sent without the zeros at its end
        return Layout(unpack, True, _CALL, lambda raw: quoted(binary_value(raw.ljust(size, b"\0"))))
    return Layout(unpack, True, *_characters(column))


def _characters(column: t.Column) -> tuple[str | None, Callable[[Any], str] | None]:
    charset = column.charset or ("binary" if column.type == t.GEOMETRY else "unknown")
    if charset in ("utf8mb4", "utf8mb3", "utf8"):
        return "{{Q({0}.decode('utf-8','replace'))}}", None
    quote = _quoting(charset)
    return (None, None) if quote is None else (_CALL, quote)


def _quoting(charset: str) -> Callable[[bytes], str] | None:
    if charset == "binary":
        return lambda raw: quoted(binary_value(raw))
    decode = decoder(charset)
    return None if decode is None else lambda raw: quoted(decode(raw))


def _compressed(column: t.Column) -> Layout:
    size = column.size if column.type == t.BLOB_COMPRESSED else 1 if column.size <= 255 else 2
    quote = _quoting(column.charset or "unknown")
    return Layout(
        _PREFIX[size],
        True,
        *((_CALL, lambda raw: quote(column_value(raw))) if quote else (None, None)),
    )


def _int24(column: t.Column) -> Layout:
    if column.unsigned:
        return Layout("3s", text="{{I({0},'little')}}")
    return Layout("3s", text="{{I({0},'little',signed=True)}}")


def _year(_: t.Column) -> Layout:
    return Layout("B", text="{{{0} and 1900+{0}}}")


def _decimal(column: t.Column) -> Layout:
    number = DecimalColumn(column.precision, column.scale)
    return Layout(f"{number.size}s", text='"{{F({0})}}"', function=number.text)


def _bit(column: t.Column) -> Layout:
    return Layout(f"{column.size}s", text="{{I({0},'big')}}")


def _enum(column: t.Column) -> Layout:
    if column.labels is None:
        return Layout(_PREFIX[column.size])
    texts = [quoted(label) for label in ("", *column.labels)]
    return Layout(_PREFIX[column.size], text=_CALL, function=texts.__getitem__)


def _set(column: t.Column) -> Layout:
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
    """17 bits (hour, minute, second) -> ``23:59:59``: at most 86,400."""

    def __missing__(self, bits: int) -> str:
        text = self[bits] = f"{bits >> 12:02d}:{bits >> 6 & 63:02d}:{bits & 63:02d}"
        return text


DAYS, TIMES = Days(), Times()


def _fraction_bytes(fsp: int) -> int:
    return (fsp + 1) // 2


def _fraction(value: int, fsp: int) -> str:
    """`value`: of as many digits as its bytes hold, 2, 4 or 6."""
    return f".{value:0{2 * _fraction_bytes(fsp)}d}"[: fsp + 1] if fsp else ""


def _date(_: t.Column) -> Layout:
    return Layout("3s", text=_CALL, function=_date_text)


def _date_text(raw: bytes) -> str:
    bits = int.from_bytes(raw, "little")
    return f'"{bits >> 9:04d}-{bits >> 5 & 15:02d}-{bits & 31:02d}"'


def _datetime2(column: t.Column) -> Layout:
    if column.size == 0:
        return Layout("5s", text='"{{D[(w:=I({0},"big"))>>17&4194303]}}T{{T[w&131071]}}"')
    fsp, size = column.size, _fraction_bytes(column.size)

    def text(raw: bytes) -> str:
        bits, part = int.from_bytes(raw[:5], "big"), int.from_bytes(raw[5:], "big")
        return f'"{DAYS[bits >> 17 & 0x3FFFFF]}T{TIMES[bits & 0x1FFFF]}{_fraction(part, fsp)}"'

    return Layout(f"{5 + size}s", text=_CALL, function=text)


def _timestamp2(column: t.Column) -> Layout:
    fsp, size = column.size, _fraction_bytes(column.size)

    def text(raw: bytes) -> str:
        return _instant(
            int.from_bytes(raw[:4], "big"), _fraction(int.from_bytes(raw[4:], "big"), fsp)
        )

    return Layout(f"{4 + size}s", text=_CALL, function=text)


def _timestamp(_: t.Column) -> Layout:
    return Layout("I", text=_CALL, function=lambda seconds: _instant(seconds, ""))


def _instant(seconds: int, fraction: str) -> str:
    if seconds == 0 and not fraction.strip(".0"):
        return f'"0000-00-00T00:00:00{fraction}Z"'
    utc = gmtime(seconds)
    day = f"{utc.tm_year:04d}-{utc.tm_mon:02d}-{utc.tm_mday:02d}"
    return f'"{day}T{utc.tm_hour:02d}:{utc.tm_min:02d}:{utc.tm_sec:02d}{fraction}Z"'


def _time2(column: t.Column) -> Layout:
    fsp, size = column.size, _fraction_bytes(column.size)
    zero = 0x800000 << 8 * size

    def text(raw: bytes) -> str:
        value = int.from_bytes(raw, "big") - zero
        whole, part = divmod(abs(value), 1 << 8 * size)
        clock = f"{whole >> 12:02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}"
        return f'"{"-" if value < 0 else ""}{clock}{_fraction(part, fsp)}"'

    return Layout(f"{3 + size}s", text=_CALL, function=text)


def _time(_: t.Column) -> Layout:
    return Layout("3s", text=_CALL, function=_time_text)


def _time_text(raw: bytes) -> str:
    """Before MySQL 5.6: the decimal number hhmmss."""
    value = int.from_bytes(raw, "little", signed=True)
    clock = abs(value)
    return f'"{"-" if value < 0 else ""}{clock // 10000:02d}:{clock // 100 % 100:02d}:{clock % 100:02d}"'


def _datetime(_: t.Column) -> Layout:
    return Layout("Q", text=_CALL, function=_datetime_text)


def _datetime_text(value: int) -> str:
    """Before MySQL 5.6: the decimal number YYYYMMDDhhmmss."""
    digits = f"{value:014d}"
    day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"
    return f'"{day}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}"'


_LAYOUTS: dict[int, Callable[[t.Column], Layout]] = {
    t.INT24: _int24,
    t.YEAR: _year,
    t.FLOAT: lambda _: Layout("f", text=_CALL, function=lambda value: repr(float_value(value))),
    t.DOUBLE: lambda _: Layout("d", text=_REPR),
    t.NEWDECIMAL: _decimal,
    t.BIT: _bit,
    t.ENUM: _enum,
    t.SET: _set,
    t.DATE: _date,
    t.NEWDATE: _date,
    t.TIME: _time,
    t.DATETIME: _datetime,
    t.TIMESTAMP: _timestamp,
    t.TIME2: _time2,
    t.DATETIME2: _datetime2,
    t.TIMESTAMP2: _timestamp2,
}
