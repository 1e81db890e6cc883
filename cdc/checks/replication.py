"""Checks of the server as a source: its id, what it replicates itself, the saved position."""

from collections.abc import Iterator

from cdc import resume
from cdc.checks.server import Server
from cdc.checks.server_variables import is_on
from cdc.lease import server_id
from cdc.positions import Saved
from passport.check import Check


def checks(server: Server) -> Iterator[Check]:
    yield _server_id(server)
    yield _replicated_changes(server)


def saved_position(server: Server, saved: Saved) -> Check:
    """Check that the server still has the position from which the reader goes on."""
    place = f"{saved.position.file}:{saved.position.pos}"
    reason = resume.unusable(saved, server.connection)
    if not reason:
        return Check("position", True, f"the saved position {place} is on the server")
    return Check(
        "position",
        None,
        f"the saved position {place} is of no use: {reason}",
        f"passport cdc run --hospital {server.hospital_id}"
        "   # begins a new epoch with a snapshot by itself",
    )


def _server_id(server: Server) -> Check:
    """Check that the reader's id is neither the server's own nor another replica's.

    A server drops the older of two replicas that have the same id.
    """
    own_id = int(server.variables.get("server_id") or 0)
    reader_id = server.hospital.server_id or server_id(server.hospital_id)
    if not own_id:
        return Check("server_id", False, "the server has none", "in my.cnf: server_id=1; restart")

    # MariaDB shows this, and what it replicates itself, only with rights that reading needs not.
    replicas = server.rows_if_readable(server.version.show_replicas)
    if reader_id == own_id:
        owner = "the server's own"
    elif reader_id in {int(row[0]) for row in replicas}:
        owner = "a replica's too"
    else:
        return Check("server_id", True, f"the server's is {own_id}, the reader's {reader_id}")
    return Check(
        "server_id",
        False,
        f"the reader's is {reader_id}, which is {owner}",
        f"set hospitals.{server.hospital_id}.server_id to another number",
    )


def _replicated_changes(server: Server) -> Check:
    """Check that a replica writes what it replicates into its own binlog, too."""
    name = "log_slave_updates"
    is_logged = is_on(server.variables, "log_replica_updates") or is_on(server.variables, name)
    if is_logged:
        return Check(name, True, "on")

    hint = "in my.cnf: log_slave_updates=ON; then restart the server"
    if server.rows_if_readable(server.version.show_replica_status):
        detail = "the server is a replica and doesn't log what it replicates"
        return Check(name, False, detail, hint)
    # A MariaDB doesn't tell us whether it still is a replica, but it keeps its position.
    if server.variables.get("gtid_slave_pos"):
        detail = "the server is or was a replica and doesn't log what it replicates"
        return Check(name, None, detail, hint)
    return Check(name, True, "the server is no replica")
