"""What the simulation plays answers as the real servers do: one small history, asked the same
questions.

Positions, GTIDs and files are told by their names in the history, since each server counts in its
own way. Not held: how an event numbers its rows, and a start inside a transaction, which the real
stream refuses and the played one takes, so that a rule that is broken on purpose there costs rows.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol

import pymysql
import pytest

from cdc import resume
from cdc.binlog.stream import BinlogItem, BinlogStream, Commit, Idle, NextFile, RowChange
from cdc.column_lists import read_columns
from cdc.connections import REAL, Connections
from cdc.lease import Lease, ReaderName
from cdc.positions import Saved, Snapshot
from cdc.same_server import SameServer
from dev.stack import MariaDB, MySQL
from openmrs import connection as source
from openmrs.read import END_OF_BINLOG, Source, SourcePosition
from openmrs.tables import KEY_COLUMNS, OBS, ROW_COLUMNS
from passport.errors import PassportError
from passport.event import ENVELOPE, EventSource, HeartbeatEvent, encode_event
from passport.settings import Settings
from passport.version import Position, read_version
from tests import stream
from tests.eventually import eventually
from tests.servers import Address, fresh_name
from tests.simulation import kafka, mysql
from tests.simulation.kafka import Broker
from tests.simulation.mysql import Change
from tests.simulation.world import World

NOWHERE = Position("binlog.000999", 4)
RESET = {"mariadb": "RESET MASTER", "mysql": "RESET BINARY LOGS AND GTIDS"}


class Side(Protocol):
    """A server and a broker, played or real, and what can be done to them."""

    flavour: str
    settings: Settings
    connections: Connections

    def commit(self, *changes: Change) -> None: ...
    def rotate(self) -> None: ...
    def purge(self) -> None: ...
    def crash(self) -> None: ...
    def reset(self) -> None: ...
    def cut(self) -> None: ...
    def topic(self) -> list[bytes]: ...


class Played:
    """Nothing happens by chance: what is sent lands, what is committed is seen."""

    def __init__(self, flavour: str) -> None:
        self.flavour, self.number = flavour, 0
        self.world = World(1)
        self.world.quiet = True
        self.broker = Broker(self.world)
        self.world.settle = self.broker.work_all
        self.server = mysql.Server(self.world, flavour, 1)
        self.server.open_file()
        self.commit()
        self.settings = stream.settings(
            Address(flavour, "nowhere", 1, "nobody", "").settings(), "nowhere", "t"
        )
        self.connections = Connections(
            connect=mysql.connect(self.world, lambda: self.server),
            stream=mysql.Stream,  # type: ignore[arg-type]
            publisher=lambda *given: kafka.Publisher(self.broker, given[3]),  # type: ignore[arg-type,return-value]
            positions=lambda settings: kafka.Positions(self.broker, settings),
            signals=kafka.SignalWatch,  # type: ignore[arg-type]
        )

    def commit(self, *changes: Change) -> None:
        self.number += 1
        self.server.write(self.number, changes)
        self.server.show_all()

    def rotate(self) -> None:
        self.server.rotate()

    def purge(self) -> None:
        self.server.purge()

    def crash(self) -> None:
        self.server.crash(down_s=0)

    def reset(self) -> None:
        self.server.reset()

    def cut(self) -> None:
        self.server.cut()

    def topic(self) -> list[bytes]:
        return self.broker.log


class Real:
    def __init__(self, server: MariaDB | MySQL, bootstrap: str) -> None:
        self.flavour = "mariadb" if isinstance(server, MariaDB) else "mysql"
        self.server = server
        server.execute(
            "CREATE DATABASE openmrs",
            "CREATE TABLE openmrs.obs (obs_id INT PRIMARY KEY, value_text TEXT)",
        )
        address = Address(self.flavour, "127.0.0.1", server.port, "root", "", "openmrs")
        self.settings = stream.settings(address.settings(), bootstrap, fresh_name())
        self.connections = REAL

    def commit(self, *changes: Change) -> None:
        self.server.execute("USE openmrs", "BEGIN", *map(_sql, changes), "COMMIT")

    def rotate(self) -> None:
        self.server.execute("FLUSH BINARY LOGS")
        if self.flavour == "mariadb":
            eventually(self._has_checkpoint, "the new file's checkpoint is in it")

    def _has_checkpoint(self) -> bool:
        """MariaDB writes it a moment later. Behind a commit it would move that one's end."""
        file = self.server.execute("SHOW BINARY LOGS")[-1][0]
        events = self.server.execute(f"SHOW BINLOG EVENTS IN '{file}'")
        return any(event[2] == "Binlog_checkpoint" and event[5] == file for event in events)

    def purge(self) -> None:
        last = self.server.execute("SHOW BINARY LOGS")[-1][0]
        while len(self.server.execute(f"PURGE BINARY LOGS TO '{last}'", "SHOW BINARY LOGS")) > 1:
            pass

    def crash(self) -> None:
        self.server.kill()
        self.server.start()

    def reset(self) -> None:
        self.server.execute(RESET[self.flavour])

    def cut(self) -> None:
        of_clients = (
            "SELECT id FROM information_schema.processlist"
            " WHERE user = 'root' AND id <> CONNECTION_ID()"
        )
        for (number,) in self.server.execute(of_clients):
            with suppress(pymysql.MySQLError):  # it may have ended by itself
                self.server.execute(f"KILL {number}")

    def topic(self) -> list[bytes]:
        return [encode_event(event) for event in stream.records(self.settings)]


def _sql(change: Change) -> str:
    op, key, _, after = change
    if op == "c":
        return f"INSERT INTO obs VALUES ({key}, '{after}')"
    set_ = f"UPDATE obs SET value_text = '{after}'" if op == "u" else "DELETE FROM obs"
    return f"{set_} WHERE obs_id = {key}"


class Told:
    """Asks one side, and keeps what it answers, in words that do not depend on how it counts."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.answers: list[Any] = []
        self.ends: list[Position] = []
        self.sets: list[str] = []
        self.names: dict[Any, str] = {}
        self.gtid = self.identity = ""  # of the last transaction; of the server
        self.mysql = side.settings.hospitals["kigali"].mysql

    def name(self, what: Any) -> Any:
        """Of what MariaDB writes after a commit (checkpoints) nothing is known: it is the commit's
        end too.
        """
        if isinstance(what, Position):
            end = self.names[self.ends[-1]] if what.order >= self.ends[-1].order else "elsewhere"
            return self.names.get(what) or (f"file {self.file(what)}" if what.pos == 4 else end)
        return self.names.get(what, "unknown") if what else ""

    def file(self, at: Position) -> int:
        """From where the history began."""
        return at.order[0] - self.ends[0].order[0]

    def begin(self, start: Position, known: str) -> None:
        self.ends, self.sets = [start], [known]
        self.names = {start: "start", known: "up to start"}

    def saved(self, at: Position, gtid_set: str) -> Saved:
        with self.connection() as connection:
            server = source.identity(connection)
        return Saved("kigali", 0, server, 1, 5, at, gtid_set, snapshot=Snapshot())

    def unusable(self, at: Position, gtid_set: str) -> str:
        """Why a stream can't go on there, without names and numbers."""
        with self.connection() as connection:
            return re.sub(
                r"[\w.-]*\d[\w.-]*", "#", resume.unusable(self.saved(at, gtid_set), connection)
            )

    def idle(self) -> BinlogStream:
        """A stream that has read all."""
        reading = self.stream(self.ends[-1], self.sets[-1])
        while not any(type(item) is Idle for item in reading.poll(0.1)):
            pass
        return reading

    def by_gtid(self, gtid_set: str) -> str:
        """What a stream by GTID meets before it says something."""

        def ask() -> None:
            with closing(self.stream(None, gtid_set)) as reading:
                while not reading.poll(0.1):
                    pass

        return raised(ask)

    def say(self, question: str, answer: Any) -> None:
        self.answers.append((question, answer))

    @contextmanager
    def connection(self) -> Iterator[Any]:
        connection = self.side.connections.connect("kigali", self.mysql)
        yield connection
        connection.close()

    def end(self) -> Position:
        with self.connection() as connection:
            found = source.end_of_binlog(connection)
        assert found is not None
        return found

    def commit(self, *changes: Change) -> None:
        self.side.commit(*changes)
        self.ends.append(self.end())
        self.names[self.ends[-1]] = f"end {len(self.ends)}"

    def stream(self, start: Position | None, gtid_set: str | None = "") -> BinlogStream:
        with self.connection() as connection:
            columns = read_columns(connection, "openmrs")
        return self.side.connections.stream(
            lambda: self.side.connections.connect("kigali", self.mysql),
            flavour=self.side.flavour,
            server_id=4711,
            start=start,
            gtid_set=gtid_set,
            database="openmrs",
            columns=columns,
            row_columns=ROW_COLUMNS,
            key_columns=KEY_COLUMNS,
            heartbeat_s=0.3,
        )

    def items(self, start: Position | None, gtid_set: str | None = "") -> list[BinlogItem]:
        """Until the server has nothing more."""
        found: list[BinlogItem] = []
        reading = self.stream(start, gtid_set)
        while not (found and type(found[-1]) is Idle and found[-1].at.order >= self.ends[-1].order):
            found += reading.poll(
                0.1
            )  # by GTID, MySQL is alive at once: past what is known already
        reading.close()
        return found

    def item(self, item: BinlogItem) -> Any:
        if type(item) is RowChange:
            return "row", item.op, item.before, item.after, self.name(item.gtid)
        if type(item) is Commit:
            return "commit", self.name(item.at), self.name(item.gtid), self.name(item.gtid_set)
        if type(item) is NextFile:
            return "rotated", self.name(item.at), item.clean
        return type(item).__name__, self.name(item.at)  # type: ignore[union-attr]

    def told(self, items: list[BinlogItem]) -> list[Any]:
        """How often an idle server says that it is alive, is its own affair, but not where it says
        so before it has sent all.
        """
        count = len(items)
        while count > 1 and type(items[count - 1]) is type(items[count - 2]) is Idle:
            count -= 1
        return [self.item(item) for item in items[:count]]


def raised(ask: Callable[[], Any]) -> str:
    """The remedy that an error names."""
    try:
        ask()
    except PassportError as error:
        return type(error).__name__
    return "nothing"


# --- the history: each part asks, and goes on from the one before


def streams(told: Told) -> None:
    with told.connection() as connection:
        start, known = resume._end_of_binlog(
            "kigali", connection, lambda position: closing(told.stream(position))
        )
    told.begin(start, known)
    told.commit(("c", 1, None, "a"), ("c", 2, None, "b"))
    told.commit(("u", 1, "a", "c"), ("d", 2, "b", None))
    told.side.rotate()
    told.commit(("c", 3, None, "d"))
    whole = told.items(start, known)
    for number, commit in enumerate([item for item in whole if type(item) is Commit], 1):
        told.sets.append(commit.gtid_set)
        told.names |= {commit.gtid: f"transaction {number}", commit.gtid_set: f"up to {number}"}
    told.gtid = commit.gtid
    told.say(
        "rows are in order",
        whole == sorted(whole, key=lambda item: (item.at.order, getattr(item, "ordinal", 0))),
    )
    for number, (end, gtid_set) in enumerate(zip(told.ends, told.sets, strict=True)):
        told.say(f"from {number} on", told.told(told.items(end, gtid_set)))
        told.say(f"by GTID from {number} on", told.told(told.items(None, gtid_set)))
    if told.side.flavour == "mariadb":
        domain, server, sequence = told.sets[-1].split("-")
        more = f"{domain}-{server}-{int(sequence) + 5}"
        another = f"{domain}-4711-1"
    else:
        more = f"{told.sets[-1].split(':')[0]}:1-999"
        another = "ffffffff-0000-4000-8000-000000000000:1-5"
    told.say("by GTID, more than it has", told.by_gtid(more))
    told.say("by GTID, another server's", told.by_gtid(another))


def gone(told: Told) -> None:
    end = told.ends[-1]
    places = {"past the end": end._replace(pos=end.pos + 10_000), "no such file": NOWHERE}
    places["inside an event"] = told.ends[0]._replace(pos=told.ends[0].pos + 1)
    for place, at in places.items():
        told.say(place, (raised(lambda at=at: told.items(at)), told.unusable(at, told.sets[-1])))  # type: ignore[misc]
    told.say("at the end", told.unusable(end, told.sets[-1]))
    told.say("another history", told.unusable(end, told.sets[1]))
    with told.connection() as connection:
        known = [resume.has_executed(told.saved(end, gtids), connection) for gtids in told.sets]
        told.say("has executed", known)
        files = resume.binlog_files(connection)
    told.say("files", [at for name in files if (at := told.file(Position(name, 0))) >= 0])
    told.say("the last one's size", files[end.file] >= end.pos)


def reads(told: Told) -> None:
    reader = Source("kigali", told.mysql, told.side.connections.connect)
    identity = source.identity(reader.connection())
    told.identity = identity
    for asked in (
        END_OF_BINLOG,
        SourcePosition(told.ends[-1], told.gtid, identity),
        SourcePosition(told.ends[-1], told.gtid, "another"),
    ):
        with reader.read_at(asked) as reading:
            rows = reading.facts(OBS, "obs_id > %s ORDER BY obs_id LIMIT %s", (0, 10))
            told.say("read", (rows, reading.position and told.name(reading.position)))
    reader.close()


def purged(told: Told) -> None:
    told.side.purge()
    told.say("purged", raised(lambda: told.items(told.ends[0])))
    told.say("purged, why", told.unusable(told.ends[1], told.sets[1]))
    told.say("purged, by GTID", raised(lambda: told.items(None, told.sets[1])))
    told.say("not purged", told.told(told.items(told.ends[-1], told.sets[-1])))


def breaks(told: Told) -> None:
    def cut() -> None:
        reading = told.idle()
        told.side.cut()
        for _ in range(100):
            reading.poll(0.1)

    told.say("cut", raised(cut))
    told.side.crash()
    told.say("crashed", told.told(told.items(told.ends[-1], told.sets[-1])))
    told.say("crashed, usable", told.unusable(told.ends[-1], told.sets[-1]))
    with told.connection() as connection:
        told.say("the same server", source.identity(connection) == told.identity)


def locks(told: Told) -> None:
    connect = told.side.connections.connect
    name = ReaderName("kigali", "cluster", "topic")
    one, other, staging = (Lease("kigali", told.mysql, connect) for _ in range(3))
    butare = Lease("butare", told.mysql, connect)
    never = threading.Event()
    told.say("first", one.take(name, never))
    told.say("second", other.take(name, never, wait=False))
    told.say("another topic's", staging.take(name._replace(topic="other"), never, wait=False))
    told.say("another hospital's", butare.take(name._replace(hospital="butare"), never, wait=False))
    one.keep(now=True)
    staging.keep(now=True)
    one.close()
    told.say("given back", other.take(name, never))
    told.side.cut()
    told.say("its session ended", one.take(name, never))
    told.say("lost", raised(lambda: other.keep(now=True)))
    one.close()
    staging.close()


def servers(told: Told) -> None:
    same = SameServer("kigali", told.mysql, 60, told.side.connections.connect)
    with told.connection() as stream_, told.connection() as other:
        told.say("any server will do", raised(lambda: same.confirm(other)))
        same.begin(stream_)
        told.say("the same server", raised(lambda: same.confirm(other)))
        same.look()
    with told.connection() as other:
        told.say("the stream has ended", raised(lambda: same.confirm(other)))


def begins_anew(told: Told) -> None:
    reading, end = told.idle(), told.ends[-1]

    def goes_on() -> None:
        for _ in range(100):
            reading.poll(0.1)

    def waits_for_the_first() -> None:
        with closing(told.stream(None, told.sets[-1])) as by_gtid:
            while not by_gtid.poll(0.1):
                pass
            told.side.commit(("c", 8, None, "first"))
            for _ in range(100):
                by_gtid.poll(0.1)

    before = reading.format_ts
    time.sleep(1.1)  # two files of one second can't be told apart
    told.side.reset()
    told.say("reset, by GTID", told.by_gtid(told.sets[-1]))
    told.say("reset, by GTID, and a commit", raised(waits_for_the_first))
    told.side.commit(("c", 9, None, "new"))
    told.say("reset and committed, by GTID", told.by_gtid(told.sets[-1]))
    told.say("reset while it is read", raised(goes_on))
    told.say("reset, why", told.unusable(end, told.sets[-1]))
    with told.connection() as connection:
        first = next(iter(resume.binlog_files(connection)))
    reading = told.stream(Position(first, 4))
    while not reading.format_ts:
        reading.poll(0.1)
    told.say("another file", (Position(first, 4).order[0], reading.format_ts != before))
    reading.close()


def publishes(told: Told) -> None:
    kafka_ = told.side.settings.kafka
    positions = told.side.connections.positions(kafka_)
    positions.ensure(told.side.settings)
    told.say("nothing saved", (positions.load("kigali"), positions.published_epoch(0)))
    for at in (told.ends[1], told.ends[-1], told.ends[0]):
        positions.save(told.saved(at, ""))
    found = positions.load("kigali")
    told.say("the highest", found and told.name(found.position))
    publisher = told.side.connections.publisher(kafka_, "kigali", 0, 0)
    records = [_heartbeat(number) for number in range(1, 6)]
    told.say("numbers", [publisher.send("heartbeat", value) for value in records])
    told.say("acknowledged no more than sent", publisher.acked() <= 5)
    publisher.flush()
    told.say("flushed", (publisher.acked(), publisher.sent, told.side.topic() == records))
    told.say("epoch", positions.published_epoch(0))
    more = [_heartbeat(number) for number in range(6, 300)]
    for value in more:
        publisher.send("heartbeat", value)
    publisher.close()
    landed = told.side.topic()[5:]
    told.say("what landed before the end is the first of it", landed == more[: len(landed)])
    positions.close()


def _heartbeat(number: int) -> bytes:
    version = read_version(number, Position("binlog.000001", 4))
    place = EventSource(
        "kigali", "UTC", "openmrs", "", "binlog.000001", 4, 0, "", "mariadb-1", 0, version, "binlog"
    )
    return encode_event(HeartbeatEvent(v=ENVELOPE, source=place, ts_ms=0))


HISTORY = (streams, gone, reads, publishes, locks, servers, purged, breaks, begins_anew)


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_what_is_played_answers_as_the_servers_do(
    own: Callable[..., Any], kafka_bootstrap: str, kind: Any
) -> None:
    real = Told(Real(own(kind), kafka_bootstrap))
    played = Told(Played(real.side.flavour))
    for part in HISTORY:
        for told in (real, played):
            part(told)
    assert len(real.answers) > 30
    pairs = zip(played.answers, real.answers, strict=True)
    assert not [
        f"{one[0]}: played {one[1]}, real {other[1]}" for one, other in pairs if one != other
    ]
