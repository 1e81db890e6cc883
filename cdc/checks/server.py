"""What must hold, and what had better hold, at a hospital's server. Each failed check says what to
run there.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pymysql
from pymysql.constants import ER

from cdc import resume, schema
from cdc.checks import grants, server_variables
from cdc.column_lists import read_columns
from cdc.lease import server_id
from cdc.positions import Saved
from cdc.retention import rds_hours
from openmrs import connection as mysql
from openmrs.tables import OBS, REFERENCE_TABLES, WATCHED
from passport.check import Check
from passport.errors import PassportError
from passport.settings import Hospital

SKEW_S = 2.0
# MariaDB shows both only with rights that reading does not need.
REPLICAS: dict[mysql.Flavour, str] = {"mariadb": "SHOW SLAVE HOSTS", "mysql": "SHOW REPLICAS"}
STATUS: dict[mysql.Flavour, str] = {"mariadb": "SHOW SLAVE STATUS", "mysql": "SHOW REPLICA STATUS"}

Rows = tuple[tuple[Any, ...], ...]


class ServerChecks:
    """The checks of one hospital's server and database, over one read-only session."""

    def __init__(
        self, hospital_id: str, hospital: Hospital, connection: "pymysql.Connection[Any]"
    ) -> None:
        self._id = hospital_id
        self._hospital = hospital
        self._connection = connection
        self._flavour = mysql.flavour(connection)
        self._variables = {
            name.lower(): value for name, value in self._rows("SHOW GLOBAL VARIABLES")
        }
        self._who = str(self._rows("SELECT CURRENT_USER()")[0][0])

    def all(self, saved: Saved | None) -> Iterator[Check]:
        """Yield all checks. `saved` is the position to go on from, None before the first start."""
        yield from server_variables.checks(self._variables, rds_hours(self._rows))
        yield self._server_id()
        yield self._chain()
        yield self._zone()
        yield from self._rights()
        yield self._clock()
        yield self._obs()
        yield self._identifier_type()
        if saved is not None:
            yield self._position(saved)
        yield from self._not_carried()

    # --- the server among others

    def _server_id(self) -> Check:
        theirs = int(self._variables.get("server_id") or 0)
        ours = self._hospital.server_id or server_id(self._id)
        if not theirs:
            return Check(
                "server_id", False, "the server has none", "in my.cnf: server_id=1; restart"
            )
        taken = {int(row[0]) for row in self._rows_or_none(REPLICAS[self._flavour])}
        if ours not in (theirs, *taken):
            return Check("server_id", True, f"the server's is {theirs}, the reader's {ours}")
        whose = "the server's own" if ours == theirs else "a replica's too"
        remedy = f"set hospitals.{self._id}.server_id to another number"
        return Check("server_id", False, f"the reader's is {ours}, which is {whose}", remedy)

    def _chain(self) -> Check:
        """Check that a replica writes what it replicates into its own binlog, too."""
        logged = any(
            server_variables.is_on(self._variables, name)
            for name in ("log_replica_updates", "log_slave_updates")
        )
        replica = bool(self._rows_or_none(STATUS[self._flavour]))
        if logged or not (replica or self._variables.get("gtid_slave_pos")):
            return Check("log_slave_updates", True, "on" if logged else "the server is no replica")
        detail = f"the server is {'' if replica else 'or was '}a replica and doesn't log what it replicates"
        remedy = "in my.cnf: log_slave_updates=ON; then restart the server"
        return Check("log_slave_updates", False if replica else None, detail, remedy)

    def _zone(self) -> Check:
        """Compare the hospital's time zone with the server's clock.

        OpenMRS mostly writes DATETIMEs in its server's zone, which can't be seen in the database.
        """
        (now,) = self._rows("SELECT UNIX_TIMESTAMP()")[0]
        self._rows("SET time_zone = @@global.time_zone")
        (theirs,) = self._rows("SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), NOW())")[0]
        self._rows("SET time_zone = '+00:00'")
        offset = (
            datetime.fromtimestamp(now, ZoneInfo(self._hospital.timezone)).utcoffset()
            or timedelta()
        )
        name, server = self._hospital.timezone, f"the server's clock is UTC{theirs / 60:+g} h"
        if offset == timedelta(minutes=theirs):
            return Check("time_zone", True, f"{server}, as in {name}")
        remedy = f"if OpenMRS writes that time, set hospitals.{self._id}.timezone to its zone; else leave it"
        return Check(
            "time_zone", None, f"{server}, not as in {name}: observations may be hours off", remedy
        )

    def _position(self, saved: Saved) -> Check:
        why = resume.unusable(saved, self._connection)
        place = f"{saved.position.file}:{saved.position.pos}"
        if not why:
            return Check("position", True, f"the saved position {place} is on the server")
        remedy = f"passport cdc run --hospital {self._id}   # begins a new epoch with a snapshot by itself"
        return Check("position", None, f"the saved position {place} is of no use: {why}", remedy)

    # --- rights

    def _rights(self) -> Iterator[Check]:
        yield self._replication()
        yield self._tables()
        yield self._excess()

    def _replication(self) -> Check:
        lacking = []
        if not self._granted({"REPLICATION SLAVE", "REPLICATION REPLICA", "ALL PRIVILEGES"}):
            lacking.append("REPLICATION SLAVE")
        if self._error("SHOW BINARY LOGS") not in (0, ER.NO_BINARY_LOGGING):
            lacking.append("BINLOG MONITOR" if self._flavour == "mariadb" else "REPLICATION CLIENT")
        remedy = f"GRANT {', '.join(lacking)} ON *.* TO {self._account()};" if lacking else ""
        return Check(
            "replication grants", not lacking, f"lacking: {', '.join(lacking) or 'none'}", remedy
        )

    def _tables(self) -> Check:
        statements = grants.table_grants(self._hospital, self._account())
        lacking, absent = [], []
        for table in WATCHED:
            reference = REFERENCE_TABLES.get(table)
            columns = ", ".join(reference.columns) if reference and reference.has_secrets else "1"
            code = self._error(f"SELECT {columns} FROM {grants.quoted(table)} LIMIT 0")  # noqa: S608  # constants
            if code == ER.NO_SUCH_TABLE:
                absent.append(table)
            elif code:
                lacking.append(table)
        if lacking:
            return Check(
                "tables",
                False,
                f"not readable: {', '.join(lacking)}",
                "\n".join(statements[t] for t in lacking),
            )
        if absent:
            remedy = (
                f"is {self._hospital.mysql.database} an OpenMRS 1.9 or newer? "
                f"check hospitals.{self._id}.mysql.database"
            )
            return Check("tables", False, f"not there: {', '.join(absent)}", remedy)
        return Check("tables", True, f"all {len(WATCHED)} tables are readable")

    def _excess(self) -> Check:
        needed = {"USAGE", "SELECT", "REFERENCES", *grants.REPLICATION[self._flavour].split(", ")}
        needed |= {
            "REPLICATION CLIENT",
            "SLAVE MONITOR",
        }  # another name of BINLOG MONITOR, and what comes with it
        extra = sorted(right for right in self._privileges() if right not in needed)
        sees_secrets = self._error("SELECT password, salt, secret_answer FROM users LIMIT 0") == 0
        if not extra and not sees_secrets:
            return Check("excess grants", True, "the account can do no more than it needs")
        found = [*extra, *(["SELECT on users.password"] if sees_secrets else [])]
        remedy = (
            f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {self._account()};"
            f"  -- then: passport grants --hospital {self._id}"
        )
        return Check("excess grants", None, f"more than is needed: {', '.join(found)}", remedy)

    def _privileges(self) -> set[str]:
        """Return the names of the privileges, wherever they hold, without their columns."""
        found: set[str] = set()
        for (statement,) in self._rows("SHOW GRANTS"):
            names = statement.removeprefix("GRANT ").partition(" ON ")[0]
            depth, word = 0, ""
            for letter in f"{names},":
                depth += (letter == "(") - (letter == ")")
                if letter == "," and not depth:
                    found.add(word.strip().upper())
                    word = ""
                elif not depth and letter != ")":
                    word += letter
        return {name for name in found if "`" not in name}  # roles

    def _granted(self, names: set[str]) -> bool:
        return bool(self._privileges() & names)

    def _account(self) -> str:
        user, _, host = self._who.rpartition("@")
        return f"'{user}'@'{host}'"

    # --- what is in it

    def _clock(self) -> Check:
        skew = float(self._rows("SELECT UNIX_TIMESTAMP(NOW(3))")[0][0]) - time.time()
        if abs(skew) < SKEW_S:
            return Check("clock", True, f"the server's clock is {skew:+.1f} s off ours")
        return Check(
            "clock",
            None,
            f"the server's clock is {skew:+.1f} s off ours",
            "run NTP (chrony) on both machines",
        )

    def _obs(self) -> Check:
        lists = read_columns(self._connection, self._hospital.mysql.database)
        names = {column.name for column in lists.get("obs", [])}
        lacking = [name for name in OBS.columns if name not in names and name not in OBS.optional]
        strange = schema.undecodable_columns(lists)
        key = [
            row[4] for row in self._rows_or_none("SHOW KEYS FROM obs WHERE Key_name = 'PRIMARY'")
        ]
        if lacking or strange or key != ["obs_id"]:
            detail = f"columns lacking: {lacking}, not decodable: {strange}, primary key: {key}"
            return Check(
                "obs",
                False,
                detail,
                f"give them OpenMRS's types again, or check hospitals.{self._id}.mysql.database: is it an OpenMRS?",
            )
        return Check("obs", True, f"{len(names)} columns, primary key obs_id")

    def _identifier_type(self) -> Check:
        wanted = self._hospital.national_id_type
        types = self._rows_or_none(
            "SELECT uuid, name FROM patient_identifier_type WHERE retired = 0 ORDER BY name"
        )
        found: dict[str, str] = dict(types)
        if wanted in found:
            return Check("national_id_type", True, f"{wanted} is {found[wanted]!r}")
        choice = "\n".join(f"{uuid}  # {name}" for uuid, name in found.items())
        return Check(
            "national_id_type",
            False,
            f"no live identifier type has the uuid {wanted}; there are: "
            + "; ".join(f"{name} = {uuid}" for uuid, name in found.items()),
            f"set hospitals.{self._id}.national_id_type to one of:\n{choice}",
        )

    def _not_carried(self) -> Iterator[Check]:
        for table, key in {**grants.COUNTED, "orders": "order_id"}.items():
            try:
                count = int(self._rows(f"SELECT COUNT({key}) FROM {grants.quoted(table)}")[0][0])  # noqa: S608
            except pymysql.err.MySQLError as error:
                yield self._uncounted(table, key, int(error.args[0]))
                continue
            detail = f"{count} rows, not carried yet" if count else "no rows"
            yield Check(f"not carried: {table}", None if count else True, detail)

    def _uncounted(self, table: str, key: str, code: int) -> Check:
        if code == ER.NO_SUCH_TABLE:
            return Check(f"not carried: {table}", True, "not in this version of OpenMRS")
        place = f"{grants.quoted(self._hospital.mysql.database)}.{grants.quoted(table)}"
        remedy = f"GRANT SELECT ({key}) ON {place} TO {self._account()};"
        return Check(
            f"not carried: {table}",
            None,
            "may have rows, which are not carried yet: not readable",
            remedy,
        )

    # --- asking

    def _rows(self, sql: str) -> Rows:
        return tuple(mysql.fetch_all(self._connection, sql))

    def _rows_or_none(self, sql: str) -> Rows:
        """Return no rows if the table is not there or not readable: another check says so."""
        return () if self._error(sql) else self._rows(sql)

    def _error(self, sql: str) -> int:
        """Return the server's error number for a statement, 0 if it runs."""
        try:
            self._rows(sql)
        except (
            pymysql.err.OperationalError,
            pymysql.err.ProgrammingError,
            pymysql.err.InternalError,
        ) as error:
            code = int(error.args[0])
            if code in (2006, 2013):
                raise
            return code
        return 0


def connected(hospital_id: str, hospital: Hospital, saved: Saved | None) -> Iterator[Check]:
    """Yield the check of the connection, and the checks of what can be seen over it."""
    try:
        connection = mysql.connect(hospital_id, hospital.mysql)
    except PassportError as error:
        yield Check("connection", False, error.reason, error.hint)
        return
    version = connection.get_server_info()  # type: ignore[no-untyped-call]
    yield Check("connection", True, f"{version} at {hospital.mysql.host}:{hospital.mysql.port}")
    yield _tls(hospital_id, hospital)
    with connection:
        try:
            yield from ServerChecks(hospital_id, hospital, connection).all(saved)
        except pymysql.err.MySQLError as error:
            failed = mysql.translate_error(error, hospital_id, hospital.mysql)
            yield Check(
                "connection", False, str(failed).splitlines()[0], getattr(failed, "hint", "")
            )


def _tls(hospital_id: str, hospital: Hospital) -> Check:
    mode, host = hospital.mysql.tls.mode, hospital.mysql.host
    if mode == "verify_identity" or host in ("localhost", "127.0.0.1", "::1"):
        return Check("tls", True, f"{mode} to {host}")
    remedy = f"set hospitals.{hospital_id}.mysql.tls: {{mode: verify_identity, ca: <the server's CA file>}}"
    return Check("tls", None, f"{mode} to {host}: nobody checks which server that is", remedy)
