"""Reads how far each hospital is: from Kafka, from the hospital's server and from a destination."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Protocol

from pydantic import SecretStr

from cdc.positions import Positions, Saved
from cdc.retention import read_headroom
from cli.hospital_status import HospitalFacts, Row, status_row
from openmrs.connection import end_of_binlog
from openmrs.load_budget import Hours
from openmrs.read import Source
from passport import sink as sinks
from passport.errors import PassportError
from passport.kafka import OffsetRange, topic_offsets
from passport.settings import Settings
from passport.sink import Progress


class ReportsProgress(Protocol):
    """The two methods of a destination that a status needs. Every Sink has them."""

    def progress(self, hospital: str) -> Progress | None: ...

    def counts(self, hospital: str) -> Mapping[str, Any]: ...


def collect(settings: Settings, destination: ReportsProgress) -> list[Row]:
    """Return a row for each hospital, as `status --json` prints it.

    A hospital's server that doesn't answer is part of the row. Raises NotReady when Kafka or the
    destination is away.
    """
    offsets = topic_offsets(settings.kafka, settings.kafka.topic)
    positions = Positions(settings.kafka)
    saved_positions = positions.all()
    rows = []
    for hospital_id, hospital in settings.hospitals.items():
        saved = saved_positions.get(hospital_id)
        behind, headroom_s = _ask_server(settings, hospital_id, saved)
        facts = HospitalFacts(
            hospital_id,
            hospital.capture,
            saved,
            offsets.get(hospital.partition, OffsetRange(0, 0)),
            destination.progress(hospital_id),
            destination.counts(hospital_id),
            behind,
            headroom_s,
            positions.signals(hospital_id),
            Hours(hospital.snapshot_hours, hospital.timezone).closed_s() > 0,
        )
        rows.append(status_row(facts, time.time()))
    return rows


def _ask_server(
    settings: Settings, hospital_id: str, saved: Saved | None
) -> tuple[bool | None, float | None]:
    """Return whether the binlog goes on past the saved position, and for how long it is kept there.

    Each is None where it can't be said now. The time is in seconds, infinite for ever.
    """
    if saved is None or saved.capture == "polling":
        return None, None
    try:
        mysql = settings.hospital(hospital_id).mysql
        with closing(Source(hospital_id, mysql)) as source:
            end = source.ask(end_of_binlog)
            headroom_s, _ = read_headroom(source, saved.position, saved.ts_ms)
    except PassportError:
        return None, None
    behind = end is not None and end.order > saved.position.order
    return behind, headroom_s


class PassportStatus:
    """The status of a destination of type mongo, from its database. It only reads; `close` it.

    Numbers that have to be counted are counted again after `counted_every_s`, because the
    operators' page asks far more often than they are worth. `uri` replaces that of the
    destination's options, for an account that may only read. Raises Fatal and NotReady.
    """

    def __init__(
        self,
        settings: Settings,
        destination: str,
        *,
        uri: SecretStr | None = None,
        counted_every_s: float = 1,
    ) -> None:
        from destinations.mongo.client import connected
        from destinations.mongo.reports import Reports

        options = sinks.options(destination, settings.destinations[destination])
        self._settings = settings
        self._destination = destination
        self.uri = (uri or options.uri).get_secret_value()
        self.database = options.database
        self._client, database = connected(self.uri, self.database)
        self._reports = Reports(database)
        self._counted_every_s = counted_every_s
        self._counted_at = -counted_every_s
        self._counts: dict[str, Row] = {}

    def collect(self) -> list[Row]:
        """Return a row for each hospital."""
        return collect(self._settings, self)

    def progress(self, hospital: str) -> Progress | None:
        """Return how far the destination is with a hospital."""
        return self._reports.progress(hospital)

    def counts(self, hospital: str) -> Row:
        """Return the numbers of a hospital, at most `counted_every_s` old."""
        now = time.monotonic()
        if now - self._counted_at > self._counted_every_s or hospital not in self._counts:
            self._counts = self._count()
            self._counted_at = now
        return self._counts[hospital]

    def _count(self) -> dict[str, Row]:
        from consumers import dead_letters

        reasons: dict[str, Counter[str]] = {name: Counter() for name in self._settings.hospitals}
        for letter in dead_letters.listed(self._settings, destination=self._destination):
            if letter.hospital in reasons:
                reasons[letter.hospital][letter.reason] += 1
        return {
            hospital_id: {
                **self._reports.counts(hospital_id),
                "unmatched_by": self._reports.unmatched_by(hospital_id),
                "dead_letters": dict(reasons[hospital_id]),
                "verified": self._reports.verified(hospital_id),
            }
            for hospital_id in self._settings.hospitals
        }

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
