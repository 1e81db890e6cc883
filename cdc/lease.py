"""One reader a hospital: GET_LOCK on the server that is read, and the session to ask that server
things.

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

from openmrs import connection as source
from passport.errors import Retry
from passport.settings import MySQL
from passport.version import Position

WAIT_TIMEOUT_S = 8
PING_S = 2.0

log = structlog.get_logger()


class End(NamedTuple):
    """Where the server's binlog ended at `ts_ms`, its clock."""

    position: Position
    ts_ms: int


class Lease:
    """Held from `take` to `close`. Not thread-safe."""

    def __init__(
        self,
        hospital: str,
        settings: MySQL,
        connect: "Callable[..., pymysql.Connection[Any]]" = source.connect,
    ) -> None:
        self.hospital = hospital
        self._settings = settings
        self._connect = connect
        self._name = lock_name(hospital)
        self._connection: pymysql.Connection[Any] | None = None
        self._pinged = 0.0
        self.lapsed = False  # taken again since `take`: another reader may have come and gone

    @property
    def connection(self) -> "pymysql.Connection[Any]":
        """The session that holds the lock."""
        if self._connection is None:
            raise Retry(f"hospital {self.hospital}: the lease is not held")
        return self._connection

    def take(self, stop: threading.Event, *, wait: bool = True) -> bool:
        """Wait until the lock is ours; False when `stop` came first, or it is another's. NotReady,
        Fatal.
        """
        self.close()
        self._connection = self._connect(self.hospital, self._settings)
        waiting = False
        while not stop.is_set():
            if self._asked("SELECT GET_LOCK(%s, 1)", self._name)[0] == 1:
                self._asked(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
                self.lapsed = False
                log.info("lease taken", hospital=self.hospital)
                return True
            if not wait:
                break
            if not waiting:
                log.warning("another reader holds the lease, waiting", hospital=self.hospital)
                waiting = True
        return False

    def keep(self, *, now: bool = False) -> None:
        """Call often: pings, every PING_S or `now`. Retry when another reader has it, NotReady."""
        at = time.monotonic()
        if at - self._pinged < PING_S and not now:
            return
        self._pinged = at
        try:
            held = self._asked("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", self._name)[0]
        except Retry:
            if now:
                raise
            self._again()
            return
        if held != 1:
            raise Retry(f"hospital {self.hospital}: the lease was lost", after=1)

    def end(self) -> End:
        """Where the binlog ends now. NotReady; Fatal when the server has no binlog."""
        self.keep()
        ts_ms = int(self._asked("SELECT ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000)")[0])
        try:
            position = source.end_of_binlog(self.connection)
        except pymysql.err.MySQLError as error:
            raise source.translate_error(error, self.hospital, self._settings) from None
        if position is None:
            raise source.no_binlog(self.hospital)
        return End(position, ts_ms)

    def close(self) -> None:
        """Gives the lock back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _again(self) -> None:
        """The session ended, perhaps while this process stood still: fine unless another reader
        came.
        """
        self.close()
        self._connection = self._connect(self.hospital, self._settings)
        if self._asked("SELECT GET_LOCK(%s, 0)", self._name)[0] != 1:
            raise Retry(f"hospital {self.hospital}: the lease was lost to another reader", after=1)
        self._asked(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
        self.lapsed = True
        log.warning("lease session lost and taken again", hospital=self.hospital)

    def _asked(self, sql: str, *args: Any) -> tuple[Any, ...]:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return cursor.fetchone() or ()
        except (pymysql.err.MySQLError, OSError) as error:
            raise source.translate_error(error, self.hospital, self._settings) from None


def lock_name(hospital: str) -> str:
    """Servers take 64 characters and ignore case."""
    return "passport." + (
        hospital if len(hospital) <= 40 else sha256(hospital.encode()).hexdigest()[:40]
    )


def server_id(hospital: str) -> int:
    """A replica id of the upper half, away from those that people give, always the same for one
    hospital.
    """
    return 2**31 + zlib.crc32(b"passport/" + hospital.encode()) % (2**31 - 1)
