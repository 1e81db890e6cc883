"""A stage: hospitals, Kafka and MongoDB of a test's own.

It also has the settings file for them and the roles that work on them.
"""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

import bson
import pymysql
import yaml
from pymongo import MongoClient
from pymongo.database import Database
from pymysql.constants import ER

from dev import hospital as generator
from dev.stack import Kafka, MariaDB, Mongo, MySQL
from openmrs.tables import OPTIONAL_TABLES
from passport.errors import Fatal
from tests import passport_shapes
from tests.beside import beside
from tests.e2e.roles import Role, run
from tests.eventually import eventually
from tests.oracle.compare import Comparison, compare
from tests.servers import Address, unavailable

DAY_S = 86_400.0
PASSWORD = "a-passw0rd-nobody-may-see"
LINK_KEY = "a link key of the tests, 32 letters or more"
# What moves by itself, or counts: no part of what the Passport shows.
BOOKKEEPING = frozenset({"fences", "progress", "syncstatus", "leases"})


@dataclass
class Hospital:
    """One hospital's settings, and its server once the stage is up."""

    key: str
    partition: int
    national_id_type: str
    timezone: str = "Africa/Kigali"
    locales: Sequence[str] = ("en_GB", "en")
    provider_roles: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    kind: type[MariaDB] | type[MySQL] = MariaDB
    server: MariaDB | MySQL | None = None
    # Held for a transaction where the order of the hospital's commits matters to who looks on.
    turn: Lock = field(default_factory=Lock)

    @property
    def name(self) -> str:
        return f"{self.key.capitalize()} District Hospital"

    @property
    def sql(self) -> MariaDB | MySQL:
        assert self.server is not None
        return self.server

    @property
    def flavour(self) -> str:
        return "mariadb" if self.kind is MariaDB else "mysql"

    @property
    def address(self) -> Address:
        return Address.parse(self.flavour, self.sql.url)

    def connect(self, **options: Any) -> "pymysql.Connection[Any]":
        """Connect to OpenMRS' database as root."""
        return self.sql.connect(database="openmrs", **options)

    def at_work(self, seed: int, rate: float) -> contextlib.AbstractContextManager[None]:
        """Let the generator's clinic do `rate` transactions a second until the block ends."""

        def work(done: Event) -> None:
            with self.connect(autocommit=False) as connection:
                generator.Clinic(connection, seed=seed, rate=rate).run(DAY_S, stop=done)

        return beside(work)

    def for_oracle(self) -> dict[str, Any]:
        names = ("key", "name", "timezone", "locales", "provider_roles", "national_id_type")
        return {**{name: getattr(self, name) for name in names}, "link_key": LINK_KEY}

    def as_settings(self) -> dict[str, Any]:
        mysql = {
            "host": "127.0.0.1",
            "port": self.sql.port,
            "user": "passport",
            "password": PASSWORD,
        }
        return {
            "name": self.name,
            "partition": self.partition,
            "timezone": self.timezone,
            "national_id_type": self.national_id_type,
            "locales": list(self.locales),
            "provider_roles": list(self.provider_roles),
            **self.settings,
            "mysql": {**mysql, "database": "openmrs", **self.settings.get("mysql", {})},
        }


class Stage:
    """Servers up; `config` is the settings file. Use `opened`."""

    def __init__(
        self,
        folder: Path,
        hospitals: Sequence[Hospital],
        settings: Mapping[str, Any],
        sweep_s: float = 300,
    ) -> None:
        self.folder = folder
        self.hospitals = {hospital.key: hospital for hospital in hospitals}
        self.config = folder / "passport.yaml"
        self.kafka, self.mongo = Kafka(folder / "kafka"), Mongo(folder / "mongo")
        self.roles: list[Role] = []
        # The mongo destination's options.
        self.contradictions = "count"
        self.sweep_s = sweep_s
        self._settings = settings
        self._clients = contextlib.ExitStack()

    def start_servers(self) -> None:
        for hospital in self.hospitals.values():
            hospital.server = hospital.kind(self.folder / hospital.key, flags=tuple(hospital.flags))
        servers = [self.kafka, self.mongo, *(hospital.sql for hospital in self.hospitals.values())]
        with ThreadPoolExecutor(len(servers)) as pool:
            try:
                list(pool.map(lambda server: server.start(), servers))
            except Fatal as error:
                unavailable(str(error))
        for hospital in self.hospitals.values():
            hospital.sql.execute("CREATE DATABASE openmrs CHARACTER SET utf8mb4")
        self.client: MongoClient[dict[str, Any]] = self._clients.enter_context(
            MongoClient(self.mongo.url, tz_aware=True)
        )
        self.db: Database[dict[str, Any]] = self.client["passport"]
        self.write_config()

    def write_config(self, path: Path | None = None, **changes: Any) -> Path:
        """Write the settings file. `changes` replace top-level keys."""
        options: dict[str, Any] = {
            "uri": self.mongo.url,
            "database": "passport",
            "link_key": LINK_KEY,
            "sweep_s": self.sweep_s,
        }
        if self.contradictions != "count":  # an earlier release has no such option
            options["contradictions"] = self.contradictions
        tree = {
            "hospitals": {key: hospital.as_settings() for key, hospital in self.hospitals.items()},
            "kafka": {"bootstrap": self.kafka.url},
            "destinations": {"passport": {"type": "mongo", "options": options}},
            "cdc": {"heartbeat_s": 1, "reconnect_max_s": 2},
            "logs": {"format": "json"},
            **self._settings,
            **changes,
        }
        path = path or self.config
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return path

    def fill(self, hospital: Hospital, every: int = 1, **made: Any) -> None:
        """Fill a hospital with the data that dev.hospital's `create` makes.

        Of the people who can be matched, each `every`-th registers in the Passport.
        """
        with hospital.connect() as connection:
            generator.create(connection, **made)
            able = [digits for _, digits in generator.registrable(connection)]
        generator.passport_patients(self.db, able[::every])

    def grant(self) -> None:
        """Make each hospital's account by the SQL that `passport grants` prints for its DBA."""
        for hospital in self.hospitals.values():
            for line in self.granted(hospital):
                if line.startswith("--"):
                    continue
                try:
                    hospital.sql.execute(line)
                except pymysql.err.ProgrammingError as error:
                    # The statement for what older versions of OpenMRS lack fails, and may.
                    is_optional = any(f"`{table}`" in line for table in OPTIONAL_TABLES)
                    if error.args[0] != ER.NO_SUCH_TABLE or not is_optional:
                        raise
            accounts = hospital.sql.execute(
                "SELECT User, Host FROM mysql.user WHERE User = 'passport'"
            )
            for user, host in accounts:
                hospital.sql.execute(f"ALTER USER '{user}'@'{host}' IDENTIFIED BY '{PASSWORD}'")
            assert accounts

    def granted(self, hospital: Hospital) -> list[str]:
        """Return the lines that `passport grants` prints, with the comments."""
        found = self.run("grants", "--hospital", hospital.key, "--flavour", hospital.flavour)
        assert found.returncode == 0, found.stderr
        return [line for line in found.stdout.splitlines() if line]

    def role(self, *words: str, **variables: str) -> Role:
        """Start a role with these environment variables. It ends with the stage."""
        log = self.folder / f"{len(self.roles)}-{'-'.join(words).replace('/', '_')}.log"
        role = Role(self.config, words, log, variables)
        self.roles.append(role)
        return role.start()

    def readers(self) -> dict[str, Role]:
        """Start one `cdc run` a hospital, or `reconcile` for one that is polled."""
        polling = {
            key for key, one in self.hospitals.items() if one.settings.get("capture") == "polling"
        }
        return {
            key: self.role(
                *(("reconcile",) if key in polling else ("cdc", "run")), "--hospital", key
            )
            for key in self.hospitals
        }

    def run(self, *words: str, timeout: float = 120, **extra: str) -> Any:
        return run(self.config, *words, timeout=timeout, extra=extra)

    # -- what came of it

    def compare(self, *only: str) -> Comparison:
        """Compare MongoDB with the oracle, for `only` these hospitals or for all."""
        hospitals = [one for key, one in self.hospitals.items() if not only or key in only]
        with contextlib.ExitStack() as stack:
            connections = {one.key: stack.enter_context(one.connect()) for one in hospitals}
            asked = [
                one.for_oracle() | {"contradictions": self.contradictions} for one in hospitals
            ]
            found = compare(connections, self.db, asked)
        try:
            passport_shapes.check(self.db)
        except AssertionError as faults:
            found.differences += str(faults).splitlines()
        return found

    def wait_equal(self, deadline_s: float, *only: str) -> Comparison:
        """Wait until MongoDB equals the oracle; nobody may write at the hospitals meanwhile.

        Raise an AssertionError with the differences if it does not within `deadline_s`.
        """
        end = time.monotonic() + deadline_s
        comparison = Comparison()

        def is_equal() -> bool:
            nonlocal comparison
            self._wait_quiet(end)
            for role in self.roles:
                if role.process is not None:
                    role.require_running()
            comparison = self.compare(*only)
            return not comparison.differences

        eventually(is_equal, lambda: str(comparison), deadline_s)
        return comparison.require_equal()

    def _wait_quiet(self, end: float) -> None:
        """Wait until MongoDB has not changed for a second: comparing costs more than waiting."""
        last, since = self._counts(), time.monotonic()
        while time.monotonic() < min(end, since + 1):
            time.sleep(0.2)
            if (now := self._counts()) != last:
                last, since = now, time.monotonic()

    def _counts(self) -> Any:
        operations = self.db.client.admin.command("serverStatus")["metrics"]["document"]
        return operations["inserted"], self.db["observations"].estimated_document_count()

    def fingerprint(self) -> dict[str, str]:
        """Return a hash of every field, by collection/_id/field, without the bookkeeping."""
        found = {}
        for name in self.db.list_collection_names():
            if name not in BOOKKEEPING:
                for document in self.db[name].find():
                    for field_name, value in document.items():
                        digest = hashlib.sha256(bson.encode({"": value})).hexdigest()
                        found[f"{name}/{document['_id']}/{field_name}"] = digest
        return found

    def said(self) -> str:
        """Return everything that all roles wrote."""
        return "\n".join(role.said() for role in self.roles)

    def close(self) -> None:
        for role in self.roles:
            role.stop()
        try:
            if hasattr(self, "db") and self.mongo.pid is not None:
                passport_shapes.check(self.db)  # whatever any test has left
        finally:
            self._end()

    def _end(self) -> None:
        self._clients.close()
        for server in (
            self.kafka,
            self.mongo,
            *(one.server for one in self.hospitals.values() if one.server),
        ):
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def opened(
    folder: Path, *hospitals: Hospital, sweep_s: float = 300, **settings: Any
) -> Iterator[Stage]:
    """Open a stage with its servers up. Everything is ended and deleted after it.

    `sweep_s` is the mongo destination's option. `settings` are top-level keys of the file.
    """
    stage = Stage(folder, hospitals, settings, sweep_s)
    try:
        stage.start_servers()
        yield stage
    finally:
        stage.close()
