"""Brings a hospital's obs, a range of them or one person's once more, beside the reader that goes
on streaming.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from cdc import resume
from cdc.envelopes import Envelopes
from cdc.positions import Positions, Saved, Snapshot
from cdc.publisher import Publisher
from cdc.snapshot import SnapshotJob
from openmrs import connection as server
from openmrs.read import Source, SourcePosition
from passport.errors import NotReady
from passport.settings import Settings


def run(
    hospital_id: str,
    settings: Settings,
    *,
    first: int | None,
    to: int | None,
    stop: threading.Event,
    progress: Callable[[int, float], None],
) -> int:
    """Publishes rows and chunks from key `first` to at least key `to` (None: open-ended). Returns
    the rows read.

    `progress` gets the rows so far and the share of the keys. Needs no lease: what it reads has the
    version of where it was read, and the newest version holds. NotReady, Fatal.
    """
    with _joined(hospital_id, settings) as (source, saved, publisher, envelopes):
        at = _now(source, saved)
        cursor = Snapshot(next_key=None if first is None else first - 1)
        budget = settings.hospitals[hospital_id].load_budget
        job = SnapshotJob(source, publisher, envelopes, budget, cursor, to=to)
        while not (stop.is_set() or job.done or _past(job, to)):
            job.step(at, live=False)
            progress(job.rows, job.share)
            time.sleep(min(0.05, job.wait_s(live=False)))
    return job.rows


def persons(hospital_id: str, settings: Settings, person_ids: Sequence[int]) -> None:
    """Asks every destination to read these persons whole: what it then holds of them is the truth,
    deletes included.

    Notices, as `reconcile` publishes them for who differs: at the saved position, so that it is
    part of what is read and no destination seems further than it is. NotReady, Fatal.
    """
    with _joined(hospital_id, settings) as (_, saved, publisher, envelopes):
        keys = [{"person_id": one} for one in person_ids]
        for value in envelopes.key_changes("person", "r", keys, saved.position, ts_ms=0):
            publisher.send("notice", value)


@contextmanager
def _joined(
    hospital_id: str, settings: Settings
) -> Iterator[tuple[Source, Saved, Publisher, Envelopes]]:
    """Beside the hospital's reader, in its epoch. All that was sent is acknowledged at the end."""
    hospital = settings.hospitals[hospital_id]
    with closing(Source(hospital_id, hospital.mysql)) as source:
        saved = _saved(hospital_id, settings, source)
        with closing(Publisher(settings.kafka, hospital_id, hospital.partition)) as publisher:
            yield (
                source,
                saved,
                publisher,
                Envelopes(hospital_id, hospital, server=saved.server, epoch=saved.epoch),
            )
            publisher.flush()


def _past(job: SnapshotJob, to: int | None) -> bool:
    return to is not None and job.cursor.next_key is not None and job.cursor.next_key >= to


def _saved(hospital_id: str, settings: Settings, source: Source) -> Saved:
    with closing(Positions(settings.kafka)) as positions:
        saved = positions.load(hospital_id)
    if saved is None or saved.capture != "binlog":
        verb = "reconcile" if settings.hospitals[hospital_id].capture == "polling" else "cdc run"
        raise NotReady(
            f"hospital {hospital_id}: no stream has been started that a backfill could join",
            hint=f"passport {verb} --hospital {hospital_id}",
        )
    if why := resume.unusable(saved, source.connection()):
        raise NotReady(
            f"hospital {hospital_id}: its reader will take a whole snapshot anyway ({why})",
            hint=f"passport cdc run --hospital {hospital_id}",
        )
    return saved


def _now(source: Source, saved: Saved) -> SourcePosition:
    with source.read_at() as reading:
        position = reading.position
    if position is None:
        raise server.no_binlog(source.hospital)
    return SourcePosition(position, "", saved.server)
