"""One hospital's MySQL or MariaDB, read-only: connection, identity, and reads at a known binlog position.

A server shows a binlog position, and sends the event, *before* the commit becomes visible to readers. `Source.read`
closes that gap: it opens a consistent snapshot of which everything up to `Reading.position` is surely part.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

import pymysql
from pymysql.cursors import DictCursor

from passport import values
from passport.errors import Altered, Fatal, NotReady, Retry, reduced
from passport.event import EventSource, Row
from passport.settings import MySQL
from passport.tables import OBS_COLUMNS
from passport.utf8 import LENIENT
from passport.version import Position

Flavour = Literal["mariadb", "mysql"]
SETTLE_S = 1.0  # MySQL without GTIDs says nothing of visibility: wait, and the guarantees page says so
DENIED = {1044, 1045, 1698}
NO_GRANT = 1227
NO_BINLOG = 1381
CR_SSL = 2026
_THREAD = re.compile(r"#\d+")


class Waypoint(NamedTuple):
    """A place in the binlog that a reading must contain; `gtid` "" if the server writes none.

    A polled event has no `file` (""): any later snapshot of the same server contains it, and needs SELECT only.
    """

    position: Position
    gtid: str
    server: str

    @classmethod
    def of(cls, source: EventSource) -> "Waypoint":
        return cls(Position(source.file, source.pos), source.gtid, source.server)


ANY_SNAPSHOT = Waypoint(Position("", 0), "", "")  # whatever is committed now; `Reading.position` is None


class Reading:
    """An open consistent read. `position`: all up to it is visible; None when the server has no binlog, or when the
    waypoint asked for is a polled one (the version is then the event's own) or of another server (its positions can't
    be compared).
    """

    def __init__(
        self,
        connection: "pymysql.Connection[Any]",
        position: Position | None,
        columns: Sequence[values.ColumnInfo],
    ) -> None:
        self._connection = connection
        self._columns = columns
        self.position = position

    def rows(self, sql: str, args: Sequence[Any] | dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a SELECT as dicts, in PyMySQL's own types."""
        with self._connection.cursor(DictCursor) as cursor:
            cursor.execute(sql, args or None)
            return list(cursor.fetchall())

    def obs(self, where: str, args: Sequence[Any] = ()) -> list[Row]:
        """Rows of obs with the allow-listed columns, value for value as the binlog gives them."""
        sql = f"SELECT {values.select_list(self._columns)} FROM obs WHERE {where}"  # noqa: S608  # columns only
        decoders, self._connection.decoders = self._connection.decoders, {}
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return [self._row(raw) for raw in cursor.fetchall()]
        except pymysql.err.MySQLError as error:
            if error.args[0] not in {1054, 1146, 1412}:  # no such column or table, or not as the snapshot has it
                raise
            raise Altered("obs was altered, or is being swapped: its columns are read again") from None
        finally:
            self._connection.decoders = decoders

    def _row(self, raw: tuple[Any, ...]) -> Row:
        return {column.name: values.canonical(column, value) for column, value in zip(self._columns, raw, strict=True)}


class Source:
    """Not thread-safe: one thread, one Source. Connects when first asked, again after a failure."""

    def __init__(
        self, hospital: str, settings: MySQL, connect: "Callable[..., pymysql.Connection[Any]] | None" = None
    ) -> None:
        self.hospital = hospital
        self.settings = settings
        self._connect = connect
        self._connection: pymysql.Connection[Any] | None = None
        self._obs: list[values.ColumnInfo] = []

    @contextmanager
    def read(self, at_least: Waypoint | None = None, *, patience_s: float = 10) -> Iterator[Reading]:
        """A consistent read that contains `at_least`. Retry when it can't be had within `patience_s` seconds."""
        connection = self.connection()
        try:
            position = _settle(connection, at_least, patience_s, self.hospital)
            yield Reading(connection, position, self._obs)
        except (pymysql.err.MySQLError, Altered) as error:
            self.close()  # with its list of columns, too
            raise error if isinstance(error, Altered) else classified(error, self.hospital, self.settings) from None
        finally:
            self._rollback()

    def connection(self) -> "pymysql.Connection[Any]":
        """The open connection, made anew if there is none. NotReady, Fatal."""
        if self._connection is None:
            connection = (self._connect or connect)(self.hospital, self.settings)
            try:
                self._obs = obs_columns(connection, self.settings.database)
            except pymysql.err.MySQLError as error:
                connection.close()
                raise classified(error, self.hospital, self.settings) from None
            if not self._obs:
                connection.close()
                raise NotReady(
                    f"hospital {self.hospital}: {self.settings.database}.obs is not there, or not readable",
                    hint=f"passport check --hospital {self.hospital}",
                )
            if strange := [f"{one.name} ({one.data_type})" for one in self._obs if not values.supported(one.data_type)]:
                connection.close()
                raise Fatal(
                    f"hospital {self.hospital}: columns of obs have a type that is not read: {', '.join(strange)}",
                    hint=f"passport check --hospital {self.hospital}",
                )
            self._connection = connection
        return self._connection

    def columns(self) -> list[values.ColumnInfo]:
        """The allow-listed columns that obs has, in OBS_COLUMNS order."""
        self.connection()
        return self._obs

    def close(self) -> None:
        """Also forgets the column list: a reconnect reads it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _rollback(self) -> None:
        try:
            if self._connection is not None:
                self._connection.rollback()
        except pymysql.err.MySQLError:
            self.close()


def connect(hospital: str, settings: MySQL, **options: Any) -> "pymysql.Connection[Any]":
    """A read-only session in UTC with short timeouts. NotReady (server away) or Fatal (refused), without quoting."""
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
        # A frozen server still accepts: until it has greeted us, it gets no longer than a connection may take.
        connection._read_timeout = timeouts["read_timeout"]  # type: ignore[attr-defined]  # noqa: SLF001
        _all(connection, "SET SESSION TRANSACTION READ ONLY")
    except (pymysql.err.MySQLError, OSError, RuntimeError) as error:
        raise classified(error, hospital, settings) from None
    return connection


def identity(connection: "pymysql.Connection[Any]") -> str:
    """Which server this is: MySQL's server_uuid; ``mariadb-<server_id>``."""
    if flavour(connection) == "mysql":
        return str(_one(connection, "SELECT @@server_uuid")[0])
    return f"mariadb-{_one(connection, 'SELECT @@server_id')[0]}"


def flavour(connection: "pymysql.Connection[Any]") -> Flavour:
    version: str = connection.get_server_info()  # type: ignore[no-untyped-call]
    return "mariadb" if "mariadb" in version.lower() else "mysql"


def greeted(hospital: str, settings: MySQL) -> Flavour:
    """What the server says that it is, before it knows us: no account is needed. NotReady."""
    connection = pymysql.connect(
        host=settings.host, port=settings.port, user="", defer_connect=True, read_timeout=settings.connect_timeout_s
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
    """Where the server writes now; None without a binlog. Needs BINLOG MONITOR or REPLICATION CLIENT."""
    statement = "SHOW MASTER STATUS" if flavour(connection) == "mariadb" else "SHOW BINARY LOG STATUS"
    row = _one(connection, statement)
    return Position(row[0], int(row[1])) if row else None


def no_binlog(hospital: str) -> Fatal:
    return Fatal(
        f"hospital {hospital}: its server writes no binlog (log_bin is OFF)",
        hint=f"set log_bin and binlog_format=ROW in the server's my.cnf and restart it, or set "
        f"hospitals.{hospital}.capture to polling",
    )


def obs_columns(connection: "pymysql.Connection[Any]", database: str) -> list[values.ColumnInfo]:
    """ColumnInfo of the allow-listed columns of obs, in OBS_COLUMNS order."""
    rows = _all(connection, values.COLUMN_INFO_SQL, (database, ["obs"]))
    found = {info.name: info for _, info in map(values.ColumnInfo.read, rows)}
    return [found[name] for name in OBS_COLUMNS if name in found]


def _settle(
    connection: "pymysql.Connection[Any]", at_least: Waypoint | None, patience_s: float, hospital: str
) -> Position | None:
    if at_least is not None and (not at_least.position.file or at_least.server != identity(connection)):
        _snapshot(connection)
        return None
    if flavour(connection) == "mariadb":
        return _settle_mariadb(connection, at_least, patience_s, hospital)
    return _settle_mysql(connection, at_least, patience_s, hospital)


def _settle_mariadb(
    connection: "pymysql.Connection[Any]", at_least: Waypoint | None, patience_s: float, hospital: str
) -> Position | None:
    """The snapshot's position is exact here: take snapshots until one is late enough."""
    deadline, pause = time.monotonic() + patience_s, 0.001
    while True:
        _snapshot(connection)
        found = dict(_all(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'"))
        file, pos = found.get("Binlog_snapshot_file"), int(found.get("Binlog_snapshot_position") or 0)
        if not file:
            return None
        position = Position(file, pos)
        if at_least is None or position.order >= at_least.position.order:
            return position
        connection.rollback()
        end = _end_if_granted(connection)
        if end is None or end.order < at_least.position.order:  # numbered anew since: nothing to compare with
            _snapshot(connection)
            return None
        if time.monotonic() > deadline:
            raise Retry(f"hospital {hospital}: a commit is in the binlog but not visible yet", after=1)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _settle_mysql(
    connection: "pymysql.Connection[Any]", at_least: Waypoint | None, patience_s: float, hospital: str
) -> Position | None:
    """The position asked for is a lower bound once its GTID is executed; without one, wait for all of the binlog."""
    position = _end_if_granted(connection)
    if position is None or (at_least is not None and position.order < at_least.position.order):
        _snapshot(connection)
        return None
    mode, ordered = _one(connection, "SELECT @@gtid_mode, @@binlog_order_commits")
    if mode != "ON":
        time.sleep(SETTLE_S)
        _snapshot(connection)
        return position
    everything = logged_gtids(connection)
    if at_least is not None and at_least.gtid:
        if not _one(connection, "SELECT GTID_SUBSET(%s, %s)", (at_least.gtid, everything))[0]:
            position = None  # numbered anew since: nothing to compare with
        elif ordered:
            everything, position = at_least.gtid, at_least.position
    _wait_executed(connection, everything, patience_s, hospital)
    _snapshot(connection)
    return position


def logged_gtids(connection: "pymysql.Connection[Any]") -> str:
    """MySQL: GTIDs of all that is in the binlog, visible or not yet; "" without GTIDs."""
    # A transaction owns its GTID from before it is in the binlog until it is visible. Owned first: none may slip by.
    owned, executed = _one(connection, "SELECT @@global.gtid_owned, @@global.gtid_executed")
    everything = ",".join(filter(None, (executed, _THREAD.sub("", owned))))
    return str(_one(connection, "SELECT GTID_SUBTRACT(%s, '')", (everything,))[0]).replace("\n", "")


def _end_if_granted(connection: "pymysql.Connection[Any]") -> Position | None:
    """Who polls, or has lost the grant, has SELECT alone: without REPLICATION CLIENT there is no position."""
    try:
        return end_of_binlog(connection)
    except pymysql.err.OperationalError as error:
        if error.args[0] != NO_GRANT:
            raise
        return None


def _wait_executed(connection: "pymysql.Connection[Any]", gtids: str, patience_s: float, hospital: str) -> None:
    (timed_out,) = _one(connection, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtids, patience_s))
    if timed_out:
        raise Retry(f"hospital {hospital}: a commit is in the binlog but not visible yet", after=1)


def _snapshot(connection: "pymysql.Connection[Any]") -> None:
    _all(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    _all(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")


def _all(connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, args or None)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _one(connection: "pymysql.Connection[Any]", sql: str, args: Sequence[Any] = ()) -> tuple[Any, ...]:
    return next(iter(_all(connection, sql, args)), ())


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
            f"hospital {hospital}: its TLS files can't be read ({reduced(error)})",
            hint=f"check hospitals.{hospital}.mysql.tls.ca, .cert and .key",
        ) from None
    return {"ssl": context}


def classified(error: BaseException, hospital: str, settings: MySQL) -> Exception:
    """A client's error by its remedy, without its text."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    where = f"{settings.host}:{settings.port}"
    tls = getattr(error, "original_exception", error)  # the client wraps what the handshake raised
    if code in DENIED:
        return Fatal(
            f"hospital {hospital}: MySQL at {where} refuses user {settings.user!r} ({reduced(error)})",
            hint=f"set hospitals.{hospital}.mysql.user and .password, then: passport check --hospital {hospital}",
        )
    if code == NO_BINLOG:
        return no_binlog(hospital)
    if code in {1142, 1143, 1227, 1370}:
        return Fatal(
            f"hospital {hospital}: user {settings.user!r} lacks a grant ({reduced(error)})",
            hint=f"passport grants --hospital {hospital}   # the SQL that the hospital's DBA runs",
        )
    if code in {1049, 1146, 1054}:
        return Fatal(
            f"hospital {hospital}: database {settings.database!r} at {where} is not an OpenMRS ({reduced(error)})",
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
            f"hospital {hospital}: TLS to {where} failed ({reduced(error)})",
            hint=f"check hospitals.{hospital}.mysql.tls, then: passport check --hospital {hospital}",
        )
    if isinstance(error, pymysql.err.ProgrammingError | pymysql.err.DataError | pymysql.err.NotSupportedError):
        return Fatal(
            f"hospital {hospital}: MySQL at {where} doesn't understand a query ({reduced(error)})",
            hint="is its version supported? report this with the server's version",
        )
    return NotReady(
        f"hospital {hospital}: MySQL at {where} doesn't answer ({reduced(error)})",
        hint=f"is it running and reachable from here? passport check --hospital {hospital}",
    )
