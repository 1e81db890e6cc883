"""Hospitals, their readers and a consumer that writes JSON lines.

The file says what was delivered, and the hospitals say what it should say.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from cdc import reader
from cdc.checks.grants import grants
from consumers import worker
from consumers.lookups import Lookups, RowToEnrich
from dev.hospital import NATIONAL_ID_TYPE, create
from dev.stack import MariaDB, MySQL
from openmrs.read import END_OF_BINLOG, Source
from openmrs.tables import OBS
from passport.settings import Destination, Settings
from passport.settings import MySQL as MySQLSettings
from tests.beside import beside
from tests.servers import fresh_name
from tests.settings import QUICK_CDC, build_settings, hospital_settings, kafka_settings

Server = MariaDB | MySQL
Enriched = dict[str, Any]
DESTINATION = "file"


def hospital(server: Server, *, seed: int = 1, patients: int = 20) -> None:
    """Make an OpenMRS database, and an account with only the grants that this project needs."""
    server.execute("CREATE DATABASE openmrs")
    with server.connect(database="openmrs") as connection:
        create(connection, seed=seed, patients=patients)
    flavour: Any = "mariadb" if isinstance(server, MariaDB) else "mysql"
    sql = grants(
        "any", settings({"any": server}, "unused", Path("unused")).hospitals["any"], flavour
    )
    server.execute(*[line for line in sql.splitlines() if not line.startswith("--")])


def settings(
    servers: Mapping[str, Server], bootstrap: str, path: Path, **sections: Any
) -> Settings:
    """Return the settings of hospitals by name, with topics of their own.

    The destination ``file`` writes to `path`. `sections` replace top-level keys.
    """
    hospitals = {}
    for partition, (name, server) in enumerate(servers.items()):
        mysql = MySQLSettings(
            host="127.0.0.1",
            port=server.port or 1,
            user="cdc",
            password="choose-a-password",
            database="openmrs",
        )
        hospitals[name] = hospital_settings(
            mysql,
            name=name.title(),
            partition=partition,
            national_id_type=NATIONAL_ID_TYPE,
            locales=("en_GB", "en"),
        )
    fields: dict[str, Any] = {
        "destinations": {DESTINATION: Destination(type="jsonl", options={"path": str(path)})},
        "cdc": QUICK_CDC,
        "consumer": {"retry_max_s": 1},
        **sections,
    }
    return build_settings(hospitals, kafka_settings(bootstrap, fresh_name()), **fields)


def read(given: Settings, *names: str) -> None:
    """Publish all that the hospitals' binlogs hold."""
    for name in names or given.hospitals:
        reader.run(name, given, until_caught_up=True, stop=threading.Event())


def consume(given: Settings) -> None:
    """Apply all that the topic holds."""
    worker.run(DESTINATION, given, until_caught_up=True, stop=threading.Event())


@contextmanager
def running(given: Settings, *names: str, consumer: bool = True) -> Iterator[None]:
    """Run the readers, and the consumer, in threads until the block ends."""
    roles = [(reader.run, name) for name in names or given.hospitals] + [
        (worker.run, DESTINATION)
    ] * consumer

    def work(role: Any, name: str, stop: threading.Event) -> None:
        role(name, given, until_caught_up=False, stop=stop)

    with beside(*(partial(work, *one) for one in roles)):
        yield


@dataclass
class Delivered:
    """The file's content: the newest version of each row, and how many lines have a row."""

    rows: dict[tuple[str, int], Enriched]
    lines: int
    states: dict[tuple[str, int], str]  # of persons, by their newest version

    @cached_property
    def live(self) -> dict[tuple[str, int], Enriched]:
        """The rows that are there, without how and when they came; the person as last said."""
        return {key: plain(one) for key, one in self.rows.items() if not one["deleted"]}


def delivered(path: Path) -> Delivered:
    found, retained, states, count = {}, [], dict[tuple[str, int], tuple[str, str]](), 0
    whole = path.read_text().rpartition("\n")[0]  # the last line may be being written
    for line in map(json.loads, whole.splitlines()):
        if "retain" in line:
            retained.append(line["retain"])
            persons = [line["retain"]["person"]] if "person" in line["retain"] else []
        else:
            count += 1
            one = line["observation"]
            key = one["hospital"], one["row"]["obs_id"]
            if key not in found or found[key]["version"] <= one["version"]:
                found[key] = one
            persons = [one["person"]]
        for person in persons:
            whose = person["hospital"], person["person_id"]
            states[whose] = max(states.get(whose, ("", "")), (person["version"], person["state"]))
    for retain in retained:
        for key, one in found.items():
            if (
                _scoped(retain, one)
                and key[1] not in retain["keys"]
                and one["version"] <= retain["version"]
            ):
                one["deleted"] = True
    return Delivered(found, count, {whose: state for whose, (_, state) in states.items()})


def _scoped(retain: dict[str, Any], one: Enriched) -> bool:
    if "person" in retain:
        return [one["hospital"], one["row"]["person_id"]] == [
            retain["person"][k] for k in ("hospital", "person_id")
        ]
    scope = retain["range"]
    first, to = (
        -1 if scope["first"] is None else scope["first"],
        2**62 if scope["to"] is None else scope["to"],
    )
    return bool(one["hospital"] == scope["hospital"] and first < one["row"]["obs_id"] <= to)


def plain(one: Enriched) -> Enriched:
    person = {name: value for name, value in one["person"].items() if name != "version"}
    return {
        **{name: value for name, value in one.items() if name not in ("version", "origin")},
        "person": person,
    }


def at_the_source(given: Settings, name: str) -> dict[tuple[str, int], Enriched]:
    """Return every row of the hospital, enriched with empty caches."""
    chosen = given.hospitals[name]
    source = Source(name, chosen.mysql)
    lookups = Lookups(name, chosen, source, entries=1_000_000, ttl_s=3600)
    with source.read_at(END_OF_BINLOG) as reading:
        rows = reading.facts(OBS, "1 = 1")
        found = lookups.observations_in(
            reading, [RowToEnrich(row, lookups.newest, False, "stream") for row in rows]
        )
    source.close()
    whole = [json.loads(json.dumps(msgspec.to_builtins(one))) for one in found]
    return {(name, one["row"]["obs_id"]): plain(one) for one in whole}


def assert_equal(given: Settings, path: Path, names: Sequence[str] = ()) -> Delivered:
    """Assert that the file says of every row what the hospital says, and return its content."""
    found = delivered(path)
    wanted: dict[tuple[str, int], Enriched] = {}
    for name in names or given.hospitals:
        wanted |= at_the_source(given, name)
    assert wanted
    assert found.live.keys() == wanted.keys()
    different = {
        key: [name for name in wanted[key] if found.live[key][name] != wanted[key][name]]
        for key in wanted
        if found.live[key] != wanted[key]
    }
    assert not different, dict(list(different.items())[:10])
    return found
