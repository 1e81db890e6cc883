"""The columns of the watched tables, as the server lists them.

A row in the binlog has no column names (unless binlog_row_metadata is FULL). The decoder takes them
from the lists that are kept here, so a list must be the one that the rows were written with. Each
DDL statement makes the lists old, and they are read again.
"""

from typing import Any

import pymysql

from cdc import schema
from cdc.binlog.table_map import ColumnsChangedError
from cdc.lease import Lease
from cdc.positions import Columns
from openmrs.connection import list_columns
from openmrs.read import Source
from openmrs.tables import WATCHED
from passport.errors import Fatal, Gap, Origin
from passport.version import Position


def read_columns(connection: "pymysql.Connection[Any]", database: str) -> Columns:
    """Return every column that this user sees of the watched tables, in the tables' own order."""
    return list_columns(connection, database, WATCHED)


class ColumnLists:
    """The column lists of one session. Rows are decoded with them from `valid_from` on."""

    def __init__(self, source: Source, columns: Columns, valid_from: Position) -> None:
        self._source = source
        self.columns = columns
        self.valid_from = valid_from

    def read_again(self, lease: Lease) -> None:
        """Read the lists after a DDL statement.

        The server lists a table as it is now, not as it was after that statement. So the lists hold
        from the binlog's end on. Raises Fatal if a column can't be decoded, NotReady.
        """
        self.columns = self._read()
        self.valid_from = lease.end().position

    def remedy(self, error: ColumnsChangedError, read_to: Position) -> Fatal:
        """Return the error to raise for rows that the lists don't fit, read at `read_to`.

        A list that was read after one DDL statement may already be that of a later one. Rows
        between the two can't be decoded any more: that is a Gap. If no DDL explains it, a person
        must look, and `error` says what to do.
        """
        columns = self._read()
        if read_to.order >= self.valid_from.order and columns == self.columns:
            return error
        return Gap(
            f"hospital {self._source.hospital}: rows were written with columns that no longer exist"
            f" ({error.reason})",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
            origin=Origin.hospital(self._source.hospital),
        )

    def _read(self) -> Columns:
        try:
            columns = read_columns(self._source.connection(), self._source.settings.database)
        finally:
            # The source has a list of its own, which is old now. A new connection reads it again.
            self._source.close()
        schema.refuse_undecodable(self._source.hospital, columns)
        return columns
