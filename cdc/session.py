"""One session of a reader: MySQL's binlog in, Kafka records out, positions saved.

`Session.run` is the loop. Each turn reads what the binlog has, takes a step of the snapshot, keeps
the lease, saves how far Kafka has acknowledged, and sends a heartbeat when one is due. A session
ends when it is stopped, when it has caught up (if that was asked for), or with an error. After an
error the reader begins another session, from the position that was saved last.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
import structlog

from cdc.binlog.stream import (
    BinlogItem,
    BinlogStream,
    Commit,
    Idle,
    IncompleteRow,
    KeyChange,
    NextFile,
    RowChange,
    SkippedTransaction,
    Statement,
)
from cdc.binlog.table_map import ColumnsChangedError
from cdc.column_lists import ColumnLists
from cdc.connections import Connections
from cdc.durability import are_transactional
from cdc.envelopes import Envelopes
from cdc.heartbeat import Heartbeat
from cdc.lag import Lag
from cdc.lease import Lease, server_id
from cdc.position_writer import PositionWriter
from cdc.positions import Columns, Positions, RowPlace, Saved, Snapshot
from cdc.same_server import SameServer
from cdc.signals import SignalWatch, name_transaction
from cdc.snapshot import QUERIES_OF_A_CHUNK, SnapshotJob, read_in_stream
from cdc.transaction import Transaction, TransactionTraces
from openmrs.connection import flavour
from openmrs.key_ranges import rows_with_keys
from openmrs.load_budget import FETCHED, Hours, Pace, PageSize
from openmrs.load_share import LoadShare
from openmrs.read import Source, SourcePosition
from openmrs.tables import (
    FACT_TABLES,
    KEY_COLUMNS,
    OBS,
    OPTIONAL_TABLES,
    ROW_COLUMNS,
    WATCHED,
)
from passport import health, metrics, tracing
from passport.errors import Fatal, Gap, Origin, PassportError, Retry, TooSlow
from passport.event import Op
from passport.settings import Settings
from passport.version import Position

# The longest wait for the binlog. Acknowledgements and clocks are looked at in between.
IDLE_S = 0.05
# How long an open transaction is read on at the end, so that it need not be published again.
FINISH_S = 1.0
# How long Kafka has at the end to acknowledge what was sent.
FLUSH_S = 7.0
# A reader is not ready when Kafka has acknowledged nothing for so long, though something was sent.
SILENT_S = 10.0
ROWS_READ_AGAIN = 1_000
# The lease is kept at least so often while the load budget makes the stream wait.
LONGEST_WAIT_S = 1.0

log = structlog.get_logger()


class Session:
    """Goes on from `start`, with the lease held. `close` closes what the session has opened."""

    def __init__(
        self,
        hospital_id: str,
        settings: Settings,
        start: Saved,
        lease: Lease,
        same_server: SameServer,
        source: Source,
        positions: Positions,
        signals: SignalWatch,
        connections: Connections,
        lag: Lag,
    ) -> None:
        hospital = settings.hospital(hospital_id)
        self._id = hospital_id
        self._hospital = hospital
        self._kafka = settings.kafka
        self._settings = settings.cdc
        self._start = start
        self._lease = lease
        self._same_server = same_server
        self._source = source
        self._pace = Pace(hospital.load_budget, LoadShare(source), clock=time.monotonic)
        self._hours = Hours(hospital.snapshot_hours, hospital.timezone)
        self._stop = threading.Event()
        self._signals = signals
        # How many signals were obeyed, of all that there are.
        self._obeyed = 0
        self._lag = lag
        lag.begin()

        # Everything up to here is published, unless a transaction is open.
        self._at = SourcePosition(start.position, "", start.server)
        self._is_file_verified = False
        self._is_snapshot_due = False
        # Rows before this one were acknowledged by the session before. None once it was passed.
        self._next_row = start.next_row

        self._envelopes = Envelopes(hospital_id, hospital, server=start.server, epoch=start.epoch)
        self._publisher = connections.publisher(
            settings.kafka, hospital_id, hospital.partition, start.topic_end
        )
        self._heartbeat = Heartbeat(
            settings.cdc, source, lease, self._publisher, self._envelopes, start.seen_durable
        )
        # The time of the newest commit that was read, in Unix ms; 0 before there was one.
        self._last_commit_ms = 0
        self._position_writer = PositionWriter(start, positions, self._publisher)
        self._columns = ColumnLists(source, start.columns)
        self._transaction = Transaction(
            hospital_id, self._publisher, self._envelopes, start.position, self._traces(settings)
        )
        self._snapshot = self._snapshot_from(start.snapshot or Snapshot())
        try:
            self._stream = self._open_stream(connections)
        except BaseException:
            self._publisher.close()
            raise

    def run(self, stop: threading.Event, *, until_caught_up: bool) -> None:
        """Publish until `stop`, or until all that the binlog holds is acknowledged.

        Raises Retry, Gap and Fatal.
        """
        self._stop = stop
        if until_caught_up:
            self._hours = Hours(None, self._hospital.timezone)  # somebody waits for its end
        metrics.CONNECTED.labels(self._id).set(1)
        with self._hospital_named():
            try:
                self._follow(stop, until_caught_up=until_caught_up)
            except Gap:
                raise
            except Fatal:
                # Whoever starts the reader again meets the same error. What comes before it must
                # not be published once more at each start.
                with suppress(PassportError):
                    self._verify_rows()
                    self._flush_and_save()
                raise
            self._drain()

    def _follow(self, stop: threading.Event, *, until_caught_up: bool) -> None:
        end: Position | None = None
        while not stop.is_set() and self._signals.look().pause is None:
            self._obey()
            has_read = self._read(self._wait_s())
            self._step_snapshot(live=has_read)
            self._keep_lease()
            self._same_server.look()
            self._save(at_most_every_s=self._settings.checkpoint_s)
            self._beat()
            self._note_lag(is_idle=not has_read)
            if until_caught_up and self._snapshot.done and not self._is_snapshot_due:
                if end is None:
                    end = self._lease.end().position
                if self._has_published(end):
                    self._send_heartbeat(self._at._replace(position=self._read_to))
                    break

    def close(self) -> None:
        metrics.CONNECTED.labels(self._id).set(0)
        self._lag.end()
        self._stream.close()
        self._publisher.close()

    def _read(self, timeout_s: float) -> bool:
        """Publish what the binlog has now. Return whether it had anything."""
        items = self._poll(timeout_s)
        self._verify_file()
        has_read = bool(items)
        if self._next_row is not None:
            items = self._without_published(items)

        keep_lease = self._lease.keep
        transaction = self._transaction
        for item in items:
            # A reader that stood still may have lost the lease. It must not publish what its socket
            # held meanwhile, so the lease comes before each item, not before each batch.
            keep_lease()
            # The most frequent first. This runs for each row, and a `match` would take longer.
            if isinstance(item, RowChange):
                transaction.row(item)
            elif isinstance(item, Commit):
                self._commit(item)
            elif isinstance(item, KeyChange):
                transaction.key_change(item)
            elif isinstance(item, IncompleteRow):
                transaction.incomplete_row(item)
            elif isinstance(item, Idle):
                self._idle(item)
            elif isinstance(item, Statement):
                self._statement(item)
            elif isinstance(item, NextFile):
                self._next_file(item)
            elif isinstance(item, SkippedTransaction):
                self._tell_skipped(item)
        transaction.count()
        self._mark_within()
        self._heartbeat.report()
        return has_read

    def _poll(self, timeout_s: float) -> list[BinlogItem]:
        """Return what the binlog has now. An error names the transaction that can't be decoded."""
        fatal: Fatal
        try:
            return self._stream.poll(timeout_s)
        except ColumnsChangedError as error:
            fatal = self._columns.remedy(error, self._read_to)
        except Fatal as error:
            fatal = error
        if isinstance(fatal, Gap):
            raise fatal
        raise name_transaction(fatal, self._id, self._stream.gtid)

    def _without_published(self, items: list[BinlogItem]) -> list[BinlogItem]:
        """Leave out the rows that the session before has published, and Kafka acknowledged."""
        remaining: list[BinlogItem] = []
        for item in items:
            if self._next_row is not None and isinstance(item, RowChange | KeyChange):
                if RowPlace(item.at, item.ordinal).order < self._next_row.order:
                    self._transaction.published_row(item)
                    continue
                self._next_row = None
            remaining.append(item)
        return remaining

    # --- what the binlog says

    def _commit(self, commit: Commit) -> None:
        incomplete_keys = self._transaction.commit(commit.at)
        self._at = SourcePosition(commit.at, commit.gtid, self._start.server)
        if incomplete_keys:
            self._read_again(incomplete_keys)
        if commit.ts:
            self._heartbeat.source_ms = commit.ts * 1000
            self._last_commit_ms = commit.ts * 1000
            self._lag.commit(self._publisher.sent, commit.ts * 1000)
        self._mark(commit.at, commit.gtid_set)
        self._begin_snapshot_if_due()

    def _tell_skipped(self, skipped: SkippedTransaction) -> None:
        metrics.SKIPPED.labels(self._id, "skip-transaction").inc()
        signal = self._signals.look().skipped(self._start.epoch)[skipped.gtid]
        log.error(
            "transaction skipped: its rows are missing until they are read again",
            hospital=self._id,
            gtid=skipped.gtid,
            file=skipped.at.file,
            pos=skipped.at.pos,
            reason=f"asked for by {signal.by}",
            hint=f"passport signal --hospital {self._id} snapshot",
        )

    def _idle(self, idle: Idle) -> None:
        """Move the position on, also into the next file, when the server has nothing new."""
        if self._transaction.is_open:
            return
        self._transaction.move_to(idle.at)
        self._at = SourcePosition(idle.at, "", self._start.server)
        self._mark(idle.at, None)
        self._begin_snapshot_if_due()

    def _next_file(self, rotated: NextFile) -> None:
        if rotated.clean:
            return
        if self._is_crash_harmless(rotated.left):
            log.warning(
                "the server crashed, and its tables are what its binlog says",
                hospital=self._id,
                reason="sync_binlog and innodb_flush_log_at_trx_commit were 1",
            )
            return
        # It may have committed what its binlog lost, or the other way round.
        self._request_snapshot("the server crashed: a binlog file has no end", rotated.at)

    def _is_crash_harmless(self, crashed_at: Position) -> bool:
        """Return whether tables and binlog are surely equal after a crash that ended a file."""
        every_s = self._settings.heartbeat_s
        if not self._start.seen_durable.covers(crashed_at, self._last_commit_ms, every_s):
            return False
        database = self._hospital.mysql.database
        return self._source.ask(lambda connection: are_transactional(connection, database))

    def _statement(self, statement: Statement) -> None:
        """Rows may have changed without row events, so that only reading the table shows them.

        ALTER fills columns, RENAME swaps tables, TRUNCATE empties them. Of a table that is looked
        up no rows are published, so that it needs no snapshot.
        """
        metrics.SKIPPED.labels(self._id, statement.kind).inc()
        if statement.kind == "rollback":
            self._transaction.roll_back()
        if statement.kind in ("alter", "ddl"):
            may_change_values = self._columns.follow(statement, self._lease)
            self._stream.set_columns(self._columns.columns, self._columns.valid_from)
            if not may_change_values:
                return
        tables = WATCHED if statement.table == "*" else (statement.table,)
        op: Op = "r"
        if not FACT_TABLES.keys().isdisjoint(tables):
            self._request_snapshot(f"{statement.kind} on {statement.table}", statement.at)
            op = "u"
        for table in tables:
            if table not in FACT_TABLES:
                # A key change without keys: any row of the table may have changed. With "u" the
                # snapshot has all obs enriched again, with "r" consumers do it by themselves.
                value = self._envelopes.key_change(
                    table,
                    op,
                    (),
                    at=statement.at,
                    ordinal=0,
                    gtid="",
                    ts_ms=statement.ts * 1000,
                )
                self._publisher.send("notice", value)

    def _read_again(self, keys: list[int]) -> None:
        """Publish rows whose images were not whole, because binlog_row_image is not FULL."""
        left = sorted({*keys})
        size = PageSize(ROWS_READ_AGAIN)
        while left:
            self._wait_for_pace()
            wanted_keys = left[: self._pace.most_rows(FETCHED, size.rows)]
            self._pace.begin()
            try:
                with read_in_stream(self._source, self._at, longest_s=size.longest_s) as in_stream:
                    rows = rows_with_keys(in_stream.read, OBS, wanted_keys)
            except TooSlow:
                size.ended()
                continue
            size.answered(in_stream.read.worked_s)
            self._pace.count(len(rows), QUERIES_OF_A_CHUNK)
            left = left[len(wanted_keys) :]

            at = in_stream.at
            ts_ms = in_stream.ts_ms
            for value in self._envelopes.read(rows, at, ts_ms):
                self._publisher.send("row", value)

            # A row that was deleted since is a chunk of its one key, which lists no keys: nothing
            # but its key is known.
            missing_keys = {*wanted_keys} - {row[OBS.key] for row in rows}
            for key in missing_keys:
                value = self._envelopes.chunk(OBS.name, key - 1, key, (), at, ts_ms)
                self._publisher.send("chunk", value)
        if self._snapshot.done:
            self._pace.rest()

    def _wait_for_pace(self) -> None:
        """Wait until the load budget allows a query. Raises Retry if this is to stop meanwhile."""
        while (wait_s := self._pace.wait_s()) > 0:
            self._lease.keep()
            if self._stop.wait(min(wait_s, LONGEST_WAIT_S)):
                raise Retry(
                    f"hospital {self._id}: stopped while rows were read again",
                    origin=Origin.hospital(self._id),
                )

    # --- the snapshot beside the stream

    def _request_snapshot(self, reason: str, at: Position) -> None:
        log.error("snapshot again", hospital=self._id, reason=reason, file=at.file, pos=at.pos)
        self._is_snapshot_due = True

    def _begin_snapshot_if_due(self) -> None:
        # Only at a transaction's end: then each of its reads contains what asked for it.
        if self._is_snapshot_due:
            self._is_snapshot_due = False
            number = self._snapshot.cursor.number + 1
            asked = self._signals.look().snapshot(self._start.epoch)
            if asked is not None:
                number = max(number, asked.number)
            self._snapshot = self._snapshot_from(Snapshot(number))

    def _step_snapshot(self, *, live: bool) -> None:
        if self._transaction.is_open or self._is_snapshot_due or not self._is_file_verified:
            return
        is_waiting = self._is_snapshot_waiting()
        if is_waiting:
            self._snapshot.settle()
            self._pace.rest()
        else:
            self._snapshot.step(self._at, live=live)
        metrics.SNAPSHOT_RUNNING.labels(self._id).set(0 if self._snapshot.done else 1)
        metrics.SNAPSHOT_WAITING.labels(self._id).set(1 if is_waiting else 0)

    def _is_snapshot_waiting(self) -> bool:
        """Return whether the snapshot waits for the hospital's quiet hours."""
        return not self._snapshot.done and self._hours.closed_s() > 0

    def _snapshot_from(self, cursor: Snapshot) -> SnapshotJob:
        return SnapshotJob(
            self._source,
            self._publisher,
            self._envelopes,
            self._pace,
            cursor,
            chunk_rows=self._hospital.load_budget.chunk_rows,
        )

    def _wait_s(self) -> float:
        """Return how long to wait for the binlog: not past the snapshot's next step."""
        if self._snapshot.done or self._is_snapshot_waiting():
            return IDLE_S
        return min(IDLE_S, self._snapshot.wait_s(live=False))

    # --- what operators ask for

    def _obey(self) -> None:
        """Do what was asked for since the last turn. A pause ends the session."""
        signals = self._signals.look()
        if len(signals) == self._obeyed:
            return
        self._obeyed = len(signals)
        epoch = self._start.epoch
        asked = signals.snapshot(epoch)
        if asked is not None and asked.number > self._snapshot.cursor.number:
            log.warning("snapshot again", hospital=self._id, reason=f"asked for by {asked.by}")
            self._is_snapshot_due = True
            if not self._transaction.is_open:
                self._begin_snapshot_if_due()

        stop = signals.stop(epoch, self._snapshot.cursor.number)
        if stop is not None and not self._snapshot.done:
            log.error(
                "snapshot stopped: rows that it had not read yet may be missing or out of date",
                hospital=self._id,
                reason=f"asked for by {stop.by}",
                next_key=self._snapshot.cursor.next_key,
                hint=f"passport signal --hospital {self._id} snapshot",
            )
            self._snapshot.stop()
        self._pace.set_budget(signals.budget(self._hospital.load_budget))
        self._stream.skip(frozenset(signals.skipped(epoch)))

    # --- the lease, the heartbeat and the position

    def _keep_lease(self) -> None:
        self._lease.keep()
        if self._lease.was_retaken():
            # Another reader may have held it meanwhile. If it began an epoch, this one is over.
            self._position_writer.refuse_newer_epoch(self._lease)

    def _beat(self) -> None:
        if not self._heartbeat.is_due():
            return
        self._heartbeat.look(self._read_to, self._position_writer.saved)
        # Before the first commit nothing is known of the time up to which all is published.
        if self._heartbeat.source_ms:
            self._send_heartbeat(self._at)

    def _send_heartbeat(self, at: SourcePosition) -> None:
        if not self._transaction.is_open:
            self._heartbeat.send(at)

    def _note_lag(self, *, is_idle: bool) -> None:
        """Note how far Kafka is, and whether the binlog has more. `is_idle`: nothing came of it."""
        open_ms = 0
        if self._transaction.is_open:
            open_ms = self._transaction.began_ts * 1000
        read_all_ms = 0
        if is_idle and self._heartbeat.is_at_end(self._read_to):
            read_all_ms = self._heartbeat.source_ms
        publisher = self._publisher
        self._lag.look(publisher.sent, publisher.acked(), open_ms=open_ms, read_all_ms=read_all_ms)

    def _mark(self, at: Position, gtid_set: str | None) -> None:
        """Note that it is safe to go on from `at`; `gtid_set` is None if no commit is there."""
        # The date of a file that was left meanwhile is not known any more.
        is_in_current_file = at.file == self._stream.position.file
        format_ts = self._stream.format_ts if is_in_current_file else 0
        self._position_writer.mark(at, gtid_set, format_ts, self._columns)

    def _mark_within(self, *, however_few: bool = False) -> None:
        """Note how far the open transaction is sent, unless that is still being passed over."""
        next_row = self._transaction.next_row
        if next_row is None or self._next_row is not None or self._stream.is_unverified:
            return
        if self._transaction.is_open:
            self._position_writer.mark_within(next_row, however_few=however_few)

    def _save(self, *, at_most_every_s: float) -> None:
        was_due = self._position_writer.save(
            self._snapshot.cursor,
            self._heartbeat.source_ms,
            self._heartbeat.seen_durable,
            at_most_every_s=at_most_every_s,
        )
        if not was_due or not self._is_file_verified:
            return
        # Reading alone is not working: Kafka must take what was sent.
        if self._lag.silent_s() > SILENT_S:
            health.failing(
                f"hospital {self._id}: reader",
                f"Kafka at {self._kafka.bootstrap} acknowledges nothing of what is sent",
                self._kafka.silent_hint,
            )
        elif self._publisher.acked() or not self._publisher.sent:
            health.working(f"hospital {self._id}: reader")

    def _has_published(self, end: Position) -> bool:
        has_read_all = self._is_file_verified and self._read_to.order >= end.order
        return has_read_all and self._publisher.acked() == self._publisher.sent

    def _drain(self) -> None:
        """End in order: wait until what was sent is acknowledged, and save what is."""
        deadline = time.monotonic() + FINISH_S
        while self._transaction.is_open and time.monotonic() < deadline:
            self._read(IDLE_S)
        self._flush_and_save()

    def _verify_rows(self) -> None:
        """Read the rest of a large event whose rows were published, to verify its checksum."""
        self._stream.pass_over()
        while self._stream.is_unverified:
            self._stream.poll(IDLE_S)
            self._lease.keep()

    def _flush_and_save(self) -> None:
        """Wait until what was sent is acknowledged, and save how far that is."""
        self._mark_within(however_few=True)
        try:
            self._publisher.flush(FLUSH_S)
        except Retry as error:
            log.warning(
                "stopped before everything was acknowledged",
                hospital=self._id,
                reason=error.reason,
                hint=error.hint,
            )
        self._snapshot.settle()
        self._save(at_most_every_s=0)
        self._position_writer.save_in_full()

    # --- the binlog

    @property
    def _read_to(self) -> Position:
        """The end of the event that was read last."""
        return self._stream.position if self._stream.format_ts else self._at.position

    def _verify_file(self) -> None:
        """Check that the file that is read now is the one of the saved position. Raises Gap.

        RESET MASTER makes a new file of the same name. The two differ in their dates.
        """
        began_ts = self._stream.began_ts
        if self._is_file_verified or not began_ts:
            return
        self._is_file_verified = True
        if self._start.by_gtid or self._start.format_ts == began_ts:
            return
        if self._start.format_ts:
            raise Gap(
                f"hospital {self._id}: {self._start.position.file} is another file than the one"
                " that was read",
                hint="nothing to do: the server's binlog began anew, so a new epoch and a snapshot"
                " follow",
                origin=Origin.hospital(self._id),
            )
        # A new epoch knows its file's date only now. It is saved before the first record is sent.
        self._position_writer.date_file(began_ts)
        self._save(at_most_every_s=0)

    def _open_stream(self, connections: Connections) -> BinlogStream:
        start = self._start
        mysql = self._hospital.mysql

        def connect() -> "pymysql.Connection[Any]":
            connection: pymysql.Connection[Any] = connections.connect(self._id, mysql)
            try:
                self._same_server.begin(connection)
                # The address may have led elsewhere from one connection to the next. This comes
                # before the binlog is asked for: a server that can't read it at the position ends
                # this connection at once, and with it the lock that the others are asked about.
                self._same_server.confirm(self._lease.connection)
                self._same_server.confirm(self._source.connection())
            except BaseException:
                connection.close()
                raise
            return connection

        with self._hospital_named():
            return connections.stream(
                connect,
                flavour=flavour(self._source.connection()),
                server_id=self._hospital.server_id or server_id(self._lease.name),
                start=None if start.by_gtid else start.position,
                gtid_set=start.gtid_set,
                database=mysql.database,
                columns=start.columns,
                row_columns=ROW_COLUMNS,
                key_columns=_key_columns(start.columns),
                heartbeat_s=min(self._settings.heartbeat_s, mysql.read_timeout_s / 2),
                read_timeout_s=mysql.read_timeout_s,
            )

    @contextmanager
    def _hospital_named(self) -> Iterator[None]:
        """Name the hospital in errors of the decoder and of Kafka.

        Neither knows whose rows it has.
        """
        try:
            yield
        except Gap:
            raise
        except Fatal as error:
            if error.origin == Origin.hospital(self._id):
                raise
            raise Fatal(
                f"hospital {self._id}: {error.reason}",
                details=error.details,
                hint=error.hint.replace("HOSPITAL", self._id),
                origin=error.origin or Origin.hospital(self._id),
            ) from None

    def _traces(self, settings: Settings) -> TransactionTraces | None:
        """Return what traces transactions; None if tracing is off."""
        one_in = settings.tracing.every
        if not one_in:
            return None
        attributes = {
            tracing.HOSPITAL: self._id,
            tracing.PARTITION: str(self._hospital.partition),
        }
        return TransactionTraces(self._publisher, settings.kafka.topic, attributes, one_in=one_in)


def _key_columns(columns: Columns) -> Mapping[str, Sequence[str]]:
    """Return the key columns of the reference tables whose rows are decoded.

    An optional table that the account may not see has no column list. A server that doesn't name
    the columns in the binlog says too little of its rows then, so they are passed over.
    """
    return {
        table: keys
        for table, keys in KEY_COLUMNS.items()
        if table not in OPTIONAL_TABLES or table in columns
    }
