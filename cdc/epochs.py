"""Where a reader starts: at the saved position if the server still has it, else with a new epoch and a snapshot."""

import time
from typing import Any, NamedTuple

import pymysql
import structlog

from cdc.envelopes import now_ms
from cdc.position import Columns, Positions, Saved, Snapshot
from passport import source as server
from passport.errors import Retry
from passport.settings import Hospital
from passport.source import Source
from passport.tables import NOTICE_KEYS
from passport.values import COLUMN_INFO_SQL, ColumnInfo
from passport.version import Position, next_epoch

WATCHED = ("obs", *NOTICE_KEYS)

log = structlog.get_logger()


class Start(NamedTuple):
    """Where the reader is, and when the new epoch's first position was taken (None: it goes on)."""

    saved: Saved
    is_new: bool


def start(hospital_id: str, hospital: Hospital, positions: Positions, source: Source, *, gap: str = "") -> Start:
    """Go on, or begin a new epoch, whose record is then acknowledged. `gap`: why the saved position is of no use."""
    saved = positions.load(hospital_id)
    try:
        why = gap or unusable(saved, source.connection())
        if saved is not None and not why:
            return Start(saved, False)
        fresh = _begin(hospital_id, hospital, source, saved)
    except pymysql.err.MySQLError as error:
        source.close()
        raise server.classified(error, hospital_id, hospital.mysql) from None
    positions.save(fresh)
    say = log.info if saved is None else log.error
    file, pos = fresh.position
    say("new epoch, snapshot follows", hospital=hospital_id, reason=why, epoch=fresh.epoch, file=file, pos=pos)
    return Start(fresh, True)


def unusable(saved: Saved | None, connection: "pymysql.Connection[Any]") -> str:
    """Why the stream can't go on at `saved`; "" when it can (the file's own date is checked when it is read)."""
    if saved is None:
        return "first start"
    if saved.capture != "binlog":
        return "capture was polling"
    identity = server.identity(connection)
    if saved.server != identity:
        return f"another server: {identity}, it was {saved.server}"
    size = files(connection).get(saved.position.file)
    if size is None:
        return f"{saved.position.file} is not on the server any more"
    if size < saved.position.pos:
        return f"{saved.position.file} ends at {size}, before the saved position"
    if not same_history(saved, connection):
        return "the server's GTIDs are not those that were read"
    return ""


def files(connection: "pymysql.Connection[Any]") -> dict[str, int]:
    """Sizes of the binlog files, oldest first. Needs BINLOG MONITOR or REPLICATION CLIENT."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        return {row[0]: int(row[1]) for row in cursor.fetchall()}


def same_history(saved: Saved, connection: "pymysql.Connection[Any]") -> bool:
    """Whether the server has executed what was read; True when it writes no GTIDs."""
    if not saved.gtid_set:
        return True
    with connection.cursor() as cursor:
        if server.flavour(connection) == "mysql":
            cursor.execute("SELECT GTID_SUBSET(%s, @@global.gtid_executed)", (saved.gtid_set,))
            return bool((cursor.fetchone() or (0,))[0])
        cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", tuple(saved.position))
        found = (cursor.fetchone() or ("",))[0] or ""
    return set(found.split(",")) == set(saved.gtid_set.split(","))


def columns(connection: "pymysql.Connection[Any]", database: str) -> Columns:
    """Every column that this user sees of the watched tables, in the tables' own order."""
    lists: dict[str, list[ColumnInfo]] = {}
    with connection.cursor() as cursor:
        cursor.execute(COLUMN_INFO_SQL, (database, WATCHED))
        for table, info in map(ColumnInfo.read, cursor.fetchall()):
            lists.setdefault(table, []).append(info)
    return lists


def _begin(hospital_id: str, hospital: Hospital, source: Source, before: Saved | None) -> Saved:
    database = hospital.mysql.database
    listed = columns(source.connection(), database)
    with source.read() as reading:
        position = reading.position
    connection = source.connection()
    if position is None:
        raise server.no_binlog(hospital_id)
    if columns(connection, database) != listed:
        raise Retry(f"hospital {hospital_id}: a table changed just now", after=1)
    return Saved(
        hospital=hospital_id,
        partition=hospital.partition,
        server=server.identity(connection),
        format_ts=0,
        epoch=next_epoch(before.epoch if before else 0, time.time()),
        position=position,
        gtid_set=_executed(connection, position),
        columns=listed,
        snapshot=Snapshot(),
        ts_ms=now_ms(),
    )


def _executed(connection: "pymysql.Connection[Any]", at: Position) -> str:
    with connection.cursor() as cursor:
        if server.flavour(connection) == "mysql":
            cursor.execute("SELECT @@global.gtid_executed")
        else:
            cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", tuple(at))
        return str((cursor.fetchone() or ("",))[0] or "").replace("\n", "")
