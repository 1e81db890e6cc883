"""Counts what a hospital has in tables that are not carried yet, so that nobody believes it is."""

from collections.abc import Iterator

import pymysql
from pymysql.constants import ER

from cdc.checks.grants import COUNTED, quoted
from cdc.checks.server import Server
from passport.check import Check


def checks(server: Server) -> Iterator[Check]:
    # orders is among the tables that are read, so that its grant is there anyway.
    for table, key in {**COUNTED, "orders": "order_id"}.items():
        yield _count(server, table, key)


def _count(server: Server, table: str, key: str) -> Check:
    name = f"not carried: {table}"
    try:
        (count,) = server.rows(f"SELECT COUNT({key}) FROM {quoted(table)}")[0]  # noqa: S608
    except pymysql.err.MySQLError as error:
        if error.args[0] == ER.NO_SUCH_TABLE:
            return Check(name, True, "not in this version of OpenMRS")
        place = f"{quoted(server.hospital.mysql.database)}.{quoted(table)}"
        return Check(
            name,
            None,
            "may have rows, which are not carried yet: not readable",
            f"GRANT SELECT ({key}) ON {place} TO {server.account};",
        )
    if count:
        return Check(name, None, f"{count} rows, not carried yet")
    return Check(name, True, "no rows")
