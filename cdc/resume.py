"""Finds where a reader starts: at the saved position, if the server still has it.

If it has not, the reader begins a new epoch with a snapshot. On a replica that has executed all
that was read it goes on by GTID, so that nothing is missing in between. On any other server it
begins at the binlog's end, and the snapshot brings what is missing.
"""

import time
from dataclasses import replace
from typing import Any, NamedTuple

import pymysql
import structlog

from cdc import schema
from cdc.binlog import gtids
from cdc.column_lists import read_columns
from cdc.durability import NEVER_SEEN
from cdc.envelopes import now_ms
from cdc.hidden_changes import find_obstacle
from cdc.lease import Lease
from cdc.positions import BY_GTID, Positions, Saved, Snapshot
from openmrs import connection as mysql
from openmrs.read import Source
from passport.errors import Fatal, Origin, Retry
from passport.settings import Hospital
from passport.version import Position, next_epoch

# How often the end of a busy binlog is looked for.
ATTEMPTS = 100

log = structlog.get_logger()


class Start(NamedTuple):
    """The position from which the reader starts. A new epoch is not saved yet."""

    saved: Saved
    is_new_epoch: bool


def find_start(
    hospital_id: str,
    hospital: Hospital,
    positions: Positions,
    source: Source,
    lease: Lease,
    *,
    gap: str = "",
) -> Start:
    """Return where to go on, or the start of a new epoch, which the caller must save.

    The lease is kept meanwhile. `gap` is the reason why the saved position is of no use, if that is
    known already. Raises Retry, NotReady and Fatal.
    """
    saved = positions.load(hospital_id, partition=hospital.partition, keep=lease.keep)
    try:
        columns = read_columns(source.connection(), hospital.mysql.database)
        schema.refuse_undecodable(hospital_id, columns)
        _refuse_hidden_changes(hospital_id, hospital, positions, saved, source.connection())
        reason = gap or unusable(saved, source.connection())
        if saved is not None and not reason:
            return Start(saved, is_new_epoch=False)

        # After a gap the GTIDs lead to the same gap, so that only the binlog's end is left.
        by_gtid = None
        if saved is not None and not gap:
            by_gtid = _begin_by_gtid(saved, source.connection())
        start = by_gtid or _begin_at_end(hospital_id, hospital, source, saved, positions)
    except pymysql.err.MySQLError as error:
        source.close()
        raise mysql.translate_error(error, hospital_id, hospital.mysql) from None

    details = {
        "hospital": hospital_id,
        "reason": reason,
        "epoch": start.epoch,
        "file": start.position.file,
        "pos": start.position.pos,
    }
    if by_gtid is not None:
        log.warning("new epoch, going on by GTID, snapshot beside it", **details)
    elif saved is None:
        log.info("new epoch, snapshot follows", **details)
    else:
        log.error("new epoch, snapshot follows", **details)
    return Start(start, is_new_epoch=True)


def _refuse_hidden_changes(
    hospital_id: str,
    hospital: Hospital,
    positions: Positions,
    saved: Saved | None,
    connection: "pymysql.Connection[Any]",
) -> None:
    """Raise Fatal if the server keeps changes of the hospital's database out of its binlog.

    The hospital goes on working meanwhile. What it changes until the server is set right is missing
    for ever, so the saved position says that there is a gap.
    """
    obstacle = find_obstacle(connection, hospital.mysql.database)
    if obstacle is None:
        return
    if saved is not None and not saved.gap:
        positions.save(replace(saved, gap=obstacle.reason))
    raise Fatal(
        f"hospital {hospital_id}: {obstacle.reason}",
        hint=f"{obstacle.hint}; then: passport check --hospital {hospital_id}",
        origin=Origin.hospital(hospital_id),
    )


def unusable(saved: Saved | None, connection: "pymysql.Connection[Any]") -> str:
    """Return the reason why the stream can't go on at `saved`; "" if it can.

    Whether the file is the same one, and not another of that name, is seen only when it is read.
    """
    if saved is None:
        return "first start"
    if saved.capture != "binlog":
        return "capture was polling"
    if not saved.columns:
        return "the record of its column lists is gone"
    if saved.gap:
        return saved.gap
    identity = mysql.identity(connection)
    if saved.server != identity:
        return f"another server: {identity}, it was {saved.server}"
    if saved.by_gtid:
        is_known = has_executed(saved, connection)
    else:
        size = binlog_files(connection).get(saved.position.file)
        if size is None:
            return f"{saved.position.file} is not on the server any more"
        if size < saved.position.pos:
            return f"{saved.position.file} ends at {size}, before the saved position"
        is_known = same_history(saved, connection)
    return "" if is_known else "the server's GTIDs are not those that were read"


def binlog_files(connection: "pymysql.Connection[Any]") -> dict[str, int]:
    """Return the sizes of the binlog files by name, oldest first.

    Needs BINLOG MONITOR or REPLICATION CLIENT.
    """
    rows = mysql.fetch_all(connection, "SHOW BINARY LOGS")
    return {row[0]: int(row[1]) for row in rows}


def same_history(saved: Saved, connection: "pymysql.Connection[Any]") -> bool:
    """Return whether the server has executed what was read. True if it writes no GTIDs."""
    if not saved.gtid_set:
        return True
    if mysql.flavour(connection) == "mysql":
        return _is_logged(saved.gtid_set, connection)
    return set(_gtids_at(saved.position, connection).split(",")) == set(saved.gtid_set.split(","))


def has_executed(saved: Saved, connection: "pymysql.Connection[Any]") -> bool:
    """Return whether this server has, by its GTID, every transaction that was read from another."""
    flavour = mysql.flavour(connection)
    is_same_flavour = (flavour == "mariadb") == saved.server.startswith("mariadb-")
    if not saved.gtid_set or not is_same_flavour:
        return False
    if flavour == "mysql":
        return _is_logged(saved.gtid_set, connection)
    row = mysql.fetch_one(connection, "SELECT @@global.gtid_binlog_state")
    return gtids.contains(str(row[0] or ""), saved.gtid_set)


def _is_logged(gtid_set: str, connection: "pymysql.Connection[Any]") -> bool:
    """Return whether a MySQL has all of these GTIDs in its binlog."""
    everything = mysql.logged_gtids(connection)
    row = mysql.fetch_one(connection, "SELECT GTID_SUBSET(%s, %s)", (gtid_set, everything))
    return bool(row[0])


def _gtids_at(position: Position, connection: "pymysql.Connection[Any]") -> str:
    """Return the GTID position of a MariaDB at this place of its binlog; "" if it has none."""
    row = mysql.fetch_one(connection, "SELECT BINLOG_GTID_POS(%s, %s)", tuple(position))
    return str(row[0] or "")


def _begin_by_gtid(saved: Saved, connection: "pymysql.Connection[Any]") -> Saved | None:
    """Return a new epoch on a replica that has all that was read; None if this server is none.

    Whether its binlog still has what follows is seen when the stream is opened: if not, that is a
    gap.
    """
    identity = mysql.identity(connection)
    if saved.capture != "binlog" or saved.server == identity or not has_executed(saved, connection):
        return None
    oldest_file = next(iter(binlog_files(connection)))
    return replace(
        saved,
        server=identity,
        format_ts=0,
        epoch=next_epoch(saved.epoch, time.time()),
        position=Position(oldest_file, BY_GTID),
        next_row=None,
        seen_durable=NEVER_SEEN,
        snapshot=Snapshot(),
        ts_ms=now_ms(),
        gap="",
    )


def _begin_at_end(
    hospital_id: str, hospital: Hospital, source: Source, before: Saved | None, positions: Positions
) -> Saved:
    """Return a new epoch at the binlog's end."""
    database = hospital.mysql.database
    connection = source.connection()
    columns = read_columns(connection, database)
    position, gtid_set = _end_of_binlog(hospital_id, connection)
    # The columns must be those at the position: a DDL in between would go unseen.
    if read_columns(connection, database) != columns:
        raise Retry(
            f"hospital {hospital_id}: a table changed just now",
            origin=Origin.hospital(hospital_id),
            after=1,
        )
    last_epoch = before.epoch if before else positions.published_epoch(hospital.partition)
    return Saved(
        hospital=hospital_id,
        partition=hospital.partition,
        server=mysql.identity(connection),
        format_ts=0,
        epoch=next_epoch(last_epoch, time.time()),
        position=position,
        gtid_set=gtid_set,
        columns=columns,
        snapshot=Snapshot(),
        ts_ms=now_ms(),
    )


def _end_of_binlog(hospital_id: str, connection: "pymysql.Connection[Any]") -> tuple[Position, str]:
    """Return where the binlog ends, and the GTIDs up to there.

    MySQL answers the two in two statements: they belong together if nothing was in between.
    """
    gtid_set: str | None = None
    for _ in range(ATTEMPTS):
        position = mysql.end_of_binlog(connection)
        if position is None:
            raise mysql.no_binlog(hospital_id)
        if mysql.flavour(connection) == "mariadb":
            return position, _gtids_at(position, connection)
        before = gtid_set
        gtid_set = mysql.logged_gtids(connection)
        if gtid_set == before:
            return position, gtid_set
    raise Retry(
        f"hospital {hospital_id}: its binlog grows too fast to say where it ends",
        origin=Origin.hospital(hospital_id),
        after=1,
    )
