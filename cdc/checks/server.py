"""The server that is checked, and what all checks ask it."""

from typing import Any

import pymysql

from cdc.checks.services import recognise
from openmrs import connection as mysql
from passport.settings import Hospital

Rows = tuple[tuple[Any, ...], ...]

# Error numbers of the client: the connection is gone.
CONNECTION_LOST = {2006, 2013}


class Server:
    """One hospital's server, over one read-only session.

    `variables` are its global variables, by their names in lower case. `service` is where it runs.
    `account` is the account that the session has, as GRANT statements name it. Every method, and
    the constructor, raises MySQLError when the connection is lost.
    """

    def __init__(
        self, hospital_id: str, hospital: Hospital, connection: "pymysql.Connection[Any]"
    ) -> None:
        self.hospital_id = hospital_id
        self.hospital = hospital
        self.connection = connection
        self.version = mysql.server_version(connection)
        self.variables: dict[str, str] = {}
        for name, value in self.rows("SHOW GLOBAL VARIABLES"):
            self.variables[name.lower()] = value
        self.service = recognise(self.variables)

        current_user = str(self.rows("SELECT CURRENT_USER()")[0][0])
        user, _, host = current_user.rpartition("@")
        self.account = f"'{user}'@'{host}'"

    def rows(self, sql: str) -> Rows:
        return tuple(mysql.fetch_all(self.connection, sql))

    def rows_if_readable(self, sql: str) -> Rows:
        """Return no rows if the table is not there or not readable: another check says so."""
        if self.error_number(sql):
            return ()
        return self.rows(sql)

    def error_number(self, sql: str) -> int:
        """Return the server's error number for a statement, 0 if it runs."""
        try:
            self.rows(sql)
        except (
            pymysql.err.OperationalError,
            pymysql.err.ProgrammingError,
            pymysql.err.InternalError,
        ) as error:
            number = int(error.args[0])
            if number in CONNECTION_LOST:
                raise
            return number
        return 0
