"""Row images, TABLE_MAP and value types: pure, against packers written here."""

import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.binlog.decimals import DecimalColumn
from cdc.binlog.field_types import Column, layout
from cdc.binlog.rows_event import ImageDecoder, RowsDecoder
from cdc.binlog.table_map import complete, mapped_table, read_columns
from openmrs.column_info import ColumnInfo
from openmrs.column_types import FieldType, decimal_value, float_value
from openmrs.values import json_value, row_text, select_list
from passport.errors import Fatal

ID = Column(FieldType.LONG, name="id")
TEXT = Column(FieldType.BLOB, 2, name="text", charset="utf8mb4")
HIDDEN = Column(FieldType.VARCHAR, 300, name="hidden", charset="utf8mb4")


def long_text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<H", len(raw)) + raw


def decoded(column: Column, raw: bytes) -> str:
    """JSON text of one column's value."""
    row, end = ImageDecoder([column], [column.name], "text").row(b"\0" + raw, 0)
    assert end == 1 + len(raw)
    prefix, suffix = '{"' + column.name + '":', "}"
    assert row.startswith(prefix)
    return str(row).removeprefix(prefix).removesuffix(suffix)


# --- images


@given(
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.text(max_size=50),
    st.none() | st.text(max_size=50),
)
def test_any_row_with_any_nulls(number: int | None, hidden: str | None, text: str | None) -> None:
    nulls = (number is None) | (hidden is None) << 1 | (text is None) << 2
    event = bytes([nulls])
    event += b"" if number is None else struct.pack("<i", number)
    event += b"" if hidden is None else long_text(hidden)
    event += b"" if text is None else long_text(text)
    row, end = ImageDecoder([ID, HIDDEN, TEXT], ["text", "id", "absent"], "text").row(event, 0)
    assert row == row_text(["text", "id"], [text, number])
    assert end == len(event)


@pytest.mark.parametrize(
    "name", ["plain", "odd '{\"\\", "{}", "'''", "\n", "é", "${x}", "__import__('os')"]
)
def test_a_columns_name_is_never_code(name: str) -> None:
    columns = [
        Column(FieldType.LONG, name=name),
        Column(FieldType.BLOB, 2, name="text", charset="utf8mb4"),
    ]
    event = b"\0" + struct.pack("<i", 7) + long_text(name)
    assert ImageDecoder(columns, [name, "text"], "text").row(event, 0)[0] == row_text(
        [name, "text"], [7, name]
    )
    assert ImageDecoder(columns, [name], "keys").row(event, 0)[0] == {name: 7}


def test_rows_of_an_update_and_what_follows_them() -> None:
    table = RowsDecoder([ID, TEXT], ["id", "text"], "text", "id")
    one = b"\0" + struct.pack("<i", 1) + long_text("a")
    two = b"\2" + struct.pack("<i", 1)
    event = b"\2\xff\xff"[:1] + b"\3\3" + one + two
    assert table.rows("u", event, 0) == ([('{"id":1,"text":"a"}', '{"id":1,"text":null}')], False)
    with pytest.raises((ValueError, IndexError, struct.error)):
        table.rows("u", event[:-1], 0)
    with pytest.raises((ValueError, IndexError, struct.error)):
        table.rows("u", event + b"\0", 0)
    with pytest.raises(ValueError, match="number of columns"):
        table.rows("u", b"\3" + event[1:], 0)


def test_a_partial_image_gives_its_key_or_stops() -> None:
    table = RowsDecoder([ID, TEXT], ["id", "text"], "text", "id")
    only_id = b"\2\1" + b"\0" + struct.pack("<i", 5)
    assert table.rows("d", only_id, 0) == ([({"id": 5}, None)], True)
    with pytest.raises(ValueError, match="without its key"):
        table.rows("d", b"\2\2\0" + long_text("a"), 0)


@pytest.mark.parametrize(
    "column",
    [
        Column(FieldType.BLOB, 2, name="x", charset="gbk"),
        Column(FieldType.BLOB_COMPRESSED, 2, name="x", charset="gbk"),
        Column(FieldType.STRING, 16, name="x", charset="uuid"),
        Column(FieldType.ENUM, 1, name="x"),
    ],
)
def test_what_cannot_be_decoded_stops_only_where_it_is_wanted(column: Column) -> None:
    event = (
        b"\0"
        + struct.pack("<i", 1)
        + (b"\0" if column.type in (FieldType.ENUM, FieldType.STRING) else b"\0\0")
    )
    assert ImageDecoder([ID, column], ["id"], "text").row(event, 0) == ('{"id":1}', len(event))
    with pytest.raises(Fatal, match="column x cannot be decoded"):
        ImageDecoder([ID, column], ["id", "x"], "text").row(event, 0)


def test_a_key_that_is_no_integer_stops() -> None:
    with pytest.raises(Fatal, match="no integer"):
        ImageDecoder([TEXT], ["text"], "keys").row(b"\0" + long_text("a"), 0)


# --- value types


def packed_decimal(number: int, precision: int, scale: int) -> bytes:
    """The documented format of `number` / 10**scale, written from the other side."""
    digits = f"{abs(number):0{precision}d}"
    whole, fraction = digits[: precision - scale], digits[precision - scale :]
    head = len(whole) % 9
    groups = [whole[:head], *(whole[n : n + 9] for n in range(head, len(whole), 9))]
    groups += [fraction[n : n + 9] for n in range(0, len(fraction), 9)]
    sizes = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
    raw = bytearray(
        b"".join(int(group).to_bytes(sizes[len(group)], "big") for group in groups if group)
    )
    if number < 0:
        raw = bytearray(byte ^ 0xFF for byte in raw)
    raw[0] ^= 0x80
    return bytes(raw)


@given(st.data(), st.integers(1, 65), st.integers(0, 30))
def test_decimal(data: st.DataObject, precision: int, scale: int) -> None:
    scale = min(scale, precision)
    number = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    sign, digits = "-" * (number < 0), f"{abs(number):0{scale + 1}d}"
    text = sign + (f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits)
    raw = packed_decimal(number, precision, scale)
    assert DecimalColumn(precision, scale).text(raw) == text
    assert DecimalColumn(precision, scale).size == len(raw)
    assert decimal_value(text) == text


@given(
    st.integers(0, 9999),
    st.integers(0, 12),
    st.integers(0, 31),
    st.integers(0, 86_399),
    st.integers(0, 6),
    st.data(),
)
def test_datetime(
    year: int, month: int, day: int, second: int, fsp: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, 10**fsp - 1))
    hour, minute, second = second // 3600, second // 60 % 60, second % 60
    bits = 1 << 39 | (year * 13 + month) << 22 | day << 17 | hour << 12 | minute << 6 | second
    size = (fsp + 1) // 2
    raw = bits.to_bytes(5, "big") + (part * 10 ** (2 * size - fsp)).to_bytes(size, "big")
    fraction = f".{part:0{fsp}d}" if fsp else ""
    text = f"{year:04d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}{fraction}"
    assert decoded(Column(FieldType.DATETIME2, fsp, name="x"), raw) == f'"{text.replace(" ", "T")}"'
    assert json_value(ColumnInfo("x", "datetime", "datetime", fsp=fsp), text) == text.replace(
        " ", "T"
    )


@given(
    st.booleans(),
    st.integers(0, 838),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 6),
    st.data(),
)
def test_time(
    negative: bool, hour: int, minute: int, second: int, fsp: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, 10**fsp - 1))
    size = (fsp + 1) // 2
    value = (hour << 12 | minute << 6 | second) << 8 * size | part * 10 ** (2 * size - fsp)
    sign = "-" if negative and value else ""
    raw = ((0x800000 << 8 * size) + (-value if sign else value)).to_bytes(3 + size, "big")
    fraction = f".{part:0{fsp}d}" if fsp else ""
    text = f'"{sign}{hour:02d}:{minute:02d}:{second:02d}{fraction}"'
    assert decoded(Column(FieldType.TIME2, fsp, name="x"), raw) == text


def significant(value: float) -> int:
    """Digits, but for zeros at both ends."""
    return len(Decimal(repr(value)).normalize().as_tuple().digits)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_is_the_shortest_text_of_the_4_bytes(value: float) -> None:
    short = float_value(value)
    assert struct.pack("<f", short) == struct.pack("<f", value)
    assert significant(short) <= significant(value)
    assert decoded(Column(FieldType.FLOAT, 4, name="x"), struct.pack("<f", value)) == repr(short)
    assert json_value(ColumnInfo("x", "float", "float"), repr(value)) == short


@pytest.mark.parametrize(
    ("column", "raw", "text"),
    [
        (Column(FieldType.INT24, unsigned=True), b"\xff\xff\xff", "16777215"),
        (Column(FieldType.INT24), b"\xff\xff\xff", "-1"),
        (Column(FieldType.YEAR), b"\0", "0"),
        (Column(FieldType.YEAR), b"\x7c", "2024"),
        (Column(FieldType.BIT, 2), b"\1\2", "258"),
        (Column(FieldType.ENUM, 1, labels=("a", 'b"')), b"\2", '"b\\""'),
        (Column(FieldType.ENUM, 2, labels=("a",)), b"\0\0", '""'),
        (Column(FieldType.SET, 1, labels=("a", "b", "c")), b"\5", '"a,c"'),
        (Column(FieldType.DATE), b"\0\0\0", '"0000-00-00"'),
        (Column(FieldType.TIMESTAMP2, 0), b"\0\0\0\0", '"0000-00-00T00:00:00Z"'),
        (Column(FieldType.TIMESTAMP2, 1), b"\0\0\0\0\x32", '"1970-01-01T00:00:00.5Z"'),
        (Column(FieldType.STRING, 4, charset="binary"), b"\1\xff", '"/wAAAA=="'),
        (Column(FieldType.STRING, 400, charset="latin1"), b"\3\0\xe9\x80\x81", '"é€\x81"'),
        (Column(FieldType.BLOB, 1, charset="utf16"), b"\4\xd8\x3d\xde\0", '"😀"'),
        (
            Column(FieldType.BLOB, 1, charset="utf8mb4"),
            b"\5a\xed\xa0\x80b",
            '"a\ufffd\ufffd\ufffdb"',
        ),
        (Column(FieldType.BLOB_COMPRESSED, 1, charset="latin1"), b"\2\0\xe9", '"é"'),
        (Column(FieldType.VARCHAR_COMPRESSED, 300, charset="utf8mb4"), b"\0\0", '""'),
        (Column(FieldType.TIMESTAMP2, 0), b"\xff\xff\xff\xff", '"2106-02-07T06:28:15Z"'),
    ],
)
def test_single_values(column: Column, raw: bytes, text: str) -> None:
    named_column = Column(
        **{**{field: getattr(column, field) for field in Column.__slots__}, "name": "x"}
    )
    assert decoded(named_column, raw) == text


def test_an_unknown_type_stops() -> None:
    with pytest.raises(Fatal, match="column type 99"):
        layout(Column(99))


# --- TABLE_MAP


def table_map(types: bytes, meta: bytes, *optional: tuple[int, bytes]) -> bytes:
    body = bytes(6) + b"\1\0" + b"\7openmrs\0" + b"\3obs\0"
    body += bytes([len(types)]) + types + bytes([len(meta)]) + meta + bytes((len(types) + 7) // 8)
    return body + b"".join(bytes([kind, len(value)]) + value for kind, value in optional)


def test_columns_are_mapped_by_name_with_their_signs_charsets_and_labels() -> None:
    types = bytes(
        [FieldType.LONG, FieldType.VARCHAR, FieldType.LONGLONG, FieldType.STRING, FieldType.BLOB]
    )
    meta = struct.pack("<H", 300) + bytes([FieldType.ENUM, 1]) + b"\2"
    names = b"\2id\1v\3big\1e\1b"
    event = table_map(
        types,
        meta,
        (1, b"\x40"),
        (2, b"\x21\1\x3f"),
        (4, names),
        (6, b"\2\1a\1\xe9"),
        (10, b"\x08"),
        (99, b"new"),
    )
    where = mapped_table(event, 0)
    assert (where.database, where.table) == ("openmrs", "obs")
    charsets = {0x21: "utf8mb3", 0x3F: "binary", 0x08: "latin1"}
    assert read_columns(event, where.columns_at, "mysql", charsets) == [
        Column(FieldType.LONG, name="id", unsigned=False),
        Column(FieldType.VARCHAR, 300, name="v", charset="utf8mb3"),
        Column(FieldType.LONGLONG, name="big", unsigned=True),
        Column(FieldType.ENUM, 1, name="e", charset="latin1", labels=("a", "é")),
        Column(FieldType.BLOB, 2, name="b", charset="binary"),
    ]
    with pytest.raises(ValueError, match="too short"):
        read_columns(event[:-1], where.columns_at, "mysql", charsets)


LISTED = [
    ColumnInfo("id", "int", "int(11)"),
    ColumnInfo("v", "varchar", "varchar(75)", "utf8mb4", 300),
]
UNNAMED = [Column(FieldType.LONG), Column(FieldType.VARCHAR, 300)]
SIGNED = [
    Column(FieldType.LONG, unsigned=False),
    Column(FieldType.VARCHAR, 300, charset="utf8mb4"),
]  # as MySQL's MINIMAL says it


def test_the_column_list_fills_in_what_the_event_leaves_out() -> None:
    assert complete(UNNAMED, LISTED, "obs") == [
        Column(FieldType.LONG, name="id", unsigned=False, charset="binary"),
        Column(FieldType.VARCHAR, 300, name="v", unsigned=False, charset="utf8mb4"),
    ]


@pytest.mark.parametrize(
    "listed",
    [
        None,
        LISTED[:1],
        LISTED[::-1],
        [LISTED[0], ColumnInfo("v", "varchar", "varchar(76)", "utf8mb4", 304)],
        [ColumnInfo("id", "bigint", "bigint(20)"), LISTED[1]],
        [ColumnInfo("id", "int", "int(10) unsigned"), LISTED[1]],
        [LISTED[0], ColumnInfo("v", "varchar", "varchar(300)", "latin1", 300)],
    ],
)
def test_a_column_list_that_does_not_agree_stops(listed: Any) -> None:
    with pytest.raises(Fatal, match="column list of obs"):
        complete(SIGNED, listed, "obs")


def test_an_older_column_list_does_not_change_what_the_event_names() -> None:
    found = [Column(FieldType.LONGLONG, name="id", charset="x")]
    assert complete(found, LISTED, "obs") == found


def test_a_sign_that_the_event_says_is_not_the_lists() -> None:
    """A list read after MODIFY ... UNSIGNED, rows from before it."""
    newer = ColumnInfo("id", "int", "int(10) unsigned")
    assert (
        complete([Column(FieldType.LONG, name="id", unsigned=False)], [newer], "obs")[0].unsigned
        is False
    )
    assert complete([Column(FieldType.LONG, name="id")], [newer], "obs")[0].unsigned is True


def test_old_fractions_stop() -> None:
    with pytest.raises(Fatal, match="old format"):
        complete(
            [Column(FieldType.DATETIME)], [ColumnInfo("d", "datetime", "datetime(3)", fsp=3)], "obs"
        )


# --- SELECT


def test_select_list_quotes_names_and_keeps_floats_whole() -> None:
    columns = [ColumnInfo("a`b", "int", "int(11)"), ColumnInfo("f", "float", "float")]
    assert select_list(columns) == "`a``b`, `f` * 1e0 AS `f`"


def test_labels() -> None:
    column = ColumnInfo("e", "enum", r"enum('a','b''c','d\\e','f,g','')")
    assert column.labels == ("a", "b'c", "d\\e", "f,g", "")
