"""Clinics that go on working whatever happens to their server, and the journal of what they have
committed.
"""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pymysql

from dev import hospital as generator
from dev.hospital.clinic import Action
from tests.e2e.stage import Hospital, Stage
from tests.topic_reader import read_topic


class Shift:
    """A clinic in a thread: so many obs rows a second on average; it comes back when its server
    does.

    The share `seldom_share` of its steps are actions of `seldom_names`; `seldom` counts them.
    """

    def __init__(
        self,
        hospital: Hospital,
        seed: int,
        rows_per_s: float,
        seldom_names: Sequence[str] = (),
        seldom_share: float = 0,
    ) -> None:
        self._hospital, self._seed, self._rate = hospital, seed, rows_per_s
        self._seldom_names, self._seldom_share = seldom_names, seldom_share
        self._rng = Random(seed)
        self.seldom: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.rows = 0
        self.error: BaseException | None = None

    def start(self) -> "Shift":
        self._thread.start()
        return self

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error

    def _work(self) -> None:
        lives = 0
        while not self._stop.is_set():
            lives += 1
            try:
                with contextlib.closing(self._hospital.connect(read_timeout=30)) as connection:
                    self._steps(
                        generator.Clinic(connection, seed=self._seed * 1000 + lives, journal=True)
                    )
            except pymysql.err.MySQLError:
                self._stop.wait(0.5)
            except BaseException as error:  # noqa: BLE001  # raised in the driver's thread
                self.error = error
                return

    def _steps(self, clinic: generator.Clinic) -> None:
        began, done = time.monotonic(), 0
        while not self._stop.is_set():
            ahead = done / self._rate - (time.monotonic() - began)
            if ahead > 0:
                self._stop.wait(min(ahead, 0.5))
                continue
            with self._hospital.turn:
                rows = self._step(clinic).rows
            done += rows
            self.rows += rows

    def _step(self, clinic: generator.Clinic) -> Action:
        if self._rng.random() < self._seldom_share:
            name = self._rng.choice(self._seldom_names)
            with contextlib.suppress(LookupError):  # nothing there to do it on
                action = clinic.do(name)
                self.seldom[name] += 1
                return action
        return clinic.step()


@dataclass
class Told:
    """What one hospital's partition says. `rows`: changes of rows by (obs_id, op), each version
    once.
    """

    rows: Counter[tuple[int, str]] = field(default_factory=Counter)
    seen: set[tuple[str, int]] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)  # of rows, however they were read
    duplicates: int = 0
    disorder: int = 0
    highest: str = ""

    def take(self, event: dict[str, object]) -> None:
        image = event["after"] or event["before"]
        source = event["source"]
        assert isinstance(image, dict)
        assert isinstance(source, dict)
        key, version = int(image["obs_id"]), str(source["version"])
        self.keys.add(key)
        if (version, key) in self.seen:
            self.duplicates += 1
            return
        self.seen.add((version, key))
        if source["origin"] == "binlog":
            self.disorder += version < self.highest
            self.highest = max(self.highest, version)
            self.rows[key, str(event["op"])] += 1


def told(stage: Stage) -> dict[str, Told]:
    """Return what the whole topic tells, by hospital."""
    told_by_hospital = {}
    for key, hospital in stage.hospitals.items():
        told_of_hospital = Told()
        for record in read_topic(stage.kafka.url, "openmrs.changes", hospital.partition):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(record.value)
                if event["kind"] == "row":
                    told_of_hospital.take(event)
        told_by_hospital[key] = told_of_hospital
    return told_by_hospital


def lost(hospital: Hospital, told: Told, *, gap: bool) -> int:
    """Journalled changes that the topic doesn't have. After a gap in the binlog: rows of which it
    has nothing.
    """
    with hospital.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT obs_id, op, COUNT(*) FROM journal GROUP BY obs_id, op")
        journal = {(key, op): count for key, op, count in cursor.fetchall()}
        cursor.execute("SELECT obs_id FROM obs")
        live = {key for (key,) in cursor.fetchall()}
    if gap:
        return len({key for key, _ in journal if key in live} - told.keys)
    return sum(max(0, count - told.rows[change]) for change, count in journal.items())
