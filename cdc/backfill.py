"""Brings a hospital's obs, a range of them or one person's once more, beside the reader that goes on streaming."""

import threading
import time
from collections.abc import Callable

from cdc import epochs
from cdc.envelopes import Envelopes
from cdc.position import Positions, Saved, Snapshot
from cdc.publisher import Publisher
from cdc.snapshot import SnapshotJob
from passport import source as server
from passport.errors import Fatal
from passport.settings import Settings
from passport.source import Source, Waypoint


def run(
    hospital_id: str,
    settings: Settings,
    *,
    first: int | None,
    to: int | None,
    stop: threading.Event,
    progress: Callable[[int, float], None],
) -> int:
    """Publishes rows and chunks from key `first` to at least key `to` (None: open-ended). Returns the rows read.

    `progress` gets the rows so far and the share of the keys. Needs no lease: what it reads has the version of where
    it was read, and the newest version holds. NotReady, Fatal.
    """
    hospital = settings.hospitals[hospital_id]
    source = Source(hospital_id, hospital.mysql)
    try:
        saved = _saved(hospital_id, settings, source)
        at = _now(source, saved)
        publisher = Publisher(settings.kafka, hospital_id, hospital.partition)
        try:
            envelopes = Envelopes(hospital_id, hospital, server=saved.server, epoch=saved.epoch)
            cursor = Snapshot(next_key=None if first is None else first - 1)
            job = SnapshotJob(source, publisher, envelopes, hospital.load_budget, cursor, to=to)
            while not (stop.is_set() or job.done or _past(job, to)):
                job.step(at, live=False)
                progress(job.rows, job.share)
                time.sleep(min(0.05, job.wait_s(live=False)))
            publisher.flush()
        finally:
            publisher.close()
    finally:
        source.close()
    return job.rows


def person(hospital_id: str, settings: Settings, person_id: int) -> None:
    """Asks every destination to read this person whole: what it then holds of them is the truth, deletes included.

    A notice, as `reconcile` publishes it for who differs: at the saved position, so that it is part of what is read
    and no destination seems further than it is. NotReady, Fatal.
    """
    hospital = settings.hospitals[hospital_id]
    source = Source(hospital_id, hospital.mysql)
    try:
        saved = _saved(hospital_id, settings, source)
    finally:
        source.close()
    envelopes = Envelopes(hospital_id, hospital, server=saved.server, epoch=saved.epoch)
    key = {"person_id": person_id}
    publisher = Publisher(settings.kafka, hospital_id, hospital.partition)
    try:
        publisher.send(
            "notice", envelopes.notice("person", "r", (key,), at=saved.position, ordinal=0, gtid="", ts_ms=0)
        )
        publisher.flush()
    finally:
        publisher.close()


def _past(job: SnapshotJob, to: int | None) -> bool:
    return to is not None and job.cursor.next_key is not None and job.cursor.next_key >= to


def _saved(hospital_id: str, settings: Settings, source: Source) -> Saved:
    positions = Positions(settings.kafka)
    try:
        saved = positions.load(hospital_id)
    finally:
        positions.close()
    if saved is None or saved.capture != "binlog":
        verb = "reconcile" if settings.hospitals[hospital_id].capture == "polling" else "cdc run"
        raise Fatal(
            f"hospital {hospital_id}: no stream has been started that a backfill could join",
            hint=f"passport {verb} --hospital {hospital_id}",
        )
    if why := epochs.unusable(saved, source.connection()):
        raise Fatal(
            f"hospital {hospital_id}: its reader will take a whole snapshot anyway ({why})",
            hint=f"passport cdc run --hospital {hospital_id}",
        )
    return saved


def _now(source: Source, saved: Saved) -> Waypoint:
    with source.read() as reading:
        position = reading.position
    if position is None:
        raise server.no_binlog(source.hospital)
    return Waypoint(position, "", saved.server)
