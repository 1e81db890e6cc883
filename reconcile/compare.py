"""Beside the stream of one hospital: finds what no event told of (sql_log_bin=0, statements,
restores, faults of ours).

By person: the link, and a hash of their rows, computed on the hospital's server, against one of the
mirror's rows. Whoever differs is looked at again when the destination has applied a position taken
after the read; who then still differs, though the hospital's rows have not changed in between, is
published as a notice of table ``person``, and every destination reads that person whole. A healthy
pipeline publishes nothing: what is counted here measures it. Names alone are not compared here:
`passport verify` does that, and `passport backfill` repairs it.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from cdc import backfill
from cdc.polling import watchdog
from consumers.lookups import Lookups
from openmrs.load_budget import WaitingPace, closed_s
from openmrs.read import ANY_POSITION, Source
from passport import metrics
from passport.errors import Fatal, NotReady, Retry
from passport.settings import Hospital, Settings
from reconcile import passport_db
from reconcile.by_hash import PERSONS, ByHash, Differing, parts
from reconcile.caught_up import Mark
from reconcile.passport_db import PassportDb
from reconcile.report import Compared

EVERY_S = 3_600.0  # from one pass to the next
ROUNDS = 3
SETTLE_S = 2.0
CACHE_TTL_S = 3_600.0

log = structlog.get_logger()


def run(
    hospital_id: str, settings: Settings, destination: str, *, once: bool, stop: threading.Event
) -> None:
    """A pass each EVERY_S seconds, begun in quiet hours, until `stop`; `once`: one now, else
    NotReady. Fatal.
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
    while once or _in_hours(hospital_id, settings.hospitals[hospital_id], stop):
        try:
            with passport_db.opened(settings, destination) as passport:
                Comparison(hospital_id, settings, passport, stop).run()
            wait_s = EVERY_S
        except Retry as error:
            if once and not stop.is_set():
                raise
            log.warning("comparing interrupted", hospital=hospital_id, reason=type(error).__name__)
            wait_s = max(error.after, settings.cdc.reconnect_max_s)
        if once:
            return
        stop.wait(wait_s)


def _in_hours(hospital_id: str, hospital: Hospital, stop: threading.Event) -> bool:
    """Waits for the hospital's quiet hours; False when `stop` came before them."""
    zone = ZoneInfo(hospital.timezone)
    if wait_s := closed_s(hospital.compare_hours, datetime.now(zone)):
        log.info(
            "comparing waits",
            hospital=hospital_id,
            hours=hospital.compare_hours,
            wait_s=round(wait_s),
        )
    while not stop.is_set() and closed_s(hospital.compare_hours, datetime.now(zone)):
        stop.wait(1)
    return not stop.is_set()


class Comparison:
    """One pass over one hospital and one destination."""

    def __init__(
        self, hospital_id: str, settings: Settings, passport: PassportDb, stop: threading.Event
    ) -> None:
        self._id = hospital_id
        self._settings = settings
        self._hospital = settings.hospitals[hospital_id]
        self._passport = passport
        self._stop = stop
        self._source = Source(hospital_id, self._hospital.mysql)
        self._compared = Compared()
        self._by_hash = ByHash(
            self._source, passport, WaitingPace(self._hospital.load_budget, stop), self._compared
        )

    def run(self) -> int:
        """Persons whose repair was published. Retry, NotReady, Fatal."""
        started = time.monotonic()
        try:
            repaired = self._run()
        finally:
            self._source.close()
        duration_s = round(time.monotonic() - started, 3)
        say = log.warning if repaired else log.info
        say(
            "compared",
            hospital=self._id,
            persons=self._compared.persons,
            repaired=repaired,
            duration_s=duration_s,
        )
        return repaired

    def _run(self) -> int:
        suspects = self._look(self._everyone())
        confirmed: set[int] = set()
        for _ in range(ROUNDS):
            if not suspects:
                break
            self._stop.wait(
                SETTLE_S
            )  # who has just registered in the Passport is known to the destination then
            mark = Mark.now(self._settings, self._id, self._source)
            if not mark.version:
                raise Retry(
                    f"hospital {self._id}: it is polled instead of streamed, which compares in its own way"
                )
            if not mark.reached(lambda: self._passport.progress(self._id)):
                raise NotReady(
                    f"hospital {self._id}: the destination is behind, what differs means nothing",
                    hint=mark.hint,
                )
            again = self._look(parts(sorted(suspects)))
            same = {one for one in again if again[one] == suspects[one]}
            if same:
                backfill.persons(self._id, self._settings, sorted(same))
                metrics.REPAIRED.labels(self._id).inc(len(same))
                confirmed |= same
            suspects = {one: seen for one, seen in again.items() if one not in same}
        return len(confirmed)

    def _everyone(self) -> Iterator[Sequence[int]]:
        """All patients of the hospital, and whoever the destination knows."""
        known = self._passport.linked(self._id)
        after = -1
        while not self._stop.is_set():
            with self._source.read_at(ANY_POSITION) as reading:
                rows = reading.rows(
                    "SELECT patient_id FROM patient WHERE patient_id > %s ORDER BY patient_id LIMIT %s",
                    (after, PERSONS),
                )
            ids = [row["patient_id"] for row in rows]
            to = ids[-1] if len(ids) == PERSONS else 2**62
            also = {one for one in known if after < one <= to} | self._passport.mirrored(
                self._id, after, to
            )
            yield from parts(sorted({*ids, *also}))
            if to == 2**62:
                return
            after = to

    def _look(self, batches: Iterable[Sequence[int]]) -> dict[int, Differing]:
        lookups = Lookups(
            self._id, self._hospital, self._source, entries=PERSONS, ttl_s=CACHE_TTL_S
        )
        found: dict[int, Differing] = {}
        for person_ids in batches:
            if self._stop.is_set():
                raise Retry(f"hospital {self._id}: stopped within a pass")
            found |= self._by_hash.differing(lookups, person_ids)
        return found
