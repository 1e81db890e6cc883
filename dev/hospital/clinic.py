"""The clinic goes on working: each action is one transaction, as OpenMRS makes it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import pymysql

from dev.hospital import corrections, encounters, names, patients, recording
from dev.hospital.sql import Connection, execute, fetch
from dev.hospital.work import Metadata, NothingToDo, Work

# The actions by name: the weight in `step`, and the function. Weight 0: by name only.
ACTIONS: Mapping[str, tuple[float, Callable[[Work], None]]] = {
    "new_vitals": (16, recording.new_vitals),
    "new_lab_panel": (10, recording.new_lab_panel),
    "new_diagnoses": (10, recording.new_diagnoses),
    "new_prescription": (10, recording.new_prescription),
    "old_import": (1, recording.old_import),
    "edit": (14, corrections.edit),
    "edit_group": (7, corrections.edit_group),
    "void": (7, corrections.void),
    "void_group": (3, corrections.void_group),
    "unvoid": (4, corrections.unvoid),
    "unvoid_replaced": (0, corrections.unvoid_replaced),
    "purge": (2, corrections.purge),
    "purge_group": (1, corrections.purge_group),
    "archive": (0, corrections.archive),
    "change_uuid": (0, corrections.change_uuid),
    "void_encounter": (2, encounters.void),
    "unvoid_encounter": (2, encounters.unvoid),
    "void_visit": (1, encounters.void_visit),
    "unvoid_visit": (1, encounters.unvoid_visit),
    "change_encounter_date": (2, encounters.change_date),
    "change_encounter_location": (2, encounters.change_location),
    "change_provider": (2, encounters.change_provider),
    "transfer_encounter": (1, encounters.transfer),
    "merge_patients": (0.5, patients.merge),
    "void_patient": (1, patients.void),
    "unvoid_patient": (1, patients.unvoid),
    "register_patient": (2, recording.register),
    "correct_national_id": (2, patients.correct_national_id),
    "add_national_id": (1, patients.add_national_id),
    "void_national_id": (1, patients.void_national_id),
    "swap_national_ids": (0, patients.swap_national_ids),
    "rename_concept": (1, names.rename_concept),
    "rename_provider": (1, names.rename_provider),
    "rename_location": (1, names.rename_location),
    "rolled_back": (2, recording.rolled_back),
    "savepoint": (1, recording.savepoint),
}
# The record changed since it was read, a lock wait timeout, a deadlock, a table that was altered
# while the transaction was open: the action is done again, as a user would.
BUSY = {1020, 1205, 1213, 1412}
ATTEMPTS = 6

JOURNAL = """
CREATE TABLE IF NOT EXISTS journal (
  seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  obs_id INT NOT NULL,
  op CHAR(1) NOT NULL,
  counter BIGINT NOT NULL,
  KEY (obs_id)
) ENGINE=InnoDB
"""


@dataclass(frozen=True, slots=True)
class Action:
    """One transaction that was committed, or rolled back (then `rows` is 0).

    `obs_ids` has the obs_id of every change of an obs row, in order.
    """

    name: str
    rows: int
    obs_ids: tuple[int, ...] = ()


class Clinic:
    """Works in an OpenMRS 2.x database through a connection of its own.

    `rate` is in transactions a second; None means as fast as it can. With `journal`, each change
    of an obs row is also written, in its transaction, to the table journal(seq, obs_id, op c/u/d,
    counter). The counter is 1, 2, 3 ... without a gap over what this clinic has committed. The
    clinic's choices follow `seed` and the data; uuids are random.
    """

    def __init__(
        self, connection: Connection, *, seed: int, rate: float | None = None, journal: bool = False
    ) -> None:
        self.connection = connection
        self.rate = rate
        self.counts: Counter[str] = Counter()
        self.late = 0.0  # seconds that `run` was behind its schedule at worst
        self._rng = Random(f"clinic {seed}")
        self._counter = 0 if journal else None
        if journal:
            execute(connection, JOURNAL)
        self._metadata = Metadata.read(connection)
        connection.commit()

    @property
    def actions(self) -> list[str]:
        return list(ACTIONS)

    def do(self, name: str) -> Action:
        """Do this action once.

        Raises LookupError when there is nothing (left) to do it on; nothing was changed then.
        """
        _, act = ACTIONS[name]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                action = self._transaction(name, act)
            except pymysql.MySQLError as error:
                self._back_out()
                if error.args[0] not in BUSY or attempt == ATTEMPTS:
                    raise
            except BaseException:
                self._back_out()
                raise
            else:
                self.counts[name] += 1
                return action
        raise AssertionError("the last attempt returns or raises")

    def step(self) -> Action:
        """Do a random action. One that finds nothing to do is left out."""
        names = list(ACTIONS)
        weights = [weight for weight, _ in ACTIONS.values()]
        while True:
            (name,) = self._rng.choices(names, weights)
            try:
                return self.do(name)
            except NothingToDo:
                continue

    def run(
        self, seconds: float, rate: float | None = None, stop: threading.Event | None = None
    ) -> Counter[str]:
        """Do steps for so many seconds, or until `stop`. Return how often each action was done.

        The loop is open: a slow server does not slow the schedule down.
        """
        rate = rate or self.rate
        before = Counter(self.counts)
        steps = 0
        began = time.monotonic()
        while True:
            elapsed = time.monotonic() - began
            if elapsed >= seconds or (stop is not None and stop.is_set()):
                return self.counts - before
            due = steps / rate if rate else elapsed
            if due > elapsed:
                time.sleep(min(due - elapsed, 0.05))  # short, so that `stop` is soon seen
                continue
            self.late = max(self.late, elapsed - due)
            self.step()
            steps += 1

    def _transaction(self, name: str, act: Callable[[Work], None]) -> Action:
        self.connection.begin()
        now = fetch(self.connection, "SELECT NOW() AS now")[0]["now"]
        work = Work(self.connection, self._metadata, self._rng, now, self._counter)
        act(work)
        if work.rollback:
            self.connection.rollback()
            return Action(name, 0)
        self.connection.commit()
        self._counter = work.counter
        return Action(name, len(work.touched), tuple(work.touched))

    def _back_out(self) -> None:
        if self.connection.open:
            try:
                self.connection.rollback()
            except pymysql.MySQLError:
                # The connection is gone, and the transaction with it.
                self.connection.close()
