"""TABLE_MAP events: which columns a table's row images carry, by name.

A server says the names only with ``binlog_row_metadata=FULL``. Else they are those of the column
list that was read from information_schema, and only if that list agrees with the event in every
type and length: rows are never decoded with the columns of another version of their table.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cdc.binlog.byte_reader import ByteReader
from cdc.binlog.charsets import text_decoder
from cdc.binlog.field_types import FIELD_FORMATS, Column, Flavour, read_column
from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES, FieldType
from passport.errors import Fatal

# The fields of the optional metadata (binlog_row_metadata) that are read. The others are primary
# keys, geometry types and whether a column is visible.
_SIGNEDNESS = 1
_DEFAULT_CHARSET = 2
_COLUMN_CHARSETS = 3
_COLUMN_NAMES = 4
_SET_LABELS = 5
_ENUM_LABELS = 6
_LABELS_DEFAULT_CHARSET = 10
_LABELS_CHARSETS = 11

_LABELLED = (FieldType.ENUM, FieldType.SET)


class MappedTable(NamedTuple):
    """The start of a TABLE_MAP event: its table, and where the table's columns are described."""

    database: str
    table: str
    columns_at: int


def mapped_table(event: bytes, at: int) -> MappedTable:
    """Return which table a TABLE_MAP event is about. Its table id begins at `at`."""
    reader = ByteReader(event, at + 8)  # behind 6 bytes of table id and 2 of flags
    database = reader.take(reader.number(1)).decode()
    reader.take(1)  # a zero byte ends each name
    table = reader.take(reader.number(1)).decode()
    return MappedTable(database, table, reader.pos + 1)


def read_columns(
    event: bytes, at: int, flavour: Flavour, charsets: Mapping[int, str]
) -> list[Column]:
    """Return the columns that a TABLE_MAP event describes from `at` on.

    `charsets` has the character sets by collation id. Raises ValueError if something is not
    understood.
    """
    reader = ByteReader(event, at)
    field_types = reader.take(reader.packed())
    metadata = ByteReader(reader.take(reader.packed()))
    columns = [read_column(field_type, metadata) for field_type in field_types]
    reader.take((len(field_types) + 7) // 8)  # which columns may be NULL
    _OptionalMetadata(columns, flavour, charsets).read(reader)
    return columns


class _OptionalMetadata:
    """The last part of a TABLE_MAP event: fields of (type, length, value), in any order.

    A field is about the columns of some types, and counts only those.
    """

    def __init__(
        self, columns: list[Column], flavour: Flavour, charsets: Mapping[int, str]
    ) -> None:
        self._columns = columns
        self._flavour = flavour
        self._charsets = charsets
        self._numbers: list[int] = []
        self._texts: list[int] = []
        self._labelled: list[int] = []
        for index, column in enumerate(columns):
            field_format = FIELD_FORMATS[column.type]
            if field_format.is_number:
                self._numbers.append(index)
            if flavour in field_format.charset_listed_by:
                self._texts.append(index)
            if column.type in _LABELLED:
                self._labelled.append(index)
        self._labels: dict[int, Iterator[tuple[bytes, ...]]] = {}

    def read(self, reader: ByteReader) -> None:
        """Add what the fields say to the columns. Fields that are not needed are passed over."""
        while not reader.at_end:
            field = reader.number(1)
            value = ByteReader(reader.take(reader.packed()))
            if field == _SIGNEDNESS:
                self._read_signedness(value)
            elif field == _DEFAULT_CHARSET:
                self._read_default_charset(value, self._texts)
            elif field == _COLUMN_CHARSETS:
                self._read_charsets(value, self._texts)
            elif field == _COLUMN_NAMES:
                self._read_names(value)
            elif field == _SET_LABELS:
                self._labels[FieldType.SET] = self._read_labels(value)
            elif field == _ENUM_LABELS:
                self._labels[FieldType.ENUM] = self._read_labels(value)
            elif field == _LABELS_DEFAULT_CHARSET:
                self._read_default_charset(value, self._labelled)
            elif field == _LABELS_CHARSETS:
                self._read_charsets(value, self._labelled)
        self._decode_labels()

    def _read_signedness(self, value: ByteReader) -> None:
        """Read one bit a number, the first column in the highest bit."""
        # MySQL 8.0.15 has no bit for a YEAR, later releases have one. Behind a YEAR the bits can't
        # be told apart, so that the signs are those of the column list.
        has_year = any(column.type == FieldType.YEAR for column in self._columns)
        if self._flavour == "mysql" and has_year:
            return
        bits = value.rest()
        for position, index in enumerate(self._numbers):
            unsigned = bool(bits[position >> 3] << (position & 7) & 0x80)
            self._columns[index] = replace(self._columns[index], unsigned=unsigned)

    def _read_default_charset(self, value: ByteReader, indexes: Collection[int]) -> None:
        """Read the collation of most columns, and pairs of a column and its own collation."""
        default = value.packed()
        numbers = list(value.packed_numbers())
        exceptions = dict(zip(numbers[::2], numbers[1::2], strict=True))
        for position, index in enumerate(indexes):
            self._set_charset(index, exceptions.get(position, default))

    def _read_charsets(self, value: ByteReader, indexes: Collection[int]) -> None:
        for index, collation in zip(indexes, value.packed_numbers(), strict=True):
            self._set_charset(index, collation)

    def _set_charset(self, index: int, collation: int) -> None:
        charset = self._charsets.get(collation, f"collation {collation}")
        self._columns[index] = replace(self._columns[index], charset=charset)

    def _read_names(self, value: ByteReader) -> None:
        for index, column in enumerate(self._columns):
            name = value.take(value.packed()).decode()
            self._columns[index] = replace(column, name=name)

    def _read_labels(self, value: ByteReader) -> Iterator[tuple[bytes, ...]]:
        """Return the labels of each ENUM, or of each SET."""
        labels_by_column: list[tuple[bytes, ...]] = []
        while not value.at_end:
            count = value.packed()
            labels_by_column.append(tuple(value.take(value.packed()) for _ in range(count)))
        return iter(labels_by_column)

    def _decode_labels(self) -> None:
        """Decode the labels. This comes last: their character set may be said after them."""
        for index in self._labelled:
            column = self._columns[index]
            if column.type not in self._labels:
                continue
            raw_labels = next(self._labels[column.type])
            decode = text_decoder(column.charset or "utf8mb4")
            if decode is not None:  # else the column is refused where it is wanted
                labels = tuple(decode(raw) for raw in raw_labels)
                self._columns[index] = replace(column, labels=labels)


# --- what the event leaves out


class ColumnsChangedError(Fatal):
    """Rows came without column names, and the column list is older or newer than they are."""


def columns_changed(table: str, reason: str) -> ColumnsChangedError:
    """Return the error for rows that the column list does not fit."""
    return ColumnsChangedError(
        f"binlog: the column list of {table} is not the one its rows were written with: {reason}",
        hint=(
            "SET GLOBAL binlog_row_metadata = 'FULL'; "
            "then: passport cdc run --hospital HOSPITAL --new-epoch"
        ),
    )


def complete(
    columns: Sequence[Column], listed: Sequence[ColumnInfo] | None, table: str
) -> list[Column]:
    """Return the event's columns, completed from the column list.

    What the event did not say (names, signs, character sets, labels) is taken from the list. Raises
    ColumnsChangedError if the event has no names and the list is missing or is not this table's.
    """
    if all(column.name for column in columns):
        by_name = {info.name: info for info in listed or ()}
        return [_completed(column, by_name.get(column.name)) for column in columns]

    if listed is None or len(listed) != len(columns):
        raise columns_changed(
            table, f"{len(columns)} columns, the column list has {len(listed or ())}"
        )
    for column, info in zip(columns, listed, strict=True):
        if not _agrees(column, info):
            raise columns_changed(
                table, f"column {info.name} is not {info.data_type} of the listed size"
            )
    return [_completed(column, info) for column, info in zip(columns, listed, strict=True)]


def _completed(column: Column, info: ColumnInfo | None) -> Column:
    if info is None:
        return column
    if info.fsp and FIELD_FORMATS[column.type].has_unknown_fraction:
        raise Fatal(
            f"binlog: column {info.name} has a fraction in MariaDB's old format, "
            "whose length no event says",
            hint=(
                "SET GLOBAL mysql56_temporal_format = ON at the source, then ALTER TABLE ... FORCE"
            ),
        )
    if column.name and not _agrees(column, info):
        return column  # the list is older or newer than this event, which names its columns itself
    if info.data_type not in COLUMN_TYPES:
        # There is no character set of this name, so the column is refused if it is wanted.
        return replace(column, name=info.name, charset=info.data_type)
    return replace(
        column,
        name=info.name,
        unsigned=info.unsigned if column.unsigned is None else column.unsigned,
        charset=column.charset or info.charset or "binary",
        labels=column.labels or info.labels or None,
    )


def _agrees(column: Column, info: ColumnInfo) -> bool:
    """Return whether the event's column can be the listed one, as far as both describe it."""
    if not info.data_type:
        # Its name is all that is known. The event must then say how long its values are.
        return not FIELD_FORMATS[column.type].has_unknown_fraction
    column_type = COLUMN_TYPES.get(info.data_type)
    if column_type is not None and column.type not in column_type.field_types:
        return False
    if column.unsigned is not None and column.unsigned != info.unsigned:
        return False
    if column.charset is not None and column.charset != (info.charset or "binary"):
        return False
    return FIELD_FORMATS[column.type].agrees(column, info)
