"""Columns that are allow-listed and that cannot be decoded: found before a reader starts, not at
their first row.
"""

from collections.abc import Iterator, Mapping, Sequence

from cdc.binlog.charsets import decoder
from openmrs.tables import NOTICE_KEYS, OBS_COLUMNS
from openmrs.values import ColumnInfo, supported
from passport.errors import Fatal

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})

Lists = Mapping[str, Sequence[ColumnInfo]]


def undecodable(listed: Lists) -> list[str]:
    """``obs.comments: type vector`` of each; `listed`: column lists by table."""
    return [
        f"{table}.{column.name}: {why}"
        for table, column in _allowed(listed)
        if (why := _why(table, column))
    ]


def refuse(hospital_id: str, listed: Lists) -> None:
    """Fatal when there is one."""
    if found := undecodable(listed):
        raise Fatal(
            f"hospital {hospital_id}: columns cannot be decoded: {'; '.join(found)}",
            hint=f"give them a type and character set of OpenMRS again, then: passport check --hospital {hospital_id}",
        )


def _allowed(listed: Lists) -> Iterator[tuple[str, ColumnInfo]]:
    for table, names in {"obs": OBS_COLUMNS, **NOTICE_KEYS}.items():
        yield from ((table, column) for column in listed.get(table, ()) if column.name in names)


def _why(table: str, column: ColumnInfo) -> str:
    if table != "obs" or column.name == OBS_COLUMNS[0]:
        return "" if column.data_type in _INTEGERS else f"a key of type {column.data_type}"
    if not supported(column.data_type):
        return f"type {column.data_type}"
    if column.charset and decoder(column.charset) is None:
        return f"character set {column.charset}"
    return (
        "a fraction in MariaDB's old format"
        if column.fsp and "mariadb-5.3" in column.column_type
        else ""
    )
