"""A hospital at a real server, the settings to read it, and what must be true of what was read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdc.checks.grants import grants
from cdc.checks.preflight import checks
from cdc.positions import Positions, Saved, Snapshot
from dev.hospital import create
from dev.hospital.clinic import Clinic
from dev.stack import MariaDB, MySQL
from passport.check import Check
from passport.event import Event
from passport.settings import Settings
from tests import stream
from tests.beside import beside
from tests.servers import Address, fresh_name

Server = MariaDB | MySQL
PASSWORD = "choose-a-password"


def hospital(server: Server, patients: int = 20, *, database: str = "openmrs") -> Address:
    """Make an OpenMRS database, and an account with the grants that this project asks for.

    The account can do nothing else.
    """
    server.execute(f"CREATE DATABASE `{database}`")
    create(server.connect(database=database), seed=1, patients=patients)
    address = Address(
        "mariadb" if isinstance(server, MariaDB) else "mysql", "127.0.0.1", server.port, "root", ""
    )
    address = address._replace(database=database)
    settings = stream.settings(address.settings(user="cdc"), "unused", "unused")
    sql = grants("kigali", settings.hospitals["kigali"])
    server.execute(*[line for line in sql.splitlines() if not line.startswith("--")])
    return address


def reading(address: Address, bootstrap: str, **changes: Any) -> Settings:
    """Return the settings of a reader of this hospital, with topics of its own."""
    return stream.settings(
        address.settings(user="cdc", password=PASSWORD), bootstrap, fresh_name(), **changes
    )


@contextmanager
def clinic(address: Address, *, seed: int = 7, rate: float | None = 50) -> Iterator[None]:
    """Let a clinic work in the hospital until the block ends."""

    def work(done: threading.Event) -> None:
        with address.connect(autocommit=False) as connection:
            clinic = Clinic(connection, seed=seed, rate=rate)
            while not done.is_set():
                clinic.step()

    with beside(work):
        yield


def saved(settings: Settings) -> Saved:
    """Return the saved position."""
    position = Positions(settings.kafka).load("kigali")
    assert position is not None
    return position


def is_snapshot_done(settings: Settings) -> bool:
    """Return whether the newest epoch has a position, and its snapshot is done."""
    position = Positions(settings.kafka).load("kigali")
    return position is not None and position.snapshot == Snapshot(1, "done")


def checked(settings: Settings, hospital_id: str = "kigali") -> dict[str, Check]:
    """Return what `passport check` says of the hospital, by the name of the check."""
    hospital = settings.hospitals["kigali"]
    return {check.name: check for check in checks(hospital_id, hospital, settings.kafka)}


def is_published(settings: Settings, address: Address) -> bool:
    """Return whether the topic tells what the table holds."""
    return stream.Table.of(stream.records(settings)).rows == stream.obs(address)


def assert_equal(settings: Settings, address: Address) -> list[Event]:
    """Assert that the topic tells what the table holds, and return the events."""
    events = stream.records(settings)
    assert stream.Table.of(events).rows == stream.obs(address)
    return events


def in_source_order(events: list[Event]) -> bool:
    """Return whether the first deliveries of the binlog's rows are in commit order."""
    versions = list(dict.fromkeys(event.source.version for event in stream.changes(events)))
    return versions == sorted(versions)


def log(folder: Path) -> str:
    """Return what a reader's process has logged so far."""
    file = folder / "reader.log"
    return file.read_text() if file.exists() else ""
