"""The servers that tests share: those the environment names, else local ones, else testcontainers'.

Local ones are started when first asked for, once a session.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

import pymysql
import pytest

from dev.stack import Fhir, Kafka, MariaDB, MariaDB118, Mongo, MySQL, MySQL57, MySQL80, install
from passport import settings
from passport.errors import Fatal
from tests import containers

VARIABLES: dict[type[MariaDB | MySQL | Kafka | Mongo | Fhir], str] = {
    MariaDB: "TEST_MYSQL_URL",
    MySQL: "TEST_MYSQL9_URL",
    MariaDB118: "TEST_MARIADB118_URL",
    MySQL80: "TEST_MYSQL80_URL",
    MySQL57: "TEST_MYSQL57_URL",
    Kafka: "TEST_KAFKA_BOOTSTRAP",
    Mongo: "TEST_MONGO_URL",
    Fhir: "TEST_FHIR_URL",
}
_NAMES = {
    MariaDB: "MariaDB",
    MySQL: "MySQL",
    MariaDB118: "MariaDB 11.8",
    MySQL80: "MySQL 8.0",
    MySQL57: "MySQL 5.7",
    Kafka: "Kafka",
    Mongo: "MongoDB",
    Fhir: "HAPI FHIR",
}
# The servers of hospitals, by the names that tests have for them as parameters.
KINDS: dict[str, type[MariaDB | MySQL]] = {
    "mariadb": MariaDB,
    "mysql": MySQL,
    "mariadb-11.8": MariaDB118,
    "mysql-8.0": MySQL80,
    "mysql-5.7": MySQL57,
}


def in_test_long(*values: Any) -> list[Any]:
    """Return parameters for which a test runs in `make test-long` only."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


ALL_VERSIONS = ["mariadb", "mysql", *in_test_long("mariadb-11.8", "mysql-8.0", "mysql-5.7")]


class Address(NamedTuple):
    """Where a hospital's server is, and the account that tests use, which is root's."""

    flavour: str  # mariadb or mysql
    host: str
    port: int
    user: str
    password: str
    database: str | None = None

    @classmethod
    def parse(cls, flavour: str, url: str) -> "Address":
        """Return the address that ``mysql://user:password@host:port/database`` names."""
        parts = urlsplit(url)
        account = unquote(parts.username or "root"), unquote(parts.password or "")
        return cls(
            flavour,
            parts.hostname or "127.0.0.1",
            parts.port or 3306,
            *account,
            parts.path[1:] or None,
        )

    def connect(self, **options: Any) -> "pymysql.Connection[Any]":
        """Open a connection, with autocommit unless `options` say otherwise."""
        merged: dict[str, Any] = {
            "autocommit": True,
            "charset": "utf8mb4",
            **self._asdict(),
            **options,
        }
        del merged["flavour"]
        connection: pymysql.Connection[Any] = pymysql.connect(**merged)
        return connection

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        """Run the statements on a connection of their own, and return the rows of the last one."""
        rows: tuple[tuple[Any, ...], ...] = ()
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall()
        return rows

    def settings(self, **changes: Any) -> settings.MySQL:
        """Return the address as a hospital's settings have it."""
        fields = {
            key: value
            for key, value in self._asdict().items()
            if key != "flavour" and value is not None
        }
        return settings.MySQL(**{**fields, **changes})


def fresh_name() -> str:
    """Return a name that no other test has."""
    return f"t_{uuid.uuid4().hex[:12]}"


@contextlib.contextmanager
def fresh_database(server: Address) -> Iterator[Address]:
    """Make an empty database, and drop it at the end."""
    name = fresh_name()
    server.execute(f"CREATE DATABASE {name}")
    try:
        yield server._replace(database=name)
    finally:
        server.execute(f"DROP DATABASE IF EXISTS {name}")


class Servers:
    """The session's servers, one of a kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._urls: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def url(self, kind: type[MariaDB | MySQL | Kafka | Mongo | Fhir]) -> str:
        """Where the server of this kind is; without one the test fails in CI and is skipped
        elsewhere.
        """
        variable = VARIABLES[kind]
        if given := os.environ.get(variable):
            return given
        if variable not in self._urls and variable not in self._failures:
            self._start(kind, variable)
        if variable in self._failures:
            unavailable(self._failures[variable])
        return self._urls[variable]

    def close(self) -> None:
        self._stack.close()

    def _start(self, kind: type[MariaDB | MySQL | Kafka | Mongo | Fhir], variable: str) -> None:
        server = kind(self._folder / kind.__name__)
        try:
            self._stack.callback(server.kill)
            server.start()
        except Fatal as local:
            try:
                self._stack.enter_context(containers.run(server))
            except containers.EngineError as error:
                self._failures[variable] = f"{local}\n  {error}\n  or set {variable}"
                return
        self._urls[variable] = server.url


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, where nothing may be skipped by accident."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no server: {reason}", pytrace=False)
    pytest.skip(f"no server: {reason}")


def described() -> str:
    """Return one line that says which servers the tests of this session get."""
    here = install.here()
    words = []
    for kind, variable in VARIABLES.items():
        name = _NAMES[kind]
        given = variable if variable in os.environ else None
        words.append(f"{name} {given or here.get(name, 'to be fetched')}")
    return f"servers: {', '.join(words)}"
