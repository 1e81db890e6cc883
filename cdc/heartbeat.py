"""Tells how far the stream is: heartbeats in the topic, and the headroom of the binlog.

A heartbeat event says that everything up to a position is published. Whoever waits for a
destination to reach a position sees it arrive, also when no change follows.
"""

import time

from cdc import durability
from cdc.durability import NEVER_SEEN, SeenDurable
from cdc.envelopes import Envelopes, now_ms
from cdc.hidden_changes import find_obstacle
from cdc.lease import End, Lease
from cdc.positions import Saved
from cdc.publisher import Publisher
from cdc.retention import Headroom
from openmrs.read import Source, SourcePosition
from passport import metrics
from passport.errors import Gap, Origin
from passport.settings import Cdc
from passport.version import Position

# How often it is looked whether the server keeps changes out of its binlog by now. A filter of
# replication is set without a restart; and after a switchover the server may be a replica that
# doesn't log what it replicates, which is MariaDB's default.
OBSTACLE_LOOK_S = 20.0


class Heartbeat:
    """The heartbeats of one session.

    `source_ms` is the hospital's clock, in Unix milliseconds, up to which everything is published.
    It is 0 until the first commit or heartbeat. `seen_durable` is that of the session before until
    the settings were looked at.
    """

    def __init__(
        self,
        settings: Cdc,
        source: Source,
        lease: Lease,
        publisher: Publisher,
        envelopes: Envelopes,
        seen_durable: SeenDurable,
    ) -> None:
        self._hospital_id = source.hospital
        self._every_s = settings.heartbeat_s
        self._source = source
        self._lease = lease
        self._publisher = publisher
        self._envelopes = envelopes
        self._headroom = Headroom(source.hospital, settings.headroom_alarm_s)
        self._looked_at = time.monotonic()
        self._obstacle_looked_at = time.monotonic()
        self._end: Position | None = None  # of the binlog, when it was looked at
        self._reported_ms = 0
        self.source_ms = 0
        self.seen_durable = seen_durable

    def report(self) -> None:
        """Set the time of the last change in the metrics, if there was one since the last call."""
        if self.source_ms != self._reported_ms:
            self._reported_ms = self.source_ms
            metrics.LAST_EVENT.labels(self._hospital_id).set(self.source_ms / 1000)

    def is_at_end(self, read_to: Position) -> bool:
        """Return whether everything is read that the binlog held when it was looked at."""
        return self._end is not None and read_to.order >= self._end.order

    def is_due(self) -> bool:
        return time.monotonic() - self._looked_at >= self._every_s

    def look(self, read_to: Position, saved: Saved) -> None:
        """Compare the stream with the binlog's end, and look how long the saved position is kept.

        Raises Gap if the binlog ends before what was read, because it began anew, or if the server
        keeps changes out of it by now. NotReady, Fatal.
        """
        self._looked_at = time.monotonic()
        end = self._lease.end()
        self._end = end.position
        self._look_for_obstacle()
        self._headroom.look(self._source, saved.position, self.source_ms or saved.ts_ms)
        if end.position.order < read_to.order:
            raise Gap(
                f"hospital {self._hospital_id}: the binlog ends at"
                f" {end.position.file}:{end.position.pos}, before what was read",
                hint="nothing to do: the server's binlog began anew, so a new epoch and a snapshot"
                " follow",
                origin=Origin.hospital(self._hospital_id),
            )
        self._look_at_durability(end, read_to)
        if self.is_at_end(read_to):
            # Everything up to now is read, however long ago the last commit was.
            self.source_ms = end.ts_ms
            self._reported_ms = end.ts_ms

    def _look_at_durability(self, end: End, read_to: Position) -> None:
        # Once the server writes another file, this one's crash may have been already.
        if end.position.file != read_to.file:
            return
        is_durable = self._source.ask(durability.is_durable)
        self.seen_durable = NEVER_SEEN
        if is_durable:
            self.seen_durable = SeenDurable(end.position, end.ts_ms)

    def _look_for_obstacle(self) -> None:
        """Raise Gap if the server keeps changes out of its binlog.

        The next start is refused, and says what to do.
        """
        if time.monotonic() - self._obstacle_looked_at < OBSTACLE_LOOK_S:
            return
        self._obstacle_looked_at = time.monotonic()
        database = self._source.settings.database
        obstacle = self._source.ask(lambda connection: find_obstacle(connection, database))
        if obstacle is not None:
            raise Gap(
                f"hospital {self._hospital_id}: {obstacle.reason}",
                hint=obstacle.hint,
                origin=Origin.hospital(self._hospital_id),
            )

    def send(self, at: SourcePosition) -> None:
        """Publish that everything up to `at` is published. No transaction may be open."""
        value = self._envelopes.heartbeat(at.position, at.gtid, self.source_ms or now_ms())
        self._publisher.send("heartbeat", value)
