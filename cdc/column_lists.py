"""The columns of the watched tables, as the server lists them.

A row in the binlog has no column names (unless binlog_row_metadata is FULL). The decoder takes them
from the lists that are kept here, so a list must be the one that the rows were written with. A DDL
statement makes the list of its table old.
"""

from collections.abc import Sequence
from typing import Any

import pymysql
from pymysql.constants import ER

from cdc import schema
from cdc.binlog.alter_table import changed_names
from cdc.binlog.changes import Statement
from cdc.binlog.table_map import ColumnsChangedError
from cdc.lease import Lease
from cdc.positions import Columns
from openmrs.column_info import ColumnInfo
from openmrs.connection import fetch_all, list_columns, translate_error
from openmrs.read import ALTERED, Source
from openmrs.tables import FACT_TABLES, OPTIONAL_TABLES, REFERENCE_TABLES, WATCHED
from passport.errors import Fatal, Gap, Origin
from passport.version import Position


def read_columns(connection: "pymysql.Connection[Any]", database: str) -> Columns:
    """Return every column that this user sees of the watched tables, in the tables' own order."""
    return list_columns(connection, database, WATCHED)


class ColumnLists:
    """The column lists of one session.

    `valid_from` says by table where its list begins to hold, if that is not read yet. Rows up to
    there can't be decoded if the binlog doesn't name their columns.
    """

    def __init__(self, source: Source, columns: Columns) -> None:
        self._source = source
        self.columns = columns
        self.valid_from: dict[str, Position] = {}

    def hold_at(self, at: Position) -> bool:
        """Return whether all lists are true at `at`."""
        return all(at.order >= position.order for position in self.valid_from.values())

    def follow(self, statement: Statement, lease: Lease) -> bool:
        """Take the columns that a table has behind a DDL statement.

        Return whether values that are carried, or looked up, may be others now. Raises Fatal if a
        column can't be decoded, NotReady.
        """
        # The server lists a table as it is now, not as it was after that statement. So the list
        # holds from the binlog's end on. What the statement says itself holds at once.
        tables = WATCHED if statement.table == "*" else (statement.table,)
        listed = self._read(tables)
        end = lease.end().position
        may_change_values = statement.kind != "alter" or _changes_values(statement)
        columns = dict(self.columns)
        for table in tables:
            if _carried(table, listed) != _carried(table, columns):
                may_change_values = True
            altered = self._altered(table, statement, listed.get(table, ()))
            if altered:
                columns[table] = altered
                self.valid_from.pop(table, None)
            else:
                columns.pop(table, None)
                if table in listed:
                    columns[table] = listed[table]
                self.valid_from[table] = end
        self.columns = columns
        return may_change_values

    def _altered(
        self, table: str, statement: Statement, listed: Sequence[ColumnInfo]
    ) -> list[ColumnInfo]:
        """Return the columns after a statement that says what became of them; [] if it doesn't.

        Of a column that it names only the name is known then, so it must not be carried.
        """
        if any(info.has_old_time_format for info in listed):
            return []  # such a column must be known: no event says how long its values are
        valid_from = self.valid_from.get(table)
        is_listed_already = valid_from is not None and statement.at.order <= valid_from.order
        named = {name for change in statement.columns for name in change.names}
        if statement.kind != "alter" or is_listed_already or named & {*_carried_names(table)}:
            return []
        before = {info.name.lower(): info for info in self.columns.get(table, ())}
        names = changed_names([info.name for info in before.values()], statement.columns)
        columns = []
        for name in names or ():
            info = before.get(name.lower())
            if info is None or name.lower() in named:
                info = ColumnInfo(name, data_type="", column_type="")
            columns.append(info)
        return columns

    def remedy(self, error: ColumnsChangedError, read_to: Position) -> Fatal:
        """Return the error to raise for rows that the lists don't fit, read at `read_to`.

        A list that was read after one DDL statement may already be that of a later one. Rows
        between the two can't be decoded any more: that is a Gap. If no DDL explains it, a person
        must look, and `error` says what to do.
        """
        columns = self._read(())
        if self.hold_at(read_to) and columns == self.columns:
            return error
        return Gap(
            f"hospital {self._source.hospital}: rows were written with columns that no longer exist"
            f" ({error.reason})",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
            origin=Origin.hospital(self._source.hospital),
        )

    def _read(self, tables: Sequence[str]) -> Columns:
        """Return the lists as they are now, with all that the binlog holds of DDL on `tables`.

        Raises Fatal if a column can't be decoded, NotReady.
        """
        # Both before and after: the connection may have been closed by the server meanwhile, and
        # the source has a list of its own, which is old now. A new connection reads it again.
        source = self._source
        source.close()
        connection = source.connection()
        try:
            wait_for_ddl(connection, tables)
            columns = read_columns(connection, source.settings.database)
        except (pymysql.err.MySQLError, OSError) as error:
            raise translate_error(error, source.hospital, source.settings) from None
        finally:
            source.close()
        schema.refuse_undecodable(source.hospital, columns)
        return columns


def wait_for_ddl(connection: "pymysql.Connection[Any]", tables: Sequence[str]) -> None:
    """Wait until the DDL that the binlog holds is visible.

    A server writes it to the binlog first, and MySQL lists the old columns for as long as it waits
    for a replica. Who opens the table waits for the lock that the DDL still has.
    """
    for table in tables:
        try:
            fetch_all(connection, f"SELECT 1 FROM {table} LIMIT 0")  # noqa: S608  # a name of ours
        except pymysql.err.MySQLError as error:
            is_left_out = table in OPTIONAL_TABLES and error.args[0] == ER.TABLEACCESS_DENIED_ERROR
            if error.args[0] not in ALTERED and not is_left_out:
                raise


def _carried_names(table: str) -> tuple[str, ...]:
    """Return the columns whose values leave the hospital."""
    if table in FACT_TABLES:
        return FACT_TABLES[table].columns
    return REFERENCE_TABLES[table].keys


def _carried(table: str, columns: Columns) -> list[ColumnInfo]:
    names = _carried_names(table)
    return [info for info in columns.get(table, ()) if info.name in names]


def _changes_values(statement: Statement) -> bool:
    """Return whether an ALTER may change values that are carried, or looked up."""
    for change in statement.columns:
        if statement.table in FACT_TABLES:
            if change.names & {*_carried_names(statement.table)}:
                return True
            continue
        # A column that is new has never been looked up: the query would have failed.
        looked_up = {*_carried_names(statement.table), *REFERENCE_TABLES[statement.table].columns}
        are_all = not REFERENCE_TABLES[statement.table].columns
        if change.old and (are_all or change.names & looked_up):
            return True
    return False
