"""Beside a streaming hospital: when its stream falls silent, the hospital is polled until the
stream is back.

Silent is a partition whose end has not moved for `cdc.silence_s` seconds of this process' own
clock: a reader that lives says so every few seconds, whatever its hospital does. So it doesn't
matter why: no reader, no binlog, no grant. Nothing is lost either way: a poller begins an epoch,
whose first run publishes every row, and a reader that finds the hospital polled begins the next one
with a snapshot. Reader and poller never work at once: each holds the reader's lease while it works,
and the poller gives it back after each run, so that a reader which waits for it gets it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import structlog

from cdc.lease import Lease
from cdc.polling import polling
from cdc.positions import Positions, Saved
from openmrs.read import Source
from passport import health, metrics
from passport.errors import PassportError
from passport.kafka import topic_offsets
from passport.settings import Settings

LOOK_S = 5.0
WAIT_S = 1.0  # between attempts to get the lease, while somebody else has it

log = structlog.get_logger()


@contextmanager
def beside(hospital_id: str, settings: Settings, stop: threading.Event) -> Iterator[None]:
    """Watches in a thread of its own until the block ends."""
    ended = threading.Event()
    watchdog = Watchdog(hospital_id, settings, ended)
    thread = threading.Thread(target=watchdog.run, name=f"watchdog {hospital_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Watchdog:
    """Of one hospital."""

    def __init__(self, hospital_id: str, settings: Settings, stop: threading.Event) -> None:
        self._id = hospital_id
        self._settings = settings
        self._hospital = settings.hospitals[hospital_id]
        self._stop = stop
        self._end: int | None = None
        self._moved = time.monotonic()

    def run(self) -> None:
        """Until `stop`. What goes wrong is logged, and tried again."""
        while not self._stop.wait(min(LOOK_S, self._settings.cdc.silence_s / 4)):
            try:
                if self._silent():
                    self._poll()
                    self._end, self._moved = None, time.monotonic()
            except PassportError as error:
                log.warning(
                    "watchdog interrupted",
                    hospital=self._id,
                    reason=error.reason,
                    hint=error.hint,
                )
                health.failing(f"watchdog {self._id}", error.reason)

    def _silent(self) -> bool:
        now = time.monotonic()
        _, end = topic_offsets(self._settings.kafka, self._settings.kafka.topic).get(
            self._hospital.partition, (0, 0)
        )
        if end != self._end:
            self._end, self._moved = end, now
        health.working(f"watchdog {self._id}")
        return now - self._moved >= self._settings.cdc.silence_s

    def _poll(self) -> None:
        """Run after run, until a reader has begun an epoch of its own."""
        metrics.POLLED_INSTEAD.labels(self._id).set(1)
        log.error(
            "the stream is silent, polling instead",
            hospital=self._id,
            silent_s=round(time.monotonic() - self._moved),
            reason=self._reason(),
            hint=f"passport cdc run --hospital {self._id}",
        )
        epoch = 0
        try:
            while not self._stop.is_set():
                saved = self._saved()
                if (
                    epoch
                    and saved is not None
                    and saved.capture == "binlog"
                    and saved.epoch > epoch
                ):
                    log.warning("the stream is back", hospital=self._id, epoch=saved.epoch)
                    return
                polled = self._run()
                epoch = polled or epoch
                self._stop.wait(self._hospital.poll_interval_s if polled else WAIT_S)
        finally:
            metrics.POLLED_INSTEAD.labels(self._id).set(0)

    def _run(self) -> int:
        """One run with the lease held: its epoch; 0 while somebody else has the lease."""
        lease = Lease(self._id, self._hospital.mysql)
        try:
            if not lease.take(self._stop, wait=False):
                return 0
            with polling.opened(self._id, self._settings, lease, self._stop) as poller:
                poller.run()
                return poller.epoch
        finally:
            lease.close()

    def _saved(self) -> Saved | None:
        with closing(Positions(self._settings.kafka)) as positions:
            return positions.load(self._id)

    def _reason(self) -> str:
        """What can be told from here."""
        try:
            with (
                closing(Source(self._id, self._hospital.mysql)) as source,
                source.read_at() as reading,
            ):
                seen = reading.position is not None
        except PassportError as error:
            return error.reason
        return (
            "no reader publishes"
            if seen
            else "its server writes no binlog, or its account may not see it"
        )
