"""The demo's servers, hospitals, settings and roles; all of it ends with the context."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import yaml
from pymongo import MongoClient
from pymongo.database import Database

from dev.hospital import NATIONAL_ID_TYPE, create
from dev.stack import Kafka, MariaDB, Mongo
from dev.stack.ports import is_free

Processes = dict[str, "subprocess.Popen[bytes]"]
FOLDER = Path(__file__).parents[2] / ".stack" / "demo"
TIMEZONE = "Africa/Kigali"
NAMES = {
    "kigali": "Kigali University Hospital",
    "huye": "Huye District Hospital",
    "real": "Hospital of the data folder",
}


@dataclass(frozen=True)
class Site:
    """What the demo works on. `hospitals`: id -> its server; `config`: the settings file that the
    roles were given.
    """

    config: Path
    hospitals: dict[str, MariaDB]
    kafka: Kafka
    mongo: Mongo
    passport: Database[dict[str, Any]]
    url: str  # of the pages

    def connect(self, hospital: str) -> "pymysql.Connection[Any]":
        """A connection of the hospital's own application (it may write)."""
        return self.hospitals[hospital].connect(database="openmrs", autocommit=False)

    def command(self, *verb: str) -> list[str]:
        return [sys.executable, "-m", "cli", "--config", str(self.config), *verb]


@contextmanager
def site(
    *,
    seed: int,
    patients: int,
    data: Path | None,
    portal: dict[str, Any],
    say: Callable[[str], None],
) -> Iterator[Site]:
    """Fresh servers with filled hospitals. Everything started here is stopped at the end."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    names = ["kigali", "huye", *(["real"] if data else [])]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        hospitals = {name: MariaDB(FOLDER / name) for name in names}
        kafka, mongo = Kafka(FOLDER / "kafka"), Mongo(FOLDER / "mongo")
        say(
            f"starting MariaDB for {', '.join(names)}, Kafka and MongoDB in {FOLDER.relative_to(FOLDER.parents[1])}"
        )
        servers = [*hospitals.values(), kafka, mongo]
        for server in servers:
            stack.callback(server.stop)
        list(pool.map(lambda server: server.start(), servers))
        say(f"filling the hospitals with {patients} patients each")
        list(pool.map(lambda name: _fill(hospitals[name], name, seed, patients, data), names))
        client: MongoClient[dict[str, Any]] = MongoClient(mongo.url)
        stack.callback(client.close)
        config = FOLDER / "local.yaml"
        tree = _settings(hospitals, kafka, mongo) | {"portal": portal}
        config.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        yield Site(
            config,
            hospitals,
            kafka,
            mongo,
            client["passport"],
            f"http://127.0.0.1:{portal['port']}",
        )


def roles(site: Site) -> AbstractContextManager[Processes]:
    """A reader for each hospital and one consumer."""
    readers = {f"cdc {name}": ("cdc", "run", "--hospital", name) for name in site.hospitals}
    return _running(site, {**readers, "consume": ("consume", "--destination", "passport")})


def portal(site: Site) -> AbstractContextManager[Processes]:
    """The pages."""
    return _running(site, {"portal": ("portal",)})


@contextmanager
def _running(site: Site, verbs: Mapping[str, Sequence[str]]) -> Iterator[Processes]:
    """Processes of their own; SIGTERM at the end."""
    started: Processes = {}
    try:
        for name, verb in verbs.items():
            started[name] = _started(site, name, verb)
        yield started
    finally:
        _end(started.values())


def _started(site: Site, name: str, verb: Sequence[str]) -> "subprocess.Popen[bytes]":
    """The consumer serves /metrics where deploy/prometheus looks for it, if the port is free."""
    port = {"consume": 9402}.get(name, 0)
    environment = {
        **os.environ,
        **({"PASSPORT_HEALTH__PORT": str(port)} if port and is_free(port) else {}),
    }
    with (FOLDER / f"{name.replace(' ', '-')}.log").open("ab") as log:
        return subprocess.Popen(
            site.command(*verb), stderr=log, stdout=log, env=environment, start_new_session=True
        )


def again(site: Site, processes: Processes, name: str, *verb: str) -> None:
    """Started once more: settings are read at the start."""
    _end([processes[name]])
    processes[name] = _started(site, name, verb)


def _end(processes: Collection["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fill(server: MariaDB, name: str, seed: int, patients: int, data: Path | None) -> None:
    server.execute("CREATE DATABASE openmrs CHARACTER SET utf8mb4")
    if name == "real" and data is not None:
        command = [
            sys.executable,
            str(data / "load.py"),
            "--port",
            str(server.port),
            "--user",
            "root",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        with server.connect(database="openmrs", autocommit=False) as connection:
            create(connection, seed=seed + len(name), patients=patients)


def _settings(hospitals: dict[str, MariaDB], kafka: Kafka, mongo: Mongo) -> dict[str, Any]:
    return {
        "hospitals": {
            name: {
                "name": NAMES[name],
                "partition": partition,
                "timezone": TIMEZONE,
                "national_id_type": NATIONAL_ID_TYPE,
                "locales": ["en", "fr"],
                "mysql": {"host": "127.0.0.1", "port": server.port, "user": "root", "password": ""},
            }
            for partition, (name, server) in enumerate(hospitals.items())
        },
        "kafka": {"bootstrap": kafka.url},
        "destinations": {
            "passport": {
                "type": "mongo",
                "options": {
                    "uri": mongo.url,
                    "database": "passport",
                    "link_key": "of the demo, not of a country",
                },
            }
        },
    }
