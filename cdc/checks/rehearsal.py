"""Runs every statement that capture runs, once, with the account that will run them.

A version, a grant or a proxy may refuse what no list of privileges tells of. So nothing is listed
here: these are the functions that a reader calls, and a test compares what the server saw of both.
Nothing is changed. The lock has another name, so that a reader which runs keeps its own, and the
binlog is opened beside that reader.
"""

import threading
from contextlib import AbstractContextManager, closing
from dataclasses import replace

from cdc import probe
from cdc.binlog.stream import BinlogStream
from cdc.checks.server import Server
from cdc.column_lists import wait_for_ddl
from cdc.durability import are_transactional, is_durable
from cdc.lease import Lease, ReaderName
from cdc.positions import Positions, Saved
from cdc.resume import find_start
from cdc.retention import read_headroom
from cdc.same_server import SameServer
from cdc.snapshot import read_in_stream
from openmrs.key_ranges import key_ends, next_rows, rows_with_keys
from openmrs.read import Source, SourcePosition
from openmrs.tables import OBS, WATCHED
from passport.check import Check
from passport.errors import PassportError
from passport.settings import Kafka
from passport.version import Position

LONGEST_S = 1.0


class _Unsaved(Positions):
    """Positions of which nothing is read from Kafka, and nothing is written there."""

    def __init__(self, kafka: Kafka, saved: Saved | None) -> None:
        super().__init__(kafka)
        self._saved = saved

    def load(self, hospital: str, **_: object) -> Saved | None:
        """Return the position that the rehearsal goes on from."""
        return self._saved

    def published_epoch(self, partition: int) -> int:
        return 0

    def save(self, saved: Saved, *, in_full: bool = False) -> None:
        """Leave the position unsaved."""


def check(server: Server, kafka: Kafka) -> Check:
    """Return whether a reader can do at the server all that it has to."""
    try:
        rehearse(server, kafka)
    except PassportError as error:
        return Check("rehearsal", False, error.reason, error.hint or "try again")
    return Check("rehearsal", True, "every statement of capture ran, and the binlog was opened")


def rehearse(server: Server, kafka: Kafka) -> None:
    """Do what a reader does at the server. Raises what a reader raises."""
    hospital_id = server.hospital_id
    hospital = server.hospital
    lease = Lease(f"{hospital_id}.check", hospital.mysql)
    source = Source(hospital_id, hospital.mysql)
    same_server = SameServer(hospital_id, hospital.mysql, every_s=0)

    def open_stream(position: Position) -> AbstractContextManager[BinlogStream]:
        return probe.opened(hospital_id, hospital.mysql, start=position, gtid_set="")

    def start_from(saved: Saved | None) -> Saved:
        positions = _Unsaved(kafka, saved)
        return find_start(hospital_id, hospital, positions, source, lease, open_stream).saved

    with closing(lease), closing(source):
        lease.take(ReaderName(lease.hospital, "", kafka.topic), threading.Event(), wait=False)
        lease.keep(now=True)
        lease.end()
        same_server.begin(lease.connection)
        same_server.confirm(source.connection())
        same_server.look()
        # The first start, one that goes on, and one that finds another server.
        saved = start_from(None)
        start_from(saved)
        start_from(replace(saved, server=f"{saved.server}-before"))

        at = SourcePosition(saved.position, saved.gtid_set, saved.server)
        with read_in_stream(source, at) as (read, _, _):
            key_ends(read, OBS)
            next_rows(read, OBS, None, 1)
            next_rows(read, OBS, 0, 1)
        # A query that reads rows again has a time limit, which each flavour writes in its own way.
        with read_in_stream(source, at, longest_s=LONGEST_S) as (read, _, _):
            rows_with_keys(read, OBS, [0])
        read_headroom(source, saved.position, saved.ts_ms)
        source.ask(lambda connection: wait_for_ddl(connection, WATCHED))
        source.ask(is_durable)
        source.ask(lambda connection: are_transactional(connection, hospital.mysql.database))

    with probe.opened(hospital_id, hospital.mysql, start=saved.position, gtid_set=saved.gtid_set):
        pass
    if saved.gtid_set:
        with probe.opened(hospital_id, hospital.mysql, start=None, gtid_set=saved.gtid_set):
            pass
