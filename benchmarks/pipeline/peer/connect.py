"""One standalone Connect worker with both connectors, tuned; its jars by Maven."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.capture.debezium import VERSION as DEBEZIUM
from dev.stack import install, ports
from tests.e2e.stage import Hospital, Stage
from tests.eventually import eventually

CONNECT, SINK = "4.1.0", "2.0.1"  # the newest that Maven Central has of these artifacts
PARTITIONS, SINK_TASKS = 4, 2
DATABASE, COLLECTION, TOPIC = "peer", "obs", "peer.obs"
JVM = (
    "-Xms256M",
    "-Xmx2G",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
)
HANDLER = "com.mongodb.kafka.connect.sink.cdc.debezium.rdbms.mysql.MysqlHandler"
STREAMING = re.compile(r"Connected to binlog at|Keepalive thread is running")
REFUSED = re.compile(r"Stopping after connector error|unrecoverable exception")
# What the worker brings itself must not be in a plugin's folder.
PROVIDED = re.compile(
    r"(kafka-clients|connect-api|slf4j-api|lz4-java|snappy-java|zstd-jni)-.*\.jar"
)
LOGGING = """\
Configuration:
  Appenders: {Console: {name: STDOUT, PatternLayout: {pattern: "[%d] %p %m (%c)%n"}}}
  Loggers: {Root: {level: INFO, AppenderRef: [{ref: STDOUT}]}}
"""


class Peer:
    """The Connect worker of one hospital.

    Its folder keeps the source's offsets, so that it goes on where it was.
    """

    def __init__(self, stage: Stage, hospital: Hospital) -> None:
        self._stage = stage
        self._hospital = hospital
        self._folder = stage.folder / "peer"
        self._folder.mkdir()
        self._make_topic()

    @contextmanager
    def running(self, *, snapshot: bool, sink: bool = True) -> Iterator[int]:
        """Yield its pid once it reads the binlog or, with `snapshot`, has begun to take one."""
        log = self._folder / "log"
        begun = log.stat().st_size if log.exists() else 0
        with log.open("ab") as said:
            process = subprocess.Popen(
                self._command(snapshot=snapshot, sink=sink), stdout=said, stderr=said
            )
        try:
            if not snapshot:
                eventually(lambda: self._reads(log, begun), "Debezium reads the binlog", 120)
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)

    def note_position(self, write: Any) -> None:
        """Begin at the binlog's end and stop there.

        Without an event no offset would be stored: `write` makes one.
        """
        with self.running(snapshot=False, sink=False):
            write()
            eventually(lambda: self._sent() > 0, "Debezium has sent a row")
            time.sleep(2)

    def rows(self) -> int:
        return int(self._stage.client[DATABASE][COLLECTION].estimated_document_count())

    def _sent(self) -> int:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self._stage.kafka.url)
        try:
            ends = consumer.end_offsets(
                [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
            )
            return sum(ends.values())
        finally:
            consumer.close()

    def _reads(self, log: Path, begun: int) -> bool:
        said = log.read_text(encoding="utf-8", errors="replace")[begun:]
        assert not REFUSED.search(said), f"less {log}\n{said[-2000:]}"
        return bool(STREAMING.search(said))

    def _make_topic(self) -> None:
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self._stage.kafka.url)
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
        admin.close()

    def _command(self, *, snapshot: bool, sink: bool) -> list[str]:
        worker, plugins = jars()
        logging = self._write("log4j2.yaml", LOGGING)
        files = [
            self._properties("worker", self._worker(plugins)),
            self._properties("source", self._source("initial" if snapshot else "no_data")),
        ]
        if sink:
            files.append(self._properties("sink", self._sink()))
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        jvm = [*JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{worker}/*"]
        return [str(install.java()), *jvm, main, *files]

    def _worker(self, plugins: Path) -> dict[str, Any]:
        json = "org.apache.kafka.connect.json.JsonConverter"
        return {
            "bootstrap.servers": self._stage.kafka.url,
            "listeners": f"http://127.0.0.1:{ports.kept(self._folder / 'port', 0)}",
            "plugin.path": plugins,
            "offset.storage.file.filename": self._folder / "offsets",
            "offset.flush.interval.ms": 1000,
            **{f"{part}.converter": json for part in ("key", "value")},
            **{f"{part}.converter.schemas.enable": "false" for part in ("key", "value")},
        }

    def _source(self, snapshot: str) -> dict[str, Any]:
        return {
            "name": "source",
            "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
            "database.hostname": "127.0.0.1",
            "database.port": self._hospital.sql.port,
            "database.user": "root",
            "database.password": "",
            "database.server.id": 5401,
            "database.ssl.mode": "disable",
            "topic.prefix": "peer",
            "database.include.list": "openmrs",
            "table.include.list": "openmrs.obs",
            "snapshot.mode": snapshot,
            "include.schema.changes": "false",
            "tombstones.on.delete": "false",
            "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
            "schema.history.internal.file.filename": self._folder / "history",
            "transforms": "one",
            "transforms.one.type": "org.apache.kafka.connect.transforms.RegexRouter",
            "transforms.one.regex": ".*",
            "transforms.one.replacement": TOPIC,
            "max.batch.size": 8192,
            "max.queue.size": 32768,
            "poll.interval.ms": 10,
            "producer.override.compression.type": "lz4",
            "producer.override.batch.size": 262144,
            "producer.override.linger.ms": 0,
        }

    def _sink(self) -> dict[str, Any]:
        return {
            "name": "sink",
            "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
            "tasks.max": SINK_TASKS,
            "topics": TOPIC,
            "connection.uri": self._stage.mongo.url,
            "database": DATABASE,
            "collection": COLLECTION,
            "change.data.capture.handler": HANDLER,
            "max.batch.size": 2000,
            "consumer.override.max.poll.records": 4000,
            "consumer.override.max.partition.fetch.bytes": 4194304,
        }

    def _properties(self, name: str, values: Mapping[str, Any]) -> str:
        lines = [f"{key}={value}\n" for key, value in values.items()]
        return self._write(f"{name}.properties", "".join(lines))

    def _write(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)


def jars() -> tuple[Path, Path]:
    """Return the folders of the worker's jars and of the plugins, fetched the first time."""
    folder = install.once(f"connect/{CONNECT}-{DEBEZIUM}-{SINK}", _fetch)
    return folder / "worker", folder / "plugins"


def _fetch(folder: Path) -> None:
    place = f"{install.cache()} (120 MB)"
    install.say(f"fetching Kafka Connect {CONNECT} and two connectors with Maven into {place}")
    here = Path(__file__).parent
    for name, subfolder, version in (
        ("worker", "worker", f"connect.version={CONNECT}"),
        ("source", "plugins/source", f"debezium.version={DEBEZIUM}"),
        ("sink", "plugins/sink", f"sink.version={SINK}"),
    ):
        install.jars(folder / subfolder, here / f"{name}-pom.xml", f"-D{version}")
    for jar in (folder / "plugins").rglob("*.jar"):
        if PROVIDED.fullmatch(jar.name):
            jar.unlink()
