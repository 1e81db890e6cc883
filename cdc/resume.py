"""Where a reader starts: at the saved position if the server still has it, else with a new epoch
and a snapshot.

A new epoch on a replica that has all that was read goes on by GTID; any other begins at the
server's end.
"""

import time
from dataclasses import replace
from typing import Any, NamedTuple

import pymysql
import structlog

from cdc import schema as decodable
from cdc.binlog import gtids
from cdc.envelopes import now_ms
from cdc.positions import BY_GTID, Columns, Positions, Saved, Snapshot
from openmrs import connection as server
from openmrs.read import Source
from openmrs.tables import NOTICE_KEYS
from openmrs.values import COLUMN_INFO_SQL, ColumnInfo
from passport.errors import Retry
from passport.settings import Hospital
from passport.version import Position, next_epoch

WATCHED = ("obs", *NOTICE_KEYS)
ENDS = 100  # so often the end of a busy binlog is looked for

log = structlog.get_logger()


class Start(NamedTuple):
    """Where the reader is; `is_new`: that is a new epoch, not saved yet."""

    saved: Saved
    is_new: bool


def start(
    hospital_id: str, hospital: Hospital, positions: Positions, source: Source, *, gap: str = ""
) -> Start:
    """Go on, or begin a new epoch, which is yet to be saved. `gap`: why the saved position is of no
    use.
    """
    saved = positions.load(hospital_id)
    try:
        decodable.refuse(hospital_id, columns(source.connection(), hospital.mysql.database))
        why = gap or unusable(saved, source.connection())
        if saved is not None and not why:
            return Start(saved, False)
        promoted = _promoted(saved, source.connection()) if saved is not None and not gap else None
        fresh = promoted or _begin(hospital_id, hospital, source, saved, positions)
    except pymysql.err.MySQLError as error:
        source.close()
        raise server.translate_error(error, hospital_id, hospital.mysql) from None
    say = log.info if saved is None else log.warning if promoted else log.error
    file, pos = fresh.position
    how = (
        "new epoch, going on by GTID, snapshot beside it"
        if promoted
        else "new epoch, snapshot follows"
    )
    say(how, hospital=hospital_id, reason=why, epoch=fresh.epoch, file=file, pos=pos)
    return Start(fresh, True)


def unusable(saved: Saved | None, connection: "pymysql.Connection[Any]") -> str:
    """Why the stream can't go on at `saved`; "" when it can (the file's own date is checked when it
    is read).
    """
    if saved is None:
        return "first start"
    if saved.capture != "binlog":
        return "capture was polling"
    identity = server.identity(connection)
    if saved.server != identity:
        return f"another server: {identity}, it was {saved.server}"
    if saved.by_gtid:
        return (
            ""
            if has_executed(saved, connection)
            else "the server's GTIDs are not those that were read"
        )
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
            cursor.execute(
                "SELECT GTID_SUBSET(%s, %s)", (saved.gtid_set, server.logged_gtids(connection))
            )
            return bool((cursor.fetchone() or (0,))[0])
        cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", tuple(saved.position))
        found = (cursor.fetchone() or ("",))[0] or ""
    return set(found.split(",")) == set(saved.gtid_set.split(","))


def has_executed(saved: Saved, connection: "pymysql.Connection[Any]") -> bool:
    """Whether this server, another than the one that was read, has every transaction that was read,
    by its GTID.
    """
    flavour = server.flavour(connection)
    if not saved.gtid_set or (flavour == "mariadb") != saved.server.startswith("mariadb-"):
        return False
    with connection.cursor() as cursor:
        if flavour == "mysql":
            cursor.execute(
                "SELECT GTID_SUBSET(%s, %s)", (saved.gtid_set, server.logged_gtids(connection))
            )
            return bool((cursor.fetchone() or (0,))[0])
        cursor.execute("SELECT @@global.gtid_binlog_state")
        return gtids.contains(str((cursor.fetchone() or ("",))[0] or ""), saved.gtid_set)


def columns(connection: "pymysql.Connection[Any]", database: str) -> Columns:
    """Every column that this user sees of the watched tables, in the tables' own order."""
    lists: dict[str, list[ColumnInfo]] = {}
    with connection.cursor() as cursor:
        cursor.execute(COLUMN_INFO_SQL, (database, WATCHED))
        for table, info in map(ColumnInfo.read, cursor.fetchall()):
            lists.setdefault(table, []).append(info)
    return lists


def _promoted(saved: Saved, connection: "pymysql.Connection[Any]") -> Saved | None:
    """The new epoch on a replica that has all that was read; None when it is none, or lacks some of
    it.

    Whether it still has in its binlog what follows is what the dump says: if not, that is a gap.
    """
    identity = server.identity(connection)
    if saved.capture != "binlog" or saved.server == identity or not has_executed(saved, connection):
        return None
    return replace(
        saved,
        server=identity,
        format_ts=0,
        epoch=next_epoch(saved.epoch, time.time()),
        position=Position(next(iter(files(connection))), BY_GTID),
        snapshot=Snapshot(),
        ts_ms=now_ms(),
    )


def _begin(
    hospital_id: str, hospital: Hospital, source: Source, before: Saved | None, positions: Positions
) -> Saved:
    database = hospital.mysql.database
    listed = columns(source.connection(), database)
    connection = source.connection()
    position, gtid_set = _end(hospital_id, connection)
    if columns(connection, database) != listed:
        raise Retry(f"hospital {hospital_id}: a table changed just now", after=1)
    previous = before.epoch if before else positions.published_epoch(hospital.partition)
    return Saved(
        hospital=hospital_id,
        partition=hospital.partition,
        server=server.identity(connection),
        format_ts=0,
        epoch=next_epoch(previous, time.time()),
        position=position,
        gtid_set=gtid_set,
        columns=listed,
        snapshot=Snapshot(),
        ts_ms=now_ms(),
    )


def _end(hospital_id: str, connection: "pymysql.Connection[Any]") -> tuple[Position, str]:
    """Where the binlog ends and the GTIDs up to there, which MySQL tells in turn: until nothing was
    in between.
    """
    known: str | None = None
    for _ in range(ENDS):
        position = server.end_of_binlog(connection)
        if position is None:
            raise server.no_binlog(hospital_id)
        if server.flavour(connection) == "mariadb":
            with connection.cursor() as cursor:
                cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", tuple(position))
                return position, str((cursor.fetchone() or ("",))[0] or "")
        before, known = known, server.logged_gtids(connection)
        if before == known:
            return position, known
    raise Retry(f"hospital {hospital_id}: its binlog grows too fast to say where it ends", after=1)
