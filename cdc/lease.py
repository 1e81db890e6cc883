"""One reader a hospital and topic: it holds a lock of the server that is read, by GET_LOCK.

Politeness only (correctness rests on versions): the lock goes with the session, which the server
ends when its client is gone or silent for `WAIT_TIMEOUT_S`.

Readers of the same hospital for another topic, or for another Kafka, have a lock of another name.
They don't get in each other's way: a staging system may read what production reads.
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
# Who waits says so at once, and again after so long; then each time twice as long has passed.
SAY_AGAIN_S = 30.0
SAY_AT_LEAST_EVERY_S = 600.0

log = structlog.get_logger()


class End(NamedTuple):
    """The place where the server's binlog ended at `ts_ms` (the server's clock in Unix ms)."""

    position: Position
    ts_ms: int


class ReaderName(NamedTuple):
    """The name of a reader: the hospital that it reads, and the topic that it fills.

    `cluster_id` is that of Kafka, which does not depend on how its brokers are addressed.
    """

    hospital: str
    cluster_id: str
    topic: str


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
        self._part = f"hospital {hospital}: lease"
        self._name: ReaderName | None = None
        self._lock = ""
        self._holds_former_lock = False
        self._connection: pymysql.Connection[Any] | None = None
        self._pinged_at = 0.0
        self._was_retaken = False

    @property
    def connection(self) -> "pymysql.Connection[Any]":
        """The session that holds the lock."""
        if self._connection is None:
            raise self._lost("the lease is not held")
        return self._connection

    @property
    def name(self) -> ReaderName:
        """The name of the reader that took the lease last."""
        if self._name is None:
            raise self._lost("the lease was never taken")
        return self._name

    def take(self, name: ReaderName, stop: threading.Event, *, wait: bool = True) -> bool:
        """Wait until the lock of this name is ours. Return False if `stop` came first.

        Without `wait`, return False if another reader holds it. /readyz says that it waits. Raises
        NotReady and Fatal.
        """
        self.close()
        self._name = name
        self._lock = lock_name(name)
        self._connection = self._connect(self.hospital, self._settings)
        began_at = time.monotonic()
        say_at = began_at
        try:
            while not stop.is_set():
                if self._lock_within(1):
                    self._query(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
                    self._was_retaken = False
                    log.info("lease taken", hospital=self.hospital)
                    return True
                if not wait:
                    break
                now = time.monotonic()
                health.failing(self._part, "another reader holds the lease", WAITING_HINT)
                if now >= say_at:
                    waited_s = now - began_at
                    say_at = now + min(max(waited_s, SAY_AGAIN_S), SAY_AT_LEAST_EVERY_S)
                    log.warning(
                        "another reader holds the lease, waiting",
                        hospital=self.hospital,
                        waited_s=round(waited_s),
                        topic=name.topic,
                        hint=WAITING_HINT,
                    )
        finally:
            if wait:
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
            holder, own_id = self._query("SELECT IS_USED_LOCK(%s), CONNECTION_ID()", self._lock)
        except Retry:
            if now:
                raise
            self._take_again()
            return
        if holder != own_id:
            raise self._lost("the lease was lost")
        if not self._holds_former_lock and not self._lock_former_name(0):
            raise self._lost("a reader of an older release has come")

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
        self._holds_former_lock = False
        if connection is not None:
            with suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _take_again(self) -> None:
        """Open the session and take the lock again, after the session ended.

        It may have ended while this process stood still. That is fine unless another reader came.
        """
        self.close()
        self._connection = self._connect(self.hospital, self._settings)
        if not self._lock_within(0):
            raise self._lost("the lease was lost to another reader")
        self._query(f"SET SESSION wait_timeout = {WAIT_TIMEOUT_S}")
        self._was_retaken = True
        log.warning("lease session lost and taken again", hospital=self.hospital)

    def _lock_within(self, seconds: int) -> bool:
        """Take the lock, and see that no reader of an older release reads."""
        if self._query("SELECT GET_LOCK(%s, %s)", self._lock, seconds)[0] != 1:
            return False
        return self._lock_former_name(seconds)

    def _lock_former_name(self, seconds: int) -> bool:
        """Return whether no reader of an older release reads the hospital, or can begin to.

        The lock of older releases has the hospital's name alone. It is taken, too, so that a reader
        from before and one from after an upgrade exclude each other. But of two readers that fill
        different topics only one can have it, and the other must not wait for that one. Such a
        holder is told by a lock that has its connection's number in its name. `keep` tries again
        meanwhile. All this can go one release after this one.
        """
        (own_id,) = self._query("SELECT CONNECTION_ID()")
        self._query("SELECT GET_LOCK(%s, 0)", f"passport.reader.{own_id}")
        former_name = former_lock_name(self.hospital)
        holder = None
        while holder is None:  # it may be given back between the two questions
            if self._query("SELECT GET_LOCK(%s, %s)", former_name, seconds)[0] == 1:
                self._holds_former_lock = True
                return True
            (holder,) = self._query("SELECT IS_USED_LOCK(%s)", former_name)
        (marked,) = self._query("SELECT IS_USED_LOCK(%s)", f"passport.reader.{holder}")
        return bool(marked == holder)

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


def lock_name(name: ReaderName) -> str:
    """Return the name of a reader's lock. Servers take 64 characters and ignore case."""
    digest = sha256("\n".join(name).encode()).hexdigest()
    return f"passport.{name.hospital[:30]}.{digest[:20]}"


def former_lock_name(hospital: str) -> str:
    """Return the name of the hospital's lock in older releases."""
    if len(hospital) > 40:
        hospital = sha256(hospital.encode()).hexdigest()[:40]
    return f"passport.{hospital}"


def server_id(name: ReaderName) -> int:
    """Return a replica id, always the same for one reader.

    It is one of the upper half, away from those that people give. A server ends the older of two
    connections that read its binlog with the same id, so readers of different topics need
    different ones.
    """
    return 2**31 + zlib.crc32(b"passport/" + "/".join(name).encode()) % (2**31 - 1)
