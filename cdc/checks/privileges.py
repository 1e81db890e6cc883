"""Checks of what the account may do: all that reading needs, and nothing else."""

from collections.abc import Iterator

from pymysql.constants import ER

from cdc.checks.grants import REPLICATION, quoted, table_grants
from cdc.checks.server import Server
from openmrs.tables import OPTIONAL_TABLES, REFERENCE_TABLES, REQUIRED_TABLES
from passport.check import Check

MAY_STREAM = {"REPLICATION SLAVE", "REPLICATION REPLICA", "ALL PRIVILEGES"}
# How MariaDB shows REPLICATION CLIENT since 10.5, and what an older account got with it.
SHOWN_AS_REPLICATION_CLIENT = {"BINLOG MONITOR", "SLAVE MONITOR"}


def checks(server: Server) -> Iterator[Check]:
    privileges = _privileges(server)
    if server.hospital.capture == "binlog":
        yield _replication(server, privileges)
    yield _tables(server)
    for table in sorted(OPTIONAL_TABLES):
        yield _optional_table(server, table)
    yield _excess(server, privileges)


def _replication(server: Server, privileges: set[str]) -> Check:
    missing = []
    if not privileges & MAY_STREAM:
        missing.append("REPLICATION SLAVE")
    if server.error_number("SHOW BINARY LOGS") not in (0, ER.NO_BINARY_LOGGING):
        missing.append("REPLICATION CLIENT")
    if not missing:
        return Check("replication grants", True, "lacking: none")
    names = ", ".join(missing)
    return Check(
        "replication grants",
        False,
        f"lacking: {names}",
        f"GRANT {names} ON *.* TO {server.account};",
    )


def _tables(server: Server) -> Check:
    not_readable = []
    absent = []
    for table in REQUIRED_TABLES:
        reference = REFERENCE_TABLES.get(table)
        columns = "1"
        if reference is not None and reference.has_secrets:
            columns = ", ".join(reference.columns)
        sql = f"SELECT {columns} FROM {quoted(table)} LIMIT 0"  # noqa: S608  # names of constants
        number = server.error_number(sql)
        if number == ER.NO_SUCH_TABLE:
            absent.append(table)
        elif number:
            not_readable.append(table)

    if not_readable:
        statements = table_grants(server.hospital, server.account)
        return Check(
            "tables",
            False,
            f"not readable: {', '.join(not_readable)}",
            "\n".join(statements[table] for table in not_readable),
        )
    if absent:
        return Check(
            "tables",
            False,
            f"not there: {', '.join(absent)}",
            f"is {server.hospital.mysql.database} an OpenMRS 1.9 or newer?"
            f" check hospitals.{server.hospital_id}.mysql.database",
        )
    return Check("tables", True, f"all {len(REQUIRED_TABLES)} tables are readable")


def _optional_table(server: Server, table: str) -> Check:
    """Check a table of newer versions of OpenMRS only. An account can't tell absent from hidden."""
    number = server.error_number(f"SELECT 1 FROM {quoted(table)} LIMIT 0")  # noqa: S608  # a constant
    if not number:
        return Check(table, True, "readable")
    if number == ER.NO_SUCH_TABLE:
        return Check(table, True, "not in this version of OpenMRS, and left out")
    statement = table_grants(server.hospital, server.account)[table]
    return Check(
        table,
        None,
        "not readable, or not in this version of OpenMRS: left out",
        f"{statement}  -- fails where there is no such table; then start the reader again",
    )


def _excess(server: Server, privileges: set[str]) -> Check:
    """Warn of an account that can do more than reading needs, or that can read passwords."""
    needed = {"USAGE", "SELECT", "REFERENCES", *REPLICATION, *SHOWN_AS_REPLICATION_CLIENT}
    excess = sorted(privileges - needed)
    if server.error_number("SELECT password, salt, secret_answer FROM users LIMIT 0") == 0:
        excess.append("SELECT on users.password")
    if not excess:
        return Check("excess grants", True, "the account can do no more than it needs")
    return Check(
        "excess grants",
        None,
        f"more than is needed: {', '.join(excess)}",
        f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {server.account};"
        f"  -- then: passport grants --hospital {server.hospital_id}",
    )


def _privileges(server: Server) -> set[str]:
    """Return the names of the account's privileges, wherever they hold, without their columns.

    A server shows ``GRANT SELECT (`uuid`, `name`), INSERT ON ...``.
    """
    privileges = set()
    for (statement,) in server.rows("SHOW GRANTS"):
        names = statement.removeprefix("GRANT ").partition(" ON ")[0]
        # Only the commas outside parentheses part privileges; those inside part columns.
        depth = 0
        name = ""
        for letter in f"{names},":
            depth += (letter == "(") - (letter == ")")
            if letter == "," and not depth:
                privileges.add(name.strip().upper())
                name = ""
            elif not depth and letter != ")":
                name += letter
    # What is quoted is a role.
    return {name for name in privileges if "`" not in name}
