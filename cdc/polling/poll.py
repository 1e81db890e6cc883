"""Polls a hospital that has no binlog: reads its tables again and again, and publishes differences.

A run is one consistent snapshot; all that it publishes has the version (epoch, run). Ranges of keys
are hashed on the server and compared with the hashes that the last run saved, so that it doesn't
matter what a row's own stamps say: inserts, late commits, back-dated rows, edits in place, voids,
unvoids and purges all change their range's hash. Where hashing everything would take more than the
load budget gives an interval, the walk goes on in the next run, and the ranges with new keys or
recent stamps are looked at first.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from cdc.envelopes import Envelopes
from cdc.lease import Lease
from cdc.polling import scan
from cdc.polling.walk import DifferingRange, PolledState, Walk
from cdc.positions import Positions, Saved
from cdc.publisher import Publisher
from openmrs.connection import identity
from openmrs.key_ranges import rows_between
from openmrs.load_budget import FETCHED, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.tables import FACT_TABLES
from passport import metrics
from passport.errors import Fatal, Gap, Origin, Retry
from passport.settings import Settings
from passport.version import Position, next_epoch

# Stamps count as recent for so long. More costs hashing only. It must be more than what a clock is
# set back by in autumn.
OVERLAP_S = 2 * 3600

log = structlog.get_logger()


def run(hospital_id: str, settings: Settings, *, once: bool, stop: threading.Event) -> None:
    """Poll until `stop`, run after run.

    With `once` it returns when every table has been walked and all of it is acknowledged, and
    raises Retry and NotReady, which otherwise are waited out. Raises Fatal.
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
            with (
                _leased(hospital_id, settings, stop) as lease,
                opened(hospital_id, settings, lease, stop) as poller,
            ):
                delay_s = 1.0
                poller.follow(once=once)
        except Retry as error:
            if stop.is_set():
                return
            if once:
                raise
            log.warning(
                "polling interrupted",
                hospital=hospital_id,
                reason=error.reason,
                after_s=delay_s,
            )
            # Hospitals that broke off together come back one after the other.
            stop.wait(random.uniform(delay_s / 2, delay_s))
            delay_s = min(delay_s * 2, settings.cdc.reconnect_max_s)
        else:
            return


@contextmanager
def _leased(hospital_id: str, settings: Settings, stop: threading.Event) -> Iterator[Lease]:
    """Hold the hospital's lease. Raises Retry when `stop` comes before it.

    There is one poller a hospital: two would give the same number to different snapshots.
    """
    with closing(Lease(hospital_id, settings.hospitals[hospital_id].mysql)) as lease:
        if not lease.take(stop):
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
        yield Poller(hospital_id, settings, positions, lease, publisher, stop)


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
        self._source = Source(hospital_id, self._hospital.mysql)
        self._saved = self._load()
        publisher.end_offset = self._saved.topic_end
        self._has_published = False
        self._state = PolledState.decode(self._saved.state)

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
            if once and self._state.cursor is None:
                return
            self._wait(0 if once else interval_s - (time.monotonic() - started))

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := end - time.monotonic()) > 0:
            self._stop.wait(min(left_s, 1))
            self._lease.keep()

    def run(self) -> None:
        """Look at one snapshot, publish what differs, and save what is known now."""
        try:
            self._check_server()
            with self._source.read_at(ANY_POSITION) as read:
                self._look(read)
        except Gap as gap:
            # The topic lost what was published to it: all of it once more.
            log.error("gap", hospital=self._id, reason=gap.reason, hint=gap.hint)
            self._begin_epoch(self._saved, self._saved.server)
            self._publisher.end_offset = 0
            self.run()
        finally:
            # The next run reads the column list again, should OpenMRS be upgraded meanwhile.
            self._source.close()

    def _look(self, read: ConsistentRead) -> None:
        started = time.monotonic()
        budget = self._hospital.load_budget
        since = self._wall_time(self._state.run_ms // 1000 - OVERLAP_S)
        self._state.begin(read.clock_ms())
        self._has_published = False

        facts = [
            scan.fact_table(table, self._source.columns(table)) for table in FACT_TABLES.values()
        ]
        tables = [*scan.reference_tables(read, self._hospital.mysql.database), *facts]
        pace = WaitingPace(budget, self._stop, self._lease.keep)
        walk = Walk(read, tables, self._state, pace, width=budget.chunk_rows)
        for differing in walk.differing(budget.rows_per_s * self._hospital.poll_interval_s, since):
            if self._stop.is_set():
                raise Retry(
                    f"hospital {self._id}: stopped within a run, which comes again",
                    origin=Origin.hospital(self._id),
                )
            self._publish(read, differing, pace)
        self._state.end()
        self._end()
        log.info(
            "polled",
            hospital=self._id,
            run=self._saved.run,
            duration_s=round(time.monotonic() - started, 3),
        )

    def _publish(self, read: ConsistentRead, differing: DifferingRange, pace: WaitingPace) -> None:
        """Publish the rows of a fact table's range, or the keys of another table's."""
        self._begin()
        envelopes = self._envelopes()
        at = self._at
        # Nobody knows when a row has changed. So it is dated by what is surely published.
        ts_ms = self._state.through_ms
        table = differing.table
        if not table.is_fact:
            keys = _keys(read, differing, self._state.tables[table.name].top)
            pace.spend(len(keys) * FETCHED)
            for value in envelopes.key_changes(table.name, "u", keys, at, ts_ms):
                self._publisher.send("notice", value)
                metrics.EVENTS.labels(self._id, table.name, "u").inc()
            return

        fact_table = FACT_TABLES[table.name]
        first, to, rows = rows_between(read, fact_table, differing.after, differing.to)
        pace.spend(len(rows) * FETCHED)
        for value in envelopes.read(rows, at, ts_ms):
            self._publisher.send("row", value)
        metrics.EVENTS.labels(self._id, table.name, "r").inc(len(rows))
        if differing.is_whole:
            # The chunk event says who is gone. Its rows must be there before it.
            self._publisher.flush()
            keys_there = [row[table.key] for row in rows]
            value = envelopes.chunk(table.name, first, to, keys_there, at, ts_ms)
            self._publisher.send("chunk", value)

    def _begin(self) -> None:
        """Save the run's number before its first record, so that no two runs ever share one."""
        if not self._has_published:
            number = self._saved.run + 1
            self._save(replace(self._saved, run=number, position=_place(number, ended=False)))
            self._has_published = True

    def _end(self) -> None:
        heartbeat = self._envelopes().heartbeat(self._at, "", self._state.through_ms)
        self._publisher.send("heartbeat", heartbeat)
        self._publisher.flush()
        if self._has_published:
            place = _place(self._saved.run, ended=True)
            self._save(replace(self._saved, position=place, state=self._state.encode()))
        metrics.LAST_EVENT.labels(self._id).set(self._state.through_ms / 1000)

    def _save(self, saved: Saved) -> None:
        self._saved = replace(
            saved, ts_ms=int(time.time() * 1000), topic_end=self._publisher.end_offset
        )
        self._positions.save(self._saved)

    @property
    def _at(self) -> Position:
        """Return the position of this run, or of the last one that has published."""
        return Position(f"poll.{self._saved.run}", 0)

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
        server = identity(self._source.connection())
        if server != self._saved.server:
            log.warning("the hospital's server changed", hospital=self._id)
            self._begin_epoch(self._saved, server)

    def _begin_epoch(self, previous: Saved, server: str) -> None:
        self._saved = self._new_epoch(previous, server)
        self._state = PolledState()

    def _load(self) -> Saved:
        partition = self._hospital.partition
        saved = self._positions.load(self._id, partition=partition, keep=self._lease.keep)
        if saved is None or saved.capture != "polling":
            return self._new_epoch(saved, identity(self._source.connection()))
        return saved

    def _new_epoch(self, previous: Saved | None, server: str) -> Saved:
        epoch = next_epoch(previous.epoch if previous else 0, time.time())
        log.info("new epoch", hospital=self._id, epoch=epoch, capture="polling")
        place = _place(0, ended=True)
        return Saved(self._id, self._hospital.partition, server, 0, epoch, place, capture="polling")


def _place(number: int, *, ended: bool) -> Position:
    """Return a position of polling, which is in no binlog.

    It makes a run's last record in the positions topic higher than its first.
    """
    return Position("poll.0", 2 * number + ended)


def _keys(read: ConsistentRead, differing: DifferingRange, top: int) -> list[dict[str, Any]]:
    """Return the keys of the rows in the range, and of those that may have been in it.

    `top` is the highest key that was ever seen.
    """
    table = differing.table
    if not table.keys or differing.after is None or differing.to is None:
        return [{}]
    keys = scan.present(read, table, differing.after, differing.to)
    if differing.is_whole:
        present = {key[table.key] for key in keys}
        highest = min(differing.to, max([top, *present]))
        for key in range(max(differing.after + 1, 0), highest + 1):
            if key not in present:
                keys.append({table.key: key})
    return keys
