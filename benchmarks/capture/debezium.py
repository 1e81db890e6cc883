"""Debezium's engine: its jars by Maven, its Java compiled once, its settings tuned."""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.capture.workload import Workload
from dev.stack import install

VERSION = "3.5.0.Final"  # the newest of the MariaDB connector that Maven Central has
_HERE = Path(__file__).parent / "debezium"
_READER = _HERE / "Reader.java"
_JVM = ("-Xms256m", "-Xmx2g")
_ENGINE = """\
name=bench
connector.class=io.debezium.connector.mariadb.MariaDbConnector
offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=60000
schema.history.internal=io.debezium.storage.file.history.FileSchemaHistory
schema.history.internal.file.filename={folder}/history
topic.prefix=p
database.hostname=127.0.0.1
database.port={port}
database.user=root
database.password=
database.server.id=5401
database.ssl.mode=disable
database.include.list=openmrs
table.include.list=openmrs.obs
snapshot.mode=recovery
include.schema.changes=false
tombstones.on.delete=false
max.batch.size=8192
max.queue.size=32768
poll.interval.ms=10
key.converter.schemas.enable=false
value.converter.schemas.enable=false
"""


@contextmanager
def command(port: int, workload: Workload) -> Iterator[list[str]]:
    """Yield the command that reads the workload.

    Its offsets and its schema history are new, the history by ``recovery``.
    """
    jars, classes = compiled()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "engine.properties"
        settings.write_text(_ENGINE.format(folder=folder, port=port))
        place = [str(settings), str(workload.rows), workload.file, str(workload.pos), workload.gtid]
        yield [str(install.java()), *_JVM, "-cp", f"{classes}:{jars}/*", "Reader", *place]


def compiled() -> tuple[Path, Path]:
    """Return the folders of the jars and of our one class, made the first time."""
    jars = install.once(f"debezium/{VERSION}", _fetch)
    source = hashlib.sha256(_READER.read_bytes()).hexdigest()[:12]
    name = f"debezium/reader-{VERSION}-{source}"
    return jars, install.once(name, lambda folder: _compile(folder, jars))


def _fetch(folder: Path) -> None:
    install.say(f"fetching Debezium {VERSION} with Maven into {install.cache()} (40 MB)")
    install.jars(folder, _HERE / "pom.xml", f"-Ddebezium.version={VERSION}")


def _compile(folder: Path, jars: Path) -> None:
    folder.mkdir(parents=True)
    subprocess.run([install.javac(), "-cp", f"{jars}/*", "-d", folder, _READER], check=True)
