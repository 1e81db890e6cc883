"""A hospital on a MariaDB Galera Cluster: real nodes, one of which is read."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs

from cdc.positions import Snapshot
from dev.stack import MariaDB
from tests.eventually import eventually
from tests.hospitals import PASSWORD, checked, hospital, reading, saved
from tests.integration.plain import held, told
from tests.integration.test_hidden_changes import NEW_OBS, in_binlog, refused
from tests.reader_process import catch_up

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PROVIDER.exists(), reason="Debian's galera-4 is not installed"),
]

StartNode = Callable[..., MariaDB]


@pytest.fixture
def start_node() -> Iterator[StartNode]:
    """``start_node(*flags)``: one more node of the same cluster. It takes its state by rsync."""
    with TemporaryDirectory() as folder:
        yield from _start_nodes(Path(folder))


def _start_nodes(folder: Path) -> Iterator[StartNode]:
    nodes: list[MariaDB] = []
    ports: list[int] = []

    def start(*flags: str) -> MariaDB:
        joins = ",".join(f"127.0.0.1:{port}" for port in ports)
        ports.append(_free_port())
        node = MariaDB(folder / f"node{len(ports)}", flags=[*_options(ports[-1], joins), *flags])
        if nodes:
            _let_rsync_write(node.data)
        nodes.append(node)
        node.start()
        eventually(lambda: _status(node, "wsrep_local_state_comment") == "Synced", "it has joined")
        assert _status(node, "wsrep_cluster_size") == str(len(nodes))
        return node

    yield start
    for node in nodes:
        node.kill()


def _let_rsync_write(data: Path) -> None:
    """Make the folder that a node's state is written to. As root, rsync's daemon is nobody."""
    data.mkdir(parents=True)
    if os.geteuid() == 0:
        data.parents[1].chmod(0o755)
        shutil.chown(data, "nobody")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _options(port: int, joins: str) -> list[str]:
    """Return the options of a node that talks to others at `port`; `joins` are the others."""
    provider = f"gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{_free_port()}"
    return [
        "--wsrep-on=ON",
        f"--wsrep-provider={PROVIDER}",
        f"--wsrep-provider-options={provider}",
        f"--wsrep-cluster-address=gcomm://{joins}",
        f"--wsrep-node-address=127.0.0.1:{port}",
        f"--wsrep-sst-receive-address=127.0.0.1:{_free_port()}",
        "--wsrep-sst-method=rsync",
        "--innodb-autoinc-lock-mode=2",
    ]


def _status(node: MariaDB, name: str) -> str:
    ((_, value),) = node.execute(f"SHOW STATUS LIKE '{name}'")
    return str(value)


@pytest.mark.parametrize("gtid_mode", ["OFF", "ON"])
def test_a_node_is_recognised_and_read(
    start_node: StartNode, kafka_bootstrap: str, gtid_mode: str
) -> None:
    node = start_node(
        "--log-slave-updates=1", f"--wsrep-gtid-mode={gtid_mode}", "--wsrep-gtid-domain-id=7"
    )
    address = hospital(node, patients=2)
    settings = reading(address, kafka_bootstrap)
    service = checked(settings)["service"]
    assert "Galera" in service.detail
    assert service.ok is (True if gtid_mode == "ON" else None)
    catch_up(settings)
    before = saved(settings)
    assert in_binlog(node, lambda: node.execute("USE openmrs", NEW_OBS))
    catch_up(settings)
    assert told(settings) == held(address)
    assert saved(settings).epoch == before.epoch
    domain = "7" if gtid_mode == "ON" else "0"
    assert saved(settings).gtid_set.startswith(f"{domain}-")


def test_a6_a_node_that_does_not_log_what_others_write_stops_the_reader(
    start_node: StartNode, kafka_bootstrap: str
) -> None:
    node = start_node("--log-slave-updates=0")
    settings = reading(hospital(node, patients=2), kafka_bootstrap)
    assert "a node of a Galera cluster" in refused(settings).reason
    failed = checked(settings)["log_slave_updates"]
    assert failed.ok is False
    assert "log_slave_updates=ON" in failed.hint


def test_what_another_node_writes_is_read_and_then_that_node_itself(
    start_node: StartNode, kafka_bootstrap: str
) -> None:
    flags = ("--log-slave-updates=1", "--wsrep-gtid-mode=ON", "--wsrep-gtid-domain-id=7")
    first = start_node(*flags)
    address = hospital(first, patients=2)
    settings = reading(address, kafka_bootstrap)
    catch_up(settings)
    second = start_node(*flags)
    count = "SELECT COUNT(*) FROM openmrs.obs"

    def write(writer: MariaDB, other: MariaDB) -> None:
        writer.execute("USE openmrs", NEW_OBS)
        eventually(lambda: other.execute(count) == writer.execute(count), "the other node has it")

    assert in_binlog(first, lambda: write(first, second))
    assert in_binlog(first, lambda: write(second, first))
    catch_up(settings)
    assert told(settings) == held(address)
    # The state transfer ends the donor's binlog file without an end, as a crash does.
    before = saved(settings)
    assert before.snapshot == Snapshot(2, "done")

    # The first node is gone, and the second one has its address.
    elsewhere = address._replace(port=second.port)
    mysql = elsewhere.settings(user="cdc", password=PASSWORD)
    moved = settings.hospitals["kigali"].model_copy(update={"mysql": mysql})
    settings = settings.model_copy(update={"hospitals": {"kigali": moved}})
    first.kill()
    eventually(lambda: _status(second, "wsrep_cluster_status") != "Primary", "it has noticed")
    second.execute("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
    eventually(lambda: _status(second, "wsrep_ready") == "ON", "the second node works alone")
    second.execute("USE openmrs", NEW_OBS)
    with capture_logs() as logs:
        catch_up(settings)
    assert any("going on by GTID" in entry["event"] for entry in logs)
    assert told(settings) == held(elsewhere)
    assert saved(settings).epoch > before.epoch
