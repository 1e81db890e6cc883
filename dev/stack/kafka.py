"""A one-node Apache Kafka in KRaft mode, from its jars."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dev.stack import install, ports
from dev.stack.server import Server
from dev.stack.sql import copy

_SMALL = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
"""

_LOGGING = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "[%d] %p %m (%c)%n"}
  Loggers:
    Root:
      level: WARN
      AppenderRef: [{ref: STDOUT}]
"""


class Kafka(Server):
    """A broker that is its own controller. Topics are never created by themselves.

    `settings` are lines of server.properties, in which {port} and {controller} are the ports.
    `jvm` are flags of the JVM in place of those that start soonest. Those also cost the least CPU
    up to some 500,000 records; after that the full compiler (no flags but `-Xmx`) does.
    """

    def __init__(
        self,
        folder: Path | str,
        port: int = 0,
        *,
        settings: Sequence[str] = (),
        jvm: Sequence[str] = (),
        outlives: bool = False,
    ) -> None:
        super().__init__(folder, port, outlives=outlives)
        self.settings = tuple(settings)
        self.jvm = tuple(jvm)

    @property
    def url(self) -> str:
        """The bootstrap server."""
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        template = install.once(f"kafka-data-{install.KAFKA_VERSION}", _format)
        if not self.data.exists():
            copy(template, self.data)

    def command(self) -> list[str]:
        controller = ports.kept(self.folder / "controller.port")
        (self.folder / "log4j2.yaml").write_text(_LOGGING)
        settings = _SETTINGS + "\n".join(self.settings) + "\n"
        settings = settings.format(port=self.port, controller=controller, data=self.data)
        (self.folder / "server.properties").write_text(settings)
        logging = f"-Dlog4j2.configurationFile={self.folder}/log4j2.yaml"
        jvm = self.jvm or _soonest()
        file = f"{self.folder}/server.properties"
        return [*_java(), *jvm, logging, "kafka.Kafka", file]

    def answers(self) -> bool:
        if ports.is_free(self.port):
            return False
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self.url, request_timeout_ms=2_000, bootstrap_timeout_ms=2_000
            )
            brokers = admin.describe_cluster()["brokers"]
            admin.close()
        except KafkaError:
            return False
        return bool(brokers)


def _java() -> list[str]:
    # Spelled out, because the archive of classes is only good for this order.
    jars = sorted(str(jar) for jar in install.kafka_jars().glob("*.jar"))
    return [str(install.java()), "-cp", ":".join(jars)]


def _soonest() -> tuple[str, ...]:
    """Return the flags with which the broker starts soonest: in 1.1 s instead of 2.5 s.

    Loaded classes come from an archive, and only the quick compiler runs.
    """
    folder = install.once(f"kafka-classes-{install.KAFKA_VERSION}", _archive_classes)
    return (*_SMALL, f"-XX:SharedArchiveFile={folder}/broker.jsa")


def _archive_classes(folder: Path) -> None:
    folder.mkdir()
    jvm = (*_SMALL, f"-XX:ArchiveClassesAtExit={folder}/broker.jsa")
    with tempfile.TemporaryDirectory() as place, Kafka(place, jvm=jvm):
        pass  # The archive is written when the broker ends.


def _format(data: Path) -> None:
    """Format a data folder; every copy has the same cluster id, which no client minds."""
    settings = data.with_suffix(".properties")
    settings.write_text(_SETTINGS.format(port=1, controller=2, data=data))
    tool = [*_java(), *_SMALL, "kafka.tools.StorageTool"]
    command = [*tool, "format", "--cluster-id", "cGFzc3BvcnQtc3RhY2stMQ", "--config", str(settings)]
    subprocess.run(command, check=True, capture_output=True)
    settings.unlink()
