"""Brings a hospital's obs once more, a range of them or all of one person's.

The hospital's reader goes on streaming meanwhile. A backfill needs no lease: what it reads has the
version of where it was read, and the newest version holds.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

from cdc import resume
from cdc.envelopes import Envelopes
from cdc.positions import Positions, Saved, Snapshot
from cdc.publisher import Publisher
from cdc.snapshot import SnapshotJob
from openmrs.connection import no_binlog
from openmrs.load_budget import Pace
from openmrs.load_share import LoadShare
from openmrs.read import END_OF_BINLOG, Source, SourcePosition
from passport.errors import NotReady, Origin
from passport.settings import Settings

LONGEST_SLEEP_S = 0.05


class _Stream(NamedTuple):
    """The parts that publish into a hospital's epoch, beside its reader."""

    source: Source
    saved: Saved
    publisher: Publisher
    envelopes: Envelopes


def run(
    hospital_id: str,
    settings: Settings,
    *,
    first: int | None,
    to: int | None,
    stop: threading.Event,
    progress: Callable[[int, float], None],
) -> int:
    """Publish the rows and chunks from key `first` to at least key `to`, and return the rows read.

    None is open-ended. `progress` gets the rows so far and the share of the keys, 0 to 1. Raises
    NotReady, Fatal.
    """
    with _joined(hospital_id, settings) as (source, saved, publisher, envelopes):
        at_least = _position_now(source, saved)
        cursor = Snapshot(next_key=None if first is None else first - 1)
        budget = settings.hospitals[hospital_id].load_budget
        pace = Pace(budget, LoadShare(source))
        job = SnapshotJob(
            source, publisher, envelopes, pace, cursor, chunk_rows=budget.chunk_rows, to=to
        )
        while not stop.is_set() and not job.done and not _is_past(job, to):
            job.step(at_least, live=False)
            progress(job.rows, job.share)
            time.sleep(min(LONGEST_SLEEP_S, job.wait_s(live=False)))
    return job.rows


def persons(hospital_id: str, settings: Settings, person_ids: Sequence[int]) -> None:
    """Ask every destination to read these persons whole.

    What it then holds of them is the truth, deletes included. They are asked by key changes of
    table ``person`` at the saved position: it is part of all that is read, and no destination seems
    further than it is. Raises NotReady, Fatal.
    """
    with _joined(hospital_id, settings) as (_, saved, publisher, envelopes):
        keys = [{"person_id": person_id} for person_id in person_ids]
        for value in envelopes.key_changes("person", "r", keys, saved.position, ts_ms=0):
            publisher.send("notice", value)


@contextmanager
def _joined(hospital_id: str, settings: Settings) -> Iterator[_Stream]:
    """Publish into the epoch of the hospital's reader. At the end all is acknowledged."""
    hospital = settings.hospitals[hospital_id]
    with closing(Source(hospital_id, hospital.mysql)) as source:
        saved = _saved(hospital_id, settings, source)
        envelopes = Envelopes(hospital_id, hospital, server=saved.server, epoch=saved.epoch)
        with closing(Publisher(settings.kafka, hospital_id, hospital.partition)) as publisher:
            yield _Stream(source, saved, publisher, envelopes)
            publisher.flush()


def _is_past(job: SnapshotJob, to: int | None) -> bool:
    next_key = job.cursor.next_key
    return to is not None and next_key is not None and next_key >= to


def _saved(hospital_id: str, settings: Settings, source: Source) -> Saved:
    """Return what the hospital's reader has saved last, if a backfill can join it."""
    hospital = settings.hospitals[hospital_id]
    with closing(Positions(settings.kafka)) as positions:
        saved = positions.load(hospital_id)
        published_epoch = positions.published_epoch(hospital.partition)
    if saved is None or saved.capture != "binlog":
        command = "cdc run"
        if hospital.capture == "polling":
            command = "reconcile"
        raise NotReady(
            f"hospital {hospital_id}: no stream has been started that a backfill could join",
            hint=f"passport {command} --hospital {hospital_id}",
            origin=Origin.hospital(hospital_id),
        )
    reason = resume.outdated(saved, published_epoch)
    reason = reason or resume.unusable(saved, source.connection())
    if reason:
        raise NotReady(
            f"hospital {hospital_id}: its reader will take a whole snapshot anyway ({reason})",
            hint=f"passport cdc run --hospital {hospital_id}",
            origin=Origin.hospital(hospital_id),
        )
    return saved


def _position_now(source: Source, saved: Saved) -> SourcePosition:
    """Return where the server is now, which everything that is read must contain."""
    with source.read_at(END_OF_BINLOG) as read:
        position = read.position
    if position is None:
        raise no_binlog(source.hospital)
    return SourcePosition(position, "", saved.server)
