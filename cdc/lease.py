"""One reader a hospital: it holds a lock of the server that is read, by GET_LOCK.

Politeness only (correctness rests on versions): the lock goes with the session, which the server
ends when its client is gone or silent for `WAIT_TIMEOUT_S`.
"""

import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

import pymysql
import structlog

from openmrs import connection as mysql
from passport import health
from passport.errors import Origin, Retry
from passport.settings import MySQL
from passport.version import Position

WAIT_TIMEOUT_S = 8
PING_S = 2.0
WAITING_HINT = "passport status   # is another reader of this hospital meant to run?"

log = structlog.get_logger()


class End(NamedTuple):
    """The place where the server's binlog ended at `ts_ms` (the server's clock in Unix ms)."""

    position: Position
    ts_ms: int


class Lease:
    """Held from `take` to `close`. Not thread-safe."""

    def __init__(
        self,
        hospital: str,
        settings: MySQL,
        connect: "Callable[..., pymysql.Connection[Any]]" = mysql.connect,
    ) -> None:
        self.hospital = hospital
        self._settings = settings
        self._connect = connect
        self._lock = lock_name(hospital)
        self._part = f"hospital {hospital}: lease"
        self._connection: pymysql.Connection[Any] | None = None
        self._pinged_at = 0.0
        self._was_retaken = False

    @property
    def connection(self) -> "pymysql.Connection[Any]":
        """The session that holds the lock."""
        if self._connection is None:
            raise self._lost("the lease is not held")
        return self._connection

    def take(self, stop: threading.Event, *, wait: bool = True) -> bool:
        """Wait until the lock is ours. Return False if `stop` came first.

        Without `wait`, return False if another reader holds it. /readyz says that it waits. Raises
        NotReady and Fatal.
        """
        self.close()
        self._connection = self._connect(self.hospital, self._settings)
        is_waiting = False
        try:
            while not stop.is_set():
                if self._query("SELECT GET_LOCK(%s, 1)", self._lock)[0] == 1:
                    self._query(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
                    self._was_retaken = False
                    log.info("lease taken", hospital=self.hospital)
                    return True
                if not wait:
                    break
                if not is_waiting:
                    is_waiting = True
                    log.warning(
                        "another reader holds the lease, waiting",
                        hospital=self.hospital,
                        hint=WAITING_HINT,
                    )
                    health.failing(self._part, "another reader holds the lease", WAITING_HINT)
        finally:
            if is_waiting:
                health.working(self._part)
        return False

    def keep(self, *, now: bool = False) -> None:
        """Ask the server whether the lock is still ours, at most every PING_S unless `now`.

        Call it often. A session that ended is opened again, and the lock taken again, unless `now`.
        Raises Retry when another reader has the lock, NotReady when the server is away.
        """
        at = time.monotonic()
        if at - self._pinged_at < PING_S and not now:
            return
        self._pinged_at = at
        try:
            is_ours = self._query("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", self._lock)[0]
        except Retry:
            if now:
                raise
            self._take_again()
            return
        if is_ours != 1:
            raise self._lost("the lease was lost")

    def was_retaken(self) -> bool:
        """Return whether the lock was lost and taken again since the last call.

        If so, another reader may have come and gone meanwhile.
        """
        was_retaken = self._was_retaken
        self._was_retaken = False
        return was_retaken

    def end(self) -> End:
        """Return where the binlog ends now. Raises NotReady; Fatal if the server has no binlog."""
        self.keep()
        try:
            # The clock first: what is committed in between is then behind the end at a later time.
            ts_ms = mysql.clock_ms(self.connection)
            position = mysql.end_of_binlog(self.connection)
        except (pymysql.err.MySQLError, OSError) as error:
            raise mysql.translate_error(error, self.hospital, self._settings) from None
        if position is None:
            raise mysql.no_binlog(self.hospital)
        return End(position, ts_ms)

    def close(self) -> None:
        """Give the lock back."""
        connection = self._connection
        self._connection = None
        if connection is not None:
            with suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _take_again(self) -> None:
        """Open the session and take the lock again, after the session ended.

        It may have ended while this process stood still. That is fine unless another reader came.
        """
        self.close()
        self._connection = self._connect(self.hospital, self._settings)
        if self._query("SELECT GET_LOCK(%s, 0)", self._lock)[0] != 1:
            raise self._lost("the lease was lost to another reader")
        self._query(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
        self._was_retaken = True
        log.warning("lease session lost and taken again", hospital=self.hospital)

    def _lost(self, reason: str) -> Retry:
        return Retry(
            f"hospital {self.hospital}: {reason}", origin=Origin.hospital(self.hospital), after=1
        )

    def _query(self, sql: str, *args: Any) -> tuple[Any, ...]:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return cursor.fetchone() or ()
        except (pymysql.err.MySQLError, OSError) as error:
            raise mysql.translate_error(error, self.hospital, self._settings) from None


def lock_name(hospital: str) -> str:
    """Return the name of the hospital's lock. Servers take 64 characters and ignore case."""
    if len(hospital) > 40:
        hospital = sha256(hospital.encode()).hexdigest()[:40]
    return f"passport.{hospital}"


def server_id(hospital: str) -> int:
    """Return a replica id, always the same for one hospital.

    It is one of the upper half, away from those that people give.
    """
    return 2**31 + zlib.crc32(b"passport/" + hospital.encode()) % (2**31 - 1)
