"""One hospital's MySQL or MariaDB, read-only: how it is connected to, which server it is, and what
its errors mean.
"""

import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import pymysql

from openmrs import values
from openmrs.lenient_utf8 import LENIENT
from openmrs.tables import OBS_COLUMNS
from passport.errors import Fatal, NotReady, without_text
from passport.settings import MySQL
from passport.version import Position

Flavour = Literal["mariadb", "mysql"]
DENIED = {1044, 1045, 1698}
NO_GRANT = 1227
NO_BINLOG = 1381
CR_SSL = 2026
_THREAD = re.compile(r"#\d+")


def connect(hospital: str, settings: MySQL, **options: Any) -> "pymysql.Connection[Any]":
    """A read-only session in UTC with short timeouts. NotReady (server away) or Fatal (refused),
    without quoting.
    """
    timeouts = {
        "connect_timeout": max(1, settings.connect_timeout_s),
        "read_timeout": settings.read_timeout_s,
        **options,
    }
    try:
        connection = pymysql.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            database=settings.database,
            charset="utf8mb4",
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
            **{**_tls(hospital, settings), **timeouts, "read_timeout": timeouts["connect_timeout"]},
        )
        connection.encoding = LENIENT
        # A frozen server still accepts: until it has greeted us, it gets no longer than a
        # connection may take.
        connection._read_timeout = timeouts["read_timeout"]  # type: ignore[attr-defined]  # noqa: SLF001
        fetch_all(connection, "SET SESSION TRANSACTION READ ONLY")
    except (pymysql.err.MySQLError, OSError, RuntimeError) as error:
        raise translate_error(error, hospital, settings) from None
    return connection


def identity(connection: "pymysql.Connection[Any]") -> str:
    """Which server this is: MySQL's server_uuid; ``mariadb-<server_id>``."""
    if flavour(connection) == "mysql":
        return str(fetch_one(connection, "SELECT @@server_uuid")[0])
    return f"mariadb-{fetch_one(connection, 'SELECT @@server_id')[0]}"


def flavour(connection: "pymysql.Connection[Any]") -> Flavour:
    version: str = connection.get_server_info()  # type: ignore[no-untyped-call]
    return "mariadb" if "mariadb" in version.lower() else "mysql"


def greeted(hospital: str, settings: MySQL) -> Flavour:
    """What the server says that it is, before it knows us: no account is needed. NotReady."""
    connection = pymysql.connect(
        host=settings.host,
        port=settings.port,
        user="",
        defer_connect=True,
        read_timeout=settings.connect_timeout_s,
    )
    with suppress(pymysql.err.MySQLError, OSError):
        connection.connect()
        connection.close()
    if not hasattr(connection, "server_version"):
        raise NotReady(
            f"hospital {hospital}: MySQL at {settings.host}:{settings.port} doesn't answer",
            hint=f"passport grants --hospital {hospital} --flavour mariadb   # or mysql",
        )
    return flavour(connection)


def end_of_binlog(connection: "pymysql.Connection[Any]") -> Position | None:
    """Where the server writes now; None without a binlog. Needs BINLOG MONITOR or REPLICATION
    CLIENT.
    """
    statement = (
        "SHOW MASTER STATUS" if flavour(connection) == "mariadb" else "SHOW BINARY LOG STATUS"
    )
    row = fetch_one(connection, statement)
    return Position(row[0], int(row[1])) if row else None


def no_binlog(hospital: str) -> Fatal:
    return Fatal(
        f"hospital {hospital}: its server writes no binlog (log_bin is OFF)",
        hint=f"set log_bin and binlog_format=ROW in the server's my.cnf and restart it, or set "
        f"hospitals.{hospital}.capture to polling",
    )


def obs_columns(connection: "pymysql.Connection[Any]", database: str) -> list[values.ColumnInfo]:
    """ColumnInfo of the allow-listed columns of obs, in OBS_COLUMNS order."""
    rows = fetch_all(connection, values.COLUMN_INFO_SQL, (database, ["obs"]))
    found = {info.name: info for _, info in map(values.ColumnInfo.read, rows)}
    return [found[name] for name in OBS_COLUMNS if name in found]


def logged_gtids(connection: "pymysql.Connection[Any]") -> str:
    """MySQL: GTIDs of all that is in the binlog, visible or not yet; "" without GTIDs."""
    # A transaction owns its GTID from before it is in the binlog until it is visible. Owned first:
    # none may slip by.
    owned, executed = fetch_one(connection, "SELECT @@global.gtid_owned, @@global.gtid_executed")
    everything = ",".join(filter(None, (executed, _THREAD.sub("", owned))))
    return str(fetch_one(connection, "SELECT GTID_SUBTRACT(%s, '')", (everything,))[0]).replace(
        "\n", ""
    )


def end_of_binlog_if_granted(connection: "pymysql.Connection[Any]") -> Position | None:
    """Who polls, or has lost the grant, has SELECT alone: without REPLICATION CLIENT there is no
    position.
    """
    try:
        return end_of_binlog(connection)
    except pymysql.err.OperationalError as error:
        if error.args[0] != NO_GRANT:
            raise
        return None


def fetch_all(
    connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()
) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, args or None)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        return rows


def fetch_one(
    connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()
) -> tuple[Any, ...]:
    return next(iter(fetch_all(connection, sql, args)), ())


def _tls(hospital: str, settings: MySQL) -> dict[str, Any]:
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
        ) from None
    return {"ssl": context}


def translate_error(error: BaseException, hospital: str, settings: MySQL) -> Exception:
    """A client's error by its remedy, without its text."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    where = f"{settings.host}:{settings.port}"
    tls = getattr(error, "original_exception", error)  # the client wraps what the handshake raised
    if code in DENIED:
        return Fatal(
            f"hospital {hospital}: MySQL at {where} refuses user {settings.user!r} ({without_text(error)})",
            hint=f"set hospitals.{hospital}.mysql.user and .password, then: passport check --hospital {hospital}",
        )
    if code == NO_BINLOG:
        return no_binlog(hospital)
    if code in {1142, 1143, 1227, 1370}:
        return Fatal(
            f"hospital {hospital}: user {settings.user!r} lacks a grant ({without_text(error)})",
            hint=f"passport grants --hospital {hospital}   # the SQL that the hospital's DBA runs",
        )
    if code in {1049, 1146, 1054}:
        return Fatal(
            f"hospital {hospital}: database {settings.database!r} at {where} is not an OpenMRS ({without_text(error)})",
            hint=f"check hospitals.{hospital}.mysql.database, then: passport check --hospital {hospital}",
        )
    if isinstance(tls, ssl.SSLCertVerificationError):
        return Fatal(
            f"hospital {hospital}: the TLS certificate of {where} is not accepted ({tls.verify_message})",
            hint=f"renew it, or set hospitals.{hospital}.mysql.tls.ca to what signed it"
            f"   # openssl s_client -starttls mysql -connect {where}",
        )
    if code == CR_SSL or (isinstance(tls, ssl.SSLError) and not isinstance(tls, ssl.SSLEOFError)):
        return Fatal(
            f"hospital {hospital}: TLS to {where} failed ({without_text(error)})",
            hint=f"check hospitals.{hospital}.mysql.tls, then: passport check --hospital {hospital}",
        )
    if isinstance(
        error, pymysql.err.ProgrammingError | pymysql.err.DataError | pymysql.err.NotSupportedError
    ):
        return Fatal(
            f"hospital {hospital}: MySQL at {where} doesn't understand a query ({without_text(error)})",
            hint="is its version supported? report this with the server's version",
        )
    return NotReady(
        f"hospital {hospital}: MySQL at {where} doesn't answer ({without_text(error)})",
        hint=f"is it running and reachable from here? passport check --hospital {hospital}",
    )
