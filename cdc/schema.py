"""Finds carried columns that can't be decoded: before a reader starts, not at their first row."""

from collections.abc import Mapping, Sequence

from cdc.binlog.charsets import text_decoder
from openmrs.column_info import ColumnInfo
from openmrs.column_types import COLUMN_TYPES
from openmrs.tables import FACT_TABLES, REFERENCE_TABLES, WATCHED
from openmrs.values import supported
from passport.errors import Fatal, Origin


def undecodable_columns(columns: Mapping[str, Sequence[ColumnInfo]]) -> list[str]:
    """Return the carried columns that can't be decoded, as ``obs.comments: type vector``."""
    undecodable = []
    for table in WATCHED:
        for column in columns.get(table, ()):
            reason = _problem(table, column)
            if reason:
                undecodable.append(f"{table}.{column.name}: {reason}")
    return undecodable


def refuse_undecodable(hospital_id: str, columns: Mapping[str, Sequence[ColumnInfo]]) -> None:
    """Raise Fatal if a column that is carried can't be decoded."""
    undecodable = undecodable_columns(columns)
    if undecodable:
        raise Fatal(
            f"hospital {hospital_id}: columns cannot be decoded: {'; '.join(undecodable)}",
            hint="give them a type and character set of OpenMRS again,"
            f" then: passport check --hospital {hospital_id}",
            origin=Origin.hospital(hospital_id),
        )


def _problem(table: str, column: ColumnInfo) -> str:
    """Return why a column of this table can't be decoded, "" if it can or isn't carried."""
    if table in REFERENCE_TABLES:
        # Of a reference table only the keys are carried.
        if column.name not in REFERENCE_TABLES[table].keys:
            return ""
        return _key_problem(column)
    fact_table = FACT_TABLES[table]
    if column.name not in fact_table.columns:
        return ""
    if column.name == fact_table.key:
        return _key_problem(column)
    if not supported(column.data_type):
        return f"type {column.data_type}"
    if column.charset and text_decoder(column.charset) is None:
        return f"character set {column.charset}"
    if column.has_old_time_format:
        return "a fraction in MariaDB's old format"
    return ""


def _key_problem(column: ColumnInfo) -> str:
    column_type = COLUMN_TYPES.get(column.data_type)
    if column_type is None or not column_type.is_integer:
        return f"a key of type {column.data_type}"
    return ""
