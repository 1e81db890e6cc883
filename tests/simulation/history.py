"""One seed's history: a clinic, a server and readers that die.

`History` also checks what must hold of the topic, of the saved positions and of the destination.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cdc.envelopes
import cdc.heartbeat
import cdc.lease
import cdc.position_writer
import cdc.reader
import cdc.resume
import cdc.retention
import cdc.same_server
import cdc.session
import cdc.snapshot
import openmrs.load_share
import openmrs.read
from cdc.connections import Connections
from cdc.positions import RowPlace, Saved
from cdc.reader import Reader
from passport.event import Event, parse_event
from passport.settings import Kafka
from tests import stream
from tests.servers import Address
from tests.simulation import kafka, mysql
from tests.simulation.destination import Destination
from tests.simulation.kafka import Broker
from tests.simulation.mysql import Change, Server
from tests.simulation.world import BrokenPromise, Process, Silent, World

CLOCKED = (
    cdc.envelopes,
    cdc.heartbeat,
    cdc.resume,
    cdc.lease,
    cdc.position_writer,
    cdc.reader,
    cdc.retention,
    cdc.same_server,
    cdc.session,
    cdc.snapshot,
    openmrs.load_share,
    openmrs.read,
)
LOGGED = (
    cdc.resume,
    cdc.lease,
    cdc.reader,
    cdc.retention,
    cdc.same_server,
    cdc.session,
    cdc.snapshot,
)
SETTINGS = stream.settings(
    Address("mariadb", "nowhere", 1, "nobody", "").settings(),
    "nowhere",
    "t",
    load_budget={"chunk_rows": 3, "rows_per_s": 1000},
    cdc={"address_check_s": 2},
)
KEYS = 14
COMMITS = 30
SKEWS_S = (0, 0, 0, -600, 600)


@dataclass
class History:
    """A history, and what its checks know of it.

    `excused` are the numbers of transactions that no epoch had to stream.
    """

    seed: int
    flavour: str
    gtids: bool = True
    commits: int = COMMITS
    excused: set[int] = field(default_factory=set)
    # Two readers ran at once. Each may have begun before it saw the other's position.
    rivals: bool = False
    # Something happened that may cost the reader its position.
    broken: bool = False
    destination_of: Callable[[World, Broker], Destination] = Destination
    # A fault that is much more likely than others.
    likely: "Callable[[History], None] | None" = None

    def __post_init__(self) -> None:
        self.gtids = self.gtids or self.flavour == "mariadb"
        self.world = World(self.seed)
        self.broker = Broker(self.world)
        self.files: dict[int, mysql.File] = {}
        self.epochs: dict[int, Saved] = {}
        # When the reader that began an epoch looked where to go on. It asked its server for the
        # epoch's start later.
        self.looked_at: dict[int, float] = {}
        # Epochs whose start was told by a binlog, or by a server, that was gone before their stream
        # began. Their position means nothing where they are read.
        self.raced: set[int] = set()
        self.upheaval = 0.0  # when the binlog began anew, or another server came
        self.reused = False  # GTIDs were given twice
        self._parsed: list[Event] = []
        self._cut_off: set[str] = set()  # versions that were in the topic before it was cut off
        self._fallen: set[int] = set()  # epochs that are no higher than all before, see `_begun`
        self.number = 0
        self.servers = 1
        self.server = Server(self.world, self.flavour, 1, gtids=self.gtids)
        self.server.is_durable = self.seed % 2 == 0
        self.by_identity = {self.server.identity: self.server}
        self.server.births = self._born
        self.server.open_file()
        for key in range(1, 6):
            value = f"old {key}"
            self.server.base[key] = value
            self.server.table[key] = value
            self.server.written[key] = value
        self.server.write(0, ())
        self.server.show_all()
        self.destination = self.destination_of(self.world, self.broker)
        self.readers: list[Process] = []
        self.broker.on_save = self._saved
        self.broker.on_begin = self._begun
        self._draw()

    # --- what happens

    def run(self) -> dict[str, int]:
        """Run the history from its first commit until all is quiet, and check it.

        Return how often each kind of thing happened. Raises BrokenPromise.
        """
        with self._played():
            while self.number < self.commits:
                self._turn()
            self._quiet()
            self._catch_up()
            if self._fallen:
                self.world.now += 2 * max(SKEWS_S)
                self._catch_up(gap="a new epoch was asked for")
            self.destination.drain()
            self._check()
        return self.world.happened

    def _draw(self) -> None:
        """Draw how wild this history is."""
        world = self.world
        rng = world.rng
        world.crash_p = rng.choice((0, 0.002, 0.01))
        world.switch_p = rng.choice((0, 0.05, 0.3))
        world.settle = self._settle
        world.enough = lambda: self.number >= self.commits
        often: list[tuple[Callable[[], None], float]] = [
            (self._commit, 0.05),
            (self._show, rng.choice((0.05, 0.5))),
            (self.broker.work, rng.choice((0.05, 0.5))),
            (self.destination.work, 0.1),
            (self.broker.compact, rng.choice((0, 0.05))),
        ]
        faults = (
            self._rotate,
            self._server_crash,
            self._machine_crash,
            self._purge,
            self._reset,
            self._restore,
            self._failover,
            self._switchover,
            self._restore_positions,
            self._forget_positions,
            self._kafka_refuses,
            self.topic_cut,
            self._terminate,
            self._destination_goes_back,
            self._connections_cut,
            self.broker.land_late,
        )
        world.between = often + [(fault, 0.003) for fault in faults if rng.random() < 0.4]
        likely = self.likely
        if likely is not None:
            world.between.append((lambda: likely(self), 0.02))

    def _turn(self) -> None:
        world = self.world
        rng = world.rng
        self.readers = [reader for reader in self.readers if not (reader.ended or reader.dead)]
        rival = rng.random() < 0.01 and "positions emptied" not in world.happened
        most_readers = 2 if rival else 1
        if len(self.readers) < most_readers:
            self.rivals = self.rivals or bool(self.readers)
            self.readers.append(Process(world, self._reader(), skew_s=rng.choice(SKEWS_S)))
        ready = [reader for reader in self.readers if reader.asleep_until <= world.now]
        if not ready:
            world.now += 1
            return
        reader = rng.choice(ready)
        if (len(self.readers) > 1 or rng.random() < 0.02) and rng.random() < 0.05:
            world.count("stood still")
            reader.asleep_until = world.now + rng.choice((1, 10, 30))
            return
        world.run(reader)

    def _reader(self, *, until_caught_up: bool = False, gap: str = "") -> Callable[[], None]:
        def work() -> None:
            process = self.world.process
            assert process is not None
            reader = Reader(
                "kigali",
                SETTINGS.hospitals["kigali"],
                SETTINGS,
                process,  # type: ignore[arg-type]
                self._connections(),
                gap=gap,
            )
            try:
                reader.run(until_caught_up=until_caught_up)
            finally:
                reader.close()

        return work

    def _connections(self) -> Connections:
        return Connections(
            connect=mysql.connect(self.world, lambda: self.server),
            stream=mysql.Stream,  # type: ignore[arg-type]
            publisher=self._publisher,  # type: ignore[arg-type]
            positions=lambda settings: kafka.Positions(self.broker, settings),
            signals=kafka.SignalWatch,  # type: ignore[arg-type]
        )

    def _publisher(
        self, _kafka: Kafka, _hospital: str, _partition: int, end_offset: int
    ) -> kafka.Publisher:
        return kafka.Publisher(self.broker, end_offset)

    def _commit(self) -> None:
        if self.world.now < self.server.down_until:
            return
        rng = self.world.rng
        server = self.server
        self.number += 1
        changes: list[Change] = []
        table = dict(server.written)
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            key = rng.randint(1, KEYS)
            before = table.get(key)
            after: str | None = f"value {self.number}.{len(changes)}"
            if before is None:
                op = "c"
            elif rng.random() < 0.4:
                op = "d"
                after = None
            else:
                op = "u"
            changes.append((op, key, before, after))
            table.pop(key, None)
            if after is not None:
                table[key] = after
        server.write(self.number, tuple(changes))

    def _show(self) -> None:
        self.server.show()

    def _rotate(self) -> None:
        self.server.rotate()

    def _server_crash(self) -> None:
        self.world.count("server crashed")
        self.server.crash(down_s=self.world.rng.choice((0, 1, 5)))

    def _machine_crash(self) -> None:
        self.world.count("machine crashed")
        self.broken = True
        self.server.crash(lost=self.world.rng.randint(1, 3))

    def _purge(self) -> None:
        files = len(self.server.files)
        self.server.rotate()
        self.server.purge()
        if len(self.server.files) <= files:
            self.world.count("purged")
            self.broken = True

    def _reset(self) -> None:
        self.world.count("reset")
        self.broken = True
        self.reused = True
        self.server.reset()
        self.upheaval = self.world.now

    def _restore(self) -> None:
        """Restore a backup from before the saved position.

        For one from between the saved position and what was published, see positions.md.
        """
        server = self.server
        saved = self.broker.furthest()
        if saved is None or saved.server != server.identity:
            return
        file = server.file(saved.position.file)
        if file is None or file.ts != saved.format_ts:
            return
        purged = server.files[0].gtids_before
        read = file.gtids_before + sum(group.end <= saved.position.pos for group in file.groups)
        if read > purged:
            self.world.count("restored")
            self.broken = True
            self.reused = True
            self._replace(server.restored(self.world.rng.randint(purged, read - 1)))

    def _failover(self) -> None:
        server = self.server
        server.show_all()
        lag = self.world.rng.choice((0, 0, 1, 3))
        if lag or not server.gtids:
            self.broken = True
        self.world.count("failed over, lagging" if lag else "failed over")
        self.servers += 1
        self._replace(server.replica(self.servers, max(0, len(server.history) - lag)))

    def _switchover(self) -> None:
        """Let another server answer at the address. The demoted one lives on, and ends nothing."""
        server = self.server
        server.show_all()
        if not server.gtids:
            self.broken = True
        self.world.count("switched over")
        self.servers += 1
        self.server = server.replica(self.servers, len(server.history))
        self.by_identity[self.server.identity] = self.server
        self.upheaval = self.world.now

    def _replace(self, server: Server) -> None:
        self.server.cut()
        server.down_until = self.world.now + 0.5
        self.server = server
        self.by_identity[server.identity] = server
        self.upheaval = self.world.now

    def _forget_positions(self) -> None:
        if self.broker.saved and not self.rivals:  # a rival would save its older epoch again
            self.world.count("positions emptied")
            self.broken = True
            self.broker.saved.clear()
            # Nothing but the clock tells the next epoch from one of which nothing was published.
            self.world.now += 1

    def _restore_positions(self) -> None:
        """Lose the positions topic, and restore a backup of it."""
        if len(self.broker.saved) > 1 and not self.rivals:
            self.world.count("positions restored")
            self.broken = True
            del self.broker.saved[self.world.rng.randrange(1, len(self.broker.saved)) :]

    def _kafka_refuses(self) -> None:
        self.broker.refuses = 1

    def topic_cut(self) -> None:
        """Lose acknowledged records, the newest or all. The next snapshot must bring them."""
        length = self.world.rng.choice((0, self.world.rng.randint(0, len(self.broker.log))))
        if length < len(self.broker.log) and not self.rivals:
            self.world.count("topic cut off")
            self.broken = True
            self.excused |= set(range(self.number + 1))
            self._cut_off |= {event.source.version for event in self._rows()}
            del self._parsed[length:]
            self.broker.cut(length)
            self.destination.cut(length)

    def _terminate(self) -> None:
        if self.readers:
            self.world.count("stopped in order")
            self.world.rng.choice(self.readers).stopping = True

    def _destination_goes_back(self) -> None:
        self.destination.go_back()

    def _connections_cut(self) -> None:
        self.server.cut()

    # --- the end

    def _quiet(self) -> None:
        """Kill or stop the readers that still run. From now on nothing else goes wrong."""
        world = self.world
        for reader in self.readers:
            if world.rng.random() < 0.5:
                reader.die()
            reader.stopping = True
        world.quiet = True
        self.broker.refuses = 0
        self._settle()
        for reader in self.readers:
            while not reader.ended:
                world.run(reader)
        self._settle()

    def _settle(self) -> None:
        self.server.show_all()
        self.server.down_until = 0
        self.broker.work_all()

    def _catch_up(self, gap: str = "") -> None:
        last = Process(self.world, self._reader(until_caught_up=True, gap=gap))
        while not last.ended:
            self.world.run(last)

    # --- what must hold

    def _born(self, file: mysql.File) -> None:
        self.files[file.ts] = file

    def _saved(self, saved: Saved) -> None:
        """Check each position that is saved.

        It is a transaction's end, and everything before it is in the topic.
        """
        if not saved.format_ts or saved.epoch in self.raced:
            return
        is_at_start = saved.position == self.epochs[saved.epoch].position
        if is_at_start and self.upheaval > self.looked_at[saved.epoch]:
            # The binlog began anew before the epoch's stream did. What the new binlog has at this
            # place may lie inside a transaction. That costs nothing: the snapshot is read behind
            # this place, and so it contains the whole transaction.
            self.raced.add(saved.epoch)
            return
        file = self.files[saved.format_ts]
        # A machine that crashed lost transactions, and so their ends.
        may_be_lost = saved.by_gtid or "machine crashed" in self.world.happened
        if not may_be_lost and saved.position.pos not in file.ends():
            raise BrokenPromise(f"saved inside a transaction: {saved.position}")
        self._acknowledged(saved, file)

    def _begun(self, saved: Saved, looked_at: float) -> None:
        """Check that a new epoch is higher than all that Kafka knows of, and has a reason.

        `looked_at` is when its reader looked where to go on.

        It may still be no higher than all before. Kafka must have lost the higher one from both
        topics then, or never got a record of it, and the clock of the reader must be behind the
        clock of the reader before. Nothing that a reader can ask remembers the higher one. But a
        destination may have seen it, and takes nothing of a lower one; or the number is the same,
        and what was still on its way from the first use of it comes now. The promise for this case
        is another one: `passport cdc run --new-epoch` mends it, once the clocks are right. So that
        is what the history ends with.
        """
        if self.epochs:
            self.world.count("new epoch")
            epochs = [int(event.source.version[:10]) for event in self._events()]
            before = self.broker.furthest()
            highest_epoch = max([*epochs, before.epoch if before else 0])
            # A rival may have stood still between its lock and its save.
            if saved.epoch <= highest_epoch and not self.rivals:
                raise BrokenPromise(f"epoch {saved.epoch} follows {highest_epoch}")
            if highest_epoch < saved.epoch <= max(self.epochs):
                self.world.count("epoch fell")
                self._fallen.add(saved.epoch)
            if not (self.broken or self.rivals or saved.by_gtid):
                raise BrokenPromise("a new epoch without a reason")
        self.epochs[saved.epoch] = saved
        self.looked_at[saved.epoch] = looked_at
        if self.upheaval > looked_at:
            self.raced.add(saved.epoch)
        if saved.by_gtid:
            self.world.count("by GTID")
            # The same GTIDs may be other transactions. The snapshot beside the stream is for them.
            if self.reused:
                for group in self.by_identity[saved.server].history:
                    if mysql.contains(self.flavour, saved.gtid_set, group.gtid):
                        self.excused.add(group.number)
            return
        self._excuse(saved)

    def _excuse(self, saved: Saved) -> None:
        """Excuse what is before an epoch's start: it need not be streamed in it."""
        file: mysql.File | None = self.by_identity[saved.server].files[-1]
        while file is not None:
            for group in file.groups:
                if (file.number, group.start) < saved.position.order:
                    self.excused.add(group.number)
            file = file.previous

    def _acknowledged(self, saved: Saved, file: mysql.File) -> None:
        """Check that every transaction from the epoch's start to `saved` is in the topic."""
        began = self.epochs[saved.epoch]
        landed = self._landed()
        earlier: mysql.File | None = file
        while earlier is not None:
            for group in earlier.groups:
                order = (earlier.number, group.end)
                if order > saved.position.order or group.number in self.excused:
                    continue
                if began.by_gtid and mysql.contains(self.flavour, began.gtid_set, group.gtid):
                    continue
                if not began.by_gtid and order <= began.position.order:
                    continue
                if group.rows() - landed:
                    raise BrokenPromise(
                        f"saved {saved.position} before transaction {group.number} was in the topic"
                    )
            earlier = earlier.previous
        if saved.next_row is not None:
            self._acknowledged_within(saved.next_row, file)

    def _acknowledged_within(self, next_row: RowPlace, file: mysql.File) -> None:
        """Check that the rows before `next_row` of the transaction that has it are in the topic."""
        self.world.count("saved within a transaction")
        if next_row.at.file != file.name:
            return
        landed = self._landed()
        for group in file.groups:
            if group.number in self.excused or not group.start < next_row.at.pos <= group.end:
                continue
            for number, ordinal in group.rows() - landed:
                if group.at(ordinal) < next_row.at.pos:
                    raise BrokenPromise(f"saved {next_row} before row {ordinal} of {number}")

    def _landed(self) -> set[tuple[int, int]]:
        """Return the transaction and ordinal of each row of the binlog that is in the topic."""
        return {(event.source.ts_ms // 1000, event.source.row) for event in self._rows()}

    def _rows(self) -> Iterator[Event]:
        return stream.changes(self._events())

    def _events(self) -> Iterator[Event]:
        for value in self.broker.log[len(self._parsed) :]:
            self._parsed.append(parse_event(value))
        return iter(self._parsed)

    def _check(self) -> None:
        if self.destination.table != self.server.table:
            raise BrokenPromise(
                f"the destination has {self.destination.table}, the hospital {self.server.table}"
            )
        landed = self._landed()
        for epoch in self.raced:
            self._excuse(self.epochs[epoch])
        for group in self.server.history:
            missing = sorted(group.rows() - landed)
            if missing and group.number not in self.excused:
                raise BrokenPromise(f"rows are not in the topic: {missing}")
        self._in_order()
        before = dict(self.destination.rows)
        for event in self._events():
            self.destination.apply(event)
        if self.destination.rows != before:
            raise BrokenPromise("replaying the topic changed the destination")

    def _in_order(self) -> None:
        """Check that the first deliveries of each epoch are in order."""
        latest: dict[str, str] = {}
        delivered = set(self._cut_off)
        numbers = {group.number for group in self.server.history}
        for event in self._rows():
            version = event.source.version
            epoch = version[:10]
            if int(epoch) in self._fallen:
                continue
            if version not in delivered and event.source.ts_ms // 1000 in numbers:
                delivered.add(version)
                if version < latest.get(epoch, ""):
                    raise BrokenPromise("first deliveries are out of order")
                latest[epoch] = version

    @contextmanager
    def _played(self) -> Iterator[None]:
        """Give the product's modules the world's clock and chance, and a log that nobody reads."""
        before: list[tuple[Any, str, Any]] = []
        for modules, name, value in ((CLOCKED, "time", self.world), (LOGGED, "log", Silent())):
            for module in modules:
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
        before.append((cdc.reader, "random", cdc.reader.random))
        cdc.reader.random = self.world  # type: ignore[assignment]
        # Transactions are small here.
        before.append(
            (cdc.position_writer, "LARGE_TRANSACTION", cdc.position_writer.LARGE_TRANSACTION)
        )
        cdc.position_writer.LARGE_TRANSACTION = 1
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
