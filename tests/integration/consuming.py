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
    sql = grants("any", settings({"any": server}, "unused", Path("unused")).hospitals["any"])
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
    """Read the file as far as it is written."""
    rows: dict[tuple[str, int], Enriched] = {}
    states: dict[tuple[str, int], tuple[str, str]] = {}
    retained: list[dict[str, Any]] = []
    lines = 0
    whole_lines = path.read_text().rpartition("\n")[0]  # the last line may be being written
    for line in map(json.loads, whole_lines.splitlines()):
        if "retain" in line:
            retain = line["retain"]
            retained.append(retain)
            person = retain.get("person")
        else:
            lines += 1
            observation = line["observation"]
            key = observation["hospital"], observation["row"]["obs_id"]
            if key not in rows or rows[key]["version"] <= observation["version"]:
                rows[key] = observation
            person = observation["person"]
        if person is not None:
            person_key = person["hospital"], person["person_id"]
            state = person["version"], person["state"]
            states[person_key] = max(states.get(person_key, ("", "")), state)
    for retain in retained:
        for (_, obs_id), observation in rows.items():
            is_older = observation["version"] <= retain["version"]
            if _scoped(retain, observation) and obs_id not in retain["keys"] and is_older:
                observation["deleted"] = True
    return Delivered(rows, lines, {key: state for key, (_, state) in states.items()})


def _scoped(retain: dict[str, Any], observation: Enriched) -> bool:
    """Return whether the retain speaks of this row: of its person, or of a range with its key."""
    row = observation["row"]
    if "person" in retain:
        person = retain["person"]
        return bool(
            observation["hospital"] == person["hospital"]
            and row["person_id"] == person["person_id"]
        )
    scope = retain["range"]
    first = -1 if scope["first"] is None else scope["first"]
    to = 2**62 if scope["to"] is None else scope["to"]
    return bool(observation["hospital"] == scope["hospital"] and first < row["obs_id"] <= to)


def plain(observation: Enriched) -> Enriched:
    """Return the observation without the fields that say how and when it came."""
    fields = {
        name: value for name, value in observation.items() if name not in ("version", "origin")
    }
    person = observation["person"]
    fields["person"] = {name: value for name, value in person.items() if name != "version"}
    return fields


def at_the_source(given: Settings, name: str) -> dict[tuple[str, int], Enriched]:
    """Return every row of the hospital, enriched with empty caches."""
    hospital = given.hospitals[name]
    source = Source(name, hospital.mysql)
    lookups = Lookups(name, hospital, source, entries=1_000_000, ttl_s=3600)
    with source.read_at(END_OF_BINLOG) as read:
        rows = [
            RowToEnrich(row, lookups.newest, False, "stream") for row in read.facts(OBS, "1 = 1")
        ]
        observations = lookups.observations_in(read, rows)
    source.close()
    by_key = {}
    for observation in observations:
        document = json.loads(json.dumps(msgspec.to_builtins(observation)))
        by_key[name, document["row"]["obs_id"]] = plain(document)
    return by_key


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
