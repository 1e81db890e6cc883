"""Servers for tests: shared ones (each test in a database or topic of its own), and own ones to be
broken.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import hypothesis
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from prometheus_client.metrics import MetricWrapperBase
from pymongo import MongoClient
from pymongo.database import Database

from dev.stack import Fhir, Kafka, MariaDB, Mongo, MySQL
from passport import health, kafka, metrics
from passport.errors import Fatal
from tests import passport_shapes
from tests.servers import (
    ALL_VERSIONS,
    KINDS,
    Address,
    Servers,
    described,
    fresh_database,
    fresh_name,
    unavailable,
)

S = TypeVar("S", MariaDB, MySQL, Kafka, Mongo, Fhir)


def pytest_report_header() -> str:
    return described()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the FHIR server is long: its jars are 286 MB."""
    for item in items:
        if "fhir_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def nothing_said_before() -> None:
    """Forget the metrics and failures of the tests before, which are kept once a process.

    A test that waits for a gauge would otherwise find the value that another test has left there.
    """
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            metric.clear()
    for part in health.failures():
        health.working(part)
    kafka.refusals.forget()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """All that this session shares."""
    folder = tmp_path_factory.mktemp("servers")
    shared = Servers(folder)
    yield shared
    shared.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mysql_url(servers: Servers) -> str:
    """A MariaDB, ``mysql://root@host:port``. Its binlog has the changes of other tests too."""
    return servers.url(MariaDB)


@pytest.fixture(scope="session")
def mysql9_url(servers: Servers) -> str:
    """A MySQL 9."""
    return servers.url(MySQL)


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: Servers) -> str:
    """``host:port`` of a broker."""
    return servers.url(Kafka)


@pytest.fixture(scope="session")
def mongo_url(servers: Servers) -> str:
    """A replica set of one."""
    return servers.url(Mongo)


@pytest.fixture(scope="session")
def fhir_url(servers: Servers) -> str:
    """The base of a FHIR R4 server."""
    return servers.url(Fhir)


@pytest.fixture(scope="session", params=ALL_VERSIONS)
def mysql_flavour(request: pytest.FixtureRequest, servers: Servers) -> Address:
    """Runs the test on MariaDB 10.11 and MySQL 9, and on the other versions in `make test-long`."""
    kind = KINDS[request.param]
    flavour = "mariadb" if issubclass(kind, MariaDB) else "mysql"
    return Address.parse(flavour, servers.url(kind))


@pytest.fixture
def mysql_database(mysql_url: str) -> Iterator[Address]:
    """An empty database of its own on MariaDB."""
    with fresh_database(Address.parse("mariadb", mysql_url)) as database:
        yield database


@pytest.fixture
def flavour_database(mysql_flavour: Address) -> Iterator[Address]:
    """An empty database of its own, on each of `mysql_flavour`."""
    with fresh_database(mysql_flavour) as database:
        yield database


@pytest.fixture
def mongo_database(
    mongo_url: str, request: pytest.FixtureRequest
) -> Iterator[Database[dict[str, Any]]]:
    """An empty database of its own; instants come back as aware datetimes.

    What the test leaves there must have the Passport's own shapes, unless it is marked `by_hand`.
    """
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        database = client[fresh_name()]
        yield database
        try:
            if request.node.get_closest_marker("by_hand") is None:
                passport_shapes.check(database)
        finally:
            client.drop_database(database.name)


@pytest.fixture
def topic() -> str:
    """A topic's name that no other test has; nothing creates it by itself."""
    return fresh_name()


@pytest.fixture
def create_topic(kafka_bootstrap: str) -> Callable[..., str]:
    """``create_topic(partitions=1, **configs) -> name``, ready to be written to."""

    def create(name: str | None = None, *, partitions: int = 1, **configs: str) -> str:
        name = name or fresh_name()
        with_dots = {key.replace("_", "."): value for key, value in configs.items()}
        admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        admin.create_topics([NewTopic(name, partitions, 1, topic_configs=with_dots)])
        admin.close()
        return name

    return create


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``own(kind, **options) -> server``: started for this test alone, killed and forgotten after
    it.
    """
    yield from _own(tmp_path_factory)


@pytest.fixture(scope="module")
def module_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """The same for all tests of a file."""
    yield from _own(tmp_path_factory)


def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    started: list[MariaDB | MySQL | Kafka | Mongo | Fhir] = []

    def start(kind: type[S], **options: Any) -> S:
        server = kind(tmp_path_factory.mktemp(kind.__name__), **options)
        started.append(server)
        try:
            return server.start()
        except Fatal as error:
            unavailable(str(error))

    yield start
    for server in started:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def own_mariadb(own: Callable[..., MariaDB]) -> Callable[..., MariaDB]:
    """``own_mariadb(flags=..., fast=..., server_id=...)``: a MariaDB to be broken."""
    return lambda **options: own(MariaDB, **options)


@pytest.fixture
def own_mysql(own: Callable[..., MySQL]) -> Callable[..., MySQL]:
    """``own_mysql(flags=..., fast=..., server_id=...)``: a MySQL 9 to be broken."""
    return lambda **options: own(MySQL, **options)


@pytest.fixture
def own_kafka(own: Callable[..., Kafka]) -> Callable[..., Kafka]:
    """``own_kafka(settings=...)``: a broker to be broken."""
    return lambda **options: own(Kafka, **options)


@pytest.fixture
def own_mongo(own: Callable[..., Mongo]) -> Callable[..., Mongo]:
    """``own_mongo()``: a replica set of one to be broken."""
    return lambda **options: own(Mongo, **options)


# A busy machine is no failure.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")
