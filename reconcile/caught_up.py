"""Whether a destination has applied all that a hospital held at some moment."""

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
from passport.version import Position, read_version

PATIENCE_S = 30.0
PAUSE_S = 0.2

Progressed = Callable[
    [], tuple[str, int, int] | None
]  # version, source time (Unix ms), next offset of the destination


@dataclass(frozen=True, slots=True)
class Mark:
    """A destination at this version, source time and offset has applied what the hospital held when
    it was taken.

    `offset`: what was published by then; a snapshot's rows have one version, so that the first is
    as far as the last. `hint`: what to do when it isn't reached.
    """

    version: str
    at_ms: int
    offset: int
    hint: str

    @classmethod
    def now(cls, settings: Settings, hospital_id: str, source: Source) -> "Mark":
        """NotReady when nothing has been captured, or not all of it yet; Fatal when there is no
        binlog.
        """
        saved = _last_saved(settings, hospital_id)
        if saved.capture == "polling":
            with source.read_at(ANY_POSITION) as reading:
                now_ms = reading.clock_ms()
            command = f"passport reconcile --hospital {hospital_id} --once"
            return cls(
                "",
                now_ms,
                saved.topic_end,
                f"what has changed since its last run is not published yet: {command}",
            )
        if saved.snapshot is not None and saved.snapshot.state == "running":
            raise NotReady(
                f"hospital {hospital_id}: its snapshot is still running",
                hint="passport status   # and try again",
            )
        end = _end(saved, source)
        hint = f"is its reader running? passport status; passport cdc run --hospital {hospital_id}"
        return cls(read_version(saved.epoch, end), 0, saved.topic_end, hint)

    def reached(self, progressed: Progressed, patience_s: float | None = None) -> bool:
        """Waits up to `patience_s` (PATIENCE_S) seconds for it."""
        deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        while True:
            at = progressed()
            if (
                at is not None
                and at[0] >= self.version
                and at[1] >= self.at_ms
                and at[2] >= self.offset
            ):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_S)


def _last_saved(settings: Settings, hospital_id: str) -> Saved:
    with closing(Positions(settings.kafka)) as positions:
        saved = positions.load(hospital_id)
    if saved is None:
        command = "reconcile" if settings.hospitals[hospital_id].capture == "polling" else "cdc run"
        raise NotReady(
            f"hospital {hospital_id}: nothing of it has been captured yet",
            hint=f"passport {command} --hospital {hospital_id}",
        )
    return saved


def _end(saved: Saved, source: Source) -> Position:
    """Of the server's binlog, now. NotReady when the reader hasn't followed to this server yet."""
    connection = source.connection()
    try:
        server, end = identity(connection), end_of_binlog(connection)
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
