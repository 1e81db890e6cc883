"""Opens consistent reads of one hospital's database, at a binlog position that is part of them.

A server shows a binlog position, and sends the event, *before* the commit becomes visible to
readers. `Source.read_at` closes that gap: it opens a consistent snapshot of which everything up to
`ConsistentRead.position` is surely part.

Whether a snapshot contains a position has three answers, and each is a type: `Here`, `Elsewhere`
and the error `MayNotSeeError`. They ask for different things. A position that is elsewhere may wait
for the stream to get there, too. An account that may not see the binlog waits for the grant.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pymysql
from pymysql.cursors import DictCursor

from openmrs import values
from openmrs.column_info import ColumnInfo
from openmrs.connection import (
    NO_REPLICATION_GRANT,
    clock_ms,
    connect,
    end_of_binlog,
    fetch_all,
    fetch_one,
    flavour,
    identity,
    list_columns,
    logged_gtids,
    translate_error,
    translate_errors,
)
from openmrs.tables import FACT_TABLES, OPTIONAL_TABLES, FactTable
from passport.errors import Altered, Fatal, NotReady, Origin, PassportError, Retry, TooSlow
from passport.event import EventSource, Row
from passport.settings import MySQL
from passport.version import Position

# A connection that is older is not used for another read. It may be that of a server which was
# demoted, lives on, and is not the one that the address leads to any more.
LONGEST_CONNECTION_S = 60.0
# How long it is remembered that the address leads to another server than the one asked for.
ELSEWHERE_S = 20.0
# The longest pause between two questions whether a commit is visible by now.
PAUSE_S = 0.05

# MySQL counts the transactions without a GTID that are on their way, since 5.7.6.
_ON_THEIR_WAY = "SHOW GLOBAL STATUS LIKE 'Ongoing_anonymous_transaction_count'"

# Error numbers: no such column, no such table, or the table isn't as the snapshot has it.
ALTERED = {1054, 1146, 1412}
# Error numbers of MariaDB and MySQL: the query took longer than it may.
TIMED_OUT = {1969, 3024}

Columns = Mapping[str, Sequence[ColumnInfo]]
Answer = TypeVar("Answer")


END = Position("end of the binlog", 0)


class SourcePosition(NamedTuple):
    """A place in the binlog of one server; `gtid` is "" if the server writes none.

    A polled event has no `file` (""). Any later snapshot of the same server contains it, and
    reading it needs SELECT only.
    """

    position: Position
    gtid: str
    server: str

    @classmethod
    def of(cls, source: EventSource) -> "SourcePosition":
        return cls(Position(source.file, source.pos), source.gtid, source.server)

    @classmethod
    def end_of(cls, server: str) -> "SourcePosition":
        """Return the end of one server's binlog, whichever it is when the read is opened."""
        return cls(END, "", server)

    @property
    def is_end(self) -> bool:
        return self.position == END


# Whatever is committed now. Such a read waits for nothing, and doesn't say its own position.
ANY_POSITION = SourcePosition(Position("", 0), "", "")
# All that is in the binlog when the read is opened, of whichever server. Such a read says its own
# position.
END_OF_BINLOG = SourcePosition.end_of("")


@dataclass(frozen=True, slots=True)
class Here:
    """Everything up to `position` is visible."""

    position: Position


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The position is one of another server, or of a binlog that was numbered anew since.

    Positions of two servers can't be compared, so nobody knows whether it is visible.
    """


@dataclass(frozen=True, slots=True)
class NoPosition:
    """None was asked for: ANY_POSITION, or the end of the binlog at a server that has no binlog."""


PositionAnswer = Here | Elsewhere | NoPosition


class MayNotSeeError(NotReady):
    """The account may not see where the binlog ends, so nobody knows what a read contains.

    A connection keeps the rights that it was opened with. So the next read opens a new one.
    """


class ConsistentRead:
    """An open consistent read.

    `answer` says whether it contains the position that was asked for. For a polled event, none is
    asked for: its version is the event's own.

    The server ends a query that takes longer than `longest_s` seconds; None lets it take its time.
    `worked_s` is how long it has worked for this read, about: the time that its queries took, less
    a round trip of `round_trip_s` each.
    """

    def __init__(
        self,
        connection: "pymysql.Connection[Any]",
        answer: PositionAnswer,
        columns: Columns,
        longest_s: float | None = None,
        round_trip_s: float = 0.0,
    ) -> None:
        self._connection = connection
        self._columns = columns
        self._longest_s = longest_s
        self._round_trip_s = round_trip_s
        self.answer = answer
        self.worked_s = 0.0

    @property
    def position(self) -> Position | None:
        """The position up to which everything is visible, None if that is not known."""
        return self.answer.position if isinstance(self.answer, Here) else None

    def rows(
        self, sql: str, args: Sequence[Any] | dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a SELECT as dicts, in PyMySQL's own types."""
        with self._worked(), self._connection.cursor(DictCursor) as cursor:
            cursor.execute(self._limited(sql), args or None)
            return list(cursor.fetchall())

    def rows_of_listed_columns(
        self, table: str, sql: str, args: Sequence[Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a SELECT from `table`, whose columns were listed before.

        Raises Altered if it has other columns by now.
        """
        with _altered(table):
            return self.rows(sql, args)

    def clock_ms(self) -> int:
        """Return the hospital's clock in Unix milliseconds."""
        return clock_ms(self._connection)

    def list_columns(self, database: str, tables: Sequence[str]) -> dict[str, list[ColumnInfo]]:
        """Return the columns of these tables by table, as `openmrs.connection.list_columns`."""
        return list_columns(self._connection, database, tables)

    def has_column(self, table: FactTable, name: str) -> bool:
        """Return whether the hospital's fact table has this column."""
        return any(column.name == name for column in self._columns[table.name])

    def has_table(self, name: str) -> bool:
        """Return whether the hospital has this optional table, and the account may read it."""
        return name in self._columns

    def facts(self, table: FactTable, where: str, args: Sequence[Any] = ()) -> list[Row]:
        """Return rows of a fact table, value for value as the binlog gives them.

        `where` is an SQL condition, which may end in ORDER BY and LIMIT. Raises Altered if the
        table has other columns by now than this connection has listed.
        """
        columns = self._columns[table.name]
        selected = values.select_list(columns)
        sql = f"SELECT {selected} FROM {table.name} WHERE {where}"  # noqa: S608  # columns only
        # PyMySQL would make dates and decimals of the server's text: the JSON form is made of the
        # text itself.
        decoders = self._connection.decoders
        self._connection.decoders = {}
        try:
            with _altered(table.name), self._worked():
                fetched = fetch_all(self._connection, self._limited(sql), args)
        finally:
            self._connection.decoders = decoders

        rows = []
        for raw in fetched:
            row = {}
            for column, value in zip(columns, raw, strict=True):
                row[column.name] = values.json_value(column, value)
            rows.append(row)
        return rows

    @contextmanager
    def _worked(self) -> Iterator[None]:
        began_at = time.monotonic()
        yield
        self.worked_s += max(0.0, time.monotonic() - began_at - self._round_trip_s)

    def _limited(self, sql: str) -> str:
        """Return a SELECT that the server ends after `longest_s` seconds."""
        if self._longest_s is None:
            return sql
        if flavour(self._connection) == "mariadb":
            return f"SET STATEMENT max_statement_time = {self._longest_s} FOR {sql}"
        hint = f"/*+ MAX_EXECUTION_TIME({round(self._longest_s * 1000)}) */"
        return sql.replace("SELECT", f"SELECT {hint}", 1)


@contextmanager
def _altered(table: str) -> Iterator[None]:
    try:
        yield
    except pymysql.err.MySQLError as error:
        if error.args[0] not in ALTERED:
            raise
        raise Altered(
            f"{table} was altered, or is being swapped: its columns are read again"
        ) from None


class Source:
    """One hospital's database. It connects when it is first used, and again after a failure.

    It also connects again when a read is opened and its connection is old, or reaches another
    server than the one whose position is asked for: after a switchover behind the address the
    demoted server lives on, and would be read for ever.

    Not thread-safe: one thread, one Source.
    """

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
        self._connected_at = 0.0
        self._identity = ""  # of the server that the connection reaches
        # Servers that the address did not lead to, and when that was seen last.
        self._elsewhere: dict[str, float] = {}
        self._columns: Columns = {}
        self._round_trip_s = 0.0

    @contextmanager
    def read_at(
        self, position: SourcePosition, *, patience_s: float = 10, longest_s: float | None = None
    ) -> Iterator[ConsistentRead]:
        """Open a consistent read that contains `position`.

        `position` may also be ANY_POSITION or END_OF_BINLOG. The server ends each query that takes
        longer than `longest_s` seconds, unless that is None.

        An ALTER of a table that was read waits until the read is closed, and so does everybody who
        comes after the ALTER. So nothing is waited for within a read, and it ends within a second.

        Raises Retry if it can't be had within `patience_s` seconds, TooSlow if a query was ended,
        Altered if a fact table was altered, NotReady if the server is away, MayNotSeeError if the
        account lacks the grant that a position in the binlog needs, and Fatal.
        """
        connection = self._connection_for(position)
        try:
            answer = _open_snapshot(connection, self._identity, position, patience_s, self.hospital)
            yield ConsistentRead(connection, answer, self._columns, longest_s, self._round_trip_s)
        except MayNotSeeError:
            self.close()
            raise
        except Altered as error:
            self.close()  # with its list of columns, too
            error.origin = Origin.hospital(self.hospital)
            raise
        except pymysql.err.MySQLError as error:
            if longest_s is not None and error.args and error.args[0] in TIMED_OUT:
                raise TooSlow(
                    f"hospital {self.hospital}: a query took longer than {longest_s} s",
                    origin=Origin.hospital(self.hospital),
                ) from None
            self.close()
            raise translate_error(error, self.hospital, self.settings) from None
        finally:
            self._rollback()

    def connection(self) -> "pymysql.Connection[Any]":
        """Return the open connection, or a new one. Raises NotReady and Fatal."""
        if self._connection is None:
            connection = (self._connect or connect)(self.hospital, self.settings)
            try:
                with translate_errors(self.hospital, self.settings):
                    self._identity = identity(connection)
                self._columns = self._list_columns(connection)
            except PassportError:
                connection.close()
                raise
            self._connection = connection
            self._connected_at = time.monotonic()
            self._round_trip_s = self._ping()
        return self._connection

    @property
    def session(self) -> "pymysql.Connection[Any] | None":
        """The connection that is open now, None if there is none."""
        return self._connection

    def ask(self, question: "Callable[[pymysql.Connection[Any]], Answer]") -> Answer:
        """Return the answer to a question about the server itself. Raises NotReady and Fatal."""
        connection = self.connection()
        try:
            return question(connection)
        except (pymysql.err.MySQLError, OSError) as error:
            self.close()
            raise translate_error(error, self.hospital, self.settings) from None

    def columns(self, table: FactTable) -> Sequence[ColumnInfo]:
        """Return the columns of a fact table that may leave and that this OpenMRS has.

        They have the order of `FactTable.columns`. Raises NotReady and Fatal.
        """
        self.connection()
        return self._columns[table.name]

    def lacks(self, name: str) -> bool:
        """Return whether the last connection saw that the hospital has no such optional table.

        It connects to nothing. Before the first connection nobody knows, and the answer is False.
        """
        return bool(self._columns) and name not in self._columns

    def close(self) -> None:
        """Close the connection and forget the columns: a new connection lists them again."""
        connection = self._connection
        self._connection = None
        if connection is not None:
            with suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _connection_for(self, position: SourcePosition) -> "pymysql.Connection[Any]":
        """Return a connection that is not too old, to the server of `position` if it is there."""
        if time.monotonic() - self._connected_at > LONGEST_CONNECTION_S:
            self.close()
        connection = self.connection()
        server = position.server
        if not server or server == self._identity:
            return connection
        seen_at = self._elsewhere.get(server)
        if seen_at is not None and time.monotonic() - seen_at < ELSEWHERE_S:
            return connection

        # Whoever reads events of a server that is gone asks for it again and again. So one new
        # connection is enough for a while.
        self.close()
        connection = self.connection()
        if server != self._identity:
            self._elsewhere[server] = time.monotonic()
        return connection

    def _list_columns(self, connection: "pymysql.Connection[Any]") -> Columns:
        """Return the columns by fact table and by optional table, as far as there is one.

        Raises NotReady if a fact table isn't there, and Fatal.
        """
        database = self.settings.database
        with translate_errors(self.hospital, self.settings):
            listed = list_columns(connection, database, [*FACT_TABLES, *OPTIONAL_TABLES])

        columns = {name: listed[name] for name in OPTIONAL_TABLES if name in listed}
        for table in FACT_TABLES.values():
            by_name = {column.name: column for column in listed.get(table.name, ())}
            columns[table.name] = [by_name[name] for name in table.columns if name in by_name]
            if not columns[table.name]:
                raise NotReady(
                    f"hospital {self.hospital}: {database}.{table.name} is not there,"
                    " or not readable",
                    hint=f"passport check --hospital {self.hospital}",
                    origin=Origin.hospital(self.hospital),
                )
            unsupported = [
                f"{column.name} ({column.data_type})"
                for column in columns[table.name]
                if not values.supported(column.data_type)
            ]
            if unsupported:
                raise Fatal(
                    f"hospital {self.hospital}: columns of {table.name} have a type that is not"
                    f" read: {', '.join(unsupported)}",
                    hint=f"passport check --hospital {self.hospital}",
                    origin=Origin.hospital(self.hospital),
                )
        return columns

    def _ping(self) -> float:
        """Return the seconds that the network takes there and back."""
        began_at = time.monotonic()
        self.ask(lambda connection: connection.ping(reconnect=False))
        return time.monotonic() - began_at

    def _rollback(self) -> None:
        try:
            if self._connection is not None:
                self._connection.rollback()
        except pymysql.err.MySQLError:
            self.close()


def _open_snapshot(
    connection: "pymysql.Connection[Any]",
    server: str,
    at_least: SourcePosition,
    patience_s: float,
    hospital: str,
) -> PositionAnswer:
    """Open a snapshot of `server` that contains `at_least`, if that can be known."""
    if not at_least.position.file:
        _begin_snapshot(connection)
        return NoPosition()
    if at_least.server != server and at_least != END_OF_BINLOG:
        _begin_snapshot(connection)
        return Elsewhere()
    if flavour(connection) == "mariadb":
        return _open_snapshot_mariadb(connection, at_least, patience_s, hospital)
    return _open_snapshot_mysql(connection, at_least, patience_s, hospital)


def _open_snapshot_mariadb(
    connection: "pymysql.Connection[Any]",
    at_least: SourcePosition,
    patience_s: float,
    hospital: str,
) -> PositionAnswer:
    """Take snapshots until one is late enough: MariaDB says the exact position of each."""
    deadline = time.monotonic() + patience_s
    pause_s = 0.001
    while True:
        _begin_snapshot(connection)
        status = dict(fetch_all(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'"))
        file = status.get("Binlog_snapshot_file")
        if not file:
            return _without_binlog(at_least)
        position = Position(file, int(status.get("Binlog_snapshot_position") or 0))
        if at_least.is_end or position.order >= at_least.position.order:
            return Here(position)

        connection.rollback()
        end = _visible_end_of_binlog(connection, hospital)
        if end is None or end.order < at_least.position.order:
            # The binlog was numbered anew since: there is nothing to compare with.
            _begin_snapshot(connection)
            return Elsewhere()
        if time.monotonic() > deadline:
            raise _not_visible_yet(hospital)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_S)


def _open_snapshot_mysql(
    connection: "pymysql.Connection[Any]",
    at_least: SourcePosition,
    patience_s: float,
    hospital: str,
) -> PositionAnswer:
    """Wait until MySQL has executed what must be visible, then take a snapshot.

    A snapshot of MySQL doesn't say its position, but the set of executed GTIDs says what is
    visible. Where commits are ordered, all before `at_least` is visible once its own GTID is
    executed. Otherwise all that is in the binlog now must be. Without GTIDs, nothing may be on its
    way any more.
    """
    end = _visible_end_of_binlog(connection, hospital)
    if end is None:
        _begin_snapshot(connection)
        return _without_binlog(at_least)
    if not at_least.is_end and end.order < at_least.position.order:
        _begin_snapshot(connection)
        return Elsewhere()

    mode, is_commit_order = fetch_one(connection, "SELECT @@gtid_mode, @@binlog_order_commits")
    if mode != "ON":
        _wait_none_on_its_way(connection, patience_s, hospital)
        # In the two modes between OFF and ON a transaction may have a GTID or none.
        if mode != "OFF":
            wait_executed(connection, logged_gtids(connection), patience_s, hospital)
        _begin_snapshot(connection)
        return Here(end)

    answer: PositionAnswer = Here(end)
    must_be_executed = logged_gtids(connection)
    if at_least.gtid:
        (is_logged,) = fetch_one(
            connection, "SELECT GTID_SUBSET(%s, %s)", (at_least.gtid, must_be_executed)
        )
        if not is_logged:
            # The binlog was numbered anew since: there is nothing to compare with.
            answer = Elsewhere()
        elif is_commit_order:
            must_be_executed = at_least.gtid
            answer = Here(at_least.position)
    wait_executed(connection, must_be_executed, patience_s, hospital)
    _begin_snapshot(connection)
    return answer


def _visible_end_of_binlog(connection: "pymysql.Connection[Any]", hospital: str) -> Position | None:
    """Return where the server writes now, None if it has no binlog.

    Raises MayNotSeeError if the account lacks the grant.
    """
    try:
        return end_of_binlog(connection)
    except pymysql.err.OperationalError as error:
        if error.args[0] != NO_REPLICATION_GRANT:
            raise
    (account,) = fetch_one(connection, "SELECT CURRENT_USER()")
    user, _, host = str(account).rpartition("@")
    raise MayNotSeeError(
        f"hospital {hospital}: its account may not see where the binlog ends, so that nobody knows"
        " whether a read contains a change; nothing is written until it may",
        hint=f"GRANT REPLICATION CLIENT ON *.* TO '{user}'@'{host}'"
        "   -- the hospital's DBA runs it; nothing needs a restart",
        origin=Origin.hospital(hospital),
    )


def _without_binlog(at_least: SourcePosition) -> PositionAnswer:
    """Return the answer of a server that has no binlog."""
    return NoPosition() if at_least.is_end else Elsewhere()


def _wait_none_on_its_way(
    connection: "pymysql.Connection[Any]", patience_s: float, hospital: str
) -> None:
    """Wait until MySQL has committed all that was in its binlog when this was called.

    It is for transactions without a GTID. MySQL counts those that are on their way: from before
    they are in the binlog until they are visible. It doesn't say which ones these are. But once
    there is none, every one that was in the binlog before is visible. A replica's acknowledgement,
    which a commit may wait for in between (semi-synchronous, AFTER_SYNC), takes as long as it
    takes, so that no fixed wait would do.
    """
    deadline = time.monotonic() + patience_s
    pause_s = 0.001
    while True:
        row = fetch_one(connection, _ON_THEIR_WAY)
        if not row:
            raise Fatal(
                f"hospital {hospital}: its MySQL has no GTIDs and doesn't count the commits that"
                " are on their way, so that nobody knows what a read contains",
                hint="set gtid_mode=ON and enforce_gtid_consistency=ON at the server",
                origin=Origin.hospital(hospital),
            )
        if int(row[1]) == 0:
            return
        if time.monotonic() > deadline:
            raise _not_visible_yet(hospital)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_S)


def wait_executed(
    connection: "pymysql.Connection[Any]", gtids: str, patience_s: float, hospital: str
) -> None:
    """Wait until MySQL has executed all of `gtids`. Raises Retry after `patience_s` seconds."""
    (timed_out,) = fetch_one(
        connection, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtids, patience_s)
    )
    if timed_out:
        raise _not_visible_yet(hospital)


def _begin_snapshot(connection: "pymysql.Connection[Any]") -> None:
    fetch_all(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")


def _not_visible_yet(hospital: str) -> Retry:
    return Retry(
        f"hospital {hospital}: a commit is in the binlog but not visible yet",
        origin=Origin.hospital(hospital),
        after=1,
    )
