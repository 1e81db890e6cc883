"""`passport mapping`: what it says of a hospital is so, and it writes what was accepted alone."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.database import Database

from cli import app
from consumers.lookups import Lookups, RowToEnrich
from dev import hospital as generator
from dev.hospital import people, registration
from dev.hospital.dictionary import concept_uuid
from meaning.rules import parse
from openmrs.read import ANY_POSITION, Source
from openmrs.tables import OBS
from passport.configuration import load
from passport.settings import Settings
from passport.sink import connect
from passport.version import Version
from tests.servers import Address, fresh_name

Mongo = Database[dict[str, Any]]
REMARK = f"uuid:{concept_uuid('ward-remark')}"
LINK_KEY = "k" * 32
VERSION = str(Version(1_700_000_000, 1, 10, 1))


class Stage:
    """A hospital whose patients' rows are in the Passport, and its own mapping file."""

    def __init__(
        self, folder: Path, address: Address, mongo: Mongo, url: str, printed: Callable[[], str]
    ) -> None:
        self.address, self.mongo, self.url = address, mongo, url
        self._folder, self.printed = folder, printed
        self.mapping = folder / "kigali.yaml"
        self.mapping.write_text("version: 2\n")

    def settings(self, mapping: Path | None = None, database: str = "") -> Path:
        """Write the settings file, and return its place."""
        mysql = self.address.settings()
        options = {
            "uri": self.url,
            "database": database or self.mongo.name,
            "link_key": LINK_KEY,
        }
        kigali = {
            "name": "Kigali",
            "partition": 0,
            "timezone": "Africa/Kigali",
            "national_id_type": people.NATIONAL_ID_TYPE,
            "locales": ["en_GB", "en"],
            "mapping": str(mapping or self.mapping),
            "mysql": {
                "host": mysql.host,
                "port": mysql.port,
                "user": mysql.user,
                "password": mysql.password.get_secret_value(),
                "database": mysql.database,
            },
        }
        content = {
            "hospitals": {"kigali": kigali},
            "kafka": {"bootstrap": "127.0.0.1:1"},
            "destinations": {"passport": {"type": "mongo", "options": options}},
        }
        file = self._folder / "settings.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def run(self, *words: str) -> Any:
        """Run a verb of `passport mapping`; return its exit code."""
        self.printed()
        arguments = ["--config", str(self.settings()), "mapping", *words]
        return app(arguments, standalone_mode=False)

    def json(self, *words: str) -> Any:
        """Return what a verb prints as JSON."""
        self.run(*words, "--json")
        return json.loads(self.printed())

    def text(self, *words: str) -> str:
        self.run(*words)
        return self.printed()

    def write_all(self, settings: Settings) -> None:
        """Bring every row of the hospital to the Passport."""
        hospital = settings.hospitals["kigali"]
        with (
            closing(Source("kigali", hospital.mysql)) as source,
            closing(connect("passport", settings)) as sink,
        ):
            lookups = Lookups("kigali", hospital, source, entries=100_000, ttl_s=3600)
            with source.read_at(ANY_POSITION) as read:
                rows = read.facts(OBS, "1 = 1")
                observations = lookups.observations_in(
                    read, [RowToEnrich(row, VERSION, False, "stream") for row in rows]
                )
            sink.take("kigali")  # type: ignore[attr-defined]
            sink.write(observations)

    def records(self, mongo: Mongo) -> dict[Any, dict[str, Any]]:
        """Return what patients see, by _id."""
        return {
            record["_id"]: {name: record[name] for name in ("type", "data", "openmrsData")}
            for record in mongo.medicalrecords.find({"patientId": {"$ne": ""}})
        }

    def obs_of(self, name: str) -> list[dict[str, Any]]:
        """Return the live rows of the mirror whose question has this name."""
        query = {"deleted": False, "row.voided": 0, "concept.name": name}
        return list(self.mongo.observations.find(query))


@pytest.fixture
def stage(
    tmp_path: Path,
    mysql_database: Address,
    mongo_database: Mongo,
    mongo_url: str,
    capsys: pytest.CaptureFixture[str],
) -> Stage:
    with mysql_database.connect() as connection:
        generator.create(connection, seed=6, patients=30, visits=2)
        ids = [digits for _, digits in registration.registrable(connection)[::2]]
    registration.passport_patients(mongo_database, ids)
    there = Stage(
        tmp_path, mysql_database, mongo_database, mongo_url, lambda: capsys.readouterr().out
    )
    settings, _ = load(there.settings())
    there.write_all(settings)
    return there


@pytest.fixture
def other_passport(mongo_url: str, stage: Stage) -> Iterator[Mongo]:
    """A Passport with the same patients, to which nothing came yet."""
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        database = client[fresh_name()]
        for name in ("users", "patients"):
            database[name].insert_many(list(stage.mongo[name].find()))
        yield database
        client.drop_database(database.name)


def test_a_suggestion_is_written_only_if_a_person_accepts_it(stage: Stage) -> None:
    remarks = stage.obs_of("Ward remark")
    assert remarks
    listed = {row["concept"]: row for row in stage.json("unmapped")}
    assert listed["Ward remark"]["obs"] == len(remarks)
    before = stage.records(stage.mongo)
    app(["--config", str(stage.settings()), "unmapped", "list", "--json"], standalone_mode=False)
    assert {row["concept"] for row in json.loads(stage.printed())} == set(listed), "the old name"
    suggestions = stage.json("suggest", "--hospital", "kigali")
    assert {row["concept"] for row in suggestions} == set(listed)
    assert all(row["evidence"] for row in suggestions if row["confidence"])
    assert stage.mapping.read_text() == "version: 2\n", "to look writes nothing"
    assert stage.records(stage.mongo) == before

    prepared = stage.mapping.with_name("prepared.yaml")
    prepared.write_text("version: 2\n")
    stage.run("suggest", "--hospital", "kigali", "--accept", REMARK, "--file", str(prepared))
    [rule] = parse(yaml.safe_load(prepared.read_text())).rules
    assert rule.mappings == (REMARK,), "one rule, of the one that was accepted"
    assert stage.mapping.read_text() == "version: 2\n"
    assert stage.records(stage.mongo) == before, "and nothing is changed by writing it"

    stage.run("suggest", "--hospital", "kigali", "--accept", REMARK)
    assert [rule.mappings for rule in parse(yaml.safe_load(stage.mapping.read_text())).rules] == [
        (REMARK,)
    ]
    assert "Ward remark" not in {row["concept"] for row in stage.json("unmapped")}


def test_the_diff_counts_what_changes_when_the_file_is_used(
    stage: Stage, other_passport: Mongo
) -> None:
    prepared = stage.mapping.with_name("prepared.yaml")
    prepared.write_text(
        "version: 2\nrules:\n"
        f"  - {{kind: finding, mappings: ['{REMARK}']}}\n"
        "  - {kind: somebody_else, names: [Pulse]}\n"
        "  - {kind: visit, names: [PROBLEM LIST], values: ['CIEL:116128']}\n"
    )
    said = stage.json("diff", str(prepared), "--hospital", "kigali")
    settings, _ = load(stage.settings(prepared, other_passport.name))
    stage.write_all(settings)
    now, then = stage.records(stage.mongo), stage.records(other_passport)
    changed: Counter[tuple[str, str, str]] = Counter()
    persons: dict[tuple[str, str, str], set[int]] = {}
    for key in now.keys() | then.keys():
        if now.get(key) == then.get(key):
            continue
        record = then.get(key) or now[key]
        change = (record["data"]["name"], _kind(now.get(key)), _kind(then.get(key)))
        changed[change] += 1
        persons.setdefault(change, set()).add(record["openmrsData"]["personId"])
    assert changed["Ward remark", "note", "finding"] == len(stage.obs_of("Ward remark"))
    assert changed["Pulse", "test", "no record"] > 10
    assert {
        (row["concept"], row["before"], row["after"]): (row["records"], row["patients"])
        for row in said
    } == {change: (count, len(persons[change])) for change, count in changed.items()}
    assert stage.records(stage.mongo) == now, "and nothing was written"


def _kind(record: dict[str, Any] | None) -> str:
    if record is None:
        return "no record"
    kind = record["openmrsData"].get("kind", record["type"])
    state = record["openmrsData"].get("state")
    return f"{kind}, {state}" if state else str(kind)


def test_an_obs_is_explained_without_what_it_says_of_the_patient(stage: Stage) -> None:
    remark = stage.obs_of("Ward remark")[0]
    note = stage.json("explain", "--hospital", "kigali", "--obs", str(remark["obsId"]))
    assert note["becomes"] == "note: a record of type test"
    assert note["rule"] is None
    assert any(REMARK in change for change in note["would_change"])

    certainty = stage.obs_of("Diagnosis certainty")[0]
    part = stage.json("explain", "--hospital", "kigali", "--obs", str(certainty["obsId"]))
    assert part["becomes"].startswith("the certainty of a condition")
    assert part["rule"] == "diagnosis"
    assert part["file"] == "config/mapping.yaml"

    for row in (remark, certainty, *stage.obs_of("PROBLEM LIST")[:3]):
        text = stage.text("explain", "--hospital", "kigali", "--obs", str(row["obsId"]))
        assert row["value"]["text"] not in text
        assert row["author"]["name"] not in text


def test_a_file_is_checked_against_the_dictionary_of_the_hospital(stage: Stage) -> None:
    stage.mapping.write_text(
        "version: 2\nrules:\n"
        "  - {name: right, kind: finding, names: [Pulse]}\n"
        "  - {name: too late, kind: test, mappings: ['CIEL:5087']}\n"
        "  - {name: nowhere, kind: test, mappings: ['CIEL:50877']}\n"
    )
    words: Sequence[str] = ("check", str(stage.mapping), "--hospital", "kigali")
    found = {(row["problem"], row["place"]) for row in stage.json(*words)}
    assert {problem for problem in found if problem[0] != "stays a note"} == {
        ("shadowed", "rules: too late"),
        ("unknown code", "rules: nowhere"),
        ("matches nothing", "rules: nowhere"),
    }
    assert ("stays a note", "Ward remark") in found
    assert stage.run(*words) == 1
    stage.mapping.write_text(f"version: 2\nrules:\n  - {{kind: note, mappings: ['{REMARK}']}}\n")
    assert [row["place"] for row in stage.json(*words)] == ["ATT IMAGE ATTACHMENT"]
    assert stage.run(*words) == 0, "a concept that stays a note is no fault of the file"
