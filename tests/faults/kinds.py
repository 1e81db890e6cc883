"""The kinds of fault: each breaks something, proves that it broke, and heals it again.

A kind is a function of (scene, rng) that returns the proof in words; it raises AssertionError when
the fault did not happen. When it returns, whatever was broken answers again.
"""

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
from kafka import KafkaProducer

from dev.hospital.clinic import Clinic
from dev.hospital.work import NothingToDo
from dev.stack.server import Server
from tests.e2e.roles import Role
from tests.e2e.stage import Stage
from tests.eventually import eventually
from tests.faults.proxy import Proxy


@dataclass
class Scene:
    """What can be broken. `readers`: of each hospital, the standby too; `proxies`: in front of the
    hospitals.
    """

    stage: Stage
    readers: Mapping[str, list[Role]]
    consumers: list[Role]
    reconcilers: list[Role]
    proxies: Mapping[str, Proxy]
    gaps: set[str] = field(default_factory=set)  # hospitals whose binlog lost what nobody had read
    poison: int = 0

    @property
    def roles(self) -> list[Role]:
        return [
            *(one for some in self.readers.values() for one in some),
            *self.consumers,
            *self.reconcilers,
        ]

    def hospital(self, rng: random.Random) -> str:
        return rng.choice(sorted(self.readers))


Kind = Callable[[Scene, random.Random], str]


# --- processes of ours


def kill_reader(scene: Scene, rng: random.Random) -> str:
    """P1: the one that reads; the standby takes over."""
    return _killed([active(scene.readers[scene.hospital(rng)])])


def kill_consumer(scene: Scene, rng: random.Random) -> str:
    """P2"""
    return _killed([rng.choice(scene.consumers)])


def kill_reconciler(scene: Scene, rng: random.Random) -> str:
    """P3"""
    return _killed([rng.choice(scene.reconcilers)])


def kill_all(scene: Scene, rng: random.Random) -> str:
    """P4"""
    return _killed(rng.sample(scene.roles, len(scene.roles)))


def freeze_reader(scene: Scene, rng: random.Random) -> str:
    """P5: longer than its lease, so that the standby reads; then it comes back."""
    readers = scene.readers[scene.hospital(rng)]
    role = active(readers)
    taken = {one: one.said().count("lease taken") for one in readers if one is not role}
    with frozen(role):
        if taken:
            eventually(
                lambda: any(one.said().count("lease taken") > n for one, n in taken.items()),
                "a rival reads",
                40,
            )
        else:
            time.sleep(12)
    return f"{role} stood still; {'another one took the lease' if taken else 'nobody else read'}"


def freeze_consumer(scene: Scene, rng: random.Random) -> str:
    """P6: longer than its session with the group."""
    role = rng.choice(scene.consumers)
    with frozen(role):
        time.sleep(13)
    return f"{role} stood still for 13 s, its session is 10 s"


def freeze_both_consumers(scene: Scene, rng: random.Random) -> str:
    """P6: each for a while of its own, so that either may come back to what the other one did."""
    first, second = rng.sample(scene.consumers, 2)
    alone_s, both_s, rest_s = rng.uniform(0, 12), rng.uniform(2, 14), rng.uniform(0, 12)
    with contextlib.ExitStack() as still:
        still.enter_context(frozen(first))
        time.sleep(alone_s)
        with frozen(second):
            time.sleep(both_s)
            if rng.random() < 0.5:
                still.close()
            time.sleep(rest_s)
    return f"both stood still for {both_s:.0f} s, one for {alone_s + both_s:.0f} s at least"


def swap_behind_a_snapshot(scene: Scene, rng: random.Random) -> str:
    """P6: patients get each other's national id while all consumers are behind a snapshot."""
    key = scene.hospital(rng)
    hospital = scene.stage.hospitals[key]
    swaps = 0
    with contextlib.ExitStack() as still:
        for consumer in scene.consumers:
            still.enter_context(frozen(consumer))
        done = _snapshots(scene, key)
        asked = scene.stage.run("signal", "--hospital", key, "snapshot")
        assert asked.returncode == 0, asked.stderr[-500:]
        eventually(lambda: _snapshots(scene, key) > done, "a snapshot", 120)
        with contextlib.closing(hospital.connect(autocommit=False)) as connection:
            clinic = Clinic(connection, seed=rng.randrange(10**9))
            for _ in range(10):
                with hospital.turn, contextlib.suppress(NothingToDo):
                    clinic.do("swap_national_ids")
                    swaps += 1
    assert swaps > 0
    return f"{swaps} swaps after a snapshot that no consumer had read"


def _snapshots(scene: Scene, key: str) -> int:
    return sum(role.said().count('"snapshot done"') for role in scene.readers[key])


def end_role(scene: Scene, rng: random.Random) -> str:
    """P7: SIGTERM."""
    role = rng.choice(scene.roles)
    role.require_running()
    began = time.monotonic()
    code = role.stop()
    took = time.monotonic() - began
    role.start()
    assert code == 0, f"{role} ended with {code}: {role.said()[-1500:]}"
    assert took < 15, f"{role} took {took:.1f} s to end"
    return f"{role} ended with 0 after {took:.1f} s"


def rebalance_storm(scene: Scene, rng: random.Random) -> str:
    """K4: members come and go."""
    guest = Role(
        scene.stage.config,
        scene.consumers[0].words,
        scene.stage.folder / f"guest-{rng.random()}.log",
    )
    members = [*scene.consumers, guest]
    seen = [_assignments(members)]
    try:
        for _ in range(3):
            guest.start()
            eventually(lambda: _assignments(members) > seen[-1], "the group is rearranged", 40)
            seen.append(_assignments(members))
            time.sleep(rng.uniform(0, 2))
            guest.stop()
    finally:
        guest.stop()
    return f"partitions assigned {seen} times"


def _assignments(members: list[Role]) -> int:
    return sum(one.said().count("partitions assigned") for one in members)


# --- servers


def kill_mysql(scene: Scene, rng: random.Random) -> str:
    """M1"""
    return _restarted(scene.stage.hospitals[scene.hospital(rng)].sql)


def kill_kafka(scene: Scene, rng: random.Random) -> str:
    """K1"""
    return _restarted(scene.stage.kafka)


def kill_mongo(scene: Scene, rng: random.Random) -> str:
    """D1"""
    return _restarted(scene.stage.mongo)


def freeze_mysql(scene: Scene, rng: random.Random) -> str:
    """M2"""
    return _paused(scene.stage.hospitals[scene.hospital(rng)].sql, rng)


def freeze_kafka(scene: Scene, rng: random.Random) -> str:
    """K1"""
    return _paused(scene.stage.kafka, rng)


def freeze_mongo(scene: Scene, rng: random.Random) -> str:
    """D1"""
    return _paused(scene.stage.mongo, rng)


def step_down(scene: Scene, rng: random.Random) -> str:
    """D1: the primary gives up, and is elected again."""
    before = _term(scene)
    with contextlib.suppress(Exception):
        scene.stage.client.admin.command("replSetStepDown", 3, force=True)
    eventually(lambda: _term(scene) > before, "a new election", 30)
    return f"term {before} -> {_term(scene)}"


def _term(scene: Scene) -> int:
    with contextlib.suppress(Exception):
        status = scene.stage.client.admin.command("replSetGetStatus")
        return int(status["term"]) if status["myState"] == 1 else -1
    return -1


# --- the way to a hospital


def cut_network(scene: Scene, rng: random.Random) -> str:
    """M3: several times, mid-packet as likely as not."""
    proxy = scene.proxies[scene.hospital(rng)]
    cut = 0
    for _ in range(5):
        cut += proxy.cut()
        time.sleep(rng.uniform(0.2, 1))
    assert cut > 0
    return f"{cut} connections reset"


def hang_network(scene: Scene, rng: random.Random) -> str:
    """M3: half-open."""
    proxy = scene.proxies[scene.hospital(rng)]
    before = proxy.withheld
    proxy.hold()
    try:
        time.sleep(rng.uniform(5, 12))
    finally:
        proxy.heal()
    assert proxy.withheld > before, "nothing was on its way"
    return f"{proxy.withheld - before} bytes never arrived"


def refuse_network(scene: Scene, rng: random.Random) -> str:
    """M15: the hospital can't be reached."""
    proxy = scene.proxies[scene.hospital(rng)]
    before = proxy.turned_away
    proxy.refuse()
    try:
        time.sleep(rng.uniform(5, 10))
    finally:
        proxy.heal()
    assert proxy.turned_away > before, "nobody asked"
    return f"{proxy.turned_away - before} connections refused"


def slow_network(scene: Scene, rng: random.Random) -> str:
    """M15: every packet waits."""
    proxy = scene.proxies[scene.hospital(rng)]
    assert proxy.connections > 0
    proxy.delay_s = 0.1
    try:
        time.sleep(rng.uniform(5, 10))
    finally:
        proxy.delay_s = 0.0
    return f"{proxy.connections} connections with 100 ms more a packet"


def kill_dump_thread(scene: Scene, rng: random.Random) -> str:
    """M4"""
    server = scene.stage.hospitals[scene.hospital(rng)].sql
    query = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
    killed = 0
    for _ in range(3):
        eventually(lambda: bool(server.execute(query)), "a reader", 30)
        for (number,) in server.execute(query):
            with contextlib.suppress(pymysql.err.MySQLError):
                server.execute(f"KILL {number}")
                killed += 1
        time.sleep(0.5)
    assert killed > 0
    return f"{killed} dump threads killed"


def too_many_connections(scene: Scene, rng: random.Random) -> str:
    """M15: every connection of the account is cut and no new one given."""
    server = scene.stage.hospitals[scene.hospital(rng)].sql
    accounts = [f"'{user}'@'{host}'" for user, host in _accounts(server)]
    assert accounts
    for account in accounts:
        server.execute(f"ALTER USER {account} WITH MAX_USER_CONNECTIONS 1")
    try:
        mine = server.execute(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'passport'"
        )
        for (number,) in mine:
            with contextlib.suppress(pymysql.err.MySQLError):
                server.execute(f"KILL {number}")
        time.sleep(rng.uniform(5, 8))
    finally:
        for account in accounts:
            server.execute(f"ALTER USER {account} WITH MAX_USER_CONNECTIONS 0")
    return f"{len(mine)} connections killed, 1 allowed for a while"


def _accounts(server: Any) -> Any:
    return server.execute("SELECT User, Host FROM mysql.user WHERE User = 'passport'")


# --- what is read


def purge_binlog(scene: Scene, rng: random.Random) -> str:
    """M5: while nobody reads."""
    key = scene.hospital(rng)
    server, readers = scene.stage.hospitals[key].sql, scene.readers[key]
    for role in readers:
        role.kill()
    scene.gaps.add(key)
    time.sleep(2)
    server.execute("FLUSH BINARY LOGS")
    (last, *_) = server.execute("SHOW MASTER STATUS")[0]
    eventually(lambda: _purged(server, str(last)), "a purge: no dump thread holds the old file", 30)
    said = sum(role.said().count("new epoch") for role in readers)
    for role in readers:
        role.start()
    eventually(
        lambda: sum(role.said().count("new epoch") for role in readers) > said, "a new epoch", 40
    )
    return f"everything before {last} purged; a new epoch was begun"


def _purged(server: Any, last: str) -> bool:
    """Purge the files before `last`. A file that a reader still gets stays, without an error."""
    server.execute(f"PURGE BINARY LOGS TO '{last}'")
    return bool(server.execute("SHOW BINARY LOGS")[0][0] == last)


def alter_table(scene: Scene, rng: random.Random) -> str:
    """M11"""
    server = scene.stage.hospitals[scene.hospital(rng)].sql
    name = f"soak_{rng.randrange(10**9)}"
    server.execute(f"ALTER TABLE openmrs.obs ADD COLUMN {name} INT NULL FIRST")
    assert server.execute(f"SHOW COLUMNS FROM openmrs.obs LIKE '{name}'")
    time.sleep(1)
    server.execute(f"ALTER TABLE openmrs.obs DROP COLUMN {name}")
    return f"column {name} came and went"


def poison(scene: Scene, rng: random.Random) -> str:
    """K5: what nobody of ours wrote is parked, and the partition goes on."""
    stage = scene.stage
    values = [b'{"v": 1, "kind', b'{"v": 99}', b"\x00\xff", b"[]", b'{"v":1,"kind":"row","op":"c"}']
    producer = KafkaProducer(bootstrap_servers=stage.kafka.url, max_block_ms=20_000)
    try:
        for value in values:
            partition = rng.choice([one.partition for one in stage.hospitals.values()])
            producer.send("openmrs.changes", value=value, partition=partition).get(20)
    finally:
        producer.close()
    scene.poison += len(values)
    return f"{len(values)} records that are no events"


KINDS: Mapping[str, Kind] = {
    one.__name__: one
    for one in (
        kill_reader,
        kill_consumer,
        kill_reconciler,
        kill_all,
        freeze_reader,
        freeze_consumer,
        freeze_both_consumers,
        swap_behind_a_snapshot,
        end_role,
        rebalance_storm,
        kill_mysql,
        kill_kafka,
        kill_mongo,
        freeze_mysql,
        freeze_kafka,
        freeze_mongo,
        step_down,
        cut_network,
        hang_network,
        refuse_network,
        slow_network,
        kill_dump_thread,
        too_many_connections,
        purge_binlog,
        alter_table,
        poison,
    )
}


# --- small ones


def active(readers: list[Role]) -> Role:
    """Return the reader that holds the lease, which is the one that said so last."""
    running = [one for one in readers if one.running]
    assert running
    return max(running, key=_since)


def _since(role: Role) -> str:
    """Return an ISO time, or "" for never."""
    lines = [line for line in role.said().splitlines() if '"lease taken"' in line]
    return str(json.loads(lines[-1])["timestamp"]) if lines else ""


@contextlib.contextmanager
def frozen(role: Role) -> Iterator[None]:
    """Stop the role with SIGSTOP, prove it, and let it go on with SIGCONT."""
    role.require_running()
    assert role.process is not None
    role.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: _state(role) == "T", f"{role} stops", 5)
        yield
        assert _state(role) == "T"
    finally:
        role.process.send_signal(signal.SIGCONT)


def _state(role: Role) -> str:
    assert role.process is not None
    return Path(f"/proc/{role.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def _killed(victims: list[Role]) -> str:
    for victim in victims:
        victim.kill()
    for victim in victims:
        victim.start()
        assert victim.pids[-1] != victim.pids[-2]
    return f"killed: {', '.join(map(str, victims))}"


def _restarted(server: Server) -> str:
    before = server.pid
    assert before is not None
    server.kill()
    assert server.pid is None
    server.start()
    assert server.pid not in (None, before)
    return f"pid {before} -> {server.pid}"


def _paused(server: Server, rng: random.Random) -> str:
    seconds = rng.uniform(5, 15)
    pid = server.pid
    assert pid is not None
    server.pause()
    try:
        eventually(
            lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
            "it stops",
            5,
        )
        time.sleep(seconds)
        assert not server.answers()
    finally:
        server.resume()
    eventually(server.answers, "it answers again")
    return f"pid {pid} stood still for {seconds:.0f} s"
