"""One partition that this process serves: its hospital, what has come and isn't applied yet, and
whether it waits.
"""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from consumers.enrich.obs import check
from consumers.lookups import Lookups
from consumers.reenrich import ReenrichmentQueue
from openmrs.read import Source, SourcePosition
from passport.errors import Fatal, PassportError, Reject, Retry
from passport.event import Event, RowEvent, parse_event
from passport.kafka import Record
from passport.settings import Consumer, Hospital, MySQL
from passport.version import LOWEST

PROBE_S = 2.0  # a probe's connect and read timeout
CONNECT_S, READ_S = 1.0, 3.0  # in the loop
REFUSED_S = 60.0  # after a Fatal: try again this seldom


class Item(NamedTuple):
    """A record, parsed or rejected."""

    record: Record
    event: Event | None
    reject: Reject | None = None

    @property
    def ends_transaction(self) -> bool:
        return not isinstance(self.event, RowEvent) or self.event.transaction.last


def parsed(record: Record, hospital_id: str) -> Item:
    """Checks all that can be checked without the hospital."""
    try:
        event = parse_event(record.value)
        if event.source.hospital != hospital_id:
            raise Reject("unknown_hospital", "the partition is another one's")
        if isinstance(event, RowEvent):
            check(event.row)
        return Item(record, event)
    except Reject as reject:
        return Item(record, None, reject)


class Probe(threading.Thread):
    """Asks a hospital's server, outside the loop, whether it answers again. `done`: it does, or it
    refuses us.
    """

    def __init__(self, hospital_id: str, hospital: Hospital, after_s: float) -> None:
        super().__init__(name=f"probe {hospital_id}", daemon=True)
        short = {"connect_timeout_s": PROBE_S, "read_timeout_s": PROBE_S}
        self._source = Source(hospital_id, hospital.mysql.model_copy(update=short))
        self._after_s = after_s
        self._stopped = threading.Event()
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(self._after_s):
            try:
                with self._source.read_at(patience_s=PROBE_S):
                    break
            except Retry:
                continue
            except PassportError:
                break
        self._source.close()
        self.done.set()

    def stop(self) -> None:
        self._stopped.set()


def _brisk(hospital: Hospital, failures: int) -> MySQL:
    """Timeouts that are short at first, since the other hospitals wait too, and grow up to those of
    the settings.
    """
    mysql, factor = hospital.mysql, 2.0 ** min(failures, 10)
    update = {
        "connect_timeout_s": min(mysql.connect_timeout_s, CONNECT_S * factor),
        "read_timeout_s": min(mysql.read_timeout_s, READ_S * factor),
    }
    return mysql.model_copy(update=update)


class Partition:
    """State of one partition since it was assigned. `next` is the first offset that isn't applied."""

    def __init__(
        self, number: int, hospital_id: str, hospital: Hospital, settings: Consumer, start: int
    ) -> None:
        self.number, self.hospital_id, self.hospital = number, hospital_id, hospital
        source = Source(hospital_id, _brisk(hospital, 0))
        entries, ttl_s = settings.cache_entries, settings.cache_ttl_s
        self.lookups = Lookups(hospital_id, hospital, source, entries=entries, ttl_s=ttl_s)
        self.reenrichment = ReenrichmentQueue(self.lookups, hospital.load_budget)
        self.next = start
        self.at_ms = 0
        self.latest: SourcePosition | None = None  # place of the newest event
        self.ambiguous: list[int] = []  # person_ids that are still to be read whole, since a start
        self.recorded: tuple[int, str, list[dict[str, Any]]] = (-1, LOWEST, [])
        self.in_snapshot = False
        self.ask_at = self.store_at = 0.0
        self.failures = 0
        self.paused = False
        self._buffer: list[Item] = []
        self._grown = False
        self._until = 0.0
        self._probe: Probe | None = None
        self._retry_max_s = settings.retry_max_s

    def receive(self, records: Sequence[Record]) -> None:
        self._buffer += [parsed(record, self.hospital_id) for record in records]
        self._grown = True

    def take(self, limit: int) -> list[Item]:
        """The next batch: whole transactions, unless one is larger than `limit` or its rest doesn't
        come.
        """
        grown, self._grown = self._grown, False
        buffer = self._buffer[:limit]
        end = next((i for i in range(len(buffer), 0, -1) if buffer[i - 1].ends_transaction), 0)
        if not end and grown and len(buffer) < limit:
            return []
        end = end or len(buffer)
        batch, self._buffer = self._buffer[:end], self._buffer[end:]
        return batch

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def offset(self) -> int:
        """To be stored: everything before it is applied, its re-reads too."""
        held = self.reenrichment.held_offset()
        return self.next if held is None else min(held, self.next)

    def wait(self, error: Retry | Fatal, *, hospital: bool) -> float:
        """Starts waiting; what was buffered is dropped. `hospital`: until its server answers.
        Returns the seconds.
        """
        self._buffer = []
        self.paused = True
        self.failures += 1
        most = REFUSED_S if isinstance(error, Fatal) else self._retry_max_s
        after = error.after if isinstance(error, Retry) else REFUSED_S
        seconds: float = min(most, after * 2.0 ** min(self.failures - 1, 10)) * random.uniform(
            0.5, 1
        )
        self._until = time.monotonic() + seconds
        if hospital and isinstance(error, Retry):
            self.lookups.close()
            self.lookups.source.settings = _brisk(self.hospital, self.failures)
            self._probe = Probe(self.hospital_id, self.hospital, seconds)
        return seconds

    def waiting(self) -> bool:
        """Whether it has to wait on."""
        if self._probe is not None:
            if not self._probe.done.is_set():
                return True
            self._probe = None
        return time.monotonic() < self._until

    def close(self) -> None:
        if self._probe is not None:
            self._probe.stop()
        self.lookups.close()
