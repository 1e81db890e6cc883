"""Finds where a reader starts: at the saved position, if the server still has it.

If it has not, the reader begins a new epoch with a snapshot. On a replica that has executed all
that was read it goes on by GTID, so that nothing is missing in between. On any other server it
begins at the binlog's end, and the snapshot brings what is missing.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import pymysql
import structlog

from cdc import schema
from cdc.binlog import gtids
from cdc.binlog.stream import BinlogStream, Commit
from cdc.column_lists import read_columns
from cdc.durability import NEVER_SEEN
from cdc.envelopes import now_ms
from cdc.hidden_changes import find_obstacle
from cdc.lease import Lease
from cdc.positions import BY_GTID, Positions, Saved, Snapshot
from openmrs import connection as mysql
from openmrs.read import Source, wait_executed
from openmrs.tables import OPTIONAL_TABLES
from passport.errors import Fatal, Origin, Retry
from passport.settings import Hospital
from passport.version import Position, next_epoch

# How often the end of a binlog is looked for that begins a new file each time.
ATTEMPTS = 10
# How long what is in the binlog may take to be executed.
PATIENCE_S = 10.0
# The longest wait for the binlog between two looks at how far it is read.
POLL_S = 0.2
# A stream that begins beyond reads its file from the beginning.
PAST_32_BITS = 1 << 32

OpenStream = Callable[[Position], AbstractContextManager[BinlogStream]]

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
    open_stream: OpenStream,
    *,
    gap: str = "",
) -> Start:
    """Return where to go on, or the start of a new epoch, which the caller must save.

    The lease is kept meanwhile. `open_stream` opens the binlog at a position, without any table.
    `gap` is the reason why the saved position is of no use, if that is known already. Raises Retry,
    NotReady and Fatal.
    """
    saved = positions.load(hospital_id, partition=hospital.partition, keep=lease.keep)
    lease.keep()
    published_epoch = positions.published_epoch(hospital.partition)
    try:
        columns = read_columns(source.connection(), hospital.mysql.database)
        schema.refuse_undecodable(hospital_id, columns)
        _refuse_hidden_changes(hospital_id, hospital, positions, saved, source.connection())
        reason = gap or outdated(saved, published_epoch) or unusable(saved, source.connection())
        if saved is not None and not reason:
            # An optional table may be new at the hospital, or to this release. Its list is that of
            # now, which a row must agree with.
            new = {name: columns[name] for name in OPTIONAL_TABLES if name in columns}
            saved = replace(saved, columns={**new, **saved.columns})
            return Start(saved, is_new_epoch=False)

        # After a gap the GTIDs lead to the same gap, so that only the binlog's end is left.
        by_gtid = None
        last_epoch = max(saved.epoch if saved else 0, published_epoch)
        if saved is not None and not gap:
            by_gtid = _begin_by_gtid(saved, last_epoch, source.connection())
        start = by_gtid or _begin_at_end(hospital_id, hospital, source, last_epoch, open_stream)
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


def outdated(saved: Saved | None, published_epoch: int) -> str:
    """Return the reason why the stream can't go on in the epoch of `saved`; "" if it can.

    `published_epoch` is the newest one in the hospital's partition. Whoever has seen a row of it
    takes none of an older epoch any more. A position of an older epoch comes from a backup.
    """
    if saved is None or saved.epoch >= published_epoch:
        return ""
    return f"the saved epoch {saved.epoch} is older than {published_epoch}, which was published"


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


def _begin_by_gtid(
    saved: Saved, last_epoch: int, connection: "pymysql.Connection[Any]"
) -> Saved | None:
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
        epoch=next_epoch(last_epoch, time.time()),
        position=Position(oldest_file, BY_GTID),
        next_row=None,
        seen_durable=NEVER_SEEN,
        snapshot=Snapshot(),
        ts_ms=now_ms(),
        gap="",
    )


def _begin_at_end(
    hospital_id: str,
    hospital: Hospital,
    source: Source,
    last_epoch: int,
    open_stream: OpenStream,
) -> Saved:
    """Return a new epoch at the binlog's end."""
    database = hospital.mysql.database
    connection = source.connection()
    columns = read_columns(connection, database)
    position, gtid_set = _end_of_binlog(hospital_id, connection, open_stream)
    # The columns must be those at the position: a DDL in between would go unseen.
    if read_columns(connection, database) != columns:
        raise Retry(
            f"hospital {hospital_id}: a table changed just now",
            origin=Origin.hospital(hospital_id),
            after=1,
        )
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


def _end_of_binlog(
    hospital_id: str, connection: "pymysql.Connection[Any]", open_stream: OpenStream
) -> tuple[Position, str]:
    """Return where the binlog ends, and the GTIDs up to there.

    MySQL says the two in two answers, and others commit in between. So the set is asked for after
    the position, and what the binlog has behind the position is taken out of it again. For that all
    of the set must be executed first: what is on its way may be on either side of the position, or
    not be in the binlog yet.
    """
    for _ in range(ATTEMPTS):
        position = mysql.end_of_binlog(connection)
        if position is None:
            raise mysql.no_binlog(hospital_id)
        if mysql.flavour(connection) == "mariadb":
            return position, _gtids_at(position, connection)

        (mode,) = mysql.fetch_one(connection, "SELECT @@global.gtid_mode")
        gtid_set = mysql.logged_gtids(connection)
        if mode == "OFF":
            return position, gtid_set
        wait_executed(connection, gtid_set, PATIENCE_S, hospital_id)
        end = mysql.end_of_binlog(connection)
        if end == position:
            return position, gtid_set

        # A file begins with all GTIDs before it. So in a file that is read from its beginning, what
        # is behind the position can't be told from what is before it.
        if end is not None and end.file == position.file and position.pos < PAST_32_BITS:
            later = _gtids_between(position, end, open_stream)
            (gtid_set,) = mysql.fetch_one(
                connection, "SELECT GTID_SUBTRACT(%s, %s)", (gtid_set, later)
            )
            return position, gtid_set.replace("\n", "")
    raise Retry(
        f"hospital {hospital_id}: its binlog begins new files too fast to say where it ends",
        origin=Origin.hospital(hospital_id),
        after=1,
    )


def _gtids_between(position: Position, end: Position, open_stream: OpenStream) -> str:
    """Return the GTIDs of the transactions from `position` to `end` of the same file, at least.

    Those that follow `end` in that file may be among them. Nothing may have been read of the stream
    that is opened.
    """
    gtid_set = ""
    with open_stream(position) as stream:
        while not stream.format_ts or stream.position.order < end.order:
            for item in stream.poll(POLL_S):
                if isinstance(item, Commit) and item.at.file == end.file:
                    gtid_set = item.gtid_set
    return gtid_set
