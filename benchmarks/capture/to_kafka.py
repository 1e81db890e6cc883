"""The product's reader, to acknowledged records.

``... to_kafka throughput CLIENT PORT BOOTSTRAP ROWS FILE POS`` reads until so many records are
acknowledged. ``... to_kafka latency CLIENT PORT BOOTSTRAP`` reads from the binlog's end to the row
that ends the workload. It says when each row whose comment is a number was sent and when it was
acknowledged.
"""

import gc
import logging
import re
import sys
import threading
import time
import uuid
from typing import Any

import structlog

from benchmarks.capture.counted import END, Counter
from cdc import publisher
from cdc.column_lists import read_columns
from cdc.connections import Connections
from cdc.positions import Positions, Saved, Snapshot
from cdc.reader import Reader
from openmrs import connection as source
from passport.settings import Hospital, Kafka, MySQL, Settings
from passport.version import Position

_NUMBERED = re.compile(rb'"comments":"(\d+)"')


def settings(port: int, bootstrap: str) -> Settings:
    """Return settings of one hospital at `port`, with topics of its own."""
    mysql = MySQL(host="127.0.0.1", port=port, user="root", database="openmrs")
    hospital = Hospital(
        name="Kigali", partition=0, timezone="Africa/Kigali", national_id_type="NID", mysql=mysql
    )
    name = f"bench.{uuid.uuid4().hex[:8]}"
    kafka = Kafka(
        bootstrap=bootstrap,
        topic=name,
        positions_topic=f"{name}.positions",
        dead_letters_topic=f"{name}.dead",
    )
    return Settings(
        hospitals={"kigali": hospital}, kafka=kafka, destinations={}, cdc={"heartbeat_s": 10}
    )


def begin(settings_: Settings, at: Position | None) -> None:
    """Save a position as if a snapshot had been read there. None means the binlog's end."""
    mysql = settings_.hospitals["kigali"].mysql
    connection = source.connect("kigali", mysql)
    Positions.ensure(settings_)
    positions = Positions(settings_.kafka)
    saved = Saved(
        hospital="kigali",
        partition=0,
        server=source.identity(connection),
        format_ts=0,
        epoch=1,
        position=at or source.end_of_binlog(connection) or Position("", 0),
        columns=read_columns(connection, mysql.database),
        snapshot=Snapshot(state="done"),
    )
    positions.save(saved)
    positions.close()
    connection.close()


def throughput(base: type[Any], settings_: Settings, rows: int) -> None:
    """Read until `rows` records are acknowledged, with a publisher of this class that counts."""
    counter = Counter(rows)
    stop = threading.Event()

    class Counted(base):
        def send(self, kind: str, value: bytes) -> int:
            counter.bytes += len(value)
            if self.sent == 0:
                counter.mark()
            return int(super().send(kind, value))

        def acked(self) -> int:
            number = int(super().acked())
            if counter.reached(number):
                stop.set()
            return number

    read(Counted, settings_, stop)
    counter.whole = counter.count >= rows
    counter.tell()


def latency(base: type[Any], settings_: Settings) -> None:
    """Note when each numbered row is sent and acknowledged, to the row that ends the workload."""
    counter = Counter(1)
    stop = threading.Event()
    sent: dict[int, float] = {}
    acked: dict[int, float] = {}

    class Timed(base):
        def send(self, kind: str, value: bytes) -> int:
            now = time.monotonic()
            number = int(super().send(kind, value))
            match = _NUMBERED.search(value)
            if match:
                key = int(match[1])
                sent[key] = now
                self.when_done(lambda: acked.setdefault(key, time.monotonic()))
            elif END.encode() in value:
                self.when_done(stop.set)
            return number

        def when_done(self, call: Any) -> None:
            self._waiting[-1][0].add_callback(lambda _: call())

    read(Timed, settings_, stop)
    counter.whole = True
    counter.mark()
    counter.tell(sent=sent, acked=acked)


def read(kind: type[Any], settings_: Settings, stop: threading.Event) -> None:
    """Run the product's reader with this publisher, until `stop`."""
    hospital = settings_.hospitals["kigali"]
    running = Reader("kigali", hospital, settings_, stop, connections=Connections(publisher=kind))
    try:
        running.run(until_caught_up=False)
    finally:
        running.close()


def main(what: str, client: str, port: int, bootstrap: str, *place: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    gc.set_threshold(50_000)  # as `passport cdc run` has it
    settings_ = settings(port, bootstrap)
    if client == "confluent":
        from benchmarks.capture.confluent import Publisher as Base  # an extra
    else:
        Base = publisher.Publisher  # type: ignore[assignment,misc]  # noqa: N806
    if what == "latency":
        begin(settings_, None)
        latency(Base, settings_)
    else:
        rows, file, pos = place
        begin(settings_, Position(file, int(pos)))
        throughput(Base, settings_, int(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
