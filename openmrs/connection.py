"""Connects to one hospital's MySQL or MariaDB, read-only.

It also tells which server it is, and what the server's errors mean.
"""

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql

from openmrs import session_variables
from openmrs.bounded_connection import (
    ANSWER_MIB,
    ANSWER_ROWS,
    AnswerTooLargeError,
    BoundedConnection,
)
from openmrs.column_info import COLUMN_INFO_SQL, ColumnInfo
from openmrs.lenient_utf8 import LENIENT
from openmrs.server_version import Flavour, ServerVersion
from passport.errors import Fatal, NotReady, Origin, PassportError, without_text
from passport.settings import MySQL
from passport.version import Position

# Error numbers of the servers, by what is wrong.
LOGIN_REFUSED = {1044, 1045, 1698}
GRANT_MISSING = {1142, 1143, 1227, 1370}
NO_REPLICATION_GRANT = 1227
NO_BINLOG = 1381
NOT_THERE = {1046, 1049, 1146}  # no database selected, no such database, no such table
NOT_AN_OPENMRS = 1054  # no such column
TABLE_LOCKED = 1205  # for longer than lock_wait_timeout
# Of the client itself.
CONNECT_FAILED = 2003
TLS_FAILED = 2026

_THREAD_NUMBER = re.compile(r"#\d+")


def connect(hospital: str, settings: MySQL, **options: Any) -> "pymysql.Connection[Any]":
    """Open a read-only session in UTC with short timeouts, which inherits nothing that matters.

    `options` are PyMySQL's, and go before the settings. Raises NotReady if the server is away, and
    Fatal if it refuses; neither quotes the client's text.
    """
    timeouts = {
        "connect_timeout": max(1, settings.connect_timeout_s),
        "read_timeout": settings.read_timeout_s,
        **options,
    }
    tls = _tls_options(hospital, settings)
    try:
        connection = BoundedConnection(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            database=settings.database,
            charset="utf8mb4",
            collation=session_variables.COLLATION,
            autocommit=True,
            init_command=_assignments(session_variables.EVERYWHERE),
            **{**tls, **timeouts, "read_timeout": timeouts["connect_timeout"]},
        )
        connection.encoding = LENIENT
        # A frozen server still accepts connections. So until it has greeted us, an answer may take
        # no longer than a connection may; the timeout of queries begins only here.
        connection._read_timeout = timeouts["read_timeout"]  # type: ignore[attr-defined]  # noqa: SLF001
        fetch_all(connection, f"SET SESSION TRANSACTION {session_variables.TRANSACTION}")
        _set_where_known(connection)
    except (pymysql.err.MySQLError, OSError, RuntimeError) as error:
        raise translate_error(error, hospital, settings) from None
    return connection


def _assignments(variables: Mapping[str, str]) -> str:
    return "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in variables.items())


def _set_where_known(connection: "pymysql.Connection[Any]") -> None:
    """Set those session variables that not every server has."""
    names = [*session_variables.WHERE_KNOWN]
    known = fetch_all(connection, "SHOW SESSION VARIABLES WHERE Variable_name IN %s", [names])
    values = {name: session_variables.WHERE_KNOWN[name] for name, _ in known}
    if values:
        fetch_all(connection, _assignments(values))


def fetch_all(
    connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()
) -> Sequence[tuple[Any, ...]]:
    """Return all rows that a statement gives, none for a statement without rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, args or None)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    return rows


def fetch_one(
    connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """Return the first row that a statement gives, () if there is none."""
    rows = fetch_all(connection, sql, args)
    return rows[0] if rows else ()


def server_version(connection: "pymysql.Connection[Any]") -> ServerVersion:
    """Return the version of the server, from its greeting: nothing is asked."""
    greeting: str = connection.get_server_info()  # type: ignore[no-untyped-call]
    return ServerVersion.parse(greeting)


def global_variables(connection: "pymysql.Connection[Any]", names: Sequence[str]) -> dict[str, str]:
    """Return those of these global variables that the server has, by name in lower case."""
    rows = fetch_all(connection, "SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (names,))
    return {str(name).lower(): str(value) for name, value in rows}


def flavour(connection: "pymysql.Connection[Any]") -> Flavour:
    """Return which of the two kinds of server this is."""
    return server_version(connection).flavour


def identity(connection: "pymysql.Connection[Any]") -> str:
    """Return which server this is: MySQL's server_uuid, or ``mariadb-<server_id>``."""
    if flavour(connection) == "mysql":
        return str(fetch_one(connection, "SELECT @@server_uuid")[0])
    return f"mariadb-{fetch_one(connection, 'SELECT @@server_id')[0]}"


def clock_ms(connection: "pymysql.Connection[Any]") -> int:
    """Return the server's clock in Unix milliseconds."""
    return int(fetch_one(connection, "SELECT ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000)")[0])


def list_columns(
    connection: "pymysql.Connection[Any]", database: str, tables: Sequence[str]
) -> dict[str, list[ColumnInfo]]:
    """Return the columns of these tables by table, in the tables' own order.

    A table that isn't there has no entry. Columns that the account may not see are left out.
    """
    columns: dict[str, list[ColumnInfo]] = {}
    for row in fetch_all(connection, COLUMN_INFO_SQL, (database, tables)):
        table, column = ColumnInfo.read(row)
        columns.setdefault(table, []).append(column)
    return columns


def end_of_binlog(connection: "pymysql.Connection[Any]") -> Position | None:
    """Return where the server writes now, None if it has no binlog.

    The account needs BINLOG MONITOR (MariaDB) or REPLICATION CLIENT (MySQL).
    """
    row = fetch_one(connection, server_version(connection).show_binlog_end)
    return Position(row[0], int(row[1])) if row else None


def logged_gtids(connection: "pymysql.Connection[Any]") -> str:
    """Return the GTIDs of all that is in MySQL's binlog, visible or not yet; "" without GTIDs."""
    # From before it is in the binlog until it is visible, a transaction is among the owned GTIDs.
    # They are asked for first: a transaction that ends in between is then seen twice, not missed.
    owned, executed = fetch_one(connection, "SELECT @@global.gtid_owned, @@global.gtid_executed")
    gtids = [executed, _THREAD_NUMBER.sub("", owned)]
    everything = ",".join(gtid_set for gtid_set in gtids if gtid_set)
    (normal_form,) = fetch_one(connection, "SELECT GTID_SUBTRACT(%s, '')", (everything,))
    return str(normal_form).replace("\n", "")


def no_binlog(hospital: str) -> Fatal:
    """Return the error for a hospital whose server writes no binlog."""
    return Fatal(
        f"hospital {hospital}: its server writes no binlog (log_bin is OFF)",
        hint=f"set log_bin and binlog_format=ROW in the server's my.cnf and restart it, or set "
        f"hospitals.{hospital}.capture to polling",
        origin=Origin.hospital(hospital),
    )


def _tls_options(hospital: str, settings: MySQL) -> dict[str, Any]:
    tls = settings.tls
    if tls.mode == "disabled":
        return {"ssl_disabled": True}
    if tls.mode == "preferred":
        return {}
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.check_hostname = tls.mode == "verify_identity"
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:
        raise Fatal(
            f"hospital {hospital}: its TLS files can't be read ({without_text(error)})",
            hint=f"check hospitals.{hospital}.mysql.tls.ca, .cert and .key",
            origin=Origin.hospital(hospital),
        ) from None
    return {"ssl": context}


@contextmanager
def translate_errors(hospital_id: str, settings: MySQL) -> Iterator[None]:
    """Raise an error of the MySQL client as one that says what to do: NotReady or Fatal."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        raise translate_error(error, hospital_id, settings) from None


def translate_error(error: BaseException, hospital_id: str, settings: MySQL) -> PassportError:
    """Return an error of the MySQL client as one that says what to do about it.

    The client's own text is left out, because it may quote values.
    """
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    place = f"{settings.host}:{settings.port}"
    name = without_text(error)
    origin = Origin.hospital(hospital_id)
    check = f"passport check --hospital {hospital_id}"
    # PyMySQL raises its own error while it handles what the TLS handshake raised.
    handshake = error.__context__ if code == CONNECT_FAILED else error

    if isinstance(error, AnswerTooLargeError):
        return Fatal(
            f"hospital {hospital_id}: MySQL at {place} answers with more than {ANSWER_MIB} MiB or"
            f" {ANSWER_ROWS} rows, which no query asks for",
            hint=f"is that the hospital's server, and no other? {check}",
            origin=origin,
        )
    if code in LOGIN_REFUSED:
        return Fatal(
            f"hospital {hospital_id}: MySQL at {place} refuses user {settings.user!r} ({name})",
            hint=f"set hospitals.{hospital_id}.mysql.user and .password, then: {check}",
            origin=origin,
        )
    if code == NO_BINLOG:
        return no_binlog(hospital_id)
    if code in GRANT_MISSING:
        return Fatal(
            f"hospital {hospital_id}: user {settings.user!r} lacks a grant ({name})",
            hint=f"passport grants --hospital {hospital_id}"
            "   # the SQL that the hospital's DBA runs",
            origin=origin,
        )
    if code in NOT_THERE:
        # It may have been dropped to be restored: then it comes back by itself.
        return NotReady(
            f"hospital {hospital_id}: database {settings.database!r} at {place} is not there, or"
            f" lacks a table ({name})",
            hint="if it isn't being restored, check"
            f" hospitals.{hospital_id}.mysql.database, then: {check}",
            origin=origin,
        )
    if code == NOT_AN_OPENMRS:
        return Fatal(
            f"hospital {hospital_id}: database {settings.database!r} at {place}"
            f" is not an OpenMRS ({name})",
            hint=f"check hospitals.{hospital_id}.mysql.database, then: {check}",
            origin=origin,
        )
    if isinstance(handshake, ssl.SSLCertVerificationError):
        return Fatal(
            f"hospital {hospital_id}: the TLS certificate of {place} is not accepted"
            f" ({handshake.verify_message})",
            hint=f"renew it, or set hospitals.{hospital_id}.mysql.tls.ca to what signed it"
            f"   # openssl s_client -starttls mysql -connect {place}",
            origin=origin,
        )
    # A server that goes away within the handshake isn't a wrong setting.
    is_tls = isinstance(handshake, ssl.SSLError) and not isinstance(handshake, ssl.SSLEOFError)
    if code == TLS_FAILED or is_tls:
        return Fatal(
            f"hospital {hospital_id}: TLS to {place} failed ({name})",
            hint=f"check hospitals.{hospital_id}.mysql.tls, then: {check}",
            origin=origin,
        )
    if code == TABLE_LOCKED:
        return NotReady(
            f"hospital {hospital_id}: MySQL at {place} has a table locked for too long ({name})",
            hint="SHOW FULL PROCESSLIST at the server says who holds the lock; nothing to do here",
            origin=origin,
        )
    if isinstance(
        error, pymysql.err.ProgrammingError | pymysql.err.DataError | pymysql.err.NotSupportedError
    ):
        return Fatal(
            f"hospital {hospital_id}: MySQL at {place} doesn't understand a query ({name})",
            hint="is its version supported? report this with the server's version",
            origin=origin,
        )
    return NotReady(
        f"hospital {hospital_id}: MySQL at {place} doesn't answer ({name})",
        hint=f"is it running and reachable from here? {check}",
        origin=origin,
    )
