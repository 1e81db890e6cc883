"""Finds what keeps changes of the hospital's database out of the binlog that a reader reads.

A server can be told to log only some databases. A replica can be told to take over only some of
what its source sends, or to log nothing of it; a node of a Galera cluster logs nothing of what
other nodes write, unless it is told to. Nothing in the binlog says that a change is missing: a
reader would go on, healthy, without it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pymysql
from pymysql.cursors import DictCursor

from openmrs.connection import fetch_one, global_variables, server_version
from openmrs.tables import REQUIRED_TABLES

# Each kind of filter, by the name of its variable. A replica of MySQL shows them as columns.
REPLICATION_FILTERS = (
    "replicate_do_db",
    "replicate_ignore_db",
    "replicate_do_table",
    "replicate_ignore_table",
    "replicate_wild_do_table",
    "replicate_wild_ignore_table",
)
VARIABLES = (
    "binlog_storage_engine",
    "log_replica_updates",
    "log_slave_updates",
    "wsrep_on",
    *REPLICATION_FILTERS,
)
LOG_UPDATES = "in my.cnf: log_slave_updates=ON; then restart the server"
BUILD_ANEW = (
    "read the server that it replicates from, or remove the filter and build the replica anew"
)


class Obstacle(NamedTuple):
    """The reason why a reader would not see all changes, and what to do about it."""

    reason: str
    hint: str


GALERA_NOT_LOGGED = Obstacle(
    "the server is a node of a Galera cluster and doesn't log what other nodes write",
    LOG_UPDATES,
)
REPLICATED_NOT_LOGGED = Obstacle(
    "the server is a replica and doesn't log what it replicates",
    LOG_UPDATES,
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which databases and tables a server takes over, or logs: the lists that its DBA has set.

    A name of a table is ``database.table``. The wild ones are patterns of LIKE.
    """

    do_db: tuple[str, ...] = ()
    ignore_db: tuple[str, ...] = ()
    do_table: tuple[str, ...] = ()
    ignore_table: tuple[str, ...] = ()
    wild_do_table: tuple[str, ...] = ()
    wild_ignore_table: tuple[str, ...] = ()

    @classmethod
    def of_replica(cls, values: Mapping[str, str | None]) -> "Filters":
        """Return the filters of replication; `values` are by the names of their variables."""
        return cls(*(_names(values.get(name)) for name in REPLICATION_FILTERS))

    def hide_database(self, database: str) -> str:
        """Return the filter that hides all of the database, "" if none does.

        The list of what to ignore counts only while there is no list of what to do.
        """
        if self.do_db:
            return "" if database in self.do_db else "do_db"
        return "ignore_db" if database in self.ignore_db else ""

    def hide_table(self, database: str, table: str) -> str:
        """Return the filter that hides a table, "" if none does. The first that matches decides."""
        by_database = self.hide_database(database)
        if by_database:
            return by_database
        name = f"{database}.{table}"
        if name in self.do_table:
            return ""
        if name in self.ignore_table:
            return "ignore_table"
        if any(_is_like(name, pattern) for pattern in self.wild_do_table):
            return ""
        if any(_is_like(name, pattern) for pattern in self.wild_ignore_table):
            return "wild_ignore_table"
        # Where only some tables are listed, all others are left out.
        if self.do_table:
            return "do_table"
        return "wild_do_table" if self.wild_do_table else ""


def find_obstacle(connection: "pymysql.Connection[Any]", database: str) -> Obstacle | None:
    """Return what hides changes of the database from a reader, None if nothing does.

    Needs BINLOG MONITOR or REPLICATION CLIENT. Raises MySQLError.
    """
    variables = global_variables(connection, VARIABLES)
    if variables.get("binlog_storage_engine"):
        return Obstacle(
            "the server keeps its binlog in InnoDB (binlog_storage_engine), where a reader finds no"
            " file and no position",
            "in my.cnf: remove binlog_storage_engine; then restart the server",
        )
    filters = binlog_filters(connection)
    by_filter = filters.hide_database(database)
    if by_filter:
        return Obstacle(
            f"binlog_{by_filter} keeps the changes of {database} out of the binlog",
            f"in my.cnf: remove binlog_{by_filter}; then restart the server",
        )

    is_logged = "ON" in (variables.get("log_replica_updates"), variables.get("log_slave_updates"))
    if variables.get("wsrep_on") == "ON" and not is_logged:
        return GALERA_NOT_LOGGED
    channels = [*_running_channels(connection, variables)]
    if channels and not is_logged:
        return REPLICATED_NOT_LOGGED
    for table in REQUIRED_TABLES:
        hiding = [channel.hide_table(database, table) for channel in channels]
        # A replica of several servers may have each table from another one.
        if hiding and all(hiding):
            return Obstacle(
                f"the server is a replica, and its replicate_{hiding[0]} leaves out"
                f" {database}.{table}",
                BUILD_ANEW,
            )
    return None


def binlog_filters(connection: "pymysql.Connection[Any]") -> Filters:
    """Return which databases the server logs. Needs BINLOG MONITOR or REPLICATION CLIENT."""
    row = fetch_one(connection, server_version(connection).show_binlog_end)
    if not row:
        return Filters()
    _file, _pos, do_db, ignore_db = row[:4]
    return Filters(do_db=_names(do_db), ignore_db=_names(ignore_db))


def running_sources(connection: "pymysql.Connection[Any]") -> int:
    """Return from how many servers a MariaDB replicates now, 0 for a MySQL. Everybody may ask."""
    row = fetch_one(connection, "SHOW GLOBAL STATUS LIKE 'Slaves_running'")
    return int(row[1]) if row else 0


def _running_channels(
    connection: "pymysql.Connection[Any]", variables: Mapping[str, str]
) -> Iterator[Filters]:
    """Yield the filters of each server from which this one replicates now.

    A MariaDB shows its sources only with a right that reading does not need, but everybody may see
    the filters of the one that has no name.
    """
    version = server_version(connection)
    if version.flavour == "mariadb":
        if running_sources(connection):
            yield Filters.of_replica(variables)
        return
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(version.show_replica_status)
        channels = cursor.fetchall()
    for channel in channels:
        by_name = {name.lower(): value for name, value in channel.items()}
        if "Yes" in (by_name.get("replica_sql_running"), by_name.get("slave_sql_running")):
            yield Filters.of_replica(by_name)


def _names(value: str | None) -> tuple[str, ...]:
    """Return the names of a list as a server shows it: parted by commas, without quotes."""
    return tuple(filter(None, (value or "").split(",")))


def _is_like(name: str, pattern: str) -> bool:
    """Return whether SQL's LIKE holds, with the backslash as the escape character."""
    regex = ""
    for escaped, letter in re.findall(r"\\(.)|(.)", pattern, re.DOTALL):
        if letter == "%":
            regex += ".*"
        elif letter == "_":
            regex += "."
        else:
            regex += re.escape(escaped or letter)
    return re.fullmatch(regex, name, re.DOTALL) is not None
