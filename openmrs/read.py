"""Consistent reads of one hospital's database, at a binlog position that is known to be part of
them.

A server shows a binlog position, and sends the event, *before* the commit becomes visible to
readers. `Source.read_at` closes that gap: it opens a consistent snapshot of which everything up to
`ConsistentRead.position` is surely part.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pymysql
from pymysql.cursors import DictCursor

from openmrs import values
from openmrs.connection import (
    connect,
    end_of_binlog_if_granted,
    fetch_all,
    fetch_one,
    flavour,
    identity,
    logged_gtids,
    obs_columns,
    translate_error,
)
from passport.errors import Altered, Fatal, NotReady, Retry
from passport.event import EventSource, Row
from passport.settings import MySQL
from passport.version import Position

SETTLE_S = (
    1.0  # MySQL without GTIDs says nothing of visibility: wait, and the guarantees page says so
)


class SourcePosition(NamedTuple):
    """A place in the binlog that a reading must contain; `gtid` "" if the server writes none.

    A polled event has no `file` (""): any later snapshot of the same server contains it, and needs
    SELECT only.
    """

    position: Position
    gtid: str
    server: str

    @classmethod
    def of(cls, source: EventSource) -> "SourcePosition":
        return cls(Position(source.file, source.pos), source.gtid, source.server)


ANY_POSITION = SourcePosition(
    Position("", 0), "", ""
)  # whatever is committed now; `ConsistentRead.position` is None


class ConsistentRead:
    """An open consistent read. `position`: all up to it is visible; None when the server has no
    binlog, or when the waypoint asked for is a polled one (the version is then the event's own) or
    of another server (its positions can't be compared).
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

    def rows(
        self, sql: str, args: Sequence[Any] | dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT as dicts, in PyMySQL's own types."""
        with self._connection.cursor(DictCursor) as cursor:
            cursor.execute(sql, args or None)
            return list(cursor.fetchall())

    def clock_ms(self) -> int:
        """Return the hospital's clock in Unix milliseconds."""
        return int(self.rows("SELECT ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000) AS now")[0]["now"])

    def obs(self, where: str, args: Sequence[Any] = ()) -> list[Row]:
        """Rows of obs with the allow-listed columns, value for value as the binlog gives them."""
        sql = f"SELECT {values.select_list(self._columns)} FROM obs WHERE {where}"  # noqa: S608  # columns only
        decoders, self._connection.decoders = self._connection.decoders, {}
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return [self._row(raw) for raw in cursor.fetchall()]
        except pymysql.err.MySQLError as error:
            if error.args[0] not in {
                1054,
                1146,
                1412,
            }:  # no such column or table, or not as the snapshot has it
                raise
            raise Altered(
                "obs was altered, or is being swapped: its columns are read again"
            ) from None
        finally:
            self._connection.decoders = decoders

    def _row(self, raw: tuple[Any, ...]) -> Row:
        return {
            column.name: values.canonical(column, value)
            for column, value in zip(self._columns, raw, strict=True)
        }


class Source:
    """Not thread-safe: one thread, one Source. Connects when first asked, again after a failure."""

    def __init__(
        self,
        hospital: str,
        settings: MySQL,
        connect: "Callable[..., pymysql.Connection[Any]] | None" = None,
    ) -> None:
        self.hospital = hospital
        self.settings = settings
        self._connect = connect
        self._connection: pymysql.Connection[Any] | None = None
        self._obs: list[values.ColumnInfo] = []

    @contextmanager
    def read_at(
        self, position: SourcePosition | None = None, *, patience_s: float = 10
    ) -> Iterator[ConsistentRead]:
        """A consistent read that contains `position`. Retry when it can't be had within
        `patience_s` seconds.
        """
        connection = self.connection()
        try:
            settled = _settle(connection, position, patience_s, self.hospital)
            yield ConsistentRead(connection, settled, self._obs)
        except (pymysql.err.MySQLError, Altered) as error:
            self.close()  # with its list of columns, too
            raise (
                error
                if isinstance(error, Altered)
                else translate_error(error, self.hospital, self.settings)
            ) from None
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
                raise translate_error(error, self.hospital, self.settings) from None
            if not self._obs:
                connection.close()
                raise NotReady(
                    f"hospital {self.hospital}: {self.settings.database}.obs is not there, or not readable",
                    hint=f"passport check --hospital {self.hospital}",
                )
            if strange := [
                f"{one.name} ({one.data_type})"
                for one in self._obs
                if not values.supported(one.data_type)
            ]:
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


def _settle(
    connection: "pymysql.Connection[Any]",
    wanted: SourcePosition | None,
    patience_s: float,
    hospital: str,
) -> Position | None:
    if wanted is not None and (not wanted.position.file or wanted.server != identity(connection)):
        _snapshot(connection)
        return None
    if flavour(connection) == "mariadb":
        return _settle_mariadb(connection, wanted, patience_s, hospital)
    return _settle_mysql(connection, wanted, patience_s, hospital)


def _settle_mariadb(
    connection: "pymysql.Connection[Any]",
    wanted: SourcePosition | None,
    patience_s: float,
    hospital: str,
) -> Position | None:
    """The snapshot's position is exact here: take snapshots until one is late enough."""
    deadline, pause = time.monotonic() + patience_s, 0.001
    while True:
        _snapshot(connection)
        found = dict(fetch_all(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'"))
        file, pos = (
            found.get("Binlog_snapshot_file"),
            int(found.get("Binlog_snapshot_position") or 0),
        )
        if not file:
            return None
        position = Position(file, pos)
        if wanted is None or position.order >= wanted.position.order:
            return position
        connection.rollback()
        end = end_of_binlog_if_granted(connection)
        if (
            end is None or end.order < wanted.position.order
        ):  # numbered anew since: nothing to compare with
            _snapshot(connection)
            return None
        if time.monotonic() > deadline:
            raise Retry(
                f"hospital {hospital}: a commit is in the binlog but not visible yet", after=1
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _settle_mysql(
    connection: "pymysql.Connection[Any]",
    wanted: SourcePosition | None,
    patience_s: float,
    hospital: str,
) -> Position | None:
    """The position asked for is a lower bound once its GTID is executed; without one, wait for all
    of the binlog.
    """
    position = end_of_binlog_if_granted(connection)
    if position is None or (wanted is not None and position.order < wanted.position.order):
        _snapshot(connection)
        return None
    mode, ordered = fetch_one(connection, "SELECT @@gtid_mode, @@binlog_order_commits")
    if mode != "ON":
        time.sleep(SETTLE_S)
        _snapshot(connection)
        return position
    everything = logged_gtids(connection)
    if wanted is not None and wanted.gtid:
        if not fetch_one(connection, "SELECT GTID_SUBSET(%s, %s)", (wanted.gtid, everything))[0]:
            position = None  # numbered anew since: nothing to compare with
        elif ordered:
            everything, position = wanted.gtid, wanted.position
    _wait_executed(connection, everything, patience_s, hospital)
    _snapshot(connection)
    return position


def _wait_executed(
    connection: "pymysql.Connection[Any]", gtids: str, patience_s: float, hospital: str
) -> None:
    (timed_out,) = fetch_one(
        connection, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtids, patience_s)
    )
    if timed_out:
        raise Retry(f"hospital {hospital}: a commit is in the binlog but not visible yet", after=1)


def _snapshot(connection: "pymysql.Connection[Any]") -> None:
    fetch_all(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    fetch_all(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
