"""A MySQL or MariaDB server with one table and a binlog.

A commit is in the binlog before other sessions can see it. The binlog has files and GTIDs, and the
server has faults: it crashes, loses commits, purges files, begins anew, fails over to a replica.

The server answers the statements that this project sends, by their text, and streams the items that
`BinlogStream` gives.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pymysql

from cdc.binlog.changes import BinlogItem, Commit, Idle, NextFile, RowChange
from cdc.binlog.gtids import MariadbGtidSet, MysqlGtidSet
from openmrs.values import row_text
from passport.errors import Gap, NotReady, Retry
from passport.version import Position
from tests.simulation.world import World

HEADER = 256  # where a file's first transaction begins
COLUMNS = (
    ("obs", "obs_id", "int", "int(11)", None, None, 10, 0, None),
    ("obs", "value_text", "text", "text", "utf8mb4", 65535, None, None, None),
)
LOST = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")

Change = tuple[str, int, str | None, str | None]  # op, obs_id, value before and after


@dataclass(frozen=True)
class Group:
    """A transaction in the binlog.

    `number` is unique in the whole history of the world. It travels as the transaction's time.
    """

    number: int
    gtid: str
    changes: tuple[Change, ...]
    start: int = 0
    step: int = 40

    @property
    def end(self) -> int:
        return self.start + self.step * (len(self.changes) + 2)

    def at(self, ordinal: int) -> int:
        """Return the end of the event of its row number `ordinal`."""
        return self.start + self.step * (ordinal + 1)

    def rows(self) -> set[tuple[int, int]]:
        """Return its number and the ordinal of each of its rows."""
        return {(self.number, ordinal) for ordinal in range(1, len(self.changes) + 1)}


@dataclass
class File:
    number: int
    ts: int
    gtids_before: int  # how many of the server's transactions are in earlier files
    groups: list[Group] = field(default_factory=list)
    clean: bool | None = None  # how it ended
    previous: "File | None" = None

    @property
    def name(self) -> str:
        return f"binlog.{self.number:06d}"

    @property
    def size(self) -> int:
        return self.groups[-1].end if self.groups else HEADER

    def ends(self) -> set[int]:
        return {HEADER, *(group.end for group in self.groups)}


class Server:
    """One server, its table and its binlog.

    `history` is every transaction since the binlog began. The `hidden` ones, which are the last,
    can't be seen by other sessions yet.
    """

    def __init__(
        self, world: World, flavour: str, number: int, *, gtids: bool = True, step: int = 40
    ) -> None:
        self.world = world
        self.flavour = flavour
        self.number = number
        self.gtids = gtids
        self.step = step
        self.base: dict[int, str] = {}
        self.table: dict[int, str] = {}
        self.written: dict[int, str] = {}  # as it is once all that is in the binlog can be seen
        self.history: list[Group] = []
        self.hidden: deque[Group] = deque()
        self.files: list[File] = []
        self.sequence = 0
        self.locks: dict[str, Connection] = {}
        self.connections: list[Connection] = []
        self.connected = 0
        self.down_until = 0.0
        self.births: Callable[[File], None] = lambda _: None
        self.began_anew = 0
        # No crash takes away what it has committed.
        self.is_durable = False

    @property
    def identity(self) -> str:
        if self.flavour == "mariadb":
            return f"mariadb-{self.number}"
        return f"{self.number:08d}-0000-4000-8000-000000000000"

    # --- its life

    def open_file(self) -> None:
        previous = self.files[-1] if self.files else None
        self.world.now += 1  # no two files of one second
        number = previous.number + 1 if previous else 1
        file = File(number, int(self.world.now), len(self.history), previous=previous)
        self.files.append(file)
        self.births(file)

    def write(self, number: int, changes: tuple[Change, ...]) -> None:
        """Commit: it is in the binlog now, and can be seen later."""
        self.sequence += 1
        if not self.gtids:
            gtid = ""
        elif self.flavour == "mariadb":
            gtid = f"0-{self.number}-{self.sequence}"
        else:
            gtid = f"{self.identity}:{self.sequence}"
        self.append(Group(number, gtid, changes))

    def append(self, group: Group) -> None:
        placed = replace(group, start=self.files[-1].size, step=self.step)
        self.files[-1].groups.append(placed)
        self.history.append(placed)
        self.hidden.append(placed)
        _apply(self.written, placed)

    def show(self) -> None:
        """Let the oldest hidden commit be seen from now on."""
        if self.hidden:
            _apply(self.table, self.hidden.popleft())

    def show_all(self) -> None:
        while self.hidden:
            self.show()

    def rotate(self, *, clean: bool = True) -> None:
        self.show_all()
        self.files[-1].clean = clean
        self.open_file()

    def crash(self, *, lost: int = 0, down_s: float = 1) -> None:
        """Kill the server. If its machine goes down, the last `lost` commits are gone."""
        lost = 0 if self.is_durable else min(lost, len(self.files[-1].groups))
        if lost:
            del self.files[-1].groups[-lost:]
            del self.history[-lost:]
            self.table = dict(self.base)
            for group in self.history:
                _apply(self.table, group)
            self.written = dict(self.table)
            self.hidden.clear()
        self.rotate(clean=False)
        self.cut()
        self.down_until = self.world.now + down_s

    def cut(self) -> None:
        for connection in [*self.connections]:
            connection.end()

    def purge(self) -> None:
        """Purge all files that nobody reads, except the last."""
        oldest = self.files[-1].number
        for connection in self.connections:
            stream = connection.stream
            if stream is not None and stream.file is not None:
                oldest = min(oldest, stream.file.number)
        self.files = [file for file in self.files if file.number >= oldest]

    def reset(self) -> None:
        """Run RESET MASTER: file numbers and GTIDs begin anew. A stream ends at the next write."""
        self.show_all()
        self.history = []
        self.files = []
        self.sequence = 0
        self.base = dict(self.table)
        self.began_anew += 1
        self.open_file()

    def restored(self, commits: int) -> "Server":
        """Return the same server, restored to what it was after its first `commits` commits."""
        server = Server(self.world, self.flavour, self.number, gtids=self.gtids, step=self.step)
        server.is_durable = self.is_durable
        server.births = self.births
        server.base = dict(self.base)
        server.table = dict(self.base)
        server.history = self.history[:commits]
        for group in server.history:
            _apply(server.table, group)
        server.written = dict(server.table)
        server.sequence = self.sequence - (len(self.history) - commits)
        numbers = {group.number for group in server.history}
        previous: File | None = None
        for file in self.files:
            groups = [group for group in file.groups if group.number in numbers]
            if groups or previous is None or file.gtids_before < commits:
                previous = replace(file, groups=groups, previous=previous)
                server.files.append(previous)
        server.rotate(clean=False)
        return server

    def replica(self, number: int, commits: int) -> "Server":
        """Return a replica with the first `commits` commits, at positions of its own."""
        server = Server(self.world, self.flavour, number, gtids=self.gtids, step=self.step + 4)
        server.is_durable = self.is_durable
        server.births = self.births
        server.base = dict(self.base)
        server.table = dict(self.base)
        server.written = dict(self.base)
        server.open_file()
        for count, group in enumerate(self.history[:commits]):
            if count % 7 == 6:
                server.rotate()
            server.append(group)
        server.show_all()
        server.sequence = self.sequence
        return server

    # --- what it says

    @property
    def seen(self) -> Position:
        """Return the position up to which commits can be seen in the table."""
        groups = self.files[-1].groups
        groups = groups[: len(groups) - len(self.hidden)]
        return Position(self.files[-1].name, groups[-1].end if groups else HEADER)

    def file(self, name: str) -> File | None:
        return next((file for file in self.files if file.name == name), None)

    def executed(self, count: int) -> str:
        """Return the GTIDs of its first `count` commits, as it writes them."""
        executed = gtid_set_of(self.flavour, "")
        for group in self.history[:count]:
            if group.gtid:
                executed.advance(group.gtid)
        return str(executed)

    def accepts(self, gtid_set: str) -> bool:
        """Return whether a reader that has this set may read by GTID.

        A MySQL must have all the GTIDs of its own that the reader has. A MariaDB must have every
        last one, unless it has none at all of the domain: then it waits for the first.
        """
        logged = [group.gtid for group in self.history if group.gtid]
        if self.flavour == "mysql":
            own = {gtid for gtid in members(gtid_set) if gtid.startswith(self.identity)}
            return own <= {*logged}
        return not logged or {*filter(None, gtid_set.split(","))} <= {*logged}

    def state(self) -> str:
        """Return MariaDB's last GTID of each domain and server."""
        last = {group.gtid.rpartition("-")[0]: group.gtid for group in self.history if group.gtid}
        return ",".join(last.values())


def _apply(table: dict[int, str], group: Group) -> None:
    for op, key, _, after in group.changes:
        if op == "d":
            table.pop(key, None)
        else:
            table[key] = after or ""


class Connection:
    """A session. It ends with its process or its server."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.alive = True
        self.stream: Stream | None = None
        self.decoders: dict[int, Any] = {}
        self.view: tuple[dict[int, str], Position] | None = None
        self.asked_at = world.now
        self.timeout_s = 28_800.0
        server.connections.append(self)
        server.connected += 1
        self.number = server.connected
        if world.process:
            world.process.at_death.append(self.end)

    def get_server_info(self) -> str:
        return "10.11.0-MariaDB" if self.server.flavour == "mariadb" else "9.7.0"

    def cursor(self, cursor_class: Any = None) -> "Cursor":
        return Cursor(self, as_dicts=cursor_class is not None)

    def ping(self, *, reconnect: bool) -> None:
        assert not reconnect

    def rollback(self) -> None:
        self.view = None

    def close(self) -> None:
        self.end()

    _force_close = close

    def end(self) -> None:
        """End the session, from either side. The locks that it held are free."""
        self.alive = False
        self.server.locks = {
            name: owner for name, owner in self.server.locks.items() if owner is not self
        }
        if self in self.server.connections:
            self.server.connections.remove(self)

    def expire(self) -> None:
        if self.world.now - self.asked_at > self.timeout_s:
            self.world.count("session timed out")
            self.end()


def connect(world: World, server: Callable[[], Server]) -> Callable[..., Any]:
    def connected(*_: Any, **__: Any) -> Connection:
        world.call("connect")
        if world.now < server().down_until:
            world.now += 0.3
            raise NotReady("hospital kigali: MySQL doesn't answer", hint="wait")
        return Connection(world, server())

    return connected


class Cursor:
    def __init__(self, connection: Connection, *, as_dicts: bool) -> None:
        self._connection = connection
        self._server = connection.server
        self._as_dicts = as_dicts
        self._rows: list[tuple[Any, ...]] = []
        self._names: list[str] = []

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, sql: str, args: Any = None) -> None:
        self._connection.world.call("sql")
        for connection in [*self._server.connections]:
            connection.expire()
        if not self._connection.alive:
            raise LOST
        self._connection.asked_at = self._connection.world.now
        answer = next((answer for words, answer in _ANSWERS.items() if words in sql), None)
        if answer is None:
            raise NotImplementedError(sql)
        self._names = re.findall(r" AS (\w+)", sql)
        self._rows = [*answer(self, args or ())]

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> Any:
        if not self._as_dicts:
            return tuple(self._rows)
        return [dict(zip(self._names or range(len(row)), row, strict=True)) for row in self._rows]

    # --- the answers, a method a statement

    def nothing(self, _: Any) -> Iterator[tuple[Any, ...]]:
        return iter(())

    def lock(self, args: Any) -> Iterator[tuple[Any, ...]]:
        owner = self._server.locks.get(args[0])
        if owner not in (None, self._connection):
            self._connection.world.now += args[1] if len(args) > 1 else 0
            yield (0,)
            return
        self._server.locks[args[0]] = self._connection
        yield (1,)

    def owners(self, args: Any) -> Iterator[tuple[Any, ...]]:
        owners = [self._server.locks.get(name) for name in args]
        numbers = [None if owner is None else id(owner) for owner in owners]
        yield (id(self._connection), *numbers)

    def release(self, args: Any) -> Iterator[tuple[Any, ...]]:
        del self._server.locks[args[0]]
        yield (1,)

    def holder(self, args: Any) -> Iterator[tuple[Any, ...]]:
        owner = self._server.locks.get(args[0])
        yield (owner.number if owner else None,)

    def holder_and_self(self, args: Any) -> Iterator[tuple[Any, ...]]:
        owner = self._server.locks.get(args[0])
        yield (owner.number if owner else None, self._connection.number)

    def own_number(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield (self._connection.number,)

    def on_their_way(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield ("Ongoing_anonymous_transaction_count", str(len(self._server.hidden)))

    def forget(self, _: Any) -> Iterator[tuple[Any, ...]]:
        self._connection.timeout_s = 8
        return iter(())

    def clock(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield (int(self._connection.world.now * 1000),)

    def end(self, _: Any) -> Iterator[tuple[Any, ...]]:
        file = self._server.files[-1]
        yield (file.name, file.size, "", "")

    def no_replica(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield ("Slaves_running", "0")

    def logs(self, _: Any) -> Iterator[tuple[Any, ...]]:
        return ((file.name, file.size) for file in self._server.files)

    def identity(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield (self._server.number if self._server.flavour == "mariadb" else self._server.identity,)

    def subset(self, args: Any) -> Iterator[tuple[Any, ...]]:
        whole = args[1] if len(args) > 1 else self._executed()
        yield (int(members(args[0]) <= members(whole)),)

    def subtract(self, args: Any) -> Iterator[tuple[Any, ...]]:
        gtid_set: Any = MysqlGtidSet()
        for gtid in sorted(members(args[0]) - members(args[1] if len(args) > 1 else "")):
            gtid_set.advance(gtid)
        yield (str(gtid_set),)

    def gtid_pos(self, args: Any) -> Iterator[tuple[Any, ...]]:
        file = self._server.file(args[0])
        if file is None:
            yield (None,)
            return
        before = sum(group.end <= args[1] for group in file.groups)
        yield (self._server.executed(file.gtids_before + before),)

    def binlog_state(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield (self._server.state(),)

    def _executed(self) -> str:
        return self._server.executed(len(self._server.history) - len(self._server.hidden))

    def executed(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield (self._executed(),)

    def owned(self, _: Any) -> Iterator[tuple[Any, ...]]:
        owned = ",".join(
            f"{group.gtid}#{9 + at}" for at, group in enumerate(self._server.hidden) if group.gtid
        )
        yield (owned, self._executed())

    def mode(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield ("ON" if self._server.gtids else "OFF",)

    def modes(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield ("ON" if self._server.gtids else "OFF", 1)

    def wait(self, args: Any) -> Iterator[tuple[Any, ...]]:
        world = self._connection.world
        deadline = world.now + float(args[1])
        while not members(args[0]) <= members(self._executed()):
            if world.now > deadline:
                yield (1,)
                return
            world.sleep(0.05)
            if not self._connection.alive:
                raise LOST
        yield (0,)

    def columns(self, _: Any) -> Iterator[tuple[Any, ...]]:
        return iter(COLUMNS)

    def view(self, _: Any) -> Iterator[tuple[Any, ...]]:
        self._connection.view = dict(self._server.table), self._server.seen
        return iter(())

    def view_at(self, _: Any) -> Iterator[tuple[Any, ...]]:
        _, position = self._connection.view or ({}, self._server.seen)
        yield ("Binlog_snapshot_file", position.file)
        yield ("Binlog_snapshot_position", str(position.pos))

    def ends(self, _: Any) -> Iterator[tuple[Any, ...]]:
        table, _ = self._connection.view or (self._server.table, None)
        yield (min(table, default=None), max(table, default=None))

    def durability(self, _: Any) -> Iterator[tuple[Any, ...]]:
        value = "1" if self._server.is_durable else "0"
        yield ("sync_binlog", value)
        yield ("innodb_flush_log_at_trx_commit", value)

    def engines(self, _: Any) -> Iterator[tuple[Any, ...]]:
        yield ("InnoDB",)

    def obs(self, args: Any) -> Iterator[tuple[Any, ...]]:
        table, _ = self._connection.view or (self._server.table, None)
        after, limit = args if len(args) == 2 else (-1, *args)
        for key in sorted(key for key in table if key > after)[:limit]:
            yield (str(key), table[key])


# The first whose words are in a statement answers it.
_ANSWERS: Mapping[str, Callable[[Cursor, Any], Any]] = {
    "MIN(obs_id)": Cursor.ends,
    "SHOW GLOBAL VARIABLES WHERE": Cursor.durability,
    "information_schema.tables": Cursor.engines,
    "Slaves_running": Cursor.no_replica,
    "SHOW REPLICA STATUS": Cursor.nothing,
    "rds_configuration": Cursor.nothing,
    "CONNECTION_ID(), IS_USED_LOCK": Cursor.owners,
    "RELEASE_LOCK": Cursor.release,
    "GET_LOCK": Cursor.lock,
    "IS_USED_LOCK(%s), CONNECTION_ID()": Cursor.holder_and_self,
    "IS_USED_LOCK": Cursor.holder,
    "CONNECTION_ID()": Cursor.own_number,
    "Ongoing_anonymous_transaction_count": Cursor.on_their_way,
    "wait_timeout": Cursor.forget,
    "UNIX_TIMESTAMP": Cursor.clock,
    "SHOW MASTER STATUS": Cursor.end,
    "SHOW BINARY LOG STATUS": Cursor.end,
    "SHOW BINARY LOGS": Cursor.logs,
    "@@server_uuid": Cursor.identity,
    "@@server_id": Cursor.identity,
    "WAIT_FOR_EXECUTED_GTID_SET": Cursor.wait,
    "GTID_SUBSET": Cursor.subset,
    "GTID_SUBTRACT": Cursor.subtract,
    "BINLOG_GTID_POS": Cursor.gtid_pos,
    "@@global.gtid_owned": Cursor.owned,
    "@@global.gtid_executed": Cursor.executed,
    "@@global.gtid_binlog_state": Cursor.binlog_state,
    "@@global.gtid_mode": Cursor.mode,
    "@@gtid_mode": Cursor.modes,
    "information_schema.columns": Cursor.columns,
    "START TRANSACTION": Cursor.view,
    "binlog_snapshot": Cursor.view_at,
    "FROM obs": Cursor.obs,
}


def members(gtid_set: str) -> set[str]:
    """Return each GTID of a MySQL set."""
    gtids: set[str] = set()
    for part in filter(None, gtid_set.split(",")):
        uuid, *intervals = part.split(":")
        for interval in intervals:
            first, _, last = interval.partition("-")
            gtids |= {f"{uuid}:{number}" for number in range(int(first), int(last or first) + 1)}
    return gtids


def contains(flavour: str, gtid_set: str, gtid: str) -> bool:
    """Return whether a reader that has `gtid_set` already has `gtid`."""
    if flavour == "mysql":
        return gtid in members(gtid_set)
    domain, _, sequence = gtid.split("-")
    for last_gtid in filter(None, gtid_set.split(",")):
        last_domain, _, last_sequence = last_gtid.split("-")
        if last_domain == domain and int(last_sequence) >= int(sequence):
            return True
    return False


def gtid_set_of(flavour: str, gtid_set: str) -> MariadbGtidSet | MysqlGtidSet:
    """Return the set as the product's own class of the flavour."""
    if flavour == "mariadb":
        return MariadbGtidSet(gtid_set)
    return MysqlGtidSet(gtid_set)


class Stream:
    """Stands in for `BinlogStream`."""

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        flavour: str,
        server_id: int,
        start: Position | None,
        gtid_set: str | None,
        database: str,
        columns: Any,
        row_columns: Any,
        key_columns: Any,
        heartbeat_s: float = 5,
        read_timeout_s: float = 20,
    ) -> None:
        self._connection: Connection = connect()
        self._connection.stream = self
        self._server = self._connection.server
        self._world = self._connection.world
        self._anew = self._server.began_anew
        self._written = 0
        self._flavour = flavour
        self._start = start
        self._set = gtid_set or ""
        self._heartbeat_s = heartbeat_s
        self._executed = gtid_set_of(flavour, self._set)
        self._units: deque[BinlogItem] = deque()
        self._next = 0
        self._is_accepted = start is not None
        self._has_passed_over = False  # transactions that the reader has, just before `position`
        self._heard = self._world.now
        self.file: File | None = None
        self.format_ts = 0
        self.began_ts = 0
        self.position = start or Position("", 4)
        self.is_unverified = False

    def poll(self, timeout_s: float) -> list[BinlogItem]:
        self._world.call("poll")
        self._usable()
        if self.file is None:
            self._open()
        items: list[BinlogItem] = []
        for _ in range(self._world.rng.randint(0, 5) if not self._world.quiet else 50):
            item = self._read()
            if item is None:
                break
            if type(item) is Commit and items and type(items[-1]) is Commit:
                items[-1] = item
            else:
                items.append(item)
        if items:
            self._heard = self._world.now
            return items
        self._world.now += timeout_s
        # A server that has more to send does not say that it is idle.
        has_more = self._units or not self._has_sent_all()
        if has_more or self._world.now - self._heard < self._heartbeat_s:
            return []
        self._heard = self._world.now
        return [Idle(self.position)]

    def set_columns(self, columns: Any, valid_from: Any) -> None:
        """Do nothing: there is no DDL here."""

    def pass_over(self) -> None:
        """Do nothing: there is no large event here."""

    def close(self) -> None:
        self._connection.end()

    def _usable(self) -> None:
        if not self._connection.alive:
            raise Retry("binlog: connection lost")
        if self._server.began_anew != self._anew and self._server.history:
            raise self._gone()
        if not self._is_accepted:
            if not self._server.accepts(self._set):
                raise self._gone()
            self._is_accepted = bool(self._server.history)

    def _open(self) -> None:
        if self._start is not None:
            file = self._server.file(self._start.file)
            pos = self._start.pos
            if file is None or pos > file.size:
                raise self._gone()
            inside = {group.at(n + 1) for group in file.groups for n in range(len(group.changes))}
            if pos not in {4} | file.ends() | inside:
                raise self._gone()
        else:
            files = [file for file in self._server.files if self._has_all_before(file)]
            if not files:
                raise self._gone()
            file = files[-1]
            pos = HEADER
        self.file = file
        self.position = Position(file.name, pos)
        self.format_ts = file.ts
        self.began_ts = file.ts
        self._next = sum(group.end <= pos for group in file.groups)

    def _has_all_before(self, file: File) -> bool:
        """Return whether the reader has every transaction of earlier files."""
        groups = self._server.history[: file.gtids_before]
        return all(contains(self._flavour, self._set, group.gtid) for group in groups)

    def _gone(self) -> Gap:
        self._connection.end()
        return Gap(
            "binlog: error 1236: the source no longer has this position or GTID set",
            hint="nothing to do",
        )

    def _read(self) -> BinlogItem | None:
        if not self._units:
            self._fill()
        if not self._units:
            return None
        item = self._units.popleft()
        if not isinstance(item, NextFile):
            self.position = item.at
        return item

    def _has_sent_all(self) -> bool:
        """Return whether the server has nothing more; so it is, too, once its binlog began anew."""
        if self.file is None or self._server.began_anew != self._anew:
            return True
        is_last_file = self.file.number == self._server.files[-1].number
        return is_last_file and self._next == len(self.file.groups)

    def _fill(self) -> None:
        """Take the next transaction that the reader lacks, or step into the next file.

        By GTID a MySQL says first how far it has passed over what the reader has.
        """
        file = self.file
        if file is None or self._server.began_anew != self._anew:
            return
        while self._next < len(file.groups):
            group = file.groups[self._next]
            if self._start is not None or not contains(self._flavour, self._set, group.gtid):
                break
            self._next += 1
            self.position = Position(file.name, group.end)
            self._has_passed_over = self._flavour == "mysql"
        if self._has_passed_over:
            self._has_passed_over = False
            self._units.append(Idle(self.position))
            return
        if self._next < len(file.groups):
            self._units.extend(self._items(file, file.groups[self._next]))
            self._next += 1
            return
        numbers = [other.number for other in self._server.files]
        if file.number + 1 in numbers:
            following = self._server.files[numbers.index(file.number + 1)]
            self.file = following
            self.format_ts = following.ts
            self._next = 0
            left = Position(file.name, file.size)
            self._units.append(NextFile(Position(following.name, 4), bool(file.clean), left))
            self.position = Position(following.name, HEADER)

    def _items(self, file: File, group: Group) -> Iterator[BinlogItem]:
        for ordinal, (op, key, before, after) in enumerate(group.changes, 1):
            at = Position(file.name, group.at(ordinal))
            if at.order > self.position.order:
                yield RowChange(
                    op, text(key, before), text(key, after), at, ordinal, group.number, group.gtid
                )
        if group.gtid:
            self._executed.advance(group.gtid)
        yield Commit(Position(file.name, group.end), group.gtid, group.number, str(self._executed))


def text(key: int, value: str | None) -> str | None:
    return None if value is None else row_text(("obs_id", "value_text"), (key, value))
