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

from cdc.client_errors import translate_client_errors
from cdc.lease import Lease, ReaderName
from cdc.polling import poll
from cdc.positions import Positions, Saved
from openmrs.read import END_OF_BINLOG, Source
from passport import health, metrics
from passport.errors import PassportError
from passport.kafka import topic_offsets
from passport.settings import Settings

LOOK_S = 5.0

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
        self._part = f"watchdog {hospital_id}"
        self._end: int | None = None
        self._moved_at = time.monotonic()
        # The epoch of the last run of polling; 0 while the hospital isn't polled.
        self._polled_epoch = 0
        self._is_reader_silent = False
        self._pause_s = 0.0  # until the next look

    def run(self) -> None:
        """Watch until `stop`. Errors of Kafka and the hospital are logged, and it goes on."""
        try:
            while not self._stop.wait(self._pause_s):
                try:
                    with translate_client_errors(self._id, self._settings):
                        self._look()
                except PassportError as error:
                    log.warning(
                        "watchdog interrupted",
                        hospital=self._id,
                        reason=error.reason,
                        hint=error.hint,
                    )
                    health.failing(self._part, error.reason, error.hint)
                else:
                    health.working(self._part)
        finally:
            metrics.POLLED_INSTEAD.labels(self._id).set(0)

    def _look(self) -> None:
        """Poll if the stream is silent. Stop polling when a reader works again."""
        self._pause_s = min(LOOK_S, self._settings.cdc.silence_s / 4)
        if not self._polled_epoch and not self._is_silent():
            return
        with closing(Positions(self._settings.kafka)) as positions:
            saved = positions.load(self._id)
            is_paused = positions.signals(self._id).pause is not None
        # A reader that an operator has paused is silent on purpose.
        if is_paused:
            self._watch_anew()
        elif self._polled_epoch:
            self._poll_on(saved)
        else:
            self._poll_instead()

    def _is_silent(self) -> bool:
        """Return whether nothing was published for long."""
        try:
            offsets = topic_offsets(self._settings.kafka, self._settings.kafka.topic)
        except PassportError:
            # While Kafka is away no reader is heard, so that this is no silence.
            self._moved_at = time.monotonic()
            raise
        now = time.monotonic()
        _, end = offsets.get(self._hospital.partition, (0, 0))
        if end != self._end:
            self._end = end
            self._moved_at = now
            self._is_reader_silent = False
        return now - self._moved_at >= self._settings.cdc.silence_s

    def _poll_instead(self) -> None:
        """Begin to poll, if no reader holds the lease.

        A reader that holds it lives, though it says nothing. It has the hospital to itself, and the
        watchdog looks again whether it says something.
        """
        with self._lease() as lease:
            if lease.take(self._reader_name(), self._stop, wait=False):
                self._poll(lease)
            elif not self._is_reader_silent:
                self._is_reader_silent = True
                self._warn("the stream is silent", "its reader lives, and publishes nothing")

    def _poll_on(self, saved: Saved | None) -> None:
        """Do the next run, unless a reader has begun an epoch, or just now holds the lease.

        `saved` is the hospital's position: a reader's, or a poller's.
        """
        if saved is not None and saved.capture == "binlog" and saved.epoch > self._polled_epoch:
            log.warning("the stream is back", hospital=self._id, epoch=saved.epoch)
            self._watch_anew()
            return
        with self._lease() as lease:
            if lease.take(self._reader_name(), self._stop, wait=False):
                self._poll(lease)

    def _watch_anew(self) -> None:
        """Poll no longer, and listen to the stream from now on."""
        metrics.POLLED_INSTEAD.labels(self._id).set(0)
        self._polled_epoch = 0
        self._end = None
        self._moved_at = time.monotonic()

    def _poll(self, lease: Lease) -> None:
        """Do one run. The lease must be held."""
        with poll.opened(self._id, self._settings, lease, self._stop) as poller:
            if not self._polled_epoch:
                metrics.POLLED_INSTEAD.labels(self._id).set(1)
                self._warn("the stream is silent, polling instead", self._reason())
            # A run that breaks off is polling, too: the next look goes on with it.
            self._polled_epoch = poller.epoch
            poller.run()
            self._polled_epoch = poller.epoch
        self._pause_s = self._hospital.poll_interval_s

    def _lease(self) -> closing[Lease]:
        return closing(Lease(self._id, self._hospital.mysql))

    def _reader_name(self) -> ReaderName:
        return Positions(self._settings.kafka).reader_name(self._id)

    def _warn(self, event: str, reason: str) -> None:
        log.error(
            event,
            hospital=self._id,
            silent_s=round(time.monotonic() - self._moved_at),
            reason=reason,
            hint=f"passport cdc run --hospital {self._id}",
        )

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
        return "its server writes no binlog"
