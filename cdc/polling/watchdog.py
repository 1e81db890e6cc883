"""Watches beside a streaming hospital: when its stream falls silent, the hospital is polled.

Silent is a partition whose end has not moved for `cdc.silence_s` seconds of this process' own
clock: a reader that lives says so every few seconds, whatever its hospital does. So it doesn't
matter why it is silent: no reader, no binlog, no grant. Nothing is lost either way: a poller begins
an epoch, whose first run publishes every row, and a reader that finds the hospital polled begins
the next one with a snapshot. Reader and poller never work at once: each holds the reader's lease
while it works, and the poller gives it back after each run, so that a reader which waits for it
gets it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import structlog

from cdc.lease import Lease
from cdc.polling import poll
from cdc.positions import Positions
from openmrs.read import END_OF_BINLOG, Source
from passport import health, metrics
from passport.errors import PassportError
from passport.kafka import topic_offsets
from passport.settings import Settings

LOOK_S = 5.0
# The pause between attempts to get the lease, while somebody else has it.
WAIT_S = 1.0

log = structlog.get_logger()


@contextmanager
def beside(hospital_id: str, settings: Settings, stop: threading.Event) -> Iterator[None]:
    """Watch in a thread of its own until the block ends."""
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
    """Watches one hospital."""

    def __init__(self, hospital_id: str, settings: Settings, stop: threading.Event) -> None:
        self._id = hospital_id
        self._settings = settings
        self._hospital = settings.hospitals[hospital_id]
        self._stop = stop
        self._end: int | None = None
        self._moved_at = time.monotonic()

    def run(self) -> None:
        """Watch until `stop`. Errors of Kafka and the hospital are logged, and it goes on."""
        while not self._stop.wait(min(LOOK_S, self._settings.cdc.silence_s / 4)):
            try:
                if self._is_silent():
                    # A reader that an operator has paused is silent on purpose.
                    if not self._is_paused():
                        self._poll()
                    self._end = None
                    self._moved_at = time.monotonic()
            except PassportError as error:
                log.warning(
                    "watchdog interrupted",
                    hospital=self._id,
                    reason=error.reason,
                    hint=error.hint,
                )
                health.failing(f"watchdog {self._id}", error.reason)

    def _is_silent(self) -> bool:
        now = time.monotonic()
        offsets = topic_offsets(self._settings.kafka, self._settings.kafka.topic)
        _, end = offsets.get(self._hospital.partition, (0, 0))
        if end != self._end:
            self._end = end
            self._moved_at = now
        health.working(f"watchdog {self._id}")
        return now - self._moved_at >= self._settings.cdc.silence_s

    def _poll(self) -> None:
        """Poll in run after run, until a reader has begun an epoch of its own."""
        metrics.POLLED_INSTEAD.labels(self._id).set(1)
        log.error(
            "the stream is silent, polling instead",
            hospital=self._id,
            silent_s=round(time.monotonic() - self._moved_at),
            reason=self._reason(),
            hint=f"passport cdc run --hospital {self._id}",
        )
        epoch = 0  # of the last run, 0 before the first
        try:
            while not self._stop.is_set() and not self._is_paused():
                reader_epoch = self._reader_epoch()
                if epoch and reader_epoch > epoch:
                    log.warning("the stream is back", hospital=self._id, epoch=reader_epoch)
                    return
                polled_epoch = self._run()
                if polled_epoch is None:
                    self._stop.wait(WAIT_S)
                else:
                    epoch = polled_epoch
                    self._stop.wait(self._hospital.poll_interval_s)
        finally:
            metrics.POLLED_INSTEAD.labels(self._id).set(0)

    def _is_paused(self) -> bool:
        with closing(Positions(self._settings.kafka)) as positions:
            positions.load(self._id)
            return positions.signals(self._id).pause is not None

    def _reader_epoch(self) -> int:
        """Return the epoch of the reader that has saved its position last, 0 if a poller has."""
        with closing(Positions(self._settings.kafka)) as positions:
            saved = positions.load(self._id)
        if saved is None or saved.capture != "binlog":
            return 0
        return saved.epoch

    def _run(self) -> int | None:
        """Do one run with the lease held.

        Return its epoch; None while somebody else has the lease.
        """
        with closing(Lease(self._id, self._hospital.mysql)) as lease:
            if not lease.take(self._stop, wait=False):
                return None
            with poll.opened(self._id, self._settings, lease, self._stop) as poller:
                poller.run()
                return poller.epoch

    def _reason(self) -> str:
        """Return why the stream may be silent, as far as that can be seen from here."""
        try:
            with (
                closing(Source(self._id, self._hospital.mysql)) as source,
                source.read_at(END_OF_BINLOG) as read,
            ):
                is_binlog_seen = read.position is not None
        except PassportError as error:
            return error.reason
        if is_binlog_seen:
            return "no reader publishes"
        return "its server writes no binlog, or its account may not see it"
