"""MySQL's binary JSON, which is what a row image has of a JSON column, -> its text.

A value is a type byte and what follows. An object or array begins with its count and its size in
bytes. Then come the key entries (offset, length) and the value entries (type, and an offset or, if
it is small enough, the value itself), then what the offsets point to. Offsets count from where the
object or array begins.
"""

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from cdc.binlog.decimals import DecimalColumn
from openmrs.column_types import json_document

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_INLINE = {_LITERAL: "<B", 5: "<h", 6: "<H"}
_INLINE_LARGE = {7: "<i", 8: "<I"}
_FIXED = _INLINE | _INLINE_LARGE | {9: "<q", 10: "<Q", 11: "<d"}
_STRING = 12
_OPAQUE = 15
_LITERALS = (None, True, False)
_DECIMALS = (0, 246)
_DATES = (7, 10, 12)
_TIMES = (11,)


def json_text(raw: bytes) -> str:
    """Return the document's text. Raises ValueError if it is malformed.

    An empty value, which old servers write for NULL, is ``null``.
    """
    if not raw:
        return "null"
    try:
        return json_document(_value(raw[0], raw, 1))
    except (IndexError, struct.error) as error:
        raise ValueError("binary JSON") from error


def _value(kind: int, raw: bytes, at: int) -> Any:
    if kind <= _LARGE_ARRAY:
        return _container(kind, raw, at)
    if kind in _FIXED:
        (value,) = struct.unpack_from(_FIXED[kind], raw, at)
        return _LITERALS[value] if kind == _LITERAL else value
    if kind == _STRING:
        start, size = _length(raw, at)
        return raw[start : start + size].decode()
    if kind == _OPAQUE:
        start, size = _length(raw, at + 1)
        return _opaque(raw[at], raw[start : start + size])
    raise ValueError(f"JSON type {kind}")


def _container(kind: int, raw: bytes, at: int) -> Any:
    large = kind in (_LARGE_OBJECT, _LARGE_ARRAY)
    code, width = ("<I", 4) if large else ("<H", 2)
    (count,) = struct.unpack_from(code, raw, at)
    keys_at = at + 2 * width
    is_object = kind in (_SMALL_OBJECT, _LARGE_OBJECT)
    values_at = keys_at + (count * (width + 2) if is_object else 0)
    inline = _INLINE | _INLINE_LARGE if large else _INLINE

    def element(index: int) -> Any:
        entry = values_at + index * (width + 1)
        if raw[entry] in inline:
            return _value(raw[entry], raw, entry + 1)
        return _value(raw[entry], raw, at + struct.unpack_from(code, raw, entry + 1)[0])

    def key(index: int) -> str:
        entry = keys_at + index * (width + 2)
        (start,) = struct.unpack_from(code, raw, entry)
        (size,) = struct.unpack_from("<H", raw, entry + width)
        return raw[at + start : at + start + size].decode()

    if is_object:
        return {key(index): element(index) for index in range(count)}
    return [element(index) for index in range(count)]


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """Return where the data begins, and its size: seven bits a byte, the low ones first."""
    size = shift = 0
    while True:
        byte = raw[at]
        size |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return at, size


def _opaque(kind: int, data: bytes) -> Any:
    """Return the value of an SQL type inside JSON, as the server's own text has it."""
    if kind in _DECIMALS:
        return json.loads(DecimalColumn(data[0], data[1]).text(data[2:]))
    if kind in _DATES + _TIMES:
        return _TEMPORAL[kind](int.from_bytes(data, "little", signed=True))
    return f"base64:type{kind}:{b64encode(data).decode()}"


def _split(packed: int) -> tuple[int, int]:
    return divmod(abs(packed), 1 << 24)


def _clock(bits: int) -> str:
    return f"{bits >> 12:02d}:{bits >> 6 & 63:02d}:{bits & 63:02d}"


def _date(packed: int) -> str:
    months, day = divmod(_split(packed)[0] >> 17, 32)
    return f"{months // 13:04d}-{months % 13:02d}-{day:02d}"


def _datetime(packed: int) -> str:
    bits, micros = _split(packed)
    return f"{_date(packed)} {_clock(bits & 0x1FFFF)}.{micros:06d}"


def _time(packed: int) -> str:
    bits, micros = _split(packed)
    return f"{'-' if packed < 0 else ''}{_clock(bits)}.{micros:06d}"


_TEMPORAL: dict[int, Callable[[int], str]] = {7: _datetime, 12: _datetime, 10: _date, 11: _time}
