"""Connections that break, servers that die, stand still or refuse: noticed, said, and gone on from
where it was.
"""

import ipaddress
import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY

from cdc import retention
from cdc.binlog.stream import BinlogStream
from cdc.lease import server_id
from cdc.positions import Positions
from dev.stack import Kafka, MariaDB, MySQL
from openmrs.connection import connect
from openmrs.read import Source
from openmrs.tables import KEY_COLUMNS, ROW_COLUMNS
from passport import health
from passport.errors import Fatal, Retry
from passport.event import Event, RowEvent
from passport.kafka import topic_offsets
from passport.settings import Settings, Tls
from tests import stream
from tests.eventually import eventually
from tests.hospitals import (
    PASSWORD,
    Server,
    assert_equal,
    clinic,
    hospital,
    is_published,
    log,
    reading,
    saved,
)
from tests.proxy import GREETING, HEAD, ROWS, TABLE_MAP, Fault, Proxy
from tests.reader_process import catch_up, running, spawn
from tests.servers import Address, fresh_name

BIG = 50_000
KILLS = 30  # a connection takes a second or two to be there again, on a busy machine four


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def address(request: pytest.FixtureRequest, module_own: Callable[..., Any]) -> Address:
    """A hospital of each flavour, whose server is not broken: what is in between is."""
    return hospital(module_own(MariaDB if request.param == "mariadb" else MySQL), patients=5)


# What is between the two: the reader's own part, the same whatever the server is.
network = pytest.mark.parametrize(
    "address",
    ["mariadb", pytest.param("mysql", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)


@pytest.fixture
def proxy(address: Address) -> Iterator[Proxy]:
    with Proxy(address.port) as proxy:
        yield proxy


def through(proxy: Proxy, address: Address, bootstrap: str, **changes: Any) -> Settings:
    """The reader's connections go through the proxy, and it can see what they carry."""
    address.execute("CREATE USER IF NOT EXISTS cdc@'%'")
    fast = {
        "read_timeout_s": 2,
        "connect_timeout_s": 2,
        "tls": Tls(mode="disabled"),
        **changes.pop("mysql", {}),
    }
    mysql = address.settings(user="cdc", password=PASSWORD, port=proxy.port, **fast)
    return stream.settings(mysql, bootstrap, fresh_name(), **changes)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """``start(settings, folder=...)``: a reader's process, killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        settings: Settings, folder: Path = tmp_path, *words: str
    ) -> "subprocess.Popen[bytes]":
        folder.mkdir(exist_ok=True)
        started.append(spawn(settings, folder, *words))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def says(folder: Path, words: str, times: int = 1, within_s: float = 90) -> Iterator[None]:
    """Wait until the reader's log has these words, after what is done in the block."""
    yield
    eventually(
        lambda: log(folder).count(words) >= times,
        lambda: f"the reader says {words!r}:\n{log(folder)[-3000:]}",
        within_s,
    )


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(f"passport_cdc_{name}", {"hospital": "kigali"}) or 0


def ready() -> bool:
    """What /readyz says of the reader."""
    return "hospital kigali: reader" not in health.failures()


def assert_resumed(events: list[Event]) -> None:
    """In commit order; what comes twice is a stretch from some earlier transaction's begin on,
    without a hole.
    """
    versions = [event.source.version for event in stream.changes(events)]
    place = {version: number for number, version in enumerate(sorted({*versions}))}
    begins = {
        version
        for version, event in zip(versions, stream.changes(events), strict=True)
        if event.source.row == 1
    }
    for one, other in itertools.pairwise(versions):
        step = place[other] - place[one]
        assert step == 1 or (step <= 0 and other in begins), "a hole, or out of order"


def at(events: frozenset[int], after: int) -> Callable[[int, int], int | None]:
    return lambda event, size: min(after, size) if event in events else None


def half(event: int, size: int) -> int | None:
    return size // 2 if event in ROWS and size > BIG else None


def whole(events: frozenset[int]) -> Callable[[int, int], int | None]:
    return lambda event, size: size if event in events else None


CUTS = {
    "cut between the table map and its rows": Fault("cut", whole(frozenset({TABLE_MAP}))),
    "reset between the table map and its rows": Fault("reset", whole(frozenset({TABLE_MAP}))),
    "reset within a packet": Fault("reset", at(ROWS, HEAD + 5)),
    "cut within a packet's head": Fault("cut", at(ROWS, 3)),
    "cut in a big event": Fault("cut", half),
    "half-open in a big event": Fault("half-open", half),
    "half-open between events": Fault("half-open", whole(frozenset({TABLE_MAP}))),
}


@network
def test_a_connection_that_breaks_anywhere(
    address: Address, proxy: Proxy, kafka_bootstrap: str
) -> None:
    settings = through(proxy, address, kafka_bootstrap)
    catch_up(settings)
    epoch = saved(settings).epoch
    with clinic(address, rate=20), running(settings):
        for what, fault in CUTS.items():
            eventually(
                lambda: sample("connected") == 1 and ready(), "the reader is connected and ready"
            )
            before, fired = sample("disconnects_total"), proxy.fired
            proxy.arm(fault)
            big = f"UPDATE obs SET value_text = REPEAT('x', {BIG}), comments = UUID() LIMIT 1"
            address.execute("SET SESSION foreign_key_checks = 0", big)
            eventually(
                lambda before=before: sample("disconnects_total") > before,
                "the reader has lost its connection",
            )  # type: ignore[misc]
            assert proxy.fired == fired + 1, what
    catch_up(settings)
    events = assert_equal(settings, address)
    assert_resumed(events)
    assert len({event.source.version for event in stream.changes(events)}) > 50
    assert saved(settings).epoch == epoch
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


@network
@pytest.mark.parametrize("how", ["cut", "half-open"])
def test_a_handshake_that_breaks(
    address: Address, proxy: Proxy, kafka_bootstrap: str, how: Any
) -> None:
    settings = through(proxy, address, kafka_bootstrap)
    with running(settings):
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        for _ in range(3):
            before = proxy.fired
            proxy.arm(Fault(how, lambda event, _: 20 if event == GREETING else None))
            proxy.cut()
            eventually(
                lambda before=before: proxy.fired > before, "the proxy has broken a connection"
            )  # type: ignore[misc]
            eventually(lambda: sample("connected") == 1, "the reader is connected")
    catch_up(settings)
    assert_resumed(assert_equal(settings, address))


@network
def test_a_slow_and_late_connection_is_kept(
    address: Address, proxy: Proxy, kafka_bootstrap: str
) -> None:
    settings = through(proxy, address, kafka_bootstrap)
    catch_up(settings)
    with running(settings):
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        before, connections, sent = (
            sample("disconnects_total"),
            len(proxy.accepted),
            proxy.forwarded,
        )
        proxy.delay_s, proxy.bytes_per_s = 0.1, 200_000
        with clinic(address, rate=10):  # some 800 kB of binlog a second
            time.sleep(1)
        eventually(
            lambda: is_published(settings, address),
            "the topic equals the table",
        )
        assert proxy.forwarded > sent
        assert sample("disconnects_total") == before
        assert (
            len(proxy.accepted) - connections <= 1
        )  # a second one, to read rows with, may be made when it is needed
    proxy.delay_s = proxy.bytes_per_s = 0
    catch_up(settings)
    assert_resumed(assert_equal(settings, address))


@network
def test_a_server_that_hangs_up_is_not_stormed(
    address: Address, proxy: Proxy, kafka_bootstrap: str
) -> None:
    settings = through(proxy, address, kafka_bootstrap, cdc={"reconnect_max_s": 30})
    with running(settings):
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        proxy.refuses = True
        proxy.cut()
        began = len(proxy.accepted)
        time.sleep(10)
        tried = proxy.accepted[began:]
        assert 3 <= len(tried) <= 12
        assert tried[-1] - tried[-2] > 0.9, "the pause grows"
        assert not ready()
        proxy.refuses = False
        eventually(
            lambda: sample("connected") == 1 and ready(), "the reader is connected and ready"
        )


def test_an_idle_hospitals_position_moves_through_rotations(
    address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    seen = len(stream.records(settings))
    with running(settings):
        for _ in range(3):
            address.execute("FLUSH BINARY LOGS")
            newest = address.execute("SHOW BINARY LOGS")[-1][0]
            eventually(
                lambda newest=newest: saved(settings).position.file == newest,
                "the position is in the newest file",
            )  # type: ignore[misc]
            eventually(
                lambda newest=newest: stream.records(settings)[-1].source.file == newest,
                "a record is from the newest file",
            )  # type: ignore[misc]
    assert {event.kind for event in stream.records(settings)[seen:]} == {"heartbeat"}
    assert saved(settings).snapshot.number == 1  # type: ignore[union-attr]


def test_headroom_reaches_nothing_before_the_file_is_purged(
    address: Address, kafka_bootstrap: str
) -> None:
    settings = reading(address, kafka_bootstrap)
    with running(settings):
        address.execute("SET GLOBAL binlog_expire_logs_seconds = 2000000")
        eventually(
            lambda: sample("binlog_headroom_seconds") > 1e6,
            "the headroom follows the server's variable",
        )
    address.execute("UPDATE obs SET comments = UUID() ORDER BY obs_id LIMIT 1")
    catch_up(settings)
    at = saved(settings)
    source = Source("kigali", settings.hospitals["kigali"].mysql)
    address.execute("SET GLOBAL binlog_expire_logs_seconds = 5")
    try:
        assert retention.read_headroom(source, at.position, at.ts_ms)[0] == 5, (
            "its file is still written"
        )
        told: list[float] = []
        while at.position.file in [
            row[0] for row in address.execute("FLUSH BINARY LOGS", "SHOW BINARY LOGS")
        ]:
            told.append(retention.read_headroom(source, at.position, at.ts_ms)[0])
            assert len(told) < 100
            time.sleep(0.5)
        assert told == sorted(told, reverse=True)
        assert 5 > told[0] > told[-1]
        assert told[-1] < 1
        assert retention.read_headroom(source, at.position, at.ts_ms)[0] == 0
    finally:
        address.execute("SET GLOBAL binlog_expire_logs_seconds = 2000000")
        source.close()


@pytest.mark.long
@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_a_frozen_server_is_noticed_within_30_s(own: Any, kafka_bootstrap: str, kind: Any) -> None:
    """With the settings as they come."""
    server = own(kind)
    address = hospital(server, patients=2)
    settings = reading(address, kafka_bootstrap).model_copy(
        update={"cdc": Settings.model_fields["cdc"].default}
    )
    assert settings.hospitals["kigali"].mysql.read_timeout_s == 20
    with running(settings):
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        time.sleep(6)
        server.pause()
        eventually(
            lambda: sample("connected") == 0 and not ready(),
            "the reader is neither connected nor ready",
        )
        server.resume()
        eventually(lambda: sample("connected") == 1, "the reader is connected")
    catch_up(settings)
    assert_equal(settings, address)


@pytest.mark.long
def test_a_reader_that_stood_still_publishes_nothing_more(
    own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path, start: Any
) -> None:
    """What came while it stood, its socket holds: it must not be published by who has lost the
    lease.
    """
    address = hospital(own_mariadb(), patients=5)
    settings = reading(address, kafka_bootstrap)
    one, other = tmp_path / "first", tmp_path / "second"
    with says(one, "reading the binlog"):
        first = start(settings, one)
    eventually(lambda: saved(settings).snapshot.state == "done", "the snapshot is done")  # type: ignore[union-attr]
    first.send_signal(signal.SIGSTOP)
    with clinic(address, rate=50):
        with says(other, "reading the binlog"):
            second = start(settings, other)
        time.sleep(1)
    eventually(
        lambda: is_published(settings, address),
        "the topic equals the table",
    )
    before = stream.records(settings)
    assert len([*stream.changes(before)]) > 50
    with says(one, "another reader holds the lease"):
        first.send_signal(signal.SIGCONT)
    time.sleep(1)
    after = stream.records(settings)[len(before) :]
    assert [event.kind for event in after if event.kind != "heartbeat"] == []
    for process in (first, second):
        process.terminate()
        assert process.wait(20) == 0
    catch_up(settings)
    assert_equal(settings, address)


@network
def test_two_readers_at_once_whose_clocks_are_wrong(
    address: Address, kafka_bootstrap: str, tmp_path: Path, start: Any
) -> None:
    """Neither sees the other's lock, and they are 20 minutes apart; a third one is right, and goes
    on.
    """
    settings = reading(address, kafka_bootstrap)
    folders = [tmp_path / "fast", tmp_path / "slow"]
    for folder, skew, number in zip(folders, (600, -600), (71, 72), strict=True):
        own = settings.hospitals["kigali"].model_copy(update={"server_id": number})
        with says(folder, "reading the binlog"):
            start(
                settings.model_copy(update={"hospitals": {"kigali": own}}),
                folder,
                f"skew={skew}",
                "unlocked",
            )
    with clinic(address, rate=30):
        time.sleep(3)
    eventually(
        lambda: is_published(settings, address),
        "the topic equals the table",
    )
    twice = [event.source.version for event in stream.changes(stream.records(settings))]
    assert len(twice) > len({*twice}) > 20, "both published"
    assert log(folders[0]).count("lease taken") == log(folders[1]).count("lease taken") == 1
    epochs = sorted({int(version[:10]) for version in twice})
    assert epochs[-1] > time.time() + 500, "it began in the future"
    before = saved(settings)
    with running(settings), clinic(address, seed=8, rate=30):
        time.sleep(2)
    catch_up(settings)
    assert saved(settings).epoch == before.epoch == epochs[-1], (
        "a clock that is right is behind, which changes nothing"
    )
    catch_up(settings, new_epoch=True)
    assert saved(settings).epoch > before.epoch
    assert_equal(settings, address)


@pytest.mark.long
def test_who_reads_with_the_same_server_id_is_named(
    address: Address, kafka_bootstrap: str, capsys: Any
) -> None:
    """Somebody else's tool: the servers end the older connection, so each must leave the other
    alone for a while.
    """
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    place = saved(settings)
    with running(settings):
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        before = sample("disconnects_total")
        rivals = []
        for _ in range(2):
            eventually(lambda: sample("connected") == 1, "the reader is connected")
            time.sleep(0.5)
            rivals.append(
                BinlogStream(
                    address.connect,
                    flavour=address.flavour,  # type: ignore[arg-type]
                    server_id=server_id(Positions(settings.kafka).reader_name("kigali")),
                    start=place.position,
                    gtid_set=place.gtid_set,
                    database="openmrs",
                    columns=place.columns,
                    row_columns=ROW_COLUMNS,
                    key_columns=KEY_COLUMNS,
                )
            )
            eventually(lambda: sample("connected") == 0, "the reader has lost its connection")
        eventually(lambda: sample("connected") == 1, "the reader is connected")
        assert 2 <= sample("disconnects_total") - before <= 4, "no storm"
        with pytest.raises(Retry, match="another replica reads with this server_id"):
            _read_on(rivals[-1])
    assert "another replica reads with this server_id" in capsys.readouterr().out
    catch_up(settings)
    assert_equal(settings, address)


def _read_on(rival: BinlogStream) -> None:
    for _ in range(100):
        rival.poll(0.1)


@pytest.mark.long
def test_a_dump_that_is_killed_again_and_again(address: Address, kafka_bootstrap: str) -> None:
    """Each time it goes on from the last transaction's end: what comes twice is a short stretch,
    never all of it.
    """
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    dump = (
        "SELECT id FROM information_schema.processlist"
        " WHERE command LIKE 'Binlog Dump%' AND user = 'cdc'"
    )
    before, killed = sample("disconnects_total"), set[int]()
    with clinic(address, rate=20), running(settings):
        while len(killed) < KILLS:
            eventually(
                lambda: bool({one for (one,) in address.execute(dump)} - killed),
                "a new dump thread reads the binlog",
            )
            for number in {one for (one,) in address.execute(dump)} - killed:
                address.execute(f"KILL {number}")
                killed.add(number)
        eventually(
            lambda: sample("disconnects_total") - before >= KILLS,
            "the reader has noticed every kill",
        )
    catch_up(settings)
    events = assert_equal(settings, address)
    assert_resumed(events)
    versions = [event.source.version for event in stream.changes(events)]
    assert len(versions) < 2 * len({*versions})


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_a_server_killed_within_transactions(own: Any, kafka_bootstrap: str, kind: Any) -> None:
    """Durable, several writers, so that commits are grouped; one transaction is open and half
    written.
    """
    server: Server = own(kind, fast=False)
    address = hospital(server, patients=5)
    settings = reading(address, kafka_bootstrap)
    with running(settings):
        for _ in range(2):
            eventually(lambda: sample("connected") == 1, "the reader is connected")
            _killed(server, address)
    catch_up(settings)
    events = assert_equal(settings, address)
    rows = [event for event in events if isinstance(event, RowEvent)]
    assert not [event for event in rows if "never committed" in str(event.after)]
    assert_resumed(events)


def _killed(server: Server, address: Address) -> None:
    died: list[str] = []

    def write(number: int) -> None:
        update = (
            f"UPDATE obs SET comments = UUID() WHERE obs_id % 4 = {number} ORDER BY RAND() LIMIT 1"
        )
        try:
            with address.connect() as connection, connection.cursor() as cursor:
                while True:
                    cursor.execute(update)
        except pymysql.MySQLError as error:
            died.append(type(error).__name__)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    half_way = address.connect(autocommit=False)
    with half_way.cursor() as cursor:
        cursor.execute("UPDATE obs SET comments = 'never committed' WHERE obs_id % 4 = 3")
    for writer in writers:
        writer.start()
    time.sleep(1)
    pid = server.pid
    server.kill()
    for writer in writers:
        writer.join()
    assert len(died) == 3
    server.start()
    assert server.pid != pid


def exits(process: "subprocess.Popen[bytes]", folder: Path, *words: str) -> None:
    """With 1, and with what to do."""
    assert process.wait(60) == 1, log(folder)
    for word in words:
        assert word in log(folder)


REFUSED = {
    "the password was rotated": (
        "ALTER USER cdc@'%' IDENTIFIED BY 'another'",
        ("refuses user 'cdc'", "1045", "-> set hospitals.kigali.mysql.user and .password"),
        f"ALTER USER cdc@'%' IDENTIFIED BY '{PASSWORD}'",
    ),
    "replication was revoked": (
        "REVOKE REPLICATION SLAVE ON *.* FROM cdc@'%'",
        ("access denied", "-> passport grants --hospital kigali"),
        "GRANT REPLICATION SLAVE ON *.* TO cdc@'%'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rights_taken_away_while_it_reads(
    address: Address, proxy: Proxy, kafka_bootstrap: str, tmp_path: Path, start: Any, what: str
) -> None:
    take, words, give = REFUSED[what]
    settings = through(proxy, address, kafka_bootstrap)
    with says(tmp_path, "reading the binlog"):
        process = start(settings)
    address.execute(take)
    try:
        proxy.cut()
        exits(process, tmp_path, *words)
    finally:
        address.execute(give)
    with clinic(address):
        time.sleep(0.5)
    catch_up(settings)
    assert_resumed(assert_equal(settings, address))


def test_a_table_taken_away_is_waited_for(
    address: Address, proxy: Proxy, kafka_bootstrap: str, tmp_path: Path, start: Any
) -> None:
    settings = through(proxy, address, kafka_bootstrap)
    with says(tmp_path, "snapshot done"):  # in the middle of which the reader ends instead
        process = start(settings)
    address.execute("REVOKE SELECT ON openmrs.obs FROM cdc@'%'")
    try:
        with says(tmp_path, "obs is not there, or not readable"):
            proxy.cut()
        assert "passport check --hospital kigali" in log(tmp_path)
    finally:
        address.execute("GRANT SELECT ON openmrs.obs TO cdc@'%'")
    with says(tmp_path, "reading the binlog", times=2):
        pass
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.parametrize("kind", [MariaDB, MySQL])
def test_certificates(
    own: Any, kafka_bootstrap: str, tmp_path: Path, start: Any, kind: Any
) -> None:
    """verify_identity: one that expires while it reads, a good one again, and one of an authority
    not trusted.
    """
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    there = tmp_path / "server"
    ours.certify(there, seconds=1_000)
    server: Server = own(
        kind,
        flags=[
            f"--ssl-ca={ours.file}",
            f"--ssl-cert={there}/cert.pem",
            f"--ssl-key={there}/key.pem",
        ],
    )
    address = hospital(server, patients=2)
    tls = Tls(mode="verify_identity", ca=str(ours.file))
    mysql = address.settings(user="cdc", password=PASSWORD, tls=tls)
    settings = stream.settings(mysql, kafka_bootstrap, fresh_name())
    with says(tmp_path, "reading the binlog"):
        process = start(settings)

    ours.certify(there, seconds=6)  # MySQL loads none that has expired already
    reloaded(server)
    time.sleep(8)
    disconnected(server)
    exits(process, tmp_path, "certificate", "has expired", "-> renew it")

    ours.certify(there, seconds=1_000)
    reloaded(server)
    foreign = address.settings(
        user="cdc", password=PASSWORD, tls=Tls(mode="verify_identity", ca=str(theirs.file))
    )
    with pytest.raises(
        Fatal,
        match=r"kigali: the TLS certificate .* \(self-signed certificate in certificate chain",
    ) as caught:
        connect("kigali", foreign)
    assert "mysql.tls.ca" in caught.value.hint
    catch_up(settings)
    assert_equal(settings, address)


def reloaded(server: Server) -> None:
    """New connections see the certificate that is there now."""
    server.execute("FLUSH SSL" if isinstance(server, MariaDB) else "ALTER INSTANCE RELOAD TLS")


def disconnected(server: Server) -> None:
    for row in server.execute("SHOW PROCESSLIST"):
        if row[1] == "cdc":
            server.execute(f"KILL {row[0]}")


class Authority:
    """Signs certificates of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name(
            [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Test CA {folder.name}")]
        )
        authority = x509.BasicConstraints(ca=True, path_length=None)
        self._write(self.file, self._signed(self._name, self._key, authority, 1_000))

    def certify(self, folder: Path, *, seconds: int) -> None:
        """cert.pem and key.pem in `folder`, good for so long."""
        folder.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hospital")])
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        self._write(folder / "cert.pem", self._signed(name, key, here, seconds))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))

    def _signed(self, name: x509.Name, key: Any, extension: Any, seconds: int) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self._name, name, key.public_key(), x509.random_serial_number()
        )
        builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(
            now + timedelta(seconds=seconds)
        )
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())

    @staticmethod
    def _write(file: Path, certificate: x509.Certificate) -> None:
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.long
@pytest.mark.parametrize("paused_s", [11, 60])
def test_a_frozen_broker_holds_the_reader_back(
    own: Any, tmp_path: Path, start: Any, paused_s: int
) -> None:
    """Nothing piles up, the position stays, and then all comes."""
    address, kafka = hospital(own(MariaDB), patients=5), own(Kafka)
    settings = reading(address, kafka.url)
    catch_up(settings)
    with says(tmp_path, "reading the binlog"):
        process = start(settings)
    resident = rss_mb(process.pid)
    rows, before = address.execute("SELECT COUNT(*) FROM obs")[0][0], sent(settings)
    kafka.pause()
    began = time.monotonic()
    for number in range(-(-30_000 // rows)):  # more than may wait for an acknowledgement
        address.execute(f"UPDATE obs SET comments = 'while it is frozen {number}'")
    while time.monotonic() < began + paused_s or "Kafka at" not in log(tmp_path):
        assert rss_mb(process.pid) < resident + 120
        assert time.monotonic() < began + paused_s + 60, "it was not noticed"
        time.sleep(0.5)
    kafka.resume()
    eventually(lambda: sent(settings) > before + 30_000, "what was held back is published", 120)
    process.terminate()
    assert process.wait(20) == 0
    catch_up(settings)
    assert_resumed(assert_equal(settings, address))


def sent(settings: Settings) -> int:
    return topic_offsets(settings.kafka, settings.kafka.topic)[0][1]


def rss_mb(pid: int) -> float:
    (line,) = [
        one
        for one in Path(f"/proc/{pid}/status").read_text().splitlines()
        if one.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024
