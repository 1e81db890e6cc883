"""Checks of the server as a source: its id, what it replicates itself, the saved position."""

from collections.abc import Iterator

from cdc import resume
from cdc.checks.server import Server
from cdc.checks.server_variables import is_on
from cdc.hidden_changes import (
    GALERA_NOT_LOGGED,
    LOG_UPDATES,
    REPLICATED_NOT_LOGGED,
    binlog_filters,
    find_obstacle,
    running_sources,
)
from cdc.positions import Saved
from passport.check import Check


def checks(server: Server, reader_id: int | None) -> Iterator[Check]:
    """Yield the checks. `reader_id` is the reader's server_id, None if nobody knows it now."""
    yield _server_id(server, reader_id)
    yield _replicated_changes(server)
    # Without the right to ask there is no answer; another check says which right is missing.
    if not server.error_number(server.version.show_binlog_end):
        yield _hidden_changes(server)


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


def _server_id(server: Server, reader_id: int | None) -> Check:
    """Check that the reader's id is neither the server's own nor another replica's.

    A server drops the older of two replicas that have the same id.
    """
    own_id = int(server.variables.get("server_id") or 0)
    if not own_id:
        return Check("server_id", False, "the server has none", "in my.cnf: server_id=1; restart")
    if reader_id is None:
        return Check(
            "server_id",
            None,
            f"the server's is {own_id}, the reader's depends on Kafka, which doesn't answer",
            f"passport check --hospital {server.hospital_id}   # once Kafka answers",
        )

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


def _hidden_changes(server: Server) -> Check:
    """Check that no filter keeps changes of the hospital's database out of the binlog.

    Rows are filtered by the database that they are in. Other statements, ALTER TABLE among them,
    are filtered by the database that their session uses: one that uses another database, or none,
    escapes the binlog though the filter lets the hospital's database pass.
    """
    name = "hidden changes"
    database = server.hospital.mysql.database
    obstacle = find_obstacle(server.connection, database)
    if obstacle is not None:
        return Check(name, False, obstacle.reason, obstacle.hint)
    filters = binlog_filters(server.connection)
    if filters.do_db:
        return Check(
            name,
            None,
            f"binlog_do_db is {','.join(filters.do_db)}: an ALTER TABLE from a session that uses"
            " another database is not in the binlog; and two names in one line are one name to the"
            f" server, so that nothing of {database} is",
            "in my.cnf: remove binlog_do_db; then restart the server",
        )
    if filters.ignore_db:
        return Check(
            name,
            None,
            f"binlog_ignore_db is {','.join(filters.ignore_db)}: an ALTER TABLE from a session that"
            " uses such a database, or none, is not in the binlog",
            "in my.cnf: remove binlog_ignore_db; then restart the server",
        )
    return Check(name, True, f"no filter keeps changes of {database} out of the binlog")


def _replicated_changes(server: Server) -> Check:
    """Check that a replica, or a node of Galera, logs what it takes over from other servers."""
    name = "log_slave_updates"
    is_logged = is_on(server.variables, "log_replica_updates") or is_on(server.variables, name)
    if is_logged:
        return Check(name, True, "on")

    if is_on(server.variables, "wsrep_on"):
        return Check(name, False, GALERA_NOT_LOGGED.reason, GALERA_NOT_LOGGED.hint)
    # A MariaDB shows its sources only with a right that reading does not need.
    sources = server.rows_if_readable(server.version.show_replica_status)
    if sources or running_sources(server.connection):
        return Check(name, False, REPLICATED_NOT_LOGGED.reason, REPLICATED_NOT_LOGGED.hint)
    # It keeps its position also when it replicates no more.
    if server.variables.get("gtid_slave_pos"):
        detail = "the server was a replica, and doesn't log what it replicates once it is one again"
        return Check(name, None, detail, LOG_UPDATES)
    return Check(name, True, "the server is no replica")
