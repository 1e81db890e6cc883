"""The demo's servers, hospitals and settings; all of it ends with the context."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import yaml
from pymongo import MongoClient
from pymongo.database import Database

from dev.hospital import NATIONAL_ID_TYPE, create, recorded
from dev.stack import Kafka, MariaDB, Mongo

FOLDER = Path(__file__).parents[2] / ".stack" / "demo"
TIMEZONE = "Africa/Kigali"
REAL = "real"  # the hospital of `DATA=folder`; nothing but its own recording writes into it
LIVE = 400  # the recorded transactions that are played while the clinics work
NAMES = {
    "kigali": "Kigali University Hospital",
    "huye": "Huye District Hospital",
    REAL: "Hospital of the data folder",
}


@dataclass(frozen=True)
class Site:
    """What the demo works on: its servers by hospital id, its settings file and the Passport."""

    config: Path
    hospitals: dict[str, MariaDB]
    kafka: Kafka
    mongo: Mongo
    passport: Database[dict[str, Any]]
    url: str  # of the pages

    def connect(self, hospital: str) -> "pymysql.Connection[Any]":
        """Return a connection of the hospital's own application, which may write."""
        return self.hospitals[hospital].connect(database="openmrs", autocommit=False)

    def command(self, *words: str) -> list[str]:
        """Return the command line of `passport <words>` with the demo's settings."""
        return [sys.executable, "-m", "passport", "--config", str(self.config), *words]


@contextmanager
def site(
    *,
    seed: int,
    patients: int,
    data: Path | None,
    portal: dict[str, Any],
    say: Callable[[str], None],
) -> Iterator[Site]:
    """Start fresh servers, fill the hospitals, and stop everything with the block.

    Each generated hospital gets `patients` patients. `data` is a folder with a load.py, or with a
    recorded OpenMRS, that fills a third hospital; `portal` is that section of the settings; `say`
    shows what takes its time.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    names = ["kigali", "huye"]
    if data is not None:
        names.append(REAL)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        hospitals = {name: MariaDB(FOLDER / name) for name in names}
        kafka = Kafka(FOLDER / "kafka")
        mongo = Mongo(FOLDER / "mongo")
        place = FOLDER.relative_to(FOLDER.parents[1])
        say(f"starting MariaDB for {', '.join(names)}, Kafka and MongoDB in {place}")
        servers = [*hospitals.values(), kafka, mongo]
        for server in servers:
            stack.callback(server.stop)
        # `list` waits for all of them, and raises what one of them raised.
        list(pool.map(lambda server: server.start(), servers))
        say(f"filling the hospitals with {patients} patients each")
        list(pool.map(lambda name: _fill(hospitals[name], name, seed, patients, data), names))
        client: MongoClient[dict[str, Any]] = MongoClient(mongo.url)
        stack.callback(client.close)
        config = FOLDER / "local.yaml"
        settings = _settings(hospitals, kafka, mongo) | {"portal": portal}
        config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        url = f"http://127.0.0.1:{portal['port']}"
        yield Site(config, hospitals, kafka, mongo, client["passport"], url)


def hospital_settings(
    name: str, partition: int, port: int, *, user: str, password: str
) -> dict[str, Any]:
    """Return the entry of one generated hospital in the settings' `hospitals`."""
    return {
        "name": name,
        "partition": partition,
        "timezone": TIMEZONE,
        "national_id_type": NATIONAL_ID_TYPE,
        "locales": ["en", "fr"],
        "mysql": {"host": "127.0.0.1", "port": port, "user": user, "password": password},
    }


def _fill(server: MariaDB, name: str, seed: int, patients: int, data: Path | None) -> None:
    server.execute("CREATE DATABASE openmrs CHARACTER SET utf8mb4")
    if name == REAL and data is not None and recorded.is_recorded(data):
        recorded.load(data, server)
        with recorded.playback(data, server) as recording:
            recording.play(recording.left - LIVE)
        return
    if name == REAL and data is not None:
        load = [sys.executable, str(data / "load.py")]
        command = [*load, "--port", str(server.port), "--user", "root"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return
    with server.connect(database="openmrs", autocommit=False) as connection:
        # The name's length tells the two hospitals apart: they must not get the same patients.
        create(connection, seed=seed + len(name), patients=patients)


def _settings(hospitals: dict[str, MariaDB], kafka: Kafka, mongo: Mongo) -> dict[str, Any]:
    entries = {}
    for partition, (name, server) in enumerate(hospitals.items()):
        entries[name] = hospital_settings(
            NAMES[name], partition, server.port, user="root", password=""
        )
    options = {
        "uri": mongo.url,
        "database": "passport",
        "link_key": "of the demo, not of a country",
    }
    return {
        "hospitals": entries,
        "kafka": {"bootstrap": kafka.url},
        "destinations": {"passport": {"type": "mongo", "options": options}},
    }
