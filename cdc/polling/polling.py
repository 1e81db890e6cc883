"""A hospital without a binlog: its tables are looked at again and again, and what differs is
published.

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
from cdc.polling.walk import Change, Known, Walk
from cdc.positions import Positions, Saved
from cdc.publisher import Publisher
from openmrs import connection as source
from openmrs.key_ranges import rows_between
from openmrs.load_budget import FETCHED, WaitingPace
from openmrs.read import ANY_POSITION, ConsistentRead, Source
from openmrs.tables import FACT_TABLES
from passport import metrics
from passport.errors import Fatal, Gap, Retry
from passport.settings import Settings
from passport.version import Position, next_epoch

OVERLAP_S = (
    2 * 3600
)  # of recent stamps: costs hashing only; more than a clock's change to winter time

log = structlog.get_logger()


def run(hospital_id: str, settings: Settings, *, once: bool, stop: threading.Event) -> None:
    """Polls until `stop`; `once`: returns when every table has been walked and all of it is
    acknowledged.

    Fatal; with `once` also Retry and NotReady, which otherwise are waited out.
    """
    if settings.hospitals[hospital_id].capture != "polling":
        raise Fatal(
            f"hospital {hospital_id}: its capture is binlog, so it isn't polled",
            hint=f"passport cdc run --hospital {hospital_id}, or set hospitals.{hospital_id}.capture to polling",
        )
    delay = 1.0
    while not stop.is_set():
        try:
            with (
                _leased(hospital_id, settings, stop) as lease,
                opened(hospital_id, settings, lease, stop) as polling,
            ):
                delay = 1.0
                polling.follow(once=once)
        except Retry as error:
            if stop.is_set():
                return
            if once:
                raise
            log.warning(
                "polling interrupted",
                hospital=hospital_id,
                reason=type(error).__name__,
                after_s=delay,
            )
            stop.wait(random.uniform(delay / 2, delay))
            delay = min(delay * 2, settings.cdc.reconnect_max_s)
        else:
            return


@contextmanager
def _leased(hospital_id: str, settings: Settings, stop: threading.Event) -> Iterator[Lease]:
    """One poller a hospital: two would give the same number to different snapshots. Retry when
    `stop` came first.
    """
    with closing(Lease(hospital_id, settings.hospitals[hospital_id].mysql)) as lease:
        if not lease.take(stop):
            raise Retry(f"hospital {hospital_id}: stopped while waiting for its lease")
        yield lease


@contextmanager
def opened(
    hospital_id: str, settings: Settings, lease: Lease, stop: threading.Event
) -> Iterator["Polling"]:
    """A session of polling; the lease is held. NotReady, Fatal."""
    partition = settings.hospitals[hospital_id].partition
    Positions.ensure(settings)
    with closing(Positions(settings.kafka)) as positions:
        positions.check_partition(hospital_id, partition)
        with closing(Publisher(settings.kafka, hospital_id, partition)) as publisher:
            yield Polling(hospital_id, settings, positions, lease, publisher, stop)


class Polling:
    """One session of polling; everything that it knows is in `Saved`."""

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
        publisher.end = self._saved.topic_end
        self._begun = False
        self._known = Known.decode(self._saved.state)

    @property
    def epoch(self) -> int:
        return self._saved.epoch

    def follow(self, *, once: bool) -> None:
        """Run after run."""
        interval = self._hospital.poll_interval_s
        if once:
            self._known.cursor = self._known.cursor if not self._known.complete else None
        while not self._stop.is_set():
            started = time.monotonic()
            self.run()
            if once and self._known.cursor is None:
                return
            self._wait(0 if once else interval - (time.monotonic() - started))

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            self._stop.wait(min(left, 1))
            self._lease.keep()

    def run(self) -> None:
        """One snapshot: looks, publishes, saves."""
        try:
            self._check_server()
            with self._source.read_at(ANY_POSITION) as reading:
                self._look(reading)
        except Gap as gap:  # the topic lost what this had published: all of it again
            log.error("gap", hospital=self._id, reason=gap.reason, hint=gap.hint)
            self._saved, self._known = self._new_epoch(self._saved, self._saved.server), Known()
            self._publisher.end = 0
            self.run()
        finally:
            # the next run reads the column list again, should OpenMRS be upgraded
            self._source.close()

    def _look(self, reading: ConsistentRead) -> None:
        hospital, known, started = self._hospital, self._known, time.monotonic()
        since = self._wall(known.run_ms // 1000 - OVERLAP_S)
        known.begin(reading.clock_ms())
        self._begun = False
        pace = WaitingPace(hospital.load_budget, self._stop, self._lease.keep)
        facts = [
            scan.fact_table(table, self._source.columns(table)) for table in FACT_TABLES.values()
        ]
        tables = [*scan.reference_tables(reading, hospital.mysql.database), *facts]
        walk = Walk(reading, tables, known, pace, width=hospital.load_budget.chunk_rows)
        budget = hospital.load_budget.rows_per_s * hospital.poll_interval_s
        for change in walk.changes(budget, since):
            if self._stop.is_set():
                raise Retry(f"hospital {self._id}: stopped within a run, which comes again")
            self._publish(reading, change, pace)
        known.end()
        self._end()
        log.info(
            "polled",
            hospital=self._id,
            run=self._saved.run,
            duration_s=round(time.monotonic() - started, 3),
        )

    def _publish(self, reading: ConsistentRead, change: Change, pace: WaitingPace) -> None:
        """Dated by what is surely published: when a row has changed nobody knows."""
        self._begin()
        envelopes, at, ts_ms = self._envelopes(), self._at, self._known.through_ms
        if not change.table.is_fact:
            keys = _keys(reading, change, self._known.tables[change.table.name].top)
            pace.spend(len(keys) * FETCHED)
            for value in envelopes.key_changes(change.table.name, "u", keys, at, ts_ms):
                self._publisher.send("notice", value)
                metrics.EVENTS.labels(self._id, change.table.name, "u").inc()
            return
        rows = rows_between(reading, FACT_TABLES[change.table.name], change.after, change.to).rows
        pace.spend(len(rows) * FETCHED)
        for value in envelopes.read(rows, at, ts_ms):
            self._publisher.send("row", value)
        metrics.EVENTS.labels(self._id, change.table.name, "r").inc(len(rows))
        if change.whole:
            self._publisher.flush()
            present_keys = [row[change.table.key] for row in rows]
            value = envelopes.chunk(
                change.table.name, change.after, change.to, present_keys, at, ts_ms
            )
            self._publisher.send("chunk", value)

    def _begin(self) -> None:
        """The run's number is kept before its first record: no two runs ever share one."""
        if not self._begun:
            number = self._saved.run + 1
            self._save(replace(self._saved, run=number, position=_place(number, ended=False)))
            self._begun = True

    def _end(self) -> None:
        self._publisher.send(
            "heartbeat", self._envelopes().heartbeat(self._at, "", self._known.through_ms)
        )
        self._publisher.flush()
        if self._begun:
            place = _place(self._saved.run, ended=True)
            self._save(replace(self._saved, position=place, state=self._known.encode()))
        metrics.LAST_EVENT.labels(self._id).set(self._known.through_ms / 1000)

    def _save(self, saved: Saved) -> None:
        self._saved = replace(saved, ts_ms=int(time.time() * 1000), topic_end=self._publisher.end)
        self._positions.save(self._saved)

    @property
    def _at(self) -> Position:
        """Of this run, or the last one."""
        return Position(f"poll.{self._saved.run}", 0)

    def _envelopes(self) -> Envelopes:
        saved = self._saved
        return Envelopes(
            self._id, self._hospital, server=saved.server, epoch=saved.epoch, polled=True
        )

    def _wall(self, unix_s: int) -> str:
        zone = ZoneInfo(self._hospital.timezone)
        return datetime.fromtimestamp(max(unix_s, 86400), zone).strftime("%Y-%m-%d %H:%M:%S")

    def _check_server(self) -> None:
        """Another server (a restore, a promotion) has its own truth: a new epoch, from the start."""
        server = source.identity(self._source.connection())
        if server != self._saved.server:
            log.warning("the hospital's server changed", hospital=self._id)
            self._saved, self._known = self._new_epoch(self._saved, server), Known()

    def _load(self) -> Saved:
        saved = self._positions.load(self._id)
        if saved is None or saved.capture != "polling":
            return self._new_epoch(saved, source.identity(self._source.connection()))
        return saved

    def _new_epoch(self, previous: Saved | None, server: str) -> Saved:
        epoch = next_epoch(previous.epoch if previous else 0, time.time())
        log.info("new epoch", hospital=self._id, epoch=epoch, capture="polling")
        place = _place(0, ended=True)
        return Saved(self._id, self._hospital.partition, server, 0, epoch, place, capture="polling")


def _place(number: int, *, ended: bool) -> Position:
    """In no binlog: it makes a run's last record in the positions topic higher than its first."""
    return Position("poll.0", 2 * number + ended)


def _keys(reading: ConsistentRead, change: Change, top: int) -> list[dict[str, Any]]:
    """Keys of the rows in the range, and of those that may have been in it."""
    table = change.table
    if not table.keys or change.after is None or change.to is None:
        return [{}]
    after, to = change.after, change.to
    keys = scan.present(reading, table, after, to)
    if change.whole:
        there = {key[table.key] for key in keys}
        highest = min(to, max([top, *there]))
        keys += [
            {table.key: key} for key in range(max(after + 1, 0), highest + 1) if key not in there
        ]
    return keys
