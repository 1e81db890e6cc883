"""Tells whether a destination has applied all that a hospital held at some moment."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import pymysql

from cdc.positions import Positions, Saved
from openmrs.connection import end_of_binlog, identity, translate_error
from openmrs.read import ANY_POSITION, Source
from passport.errors import Fatal, NotReady
from passport.settings import Settings
from passport.sink import Progress
from passport.version import Position, read_version

PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """A point that a destination must have reached.

    It has then applied all that the hospital held when the target was taken. A streamed hospital's
    target is a `version`, a polled one's a time of its clock (`at_ms`, Unix ms). Both have the
    topic's `offset` too: all rows of a snapshot have one version, so a destination with the first
    of them would seem as far as one with the last. `hint` says what to do when it isn't reached.
    """

    is_polled: bool
    version: str
    at_ms: int
    offset: int
    hint: str

    @classmethod
    def now(cls, settings: Settings, hospital_id: str, source: Source) -> "Target":
        """Take the point where the hospital is now.

        Raises NotReady when nothing of it has been captured yet, or its snapshot is still running;
        Fatal when its server writes no binlog.
        """
        saved = _last_saved(settings, hospital_id)
        if saved.capture == "polling":
            with source.read_at(ANY_POSITION) as read:
                now_ms = read.clock_ms()
            command = f"passport reconcile --hospital {hospital_id} --once"
            hint = f"what has changed since its last run is not published yet: {command}"
            return cls(True, "", now_ms, saved.topic_end, hint)
        if saved.snapshot is not None and saved.snapshot.state == "running":
            raise NotReady(
                f"hospital {hospital_id}: its snapshot is still running",
                hint="passport status   # and try again",
            )
        version = read_version(saved.epoch, _end_of_binlog(saved, source))
        hint = f"is its reader running? passport status; passport cdc run --hospital {hospital_id}"
        return cls(False, version, 0, saved.topic_end, hint)

    def is_reached(self, progress: Progress | None) -> bool:
        return (
            progress is not None
            and progress.version >= self.version
            and progress.at_ms >= self.at_ms
            and progress.offset >= self.offset
        )

    def wait(self, progress: Callable[[], Progress | None], patience_s: float) -> bool:
        """Wait up to `patience_s` seconds until it is reached. Return whether it is."""
        deadline = time.monotonic() + patience_s
        while not self.is_reached(progress()):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_S)
        return True


def _last_saved(settings: Settings, hospital_id: str) -> Saved:
    with closing(Positions(settings.kafka)) as positions:
        saved = positions.load(hospital_id)
    if saved is None:
        is_polled = settings.hospitals[hospital_id].capture == "polling"
        command = "reconcile" if is_polled else "cdc run"
        raise NotReady(
            f"hospital {hospital_id}: nothing of it has been captured yet",
            hint=f"passport {command} --hospital {hospital_id}",
        )
    return saved


def _end_of_binlog(saved: Saved, source: Source) -> Position:
    """Return where the server writes now, if it is the server that the reader reads."""
    connection = source.connection()
    try:
        server = identity(connection)
        end = end_of_binlog(connection)
    except pymysql.err.MySQLError as error:
        source.close()
        raise translate_error(error, source.hospital, source.settings) from None
    if end is None:
        raise Fatal(
            f"hospital {source.hospital}: its server writes no binlog",
            hint=f"set hospitals.{source.hospital}.capture to polling, or switch log_bin on",
        )
    if server != saved.server:
        raise NotReady(
            f"hospital {source.hospital}: its reader is still at another server",
            hint=f"passport status; passport cdc run --hospital {source.hospital}",
        )
    return end
