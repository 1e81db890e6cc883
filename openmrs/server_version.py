"""What depends on the version of a MySQL or MariaDB: here, and nowhere else.

MySQL gave its replication statements new names, and dropped the old ones later. MariaDB still knows
the old ones, and has new ones of its own.
"""

import re
from typing import Literal, NamedTuple

Flavour = Literal["mariadb", "mysql"]


class ServerVersion(NamedTuple):
    """The kind of a server, and the number of its release: ``8, 0, 15`` of MySQL 8.0.15."""

    flavour: Flavour
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "ServerVersion":
        """Return the version that a server's greeting or its VERSION() says.

        MariaDB before 11 puts ``5.5.5-`` in front of it, for replicas that were old in 2013. A
        number that is missing is 0.
        """
        is_mariadb = "mariadb" in text.lower()
        if is_mariadb:
            text = text.removeprefix("5.5.5-")
        numbers = [int(number) for number in re.findall(r"\d+", text.partition("-")[0])]
        major, minor, patch = [*numbers, 0, 0, 0][:3]
        return cls("mariadb" if is_mariadb else "mysql", major, minor, patch)

    def is_mysql(self, *since: int) -> bool:
        """Return whether this is a MySQL of the release `since`, as in ``8, 2, 0``, or newer."""
        return self.flavour == "mysql" and self[1:] >= since

    def is_mariadb(self, *since: int) -> bool:
        """Return whether this is a MariaDB of the release `since` or newer."""
        return self.flavour == "mariadb" and self[1:] >= since

    @property
    def show_binlog_end(self) -> str:
        """The statement that says where the binlog ends."""
        # MySQL 8.2 and 8.3 know both, 8.4 only the new one.
        if self.is_mysql(8, 2):
            return "SHOW BINARY LOG STATUS"
        return "SHOW MASTER STATUS"

    @property
    def show_replicas(self) -> str:
        """The statement that lists the replicas which read from the server."""
        if self.is_mysql(8, 0, 22):
            return "SHOW REPLICAS"
        return "SHOW SLAVE HOSTS"

    @property
    def show_replica_status(self) -> str:
        """The statement that says from which server this one replicates, if it does."""
        if self.is_mysql(8, 0, 22):
            return "SHOW REPLICA STATUS"
        return "SHOW SLAVE STATUS"
