"""The share of a hospital's load budget that one job has.

The jobs that read a hospital run in several processes, which know nothing of each other. But their
server knows them all. Each job holds one of a few user locks as long as it reads, by GET_LOCK, and
looks once a second how many of them are held: so many jobs share the budget. A job that has died,
or whose connection was lost, holds none any more.
"""

import time
from contextlib import suppress
from hashlib import sha256
from typing import Any

from openmrs.connection import fetch_one
from openmrs.read import Source
from passport.errors import Fatal, Retry

LOOK_S = 1.0
# More jobs than these all have the share of one of so many.
SLOTS = 16


class LoadShare:
    """The place of one job, whose queries are sent by `source`, among those of all processes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._slots = [
            f"passport.load.{_short(source.settings.database)}.{n}" for n in range(SLOTS)
        ]
        # The session that holds one of the locks, and that lock's name.
        self._session: object = None
        self._slot = ""
        self._looked_at = 0.0
        self._jobs = 1

    def jobs(self) -> int:
        """Return how many jobs read this database, this one included, as of the last second.

        From now on this job is one of them. Raises NotReady and Fatal.
        """
        session = self._source.connection()
        now = time.monotonic()
        if session is not self._session or now - self._looked_at >= LOOK_S:
            self._look()
            self._session = session
            self._looked_at = now
        return self._jobs

    def leave(self) -> None:
        """Give the lock back: this job has nothing to read now."""
        session = self._session
        self._session = None
        if session is not None and session is self._source.session:
            with suppress(Retry, Fatal):  # the session is closed then, and with it goes its lock
                self._query("SELECT RELEASE_LOCK(%s)", self._slot)

    def _look(self) -> None:
        """Count the locks that are held. Take one if this session has none."""
        places = ", ".join(["IS_USED_LOCK(%s)"] * SLOTS)
        me, *owners = self._query(f"SELECT CONNECTION_ID(), {places}", *self._slots)
        if me not in owners:
            for number, owner in enumerate(owners):
                if owner is None and self._take(self._slots[number]):
                    owners[number] = me
                    break
        held = sum(owner is not None for owner in owners)
        self._jobs = max(1, held)

    def _take(self, slot: str) -> bool:
        (taken,) = self._query("SELECT GET_LOCK(%s, 0)", slot)
        self._slot = slot
        return bool(taken)

    def _query(self, sql: str, *args: str) -> tuple[Any, ...]:
        return self._source.ask(lambda connection: fetch_one(connection, sql, args))


def _short(database: str) -> str:
    """Return a name of at most 40 characters: that of a lock may have 64."""
    return database if len(database) <= 40 else sha256(database.encode()).hexdigest()[:40]
