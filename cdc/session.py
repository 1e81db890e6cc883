"""One connection: binlog items in, records out, positions saved. Ends by an error, a stop, or being
caught up.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from cdc import resume as epochs
from cdc import schema as decodable
from cdc.binlog.stream import (
    BinlogStream,
    Commit,
    Idle,
    IncompleteRow,
    KeyChange,
    NextFile,
    RowChange,
    Statement,
)
from cdc.binlog.table_map import ColumnsChanged
from cdc.checkpoint import Checkpoint, Mark
from cdc.connections import Connections
from cdc.envelopes import Envelopes, now_ms
from cdc.lease import Lease, server_id
from cdc.positions import Positions, Saved, Snapshot
from cdc.retention import Headroom
from cdc.snapshot import SnapshotJob, read_in_stream
from cdc.transaction import Traced, Transaction
from openmrs import connection as server
from openmrs.key_ranges import rows_with_keys
from openmrs.read import Source, SourcePosition
from openmrs.tables import NOTICE_KEYS, OBS_COLUMNS
from passport import health, metrics, tracing
from passport.errors import Fatal, Gap, Retry
from passport.settings import Settings
from passport.version import Position

IDLE_S = (
    0.05  # longest wait for the binlog: acknowledgements and the clock are looked at in between
)
DRAIN_S = 7.0
WHOLE_S = 1.0  # the transaction that is being read is read to its end, if that is near
REREAD_ROWS = 1_000

log = structlog.get_logger()


class Session:
    """Goes on from `saved`, with the lease held. Everything it opened is closed by `close`."""

    def __init__(
        self,
        hospital_id: str,
        settings: Settings,
        saved: Saved,
        lease: Lease,
        source: Source,
        positions: Positions,
        outside: Connections,
    ) -> None:
        self._id = hospital_id
        self._hospital = settings.hospitals[hospital_id]
        self._cdc, self._kafka = settings.cdc, settings.kafka
        self._lease = lease
        self._source = source
        self._positions = positions
        self._outside = outside
        self._saved = saved
        self._columns = saved.columns
        self._columns_as_of = saved.position
        self._cursor = saved.snapshot or Snapshot()
        self._again = False  # a snapshot is due when the transaction ends
        self._published_ts = 0
        self._gtid_set = saved.gtid_set
        self._gtid = ""
        self._at = saved.position
        self._verified = False
        self._saved_at = self._beat_at = time.monotonic()
        self._target: Position | None = None
        self._headroom = Headroom(hospital_id, settings.cdc.headroom_alarm_s)
        self._checkpoint = Checkpoint.at(
            Mark(saved.position, saved.gtid_set, saved.format_ts, saved.columns)
        )
        self._envelopes = Envelopes(
            hospital_id, self._hospital, server=saved.server, epoch=saved.epoch
        )
        self._publisher = outside.publisher(
            self._kafka, hospital_id, self._hospital.partition, saved.topic_end
        )
        try:
            self._stream = self._opened(saved)
        except BaseException:
            self._publisher.close()
            raise
        self._transaction = self._transactions()
        self._snapshot = self._job()
        self._handlers: dict[type, Callable[[Any], None]] = {
            RowChange: self._transaction.row,
            KeyChange: self._transaction.notice,
            IncompleteRow: self._transaction.part,
            Commit: self._on_commit,
            Statement: self._on_statement,
            Idle: self._on_alive,
            NextFile: self._on_rotated,
        }

    def run(self, stop: threading.Event, *, until_caught_up: bool) -> None:
        """Until `stop`, or until all that the binlog held is acknowledged. Retry, Gap, Fatal."""
        metrics.CONNECTED.labels(self._id).set(1)
        while not stop.is_set():
            live = self._read(self._patience())
            self._step_snapshot(live=live)
            self._keep_lease()
            self._save(at_most_every_s=self._cdc.checkpoint_s)
            self._beat()
            if until_caught_up and self._caught_up():
                self._tell_position(self._read_to)
                break
        self._drain()

    def close(self) -> None:
        metrics.CONNECTED.labels(self._id).set(0)
        self._stream.close()
        self._publisher.close()

    def _read(self, timeout_s: float) -> bool:
        try:
            items = self._stream.poll(timeout_s)
        except ColumnsChanged as error:
            raise self._healed(error) from None
        self._verify()
        before = self._published_ts
        for item in items:
            # who stood still and lost it publishes nothing of what its socket held meanwhile
            self._lease.keep()
            self._handlers[type(item)](item)
        self._transaction.count()
        if self._published_ts != before:
            metrics.LAST_EVENT.labels(self._id).set(self._published_ts / 1000)
            metrics.CDC_LAG.labels(self._id).set(max(0.0, time.time() - self._published_ts / 1000))
        return bool(items)

    # --- what the binlog says

    def _on_commit(self, commit: Commit) -> None:
        keys = self._transaction.partial
        self._transaction.commit(commit.at)
        self._at, self._gtid = commit.at, commit.gtid
        if keys:
            self._reread(keys)
        if commit.ts:
            self._published_ts = commit.ts * 1000
        self._mark(commit.at, commit.gtid_set)
        self._renew_snapshot()

    def _on_alive(self, alive: Idle) -> None:
        if not self._transaction.is_open:
            self._at, self._gtid = alive.at, ""
            self._mark(alive.at, None)
            self._renew_snapshot()

    def _on_rotated(self, rotated: NextFile) -> None:
        if not rotated.clean:
            self._request_snapshot("the server crashed: a binlog file has no end", rotated.at)

    def _on_statement(self, statement: Statement) -> None:
        """Rows may have changed without row events: ALTER fills columns, RENAME swaps tables,
        TRUNCATE empties them.
        """
        if statement.kind == "rollback":
            self._transaction.roll_back()
        if statement.kind == "ddl":
            self._columns = self._read_columns()
            decodable.refuse(self._id, self._columns)
            self._columns_as_of = self._lease.end().position
            self._stream.set_columns(self._columns, self._columns_as_of)
        metrics.SKIPPED.labels(self._id, statement.kind).inc()
        self._request_snapshot(f"{statement.kind} on {statement.table}", statement.at)
        for table in epochs.WATCHED if statement.table == "*" else (statement.table,):
            if table != "obs":
                value = self._envelopes.notice(
                    table, "u", (), at=statement.at, ordinal=0, gtid="", ts_ms=statement.ts * 1000
                )
                self._publisher.send("notice", value)

    def _request_snapshot(self, why: str, at: Position) -> None:
        log.error("snapshot again", hospital=self._id, reason=why, file=at.file, pos=at.pos)
        self._again = True

    def _renew_snapshot(self) -> None:
        """Once what asked for it is part of every read."""
        if self._again:
            self._again = False
            self._cursor = Snapshot(self._cursor.number + 1)
            self._snapshot = self._job()

    def _reread(self, keys: list[int]) -> None:
        """Rows whose images were not whole (binlog_row_image is not FULL)."""
        for first in range(0, len(keys), REREAD_ROWS):
            wanted = sorted({*keys[first : first + REREAD_ROWS]})
            with read_in_stream(self._source, self._waypoint()) as (read, at, ts_ms):
                rows = rows_with_keys(read, wanted)
            missing = {*wanted} - {row["obs_id"] for row in rows}
            for value in self._envelopes.read(rows, at, ts_ms):
                self._publisher.send("row", value)
            for key in missing:  # gone since; nothing but the key is known
                self._publisher.send("chunk", self._envelopes.chunk(key - 1, key, (), at, ts_ms))

    # --- beside the stream

    def _step_snapshot(self, *, live: bool) -> None:
        if self._transaction.is_open or self._again or not self._verified:
            return
        self._snapshot.step(self._waypoint(), live=live)
        self._cursor = self._snapshot.cursor
        metrics.SNAPSHOT_RUNNING.labels(self._id).set(0 if self._snapshot.done else 1)

    def _keep_lease(self) -> None:
        self._lease.keep()
        if self._lease.lapsed:
            self._lease.lapsed = False
            newest = self._positions.load(self._id)
            if newest is not None and newest.epoch != self._saved.epoch:
                raise Retry(
                    f"hospital {self._id}: another reader came meanwhile, and began a new epoch"
                )

    def _beat(self) -> None:
        """Every `heartbeat_s`: is the binlog still the same one, and how far is all published."""
        if time.monotonic() - self._beat_at < self._cdc.heartbeat_s:
            return
        self._beat_at = time.monotonic()
        end = self._lease.end()
        self._headroom.look(
            self._source, self._saved.position, self._published_ts or self._saved.ts_ms
        )
        if end.position.order < self._read_to.order:
            raise Gap(
                f"hospital {self._id}: the binlog ends at {end.position.file}:{end.position.pos}, before what was read",
                hint="nothing to do: the server's binlog began anew, so a new epoch and a snapshot follow",
            )
        if self._read_to.order >= end.position.order:
            self._published_ts = end.ts_ms
            metrics.CDC_LAG.labels(self._id).set(0)
        if self._published_ts:
            self._tell_position(self._at)

    def _tell_position(self, at: Position) -> None:
        """So that whoever waits for a destination to reach this position sees it arrive, also when
        nothing follows.
        """
        if not self._transaction.is_open:
            value = self._envelopes.heartbeat(at, self._gtid, self._published_ts or now_ms())
            self._publisher.send("heartbeat", value)

    # --- positions

    def _mark(self, at: Position, gtid_set: str | None) -> None:
        """Safe to go on from `at`. Of a file that was left meanwhile the date is not known: a later
        mark follows; so it does when the column list is newer than `at`.
        """
        self._gtid_set = (
            self._gtid_set if gtid_set is None else gtid_set
        )  # the next file's first mark has it too
        if at.order < self._columns_as_of.order:
            return
        if at.file == self._stream.position.file and self._stream.format_ts:
            mark = Mark(at, self._gtid_set, self._stream.format_ts, self._columns)
            self._checkpoint.commit(self._publisher.sent, mark)

    def _save(self, *, at_most_every_s: float) -> None:
        mark = self._checkpoint.acked(self._publisher.acked())
        now = time.monotonic()
        if now - self._saved_at < at_most_every_s:
            return
        saved = replace(
            self._saved,
            format_ts=mark.format_ts,
            position=mark.at,
            gtid_set=mark.gtid_set,
            columns=mark.columns,
            snapshot=self._cursor,
        )
        if saved != self._saved:
            saved = replace(
                saved, ts_ms=self._published_ts or now_ms(), topic_end=self._publisher.end
            )
            self._positions.save(saved)
            self._saved = saved
        if self._verified and (self._publisher.acked() or not self._publisher.sent):
            health.working(f"hospital {self._id}: reader")
        self._saved_at = now

    def _caught_up(self) -> bool:
        if not self._snapshot.done or self._again:
            return False
        if self._target is None:
            self._target = self._lease.end().position
        read_all = self._verified and self._read_to.order >= self._target.order
        return read_all and self._publisher.acked() == self._publisher.sent

    def _drain(self) -> None:
        """What was sent is acknowledged or given up; what is acknowledged is saved."""
        deadline = time.monotonic() + WHOLE_S
        while self._transaction.is_open and time.monotonic() < deadline:
            self._read(IDLE_S)
        try:
            self._publisher.flush(DRAIN_S)
        except Retry as error:
            log.warning(
                "stopped before everything was acknowledged", hospital=self._id, reason=error.reason
            )
        self._snapshot.settle()
        self._cursor = self._snapshot.cursor
        self._save(at_most_every_s=0)

    # --- small ones

    def _opened(self, saved: Saved) -> BinlogStream:
        mysql = self._hospital.mysql
        return self._outside.stream(
            lambda: self._outside.connect(self._id, mysql),
            flavour=server.flavour(self._source.connection()),
            server_id=self._hospital.server_id or server_id(self._id),
            start=None if saved.by_gtid else saved.position,
            gtid_set=saved.gtid_set,
            database=mysql.database,
            columns=saved.columns,
            row_columns={"obs": OBS_COLUMNS},
            key_columns=NOTICE_KEYS,
            heartbeat_s=min(self._cdc.heartbeat_s, mysql.read_timeout_s / 2),
            read_timeout_s=mysql.read_timeout_s,
        )

    def _verify(self) -> None:
        """The file that was read must be the one that is read now: RESET MASTER makes a new one of
        the same name.

        A new epoch knows its file before its first record is sent.
        """
        began = self._stream.began_ts
        if self._verified or not began:
            return
        self._verified = True
        if self._saved.by_gtid or self._saved.format_ts == began:
            return
        if self._saved.format_ts:
            raise Gap(
                f"hospital {self._id}: {self._saved.position.file} is another file than the one that was read",
                hint="nothing to do: the server's binlog began anew, so a new epoch and a snapshot follow",
            )
        self._checkpoint = Checkpoint.at(self._checkpoint.acknowledged._replace(format_ts=began))
        self._save(at_most_every_s=0)

    @property
    def _read_to(self) -> Position:
        """End of the event read last."""
        return self._stream.position if self._stream.format_ts else self._at

    def _patience(self) -> float:
        if self._snapshot.done:
            return IDLE_S
        return min(IDLE_S, self._snapshot.wait_s(live=False))

    def _waypoint(self) -> SourcePosition:
        return SourcePosition(self._at, self._gtid, self._saved.server)

    def _transactions(self) -> Transaction:
        given = self._id, self._publisher, self._envelopes, self._saved.position
        if not tracing.every:
            return Transaction(*given)
        where = {tracing.HOSPITAL: self._id, tracing.PARTITION: str(self._hospital.partition)}
        return Traced(*given, begin=partial(tracing.Trace, self._kafka.topic, attributes=where))

    def _job(self) -> SnapshotJob:
        budget = self._hospital.load_budget
        return SnapshotJob(self._source, self._publisher, self._envelopes, budget, self._cursor)

    def _healed(self, error: ColumnsChanged) -> Fatal:
        """A list that was read after a DDL may be that of a later DDL: rows in between can't be
        decoded any more.
        """
        columns = self._read_columns()
        decodable.refuse(self._id, columns)
        if self._read_to.order >= self._columns_as_of.order and columns == self._columns:
            return error
        return Gap(
            f"hospital {self._id}: rows were written with columns that are no more ({error.reason})",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
        )

    def _read_columns(self) -> Any:
        try:
            return epochs.columns(self._source.connection(), self._hospital.mysql.database)
        finally:
            self._source.close()  # its own list of columns is older
