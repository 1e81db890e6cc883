"""Checks that the address leads to one server, and that nothing on the way pretends to be it.

A proxy may spread sessions, and even the statements of one session, over several servers. Each has
a binlog of its own, so a reader needs one of them.
"""

from collections.abc import Iterator
from contextlib import closing

from cdc.checks.server import Server
from openmrs import connection as mysql
from openmrs.server_version import ServerVersion
from passport.check import Check

MORE_SESSIONS = 3
STATEMENTS = 3
# Servers of one cluster may have the same server_id, and those in containers all the same port.
WHICH_SERVER = "SELECT CONCAT_WS(' ', @@hostname, @@port, @@server_id, @@datadir)"


def checks(server: Server) -> Iterator[Check]:
    yield _one_server(server)
    yield _greeting(server)


def _one_server(server: Server) -> Check:
    """Check that all sessions, and all statements of each, reach the same server."""
    reached = {server.rows(WHICH_SERVER)[0][0]}
    for _ in range(MORE_SESSIONS):
        with closing(mysql.connect(server.hospital_id, server.hospital.mysql)) as connection:
            for _ in range(STATEMENTS):
                reached.add(mysql.fetch_one(connection, WHICH_SERVER)[0])
    sessions = f"{1 + MORE_SESSIONS} sessions"
    if len(reached) == 1:
        return Check("one server", True, f"{sessions} reached the same server")
    return Check(
        "one server",
        False,
        f"{sessions} reached {len(reached)} servers: {'; '.join(sorted(reached))}",
        f"set hospitals.{server.hospital_id}.mysql.host to the address of one of them",
    )


def _greeting(server: Server) -> Check:
    """Check that the version in the greeting is the server's own.

    The reader chooses its statements and its decoder by the greeting. A proxy greets for itself.
    """
    greeted = server.version
    (version,) = server.rows("SELECT VERSION()")[0]
    own = ServerVersion.parse(version)
    if greeted == own:
        return Check("greeting", True, f"the server itself says that it is {version}")
    greeting = server.connection.get_server_info()  # type: ignore[no-untyped-call]
    detail = f"a proxy greets as {greeting}, the server behind it is {version}"
    hint = (
        f"set hospitals.{server.hospital_id}.mysql.host to the server's own address,"
        " or the proxy's version to that of the server"
    )
    is_other_kind = greeted.flavour != own.flavour
    return Check("greeting", False if is_other_kind else None, detail, hint)
