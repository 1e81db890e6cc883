"""Rows in and out of a hospital's database, through PyMySQL."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pymysql.connections
from pymysql.cursors import DictCursor

Connection: TypeAlias = "pymysql.connections.Connection[Any]"  # generic in its stubs only
Row = dict[str, Any]


def fetch(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return all rows of a SELECT, each by column name."""
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def execute(connection: Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """Execute a statement and return how many rows it affected."""
    with connection.cursor() as cursor:
        return int(cursor.execute(sql, values))


def insert(connection: Connection, table: str, row: Row) -> int:
    """Insert one row; return its AUTO_INCREMENT id, 0 if the row brought its own."""
    columns = ", ".join(f"`{name}`" for name in row)
    marks = ", ".join(["%s"] * len(row))
    sql = f"INSERT INTO `{table}` ({columns}) VALUES ({marks})"
    with connection.cursor() as cursor:
        cursor.execute(sql, list(row.values()))
        return int(cursor.lastrowid)


def insert_many(
    connection: Connection, table: str, columns: str, rows: Iterable[Sequence[Any]]
) -> None:
    """Insert the rows by multi-row INSERTs of up to 1 MB; `columns` are separated by spaces."""
    names = columns.split()
    marks = ", ".join(["%s"] * len(names))
    sql = f"INSERT INTO `{table}` ({', '.join(names)}) VALUES ({marks})"
    with connection.cursor() as cursor:
        cursor.executemany(sql, list(rows))
