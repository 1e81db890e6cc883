"""One hospital's reader: from its binlog to its partition of the topic, for as long as it runs.

A reader works in sessions. A session begins where the last saved position is, and ends with the
first error. What the error is decides what comes next:

- Retry (the server is away, the connection was lost): wait a little, then the next session.
- Gap (the position is of no use any more): the next session begins a new epoch, with a snapshot.
- Fatal (a person is needed): the reader ends.
"""

import random
import threading
import time
from contextlib import closing

import structlog

from cdc import resume
from cdc.binlog.changes import DamagedEvent
from cdc.binlog.stream import BinlogStream
from cdc.client_errors import translate_client_errors
from cdc.connections import REAL, Connections
from cdc.lag import Lag
from cdc.lease import Lease, server_id
from cdc.pause import paused, wait_while_paused
from cdc.same_server import SameServer
from cdc.session import Session
from cdc.signals import Signal, Signals, SignalWatch
from openmrs.connection import flavour
from openmrs.read import Source
from passport import health, metrics
from passport.errors import Fatal, Gap, NotReady, Retry
from passport.settings import Hospital, Settings
from passport.version import Position

# A session that lasted so long was fine. After it, the first wait is the shortest again.
STEADY_S = 30.0
SHORTEST_WAIT_S = 0.25

log = structlog.get_logger()


def run(
    hospital_id: str,
    settings: Settings,
    *,
    until_caught_up: bool,
    stop: threading.Event,
    new_epoch: bool = False,
) -> None:
    """Publish the hospital's changes until `stop` is set.

    With `until_caught_up` it also ends when all that the binlog holds is acknowledged by Kafka.
    With `new_epoch` it begins at the binlog's end, with a snapshot, and not at the saved position:
    past whatever stopped a reader there.

    Raises Fatal when a person is needed. Raises NotReady only with `until_caught_up`, when a server
    could not be reached at all.
    """
    hospital = settings.hospital(hospital_id)
    if hospital.capture == "polling":
        raise Fatal(
            f"hospital {hospital_id}: capture is polling, so there is no binlog to read",
            hint=f"passport reconcile --hospital {hospital_id}",
        )
    gap = "a new epoch was asked for" if new_epoch else ""
    reader = Reader(hospital_id, hospital, settings, stop, gap=gap)
    try:
        reader.run(until_caught_up=until_caught_up)
    except Fatal as error:
        log.error("reader stopped", hospital=hospital_id, reason=error.reason, hint=error.hint)
        raise
    finally:
        reader.close()


class Reader:
    """Runs sessions, and holds what outlives them: lease, connection for rows, positions topic.

    `gap` is the reason why the saved position is of no use; "" if it is.
    """

    def __init__(
        self,
        hospital_id: str,
        hospital: Hospital,
        settings: Settings,
        stop: threading.Event,
        connections: Connections = REAL,
        gap: str = "",
    ) -> None:
        self._id = hospital_id
        self._hospital = hospital
        self._settings = settings
        self._stop = stop
        self._connections = connections
        self._same_server = SameServer(
            hospital_id, hospital.mysql, settings.cdc.address_check_s, connections.connect
        )
        self._lease = Lease(hospital_id, hospital.mysql, self._same_server.connect)
        self._source = Source(hospital_id, hospital.mysql, self._same_server.connect)
        self._positions = connections.positions(settings.kafka)
        self._lag = Lag(hospital_id)
        self._gap = gap
        self._last_failure = ""
        self._has_reached_servers = False

    def run(self, *, until_caught_up: bool) -> None:
        """Run sessions, one after the other, until one ends without an error."""
        failures = 0
        gaps = 0
        while not self._stop.is_set():
            began_at = time.monotonic()
            try:
                with translate_client_errors(self._id, self._settings):
                    self._run_session(until_caught_up=until_caught_up)
                if until_caught_up or self._stop.is_set():
                    return
            except Gap as gap:
                # No wait: the next session begins a new epoch, and doesn't need what is gone. But
                # if gap follows gap, each would read the table anew, and faster than it can.
                log.error("gap", hospital=self._id, reason=gap.reason, hint=gap.hint)
                self._gap = gap.reason
                # The reason may be that another server answers by now. It must be read, then.
                self._source.close()
                was_steady = time.monotonic() - began_at > STEADY_S
                gaps = 1 if was_steady else gaps + 1
                if gaps > 1:
                    self._wait(gap, gaps)
            except Retry as error:
                # Who asked to catch up waits for an end. A wrong host name would have none.
                is_unreachable = isinstance(error, NotReady) and not self._has_reached_servers
                if until_caught_up and is_unreachable:
                    raise

                # An event that is damaged a second time is damaged in the file: no retry helps.
                is_same = error.reason == self._last_failure
                if isinstance(error, DamagedEvent) and is_same and not self._gap:
                    self._gap = f"twice {error.reason}"
                self._last_failure = error.reason

                was_steady = time.monotonic() - began_at > STEADY_S
                failures = 1 if was_steady else failures + 1
                self._wait(error, failures)

    def close(self) -> None:
        self._lease.close()
        self._source.close()
        self._positions.close()

    def _run_session(self, *, until_caught_up: bool) -> None:
        self._same_server.end()  # the last session's server need not be this one's
        # The lease is first: nothing is read or written beside another reader.
        if not self._lease.take(self._positions.reader_name(self._id), self._stop):
            return
        self._positions.ensure(self._settings)
        start = resume.find_start(
            self._id,
            self._hospital,
            self._positions,
            self._source,
            self._lease,
            self._open_stream,
            gap=self._gap,
        )
        signals = self._positions.signals(self._id)
        if signals.pause is not None:
            if until_caught_up:
                raise paused(self._id, signals.pause)
            self._wait_while_paused(signals.pause, signals)
            return
        if start.is_new_epoch:
            # Finding it took time. A reader that stood still meanwhile may have lost the lease, and
            # must not begin an epoch beside the reader that has it now.
            self._lease.keep(now=True)
            self._positions.save(start.saved)
        self._gap = ""

        watch = self._watch(signals)
        session = Session(
            self._id,
            self._settings,
            start.saved,
            self._lease,
            self._same_server,
            self._source,
            self._positions,
            watch,
            self._connections,
            self._lag,
        )
        try:
            self._has_reached_servers = True
            position = start.saved.position
            log.info("reading the binlog", hospital=self._id, file=position.file, pos=position.pos)
            session.run(self._stop, until_caught_up=until_caught_up)
            pause = watch.look().pause
        finally:
            session.close()
            watch.close()
        # The session ends in order when it is paused.
        if pause is not None and not until_caught_up:
            self._wait_while_paused(pause, signals)

    def _watch(self, signals: Signals) -> SignalWatch:
        """Watch for signals behind those that were read with the positions."""
        return self._connections.signals(
            self._settings.kafka, self._id, signals, self._positions.next_offset
        )

    def _wait_while_paused(self, pause: Signal, signals: Signals) -> None:
        """Leave the hospital's server alone until an operator resumes, or `stop`."""
        self._lease.close()
        self._source.close()
        part = f"hospital {self._id}: reader"
        wait_while_paused(self._id, part, pause, self._watch(signals), self._stop)

    def _open_stream(self, position: Position) -> closing[BinlogStream]:
        """Open the binlog at a position, without any table: it shows where transactions end."""
        mysql = self._hospital.mysql
        stream = self._connections.stream(
            lambda: self._connections.connect(self._id, mysql),
            flavour=flavour(self._source.connection()),
            server_id=self._hospital.server_id or server_id(self._lease.name),
            start=position,
            gtid_set="",
            database=mysql.database,
            columns={},
            row_columns={},
            key_columns={},
            read_timeout_s=mysql.read_timeout_s,
        )
        return closing(stream)

    def _wait(self, error: Retry | Gap, failures: int) -> None:
        """Wait before the next session: longer after each failure in a row, up to a limit.

        Part of the wait is random, so that all readers of a server that was away don't come back in
        the same moment.
        """
        metrics.DISCONNECTS.labels(self._id).inc()
        doubled_s = SHORTEST_WAIT_S * 2.0 ** min(failures, 10)
        wait_s = min(self._settings.cdc.reconnect_max_s, doubled_s)
        if failures > 1 and isinstance(error, Retry):
            wait_s = max(error.after, wait_s)
        wait_s *= random.uniform(0.5, 1)

        log.warning(
            "reader interrupted",
            hospital=self._id,
            reason=error.reason,
            hint=error.hint,
            after_s=round(wait_s, 2),
        )
        health.failing(f"hospital {self._id}: reader", error.reason, error.hint)
        # They may be the reason, and they would hold a server's sessions meanwhile.
        self._source.close()
        self._positions.close()
        self._stop.wait(wait_s)
