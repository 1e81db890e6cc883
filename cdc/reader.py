"""One hospital's reader: take the lease, find where to go on, read until something ends it, try
again.
"""

import random
import threading
import time

import structlog

from cdc import resume as epochs
from cdc.binlog.changes import DamagedEvent
from cdc.connections import REAL, Connections
from cdc.lease import Lease
from cdc.session import Session
from openmrs.read import Source
from passport import health, metrics
from passport.errors import Fatal, Gap, NotReady, Retry
from passport.settings import Hospital, Settings

STEADY_S = 30.0  # a session that lasted so long was fine: waiting begins anew at the shortest

log = structlog.get_logger()


def run(
    hospital_id: str,
    settings: Settings,
    *,
    until_caught_up: bool,
    stop: threading.Event,
    new_epoch: bool = False,
) -> None:
    """Publish the hospital's changes until `stop` is set, or until all that its binlog holds is
    acknowledged.

    `new_epoch`: at the binlog's end, with a snapshot, and not at the saved position: past what
    stopped a reader. Fatal: a person is needed. NotReady only with `until_caught_up`, when a server
    could not be reached at all.
    """
    hospital = _captured(hospital_id, settings)
    reader = Reader(
        hospital_id, hospital, settings, stop, gap="a new epoch was asked for" if new_epoch else ""
    )
    try:
        reader.run(until_caught_up=until_caught_up)
    except Fatal as error:
        log.error("reader stopped", hospital=hospital_id, reason=error.reason)
        if hospital_id in error.reason:
            raise
        hint = error.hint.replace(
            "HOSPITAL", hospital_id
        )  # decoding doesn't know whose events it reads
        raise Fatal(f"hospital {hospital_id}: {error.reason}", hint=hint) from None
    finally:
        reader.close()


def _captured(hospital_id: str, settings: Settings) -> Hospital:
    hospital = settings.hospitals.get(hospital_id)
    if hospital is None:
        raise Fatal(
            f"no hospital {hospital_id} in the settings",
            hint=f"one of: {', '.join(settings.hospitals)}",
        )
    if hospital.capture == "polling":
        raise Fatal(
            f"hospital {hospital_id}: capture is polling, so there is no binlog to read",
            hint=f"passport reconcile --hospital {hospital_id}",
        )
    return hospital


class Reader:
    """What outlives a session: the lease, the connection that reads rows, and the positions topic."""

    def __init__(
        self,
        hospital_id: str,
        hospital: Hospital,
        settings: Settings,
        stop: threading.Event,
        outside: Connections = REAL,
        gap: str = "",
    ) -> None:
        self._id = hospital_id
        self._hospital = hospital
        self._settings = settings
        self._stop = stop
        self._outside = outside
        self._lease = Lease(hospital_id, hospital.mysql, outside.connect)
        self._source = Source(hospital_id, hospital.mysql, outside.connect)
        self._positions = outside.positions(settings.kafka)
        self._gap = gap
        self._damage = ""  # what interrupted it last
        self._reached = False

    def run(self, *, until_caught_up: bool) -> None:
        """Sessions, one after the other."""
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._session(until_caught_up=until_caught_up)
                return
            except Gap as gap:
                log.error("gap", hospital=self._id, reason=gap.reason, hint=gap.hint)
                self._gap = gap.reason
            except Retry as error:
                if until_caught_up and isinstance(error, NotReady) and not self._reached:
                    raise
                self._gap = self._gap or self._damaged(error)
                failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
                self._rest(error, failures)

    def close(self) -> None:
        self._lease.close()
        self._source.close()
        self._positions.close()

    def _session(self, *, until_caught_up: bool) -> None:
        if not self._lease.take(self._stop):
            return
        self._positions.ensure(self._settings)
        if not self._reached:
            self._positions.check_partition(self._id, self._hospital.partition)
        start = epochs.start(self._id, self._hospital, self._positions, self._source, gap=self._gap)
        if start.is_new:
            self._lease.keep(
                now=True
            )  # who stood still meanwhile begins nothing beside the one that came
            self._positions.save(start.saved)
        self._gap = ""
        session = Session(
            self._id,
            self._settings,
            start.saved,
            self._lease,
            self._source,
            self._positions,
            self._outside,
        )
        try:
            self._reached = True
            log.info(
                "reading the binlog",
                hospital=self._id,
                file=start.saved.position.file,
                pos=start.saved.position.pos,
            )
            session.run(self._stop, until_caught_up=until_caught_up)
        finally:
            session.close()

    def _damaged(self, error: Retry) -> str:
        """The gap that an event is which has come damaged twice, the same each time; "" for any
        other error.
        """
        again = isinstance(error, DamagedEvent) and error.reason == self._damage
        self._damage = error.reason
        return f"twice {error.reason}" if again else ""

    def _rest(self, error: Retry, failures: int) -> None:
        """Wait, longer each time, and not at the same moment as every other reader."""
        metrics.DISCONNECTS.labels(self._id).inc()
        longest = min(self._settings.cdc.reconnect_max_s, 0.25 * 2.0 ** min(failures, 10))
        after_s = max(error.after if failures > 1 else 0.0, longest) * random.uniform(0.5, 1)
        log.warning(
            "reader interrupted",
            hospital=self._id,
            reason=error.reason,
            hint=error.hint,
            after_s=round(after_s, 2),
        )
        health.failing(f"hospital {self._id}: reader", error.reason)
        self._close_connections()
        self._stop.wait(after_s)

    def _close_connections(self) -> None:
        self._source.close()
        self._positions.close()
