"""Compares beside the stream of one hospital, and repairs what no event told of.

Such changes are made with sql_log_bin=0, by statements, by restores, or are faults of this project.

Persons are compared by their link, and by a hash of their rows: the hospital's server computes one,
the mirror's rows give the other. Whoever differs is looked at again when the destination has
applied a position taken after the read. Who then still differs, though the hospital's rows have not
changed in between, is published as a key change of table ``person``, and every destination reads
that person whole. A healthy pipeline publishes nothing, so what is counted here measures it. Names
alone are not compared here: `passport verify` does that, and `passport backfill` repairs it.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import structlog

from cdc import backfill
from cdc.client_errors import translate_client_errors
from cdc.polling import watchdog
from consumers.lookups import Lookups
from openmrs.load_budget import Hours, WaitingPace
from openmrs.load_share import LoadShare
from openmrs.read import Source
from passport import health, metrics
from passport.errors import Fatal, Retry
from passport.settings import Hospital, Settings
from reconcile import mongo_reader
from reconcile.by_hash import ByHash, Differing
from reconcile.look_again import PATIENCE, LookAgain, Patience
from reconcile.mongo_reader import MongoReader
from reconcile.persons import PERSONS_AT_ONCE, in_parts, patients, walk
from reconcile.report import Compared

EVERY_S = 3_600.0  # from one pass to the next
CACHE_TTL_S = 3_600.0

log = structlog.get_logger()


def run(
    hospital_id: str, settings: Settings, destination: str, *, once: bool, stop: threading.Event
) -> None:
    """Compare in a pass each EVERY_S seconds, begun in quiet hours, until `stop`.

    With `once` there is one pass, which begins now, and whose Retry and NotReady are raised. Raises
    Fatal.
    """
    if settings.hospitals[hospital_id].capture != "binlog":
        raise Fatal(
            f"hospital {hospital_id}: its capture is polling, which compares in its own way",
            hint=f"passport reconcile --hospital {hospital_id}",
        )
    with nullcontext() if once else watchdog.beside(hospital_id, settings, stop):
        _passes(hospital_id, settings, destination, once=once, stop=stop)


def _passes(
    hospital_id: str, settings: Settings, destination: str, *, once: bool, stop: threading.Event
) -> None:
    part = f"hospital {hospital_id}: comparing"
    while once or _in_hours(hospital_id, settings.hospitals[hospital_id], stop):
        try:
            with (
                translate_client_errors(hospital_id, settings),
                mongo_reader.opened(settings, destination) as mongo,
            ):
                Comparison(hospital_id, settings, mongo, stop).run()
            health.working(part)
            wait_s = EVERY_S
        except Retry as error:
            if once and not stop.is_set():
                raise
            log.warning(
                "comparing interrupted",
                hospital=hospital_id,
                reason=error.reason,
                hint=error.hint,
            )
            if not stop.is_set():
                health.failing(part, error.reason, error.hint)
            wait_s = max(error.after, settings.cdc.reconnect_max_s)
        if once:
            return
        stop.wait(wait_s)


def _in_hours(hospital_id: str, hospital: Hospital, stop: threading.Event) -> bool:
    """Wait for the hospital's quiet hours. Return False if `stop` came before them."""
    hours = Hours(hospital.compare_hours, hospital.timezone)
    if wait_s := hours.closed_s():
        log.info(
            "comparing waits",
            hospital=hospital_id,
            hours=hospital.compare_hours,
            wait_s=round(wait_s),
        )
    while not stop.is_set() and hours.closed_s():
        stop.wait(1)
    return not stop.is_set()


class Comparison:
    """One pass over one hospital and one destination."""

    def __init__(
        self,
        hospital_id: str,
        settings: Settings,
        mongo: MongoReader,
        stop: threading.Event,
        patience: Patience = PATIENCE,
    ) -> None:
        self._id = hospital_id
        self._settings = settings
        self._hospital = settings.hospitals[hospital_id]
        self._mongo = mongo
        self._stop = stop
        self._source = Source(hospital_id, self._hospital.mysql)
        self._compared = Compared()
        pace = WaitingPace(self._hospital.load_budget, stop, share=LoadShare(self._source))
        self._by_hash = ByHash(self._source, mongo, pace, self._compared)
        self._again = LookAgain(settings, self._source, mongo, patience, stop, polled_too=False)

    def run(self) -> int:
        """Return the number of persons whose repair was published.

        Raises Retry, NotReady, Fatal.
        """
        started = time.monotonic()
        try:
            repaired = self._run()
        finally:
            self._source.close()
        # Only what needed a repair is worth a warning.
        say = log.warning if repaired else log.info
        say(
            "compared",
            hospital=self._id,
            persons=self._compared.persons,
            repaired=repaired,
            duration_s=round(time.monotonic() - started, 3),
        )
        return repaired

    def _run(self) -> int:
        suspects = self._look(self._everybody())
        repaired: set[int] = set()
        if not suspects:
            return 0
        for _ in self._again.rounds():
            again = self._look(in_parts(sorted(suspects)))
            # Whoever looks as before differs, since the destination has caught up meanwhile.
            confirmed = {
                person_id for person_id in again if again[person_id] == suspects[person_id]
            }
            if confirmed:
                backfill.persons(self._id, self._settings, sorted(confirmed))
                metrics.REPAIRED.labels(self._id).inc(len(confirmed))
                repaired |= confirmed
            suspects = {
                person_id: differing
                for person_id, differing in again.items()
                if person_id not in confirmed
            }
            if not suspects:
                break
        return len(repaired)

    def _everybody(self) -> Iterator[Sequence[int]]:
        """Yield all patients of the hospital, and whomever the destination knows."""
        for batch in walk(self._source, self._mongo, patients):
            yield from in_parts(batch.person_ids)

    def _look(self, batches: Iterable[Sequence[int]]) -> dict[int, Differing]:
        """Return those who differ, with what was seen of them."""
        lookups = Lookups(
            self._id, self._hospital, self._source, entries=PERSONS_AT_ONCE, ttl_s=CACHE_TTL_S
        )
        differing: dict[int, Differing] = {}
        for person_ids in batches:
            if self._stop.is_set():
                raise Retry(f"hospital {self._id}: stopped within a pass")
            differing |= self._by_hash.differing(lookups, person_ids)
        return differing
