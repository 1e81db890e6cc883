"""Whether a server's crash can have made its tables and its binlog differ.

With the settings that are called durable here, a transaction is on the disk before it is committed:
as prepared in InnoDB's log, and then in the binlog, from which readers get it only after that. When
the server starts again, InnoDB commits the prepared transactions that the binlog has, and takes
back the others. So the tables are what the binlog says, and what was read is still in it.

With other settings either of the two may lack its end, and only reading the tables shows what is
true. The settings can be changed while a server runs, and only those of before the crash count. So
a reader looks at them all the time, and keeps what it saw with its position.
"""

from typing import Any, NamedTuple

import pymysql

from openmrs.connection import fetch_all, global_variables
from openmrs.tables import WATCHED
from passport.version import Position

DURABLE = {
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
}
# InnoDB's methods that leave it to luck whether a write reaches the disk.
CARELESS_METHODS = {"nosync", "littlesync"}


class SeenDurable(NamedTuple):
    """The end of the binlog of a server with durable settings, when they were last looked at.

    `ts_ms` is the server's clock then, in Unix ms.
    """

    end: Position
    ts_ms: int

    def covers(self, crashed_at: Position, last_commit_ms: int, every_s: float) -> bool:
        """Return whether tables and binlog are surely equal after a crash.

        `crashed_at` is where the binlog file now ends that was written then. It must have all that
        it had when it was looked at: a file of an old copy of the server has not. `last_commit_ms`
        is the time of the last commit in it. The settings were looked at every `every_s` seconds
        while a reader ran.
        """
        if self.end.file != crashed_at.file or self.end.pos > crashed_at.pos:
            return False
        return last_commit_ms <= self.ts_ms + 2 * every_s * 1000


NEVER_SEEN = SeenDurable(Position("", 0), 0)


def is_durable(connection: "pymysql.Connection[Any]") -> bool:
    """Return whether each commit is on the disk, in tables and binlog, before anybody is told."""
    variables = global_variables(connection, [*DURABLE, "innodb_flush_method"])
    method = variables.pop("innodb_flush_method", "").lower()
    return variables == DURABLE and method not in CARELESS_METHODS


def are_transactional(connection: "pymysql.Connection[Any]", database: str) -> bool:
    """Return whether all watched tables are InnoDB's. Others don't take part in its recovery."""
    sql = (
        "SELECT engine FROM information_schema.tables WHERE table_schema = %s AND table_name IN %s"
    )
    rows = fetch_all(connection, sql, (database, WATCHED))
    return all(str(row[0]).lower() == "innodb" for row in rows)
