"""Everything that reading one hospital rests on, looked at before it is relied on."""

from collections.abc import Iterator

import pymysql

from cdc.checks import (
    address,
    clocks,
    columns,
    not_carried,
    privileges,
    rehearsal,
    replication,
    retention,
    server_variables,
    services,
)
from cdc.checks import kafka as kafka_checks
from cdc.checks.server import Server
from cdc.lease import server_id
from cdc.positions import Positions, Saved
from openmrs import connection as mysql
from passport.check import Check
from passport.errors import Fatal, NotReady, PassportError, Retry
from passport.settings import Hospital, Kafka

LOCALHOST = ("localhost", "127.0.0.1", "::1")


def checks(hospital_id: str, hospital: Hospital, kafka: Kafka) -> list[Check]:
    """Return the checks of the hospital's server, then those of Kafka.

    It raises no error for what is wrong there: that is what a check says.
    """
    checks_of_kafka: list[Check] = []
    saved: Saved | None = None
    reader_id = hospital.server_id
    try:
        reader_id = reader_id or server_id(Positions(kafka).reader_name(hospital_id))
        cluster = kafka_checks.describe_cluster(kafka)
        checks_of_kafka.extend(kafka_checks.checks(hospital_id, hospital, kafka, cluster))
        if kafka.positions_topic in cluster.partitions:
            saved = Positions(kafka).load(hospital_id)
    except (Fatal, NotReady) as error:
        checks_of_kafka.append(Check("kafka", False, error.reason, error.hint))
    except Retry as error:
        checks_of_kafka.append(Check("kafka", False, error.reason, "try again"))
    return [*server_checks(hospital_id, hospital, kafka, saved, reader_id), *checks_of_kafka]


def server_checks(
    hospital_id: str,
    hospital: Hospital,
    kafka: Kafka,
    saved: Saved | None,
    reader_id: int | None,
) -> Iterator[Check]:
    """Yield the checks of the connection to the server, and of what can be seen over it.

    `saved` is the position to go on from, None before the first start. `reader_id` is the
    server_id that the reader will have, None while Kafka doesn't say its own id.
    """
    try:
        connection = mysql.connect(hospital_id, hospital.mysql)
    except PassportError as error:
        yield Check("connection", False, error.reason, error.hint)
        return
    version = connection.get_server_info()  # type: ignore[no-untyped-call]
    yield Check("connection", True, f"{version} at {hospital.mysql.host}:{hospital.mysql.port}")
    yield _tls(hospital_id, hospital)

    with connection:
        try:
            server = Server(hospital_id, hospital, connection)
            yield from services.checks(server.service, server.variables)
            address_checks = [*address.checks(server)]
            yield from address_checks
            if any(check.ok is False for check in address_checks):
                # What follows would be asked of several servers, or in the words of another kind.
                return
            if hospital.capture == "binlog":
                yield from _binlog(server, kafka, saved, reader_id)
            yield from clocks.checks(server)
            yield from privileges.checks(server)
            yield columns.obs(server)
            yield columns.identifier_type(server)
            yield columns.identifier_format(server)
            yield from not_carried.checks(server)
        except PassportError as error:
            yield Check("connection", False, error.reason, error.hint)
        except pymysql.err.MySQLError as error:
            translated = mysql.translate_error(error, hospital_id, hospital.mysql)
            yield Check("connection", False, translated.reason, translated.hint)


def _binlog(
    server: Server, kafka: Kafka, saved: Saved | None, reader_id: int | None
) -> Iterator[Check]:
    """Yield the checks of the binlog. A hospital that is polled needs none."""
    yield from server_variables.checks(server.variables, server.service)
    yield retention.check(server)
    yield from replication.checks(server, reader_id)
    if saved is not None:
        yield replication.saved_position(server, saved)
    yield rehearsal.check(server, kafka)


def _tls(hospital_id: str, hospital: Hospital) -> Check:
    mode = hospital.mysql.tls.mode
    host = hospital.mysql.host
    if mode == "verify_identity" or host in LOCALHOST:
        return Check("tls", True, f"{mode} to {host}")
    return Check(
        "tls",
        None,
        f"{mode} to {host}: nobody checks which server that is",
        f"set hospitals.{hospital_id}.mysql.tls:"
        " {mode: verify_identity, ca: <the server's CA file>}",
    )
