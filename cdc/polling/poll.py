"""Polls a hospital that has no binlog: reads its tables again and again, and publishes differences.

Ranges of keys are hashed on the server and compared with the hashes of what was published, so that
it doesn't matter what a row's own stamps say: inserts, late commits, back-dated rows, edits in
place, voids, unvoids and purges all change their range's hash. What differs is read in pieces. A
piece is one short snapshot: its rows, the keys that are there, and their hash. No snapshot is held
longer, because an ALTER at the hospital would wait for it.

Each piece has a version of its own, (epoch, number), and the numbers only grow. A number is used
when its snapshot has been taken. So whoever has seen a number, and then reads at the hospital, sees
no less than that snapshot; and what the next piece shows is newer than whatever was stored before
it. Numbers, and which ranges are being published, are saved before the first record: a run that
breaks off leaves those ranges in doubt, and the next one publishes them whole.

Where hashing everything would take more than the load budget gives an interval, the walk goes on in
the next run, and the ranges with new keys or recent stamps are looked at first.

Operators can ask for the same as of a reader (see `cdc.signals`). A snapshot is a walk from the
first table on that publishes each range of the fact tables, whatever its hash.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from cdc.client_errors import translate_client_errors
from cdc.envelopes import Envelopes
from cdc.lease import Lease
from cdc.pause import paused, wait_while_paused
from cdc.polling.scan import Digests, Scan, fact_table, reference_tables
from cdc.polling.walk import DifferingRange, PolledState, Walk
from cdc.positions import Positions, Saved, Snapshot
from cdc.publisher import Publisher
from cdc.resume import outdated
from cdc.same_server import SameServer
from cdc.signals import SignalWatch
from openmrs.connection import identity
from openmrs.load_budget import WaitingPace
from openmrs.load_share import LoadShare
from openmrs.read import ANY_POSITION, Source
from openmrs.row_hash import Digest
from openmrs.tables import FACT_TABLES
from passport import health, metrics
from passport.errors import Altered, Fatal, Gap, Origin, Retry
from passport.settings import Settings
from passport.version import Position, next_epoch

# Stamps count as recent for so long. More costs hashing only. It must be more than what a clock is
# set back by in autumn.
OVERLAP_S = 2 * 3600
# So many numbers are saved as used at once. Those that a run which broke off hasn't used are lost.
NUMBERS_AT_ONCE = 100

log = structlog.get_logger()


class Paused(Retry):
    """An operator has paused the polling. What is not published yet comes with a later run."""


def run(hospital_id: str, settings: Settings, *, once: bool, stop: threading.Event) -> None:
    """Poll until `stop`, run after run.

    With `once` it returns when every table has been walked and all of it is acknowledged, and
    raises Retry and NotReady. Otherwise these are waited out, and /readyz says so meanwhile. Raises
    Fatal, with `once` also if an operator has paused the hospital.
    """
    if settings.hospitals[hospital_id].capture != "polling":
        raise Fatal(
            f"hospital {hospital_id}: its capture is binlog, so it isn't polled",
            hint=f"passport cdc run --hospital {hospital_id},"
            f" or set hospitals.{hospital_id}.capture to polling",
            origin=Origin.hospital(hospital_id),
        )
    delay_s = 1.0
    while not stop.is_set():
        try:
            with translate_client_errors(hospital_id, settings):
                _wait_while_paused(hospital_id, settings, stop, once=once)
                with (
                    _leased(hospital_id, settings, stop) as lease,
                    opened(hospital_id, settings, lease, stop) as poller,
                ):
                    delay_s = 1.0
                    poller.follow(once=once)
        except Paused:
            continue
        except Retry as error:
            if stop.is_set():
                return
            if once:
                raise
            log.warning(
                "polling interrupted",
                hospital=hospital_id,
                reason=error.reason,
                hint=error.hint,
                after_s=delay_s,
            )
            health.failing(_part(hospital_id), error.reason, error.hint)
            # Hospitals that broke off together come back one after the other.
            stop.wait(random.uniform(delay_s / 2, delay_s))
            delay_s = min(delay_s * 2, settings.cdc.reconnect_max_s)
        else:
            return


def _part(hospital_id: str) -> str:
    return f"hospital {hospital_id}: polling"


def _wait_while_paused(
    hospital_id: str, settings: Settings, stop: threading.Event, *, once: bool
) -> None:
    """Wait as long as an operator has paused the hospital. Raises Fatal instead with `once`."""
    Positions.ensure(settings)
    with closing(Positions(settings.kafka)) as positions:
        positions.load(hospital_id)
        signals = positions.signals(hospital_id)
        watch = SignalWatch(settings.kafka, hospital_id, signals, positions.next_offset)
    if signals.pause is None:
        return
    if once:
        raise paused(hospital_id, signals.pause)
    wait_while_paused(hospital_id, _part(hospital_id), signals.pause, watch, stop)


@contextmanager
def _leased(hospital_id: str, settings: Settings, stop: threading.Event) -> Iterator[Lease]:
    """Hold the hospital's lease. Raises Retry when `stop` comes before it.

    There is one poller a hospital: two would give the same number to different snapshots.
    """
    name = Positions(settings.kafka).reader_name(hospital_id)
    with closing(Lease(hospital_id, settings.hospitals[hospital_id].mysql)) as lease:
        if not lease.take(name, stop):
            raise Retry(
                f"hospital {hospital_id}: stopped while waiting for its lease",
                origin=Origin.hospital(hospital_id),
            )
        yield lease


@contextmanager
def opened(
    hospital_id: str, settings: Settings, lease: Lease, stop: threading.Event
) -> Iterator["Poller"]:
    """Open a session of polling. The lease must be held. Raises NotReady, Fatal."""
    partition = settings.hospitals[hospital_id].partition
    Positions.ensure(settings)
    with (
        closing(Positions(settings.kafka)) as positions,
        closing(Publisher(settings.kafka, hospital_id, partition)) as publisher,
    ):
        poller = Poller(hospital_id, settings, positions, lease, publisher, stop)
        with closing(poller):
            yield poller


class Poller:
    """One session of polling. All that it remembers from run to run is in the saved position."""

    def __init__(
        self,
        hospital_id: str,
        settings: Settings,
        positions: Positions,
        lease: Lease,
        publisher: Publisher,
        stop: threading.Event,
    ) -> None:
        self._id = hospital_id
        self._hospital = settings.hospitals[hospital_id]
        self._positions = positions
        self._lease = lease
        self._publisher = publisher
        self._stop = stop
        self._same_server = SameServer(
            hospital_id, self._hospital.mysql, settings.cdc.address_check_s
        )
        self._same_server.begin(lease.connection)
        self._source = Source(hospital_id, self._hospital.mysql, self._same_server.connect)
        self._saved = self._load()
        self._signals = SignalWatch(
            settings.kafka, hospital_id, positions.signals(hospital_id), positions.next_offset
        )
        publisher.end_offset = self._saved.topic_end
        self._state = PolledState.decode(self._saved.state)
        # The number of the last snapshot that was published. Those up to `_saved.run` may be used.
        self._number = self._saved.run
        self._has_published = False
        budget = self._hospital.load_budget
        pace = WaitingPace(budget, stop, lease.keep, LoadShare(self._source))
        self._scan = Scan(self._source, pace, chunk_rows=budget.chunk_rows)

    def close(self) -> None:
        self._signals.close()
        self._source.close()

    @property
    def epoch(self) -> int:
        return self._saved.epoch

    def follow(self, *, once: bool) -> None:
        """Do run after run, until `stop`; with `once` until every table has been walked."""
        interval_s = self._hospital.poll_interval_s
        if once and self._state.complete:
            self._state.cursor = None  # a whole round, from the first table on
        while not self._stop.is_set():
            started = time.monotonic()
            self.run()
            health.working(_part(self._id))
            if once and self._state.cursor is None:
                return
            self._wait(0 if once else interval_s - (time.monotonic() - started))

    def _wait(self, seconds: float) -> None:
        """Wait until the next run is due: also when an operator asks for a snapshot."""
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := end - time.monotonic()) > 0:
            self._stop.wait(min(left_s, 1))
            self._lease.keep()
            self._obey()
            if self._turn_snapshot():
                return

    def run(self) -> None:
        """Look as far as the budget allows, publish what differs, and save what was published."""
        try:
            self._look_through()
        except Gap as gap:
            # The topic lost what was published to it: all of it once more.
            log.error("gap", hospital=self._id, reason=gap.reason, hint=gap.hint)
            self._begin_epoch(self._saved.server)
            self._publisher.end_offset = 0
            self.run()
        finally:
            # The next run reads the column list again, should OpenMRS be upgraded meanwhile.
            self._source.close()

    def _look_through(self) -> None:
        """Look, and once more from the beginning if a table was altered meanwhile.

        Raises Altered if one was altered again. It is waited for then, as any error is.
        """
        try:
            self._check_server()
            self._look()
        except Altered as altered:
            log.warning("polling begins again", hospital=self._id, reason=altered.reason)
            self._require_running()
            self._source.close()
            self._check_server()
            self._look()

    def _look(self) -> None:
        started = time.monotonic()
        self._obey()
        self._turn_snapshot()
        budget = self._signals.look().budget(self._hospital.load_budget)
        since = self._wall_time(self._state.run_ms // 1000 - OVERLAP_S)
        with self._source.read_at(ANY_POSITION) as read:
            began_ms = read.clock_ms()
            tables = reference_tables(read, self._hospital.mysql.database)
        for fact in FACT_TABLES.values():
            tables.append(fact_table(fact, self._source.columns(fact)))
        self._state.begin(began_ms)
        self._has_published = False

        walk = Walk(
            self._scan,
            tables,
            self._state,
            width=budget.chunk_rows,
            is_snapshot=self._is_snapshot_running,
        )
        rows = budget.rows_per_s * self._hospital.poll_interval_s
        for ranges_of_page in walk.differing(rows, since):
            self._require_running()
            if self._turn_snapshot():
                self._look()
                return
            if ranges_of_page:
                self._publish(ranges_of_page)
        self._state.end(began_ms)
        if self._state.cursor is None and self._is_snapshot_running:
            snapshot = Snapshot(self._snapshot.number, "done")
            self._saved = replace(self._saved, snapshot=snapshot)
            log.info("snapshot done", hospital=self._id, number=snapshot.number)
        self._end()
        log.info(
            "polled",
            hospital=self._id,
            run=self._saved.run,
            duration_s=round(time.monotonic() - started, 3),
        )

    # --- what operators ask for

    def _obey(self) -> None:
        """Keep to the budget that was asked for. Raises Paused."""
        signals = self._signals.look()
        if signals.pause is not None:
            raise Paused(
                f"hospital {self._id}: {signals.pause.by} has paused its polling",
                hint=f"passport signal --hospital {self._id} resume",
                origin=Origin.hospital(self._id),
            )
        self._scan.set_budget(signals.budget(self._hospital.load_budget))

    @property
    def _snapshot(self) -> Snapshot:
        """The newest snapshot that was asked for in this epoch."""
        return self._saved.snapshot or Snapshot(0, "done")

    @property
    def _is_snapshot_running(self) -> bool:
        return self._snapshot.state == "running"

    def _turn_snapshot(self) -> bool:
        """Begin, or stop, a snapshot if that was asked for. Return whether it was."""
        signals = self._signals.look()
        asked = signals.snapshot(self._saved.epoch)
        stop = signals.stop(self._saved.epoch, self._snapshot.number)
        if asked is not None and asked.number > self._snapshot.number:
            log.warning("snapshot again", hospital=self._id, reason=f"asked for by {asked.by}")
            self._state.cursor = None
            snapshot = Snapshot(asked.number)
        elif stop is not None and self._is_snapshot_running:
            next_key = None
            if self._state.cursor is not None and self._state.cursor[0] in FACT_TABLES:
                next_key = self._state.cursor[1]
            log.error(
                "snapshot stopped: later rows are published only where their hashes differ",
                hospital=self._id,
                reason=f"asked for by {stop.by}",
                next_key=next_key,
                hint=f"passport signal --hospital {self._id} snapshot",
            )
            snapshot = Snapshot(self._snapshot.number, "stopped", next_key)
        else:
            return False
        self._publisher.flush()
        self._save(replace(self._saved, snapshot=snapshot, state=self._state.encode()))
        return True

    def _require_running(self) -> None:
        self._obey()
        if self._stop.is_set():
            raise Retry(
                f"hospital {self._id}: stopped within a run, which comes again",
                origin=Origin.hospital(self._id),
            )

    def _publish(self, differing_ranges: Sequence[DifferingRange]) -> None:
        """Publish the rows of fact tables' ranges, and the keys of the other tables'."""
        for differing in differing_ranges:
            self._state.doubt(differing)
        self._save_begun()
        for differing in differing_ranges:
            if differing.table.is_fact:
                self._publish_rows(differing)
            else:
                self._publish_keys(differing)

    def _publish_rows(self, differing: DifferingRange) -> None:
        table = differing.table
        width = self._state.tables[table.name].width
        digests: Digests = {}
        top = -1
        for piece in self._scan.fact_pieces(table, width, differing.after, differing.to):
            first, to, rows = piece.range
            at = self._next_number()
            ts_ms = self._state.through_ms
            envelopes = self._envelopes()
            for value in envelopes.read(rows, at, ts_ms):
                self._publisher.send("row", value)
            metrics.EVENTS.labels(self._id, table.name, "r").inc(len(rows))
            keys = [row[table.key] for row in rows]
            if differing.is_whole:
                # The chunk event says who is gone. Its rows must be there before it.
                self._publisher.flush()
                value = envelopes.chunk(table.name, first, to, keys, at, ts_ms)
                self._publisher.send("chunk", value)
            _add(digests, piece.digests)
            if keys:
                top = keys[-1]
        self._state.published(differing, digests, top)

    def _publish_keys(self, differing: DifferingRange) -> None:
        table = differing.table
        ranges = self._state.tables[table.name]
        digests: Digests = {}
        after = -1 if differing.after is None else differing.after
        to = ranges.top if differing.to is None else differing.to
        for piece in self._scan.key_pieces(table, ranges.width, after, to, ranges.top):
            at = self._next_number()
            ts_ms = self._state.through_ms
            for value in self._envelopes().key_changes(table.name, "u", piece.keys, at, ts_ms):
                self._publisher.send("notice", value)
                metrics.EVENTS.labels(self._id, table.name, "u").inc()
            _add(digests, piece.digests)
        self._state.published(differing, digests, ranges.top)

    def _next_number(self) -> Position:
        """Return the position of a snapshot that was just taken, to publish what it shows.

        Raises Retry when this is to stop.
        """
        self._require_running()
        if self._number == self._saved.run:
            self._save_begun()
        self._number += 1
        return self._at

    def _save_begun(self) -> None:
        """Save which ranges are in doubt, and numbers to use, before they are.

        What the state says to be published must be acknowledged by then.
        """
        self._publisher.flush()
        turn = _turn(self._saved)
        if not self._has_published:
            turn += 1
            self._has_published = True
        self._save(
            replace(
                self._saved,
                run=self._number + NUMBERS_AT_ONCE,
                position=_place(turn, ended=False),
                state=self._state.encode(),
            )
        )

    def _end(self) -> None:
        heartbeat = self._envelopes().heartbeat(self._at, "", self._state.through_ms)
        self._publisher.send("heartbeat", heartbeat)
        self._publisher.flush()
        if self._has_published:
            place = _place(_turn(self._saved), ended=True)
            self._save(
                replace(self._saved, run=self._number, position=place, state=self._state.encode())
            )
        metrics.LAST_EVENT.labels(self._id).set(self._state.through_ms / 1000)

    def _save(self, saved: Saved) -> None:
        self._saved = replace(
            saved, ts_ms=int(time.time() * 1000), topic_end=self._publisher.end_offset
        )
        self._positions.save(self._saved)

    @property
    def _at(self) -> Position:
        """The position of the snapshot that was published last."""
        return Position(f"poll.{self._number}", 0)

    def _envelopes(self) -> Envelopes:
        saved = self._saved
        return Envelopes(
            self._id, self._hospital, server=saved.server, epoch=saved.epoch, polled=True
        )

    def _wall_time(self, unix_s: int) -> str:
        zone = ZoneInfo(self._hospital.timezone)
        return datetime.fromtimestamp(max(unix_s, 86400), zone).strftime("%Y-%m-%d %H:%M:%S")

    # --- epochs

    def _check_server(self) -> None:
        """Begin a new epoch if another server answers: after a restore its rows may differ."""
        server = self._source.ask(identity)
        if server != self._saved.server:
            log.warning("the hospital's server changed", hospital=self._id)
            self._begin_epoch(server)

    def _begin_epoch(self, server: str) -> None:
        self._saved = self._new_epoch(self._saved.epoch, server)
        self._number = 0
        self._state = PolledState()

    def _load(self) -> Saved:
        partition = self._hospital.partition
        saved = self._positions.load(self._id, partition=partition, keep=self._lease.keep)
        published_epoch = self._positions.published_epoch(partition)
        reason = outdated(saved, published_epoch)
        if saved is not None and saved.capture == "polling" and not reason:
            return saved
        last_epoch = max(saved.epoch if saved else 0, published_epoch)
        return self._new_epoch(last_epoch, self._source.ask(identity))

    def _new_epoch(self, last_epoch: int, server: str) -> Saved:
        epoch = next_epoch(last_epoch, time.time())
        log.info("new epoch", hospital=self._id, epoch=epoch, capture="polling")
        place = _place(0, ended=True)
        return Saved(self._id, self._hospital.partition, server, 0, epoch, place, capture="polling")


def _turn(saved: Saved) -> int:
    """Return the number of the last run that has published."""
    return saved.position.pos // 2


def _place(turn: int, *, ended: bool) -> Position:
    """Return a position of polling, which is in no binlog.

    It makes a run's last record in the positions topic higher than its first ones.
    """
    return Position("poll.0", 2 * turn + ended)


def _add(digests: Digests, others: Digests) -> None:
    for number, digest in others.items():
        digests[number] = digests.get(number, Digest()) | digest
