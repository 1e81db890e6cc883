"""The same servers from their official images, where a Docker engine is at hand. CI doesn't run
this way.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from dev.stack import (
    Fhir,
    Kafka,
    MariaDB,
    MariaDB118,
    Mongo,
    MySQL,
    MySQL57,
    MySQL80,
    install,
    ports,
)
from dev.stack.server import START_S

_BINLOG = "--log-bin=binlog --binlog-format=ROW --loose-binlog-row-metadata=FULL --server-id=1"
_IMAGES: dict[type[MariaDB | MySQL], str] = {
    MariaDB: "mariadb:10.11",
    MariaDB118: "mariadb:11.8",
    MySQL: "mysql:9.7",
    MySQL80: "mysql:8.0.15",
    MySQL57: "mysql:5.7.22",
}


class EngineError(Exception):
    """No Docker engine answers, or the image doesn't start."""


@contextlib.contextmanager
def run(server: MariaDB | MySQL | Kafka | Mongo | Fhir) -> Iterator[None]:
    """Run `server`'s image on its port, inside and outside alike: Kafka and MongoDB tell clients
    their own.
    """
    from docker.errors import DockerException  # type: ignore[import-untyped]

    server.folder.mkdir(parents=True, exist_ok=True)
    ports.kept(server.folder / "port")
    try:
        with _container(server):
            _wait(server)
            yield
    except DockerException as error:
        raise EngineError(f"testcontainers: {type(error).__name__}") from error


def _wait(server: MariaDB | MySQL | Kafka | Mongo | Fhir) -> None:
    deadline = time.monotonic() + START_S
    while not server.answers():
        if time.monotonic() > deadline:
            raise EngineError(f"testcontainers: no answer after {START_S} s")
        time.sleep(0.2)


def _container(server: MariaDB | MySQL | Kafka | Mongo | Fhir) -> Any:
    from testcontainers.core.container import DockerContainer

    port = server.port
    command: str | None = None
    environment: dict[str, str] = {}
    match server:
        case MariaDB():
            image = _IMAGES[type(server)]
            command = f"--port={port} --gtid-strict-mode=1 {_BINLOG}"
            environment = {"MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": "1"}
        case MySQL():
            image = _IMAGES[type(server)]
            command = f"--port={port} --gtid-mode=ON --enforce-gtid-consistency=ON {_BINLOG}"
            environment = {"MYSQL_ALLOW_EMPTY_PASSWORD": "1"}
        case Mongo():
            image, command = "mongo:7.0", f"--replSet rs0 --bind_ip_all --port {port}"
        case Kafka():
            image, environment = f"apache/kafka:{install.KAFKA_VERSION}", _kafka(port)
        case Fhir():
            image, environment = (
                f"hapiproject/hapi:v{install.HAPI_VERSION}-1",
                {"SERVER_PORT": str(port)},
            )
    container = DockerContainer(image).with_bind_ports(port, port)
    for name, value in environment.items():
        container = container.with_env(name, value)
    return container.with_command(command) if command else container


def _kafka(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
