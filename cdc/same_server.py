"""Makes sure that all connections of a reader reach one server: the one whose binlog it reads.

An address may lead to another server from one moment to the next: a planned switchover behind a
proxy, a virtual address or a DNS name. The demoted server lives on, and no connection to it ends.
Its binlog would be read for ever, and nothing more would come.

So the connection that reads the binlog first takes a lock with a name that nobody else has. Every
other connection asks for this lock: a server where nobody holds it is another one, whatever it says
of itself. A clone may have the server_uuid, the server_id and the host name of its original.
"""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pymysql
import structlog

from openmrs import connection as mysql
from passport import health
from passport.errors import Fatal, NotReady, Origin, Retry
from passport.settings import MySQL

# A new connection must be there within this time. The lease would be lost if it took longer.
CONNECT_S = 2.0

log = structlog.get_logger()


class SameServer:
    """The server that one reader reads. `every_s` is how often its address is looked at."""

    def __init__(
        self,
        hospital: str,
        settings: MySQL,
        every_s: float,
        connect: "Callable[..., pymysql.Connection[Any]]" = mysql.connect,
    ) -> None:
        self._hospital = hospital
        self._settings = settings
        self._every_s = every_s
        self._connect = connect
        self._lock = ""  # "" while no connection reads the binlog
        self._looked_at = 0.0
        self._address_part = f"hospital {hospital}: address"

    def connect(self, hospital: str, settings: MySQL, **options: Any) -> "pymysql.Connection[Any]":
        """Open a connection, as `openmrs.connection.connect`, to the server whose binlog is read.

        Raises Retry if the address leads to another one by now, NotReady and Fatal.
        """
        connection = self._connect(hospital, settings, **options)
        try:
            self.confirm(connection)
        except Retry:
            connection.close()
            raise
        return connection

    def begin(self, connection: "pymysql.Connection[Any]") -> None:
        """Take `connection` as the one that all others must share the server with."""
        lock = f"passport.stream.{uuid4().hex}"
        self._query(connection, "SELECT GET_LOCK(%s, 0)", lock)
        self._lock = lock
        self._looked_at = time.monotonic()

    def end(self) -> None:
        """Let a new connection reach any server, until one is taken again."""
        self._lock = ""

    def confirm(self, connection: "pymysql.Connection[Any]") -> None:
        """Raise Retry if this connection reaches another server than the one that is read."""
        if not self._lock:
            return
        (holder,) = self._query(connection, "SELECT IS_USED_LOCK(%s)", self._lock)
        if holder is None:
            raise Retry(
                f"hospital {self._hospital}: {self._settings.host}:{self._settings.port} leads to"
                " another server than the one that is read",
                hint="nothing to do after a switchover: the reader goes on at the other server; if"
                " it comes again and again, several servers answer at this address: name one of"
                f" them in hospitals.{self._hospital}.mysql",
                origin=Origin.hospital(self._hospital),
                after=1,
            )

    def look(self) -> None:
        """Connect anew now and then, to see where the address leads. Call it often.

        Raises Retry if it leads to another server. That new connections fail is told, and ends
        nothing: the one that reads the binlog may be fine.
        """
        now = time.monotonic()
        if now - self._looked_at < self._every_s:
            return
        self._looked_at = now
        try:
            connection = self.connect(
                self._hospital, self._settings, connect_timeout=CONNECT_S, read_timeout=CONNECT_S
            )
        except (NotReady, Fatal) as error:
            health.failing(
                self._address_part, f"a new connection fails: {error.reason}", error.hint
            )
            log.warning(
                "a new connection fails, the binlog is still read",
                hospital=self._hospital,
                reason=error.reason,
                hint=error.hint,
            )
            return
        connection.close()
        health.working(self._address_part)

    def _query(self, connection: "pymysql.Connection[Any]", sql: str, *args: Any) -> Any:
        try:
            return mysql.fetch_one(connection, sql, args)
        except (pymysql.err.MySQLError, OSError) as error:
            raise mysql.translate_error(error, self._hospital, self._settings) from None
