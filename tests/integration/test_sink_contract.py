"""What every destination must do, whatever it is: those of destinations/, and the how-to's."""

import itertools
import json
import pkgutil
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pymongo import MongoClient

import destinations
from dev.hospital import passport_patients
from openmrs.tables import OBS
from passport import sink as sinks
from passport.facts import Author, Concept, Observation, Person, PersonState, Value
from passport.settings import Destination as DestinationSettings
from passport.settings import Kafka
from passport.sink import KeyRange, Progress, Sink, WantsPersons
from passport.version import Version
from tests.fhir_readers import newest, pages
from tests.servers import fresh_name
from tests.settings import build_settings, hospital_settings

ID, OTHER_ID = "1199080012345678", "1199080087654321"
WEIGHT = Concept(5089, "5089" + "A" * 32, "Weight (kg)", "Numeric", "Finding", "kg", ("CIEL:5089",))
PAGE = Path(__file__).parents[2] / "docs/how-to/add-a-destination.md"
Rows = Mapping[int, float]  # value by obs_id, of the rows that are there


def version(pos: int, row: int = 1) -> str:
    return str(Version(1_700_000_000, 1, pos, row))


def a_person(person_id: int = 7, state: PersonState = "ok", at: int = 1) -> Person:
    national_id = {7: ID, 8: OTHER_ID}.get(person_id) if state == "ok" else None
    return Person("kigali", person_id, f"person-{person_id}", state, national_id, version(at, 0))


def an_obs(
    obs_id: int, pos: int, value: float = 0, *, person: Person | None = None, deleted: bool = False
) -> Observation:
    person = person or a_person()
    row = dict.fromkeys(OBS.columns) | {
        "obs_id": obs_id,
        "person_id": person.person_id,
        "concept_id": 5089,
    }
    row |= {
        "creator": 1,
        "voided": 0,
        "status": "FINAL",
        "uuid": f"{obs_id:036d}",
        "value_numeric": float(value),
    }
    row |= {"obs_datetime": "2025-11-06T10:30:00", "date_created": "2025-11-06T10:31:00"}
    at = datetime(2025, 11, 6, 8, 30, tzinfo=UTC)
    shown = Value("numeric", str(value), number=float(value))
    author = Author("Ada Uwase", "creator", "user/u-1")
    return Observation(
        "kigali", version(pos), row, deleted, person, WEIGHT, shown, author, None, None, at, at
    )


@dataclass
class Destination:
    """One destination, as its own reader sees it."""

    connect: Callable[[], Sink]
    rows: Callable[[], Rows]
    order: str


@pytest.fixture
def jsonl(tmp_path: Path) -> Destination:
    path = tmp_path / fresh_name()
    return _destination("jsonl", {"path": str(path)}, lambda: _lines(path))


@pytest.fixture
def mongo(mongo_url: str) -> Iterator[Destination]:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        database = client[fresh_name()]
        passport_patients(database, [ID, OTHER_ID])

        def rows() -> Rows:
            found = database.observations.find({"deleted": False})
            return {one["obsId"]: one["row"]["value_numeric"] for one in found}

        options = {
            "uri": mongo_url,
            "database": database.name,
            "link_key": "a key of sixteen or more",
        }
        yield _destination("mongo", options, rows)
        client.drop_database(database.name)


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Destination:
    """The module of docs/how-to/add-a-destination.md, as a reader would save it."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    package = fresh_name()
    (tmp_path / package).mkdir()
    (tmp_path / package / "sqlite.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "research.sqlite"

    def rows() -> Rows:
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("SELECT obs_id, value FROM obs WHERE NOT deleted").fetchall()
        return {obs_id: float(value) for obs_id, value in found}

    return _destination(f"{package}.sqlite", {"path": str(path)}, rows)


@pytest.fixture
def fhir_server(fhir_url: str) -> Destination:
    prefix = fresh_name().replace("_", "-") + "."
    ours = urlencode({"identifier": f"urn:openmrs:{prefix}kigali:obs|", "_count": "50"})

    def rows() -> Rows:
        found = pages(f"{fhir_url}/Observation?{ours}")
        live = (one for one in found if one["status"] != "entered-in-error")
        return {
            int(one["id"].rpartition("-")[2]): float(one["valueQuantity"]["value"]) for one in live
        }

    return _destination("destinations.fhir.server", {"url": fhir_url, "prefix": prefix}, rows)


@pytest.fixture
def fhir_ndjson(tmp_path: Path) -> Destination:
    folder = tmp_path / "bulk"

    def rows() -> Rows:
        live = (one for one in newest(folder) if one["status"] != "entered-in-error")
        return {
            int(one["id"].rpartition("-")[2]): float(one["valueQuantity"]["value"]) for one in live
        }

    return _destination("destinations.fhir.ndjson", {"folder": str(folder)}, rows)


def _destination(kind: str, options: dict[str, Any], rows: Callable[[], Rows]) -> Destination:
    settings = build_settings(
        {"kigali": hospital_settings()},
        Kafka(bootstrap="localhost:1"),
        {"it": DestinationSettings(type=kind, options=options)},
    )
    return Destination(lambda: sinks.connect("it", settings), rows, sinks.module(kind).ORDER)


def _lines(path: Path) -> Rows:
    newest: dict[int, dict[str, Any]] = {}
    retained = []
    for line in map(json.loads, path.read_text().splitlines()):
        if "retain" in line:
            retained.append(line["retain"])
            continue
        one = line["observation"]
        before = newest.get(one["row"]["obs_id"])
        if before is None or before["version"] <= one["version"]:
            newest[one["row"]["obs_id"]] = one
    for retain in retained:
        for obs_id, one in newest.items():
            if (
                obs_id not in retain["keys"]
                and one["version"] <= retain["version"]
                and _holds(retain, one["row"])
            ):
                one["deleted"] = True
    return {
        obs_id: one["row"]["value_numeric"] for obs_id, one in newest.items() if not one["deleted"]
    }


def _holds(retain: dict[str, Any], row: dict[str, Any]) -> bool:
    if "person" in retain:
        return bool(retain["person"]["person_id"] == row["person_id"])
    first, to = retain["range"]["first"], retain["range"]["to"]
    return (first is None or first < row["obs_id"]) and (to is None or row["obs_id"] <= to)


MODULES = [
    "documented",
    pytest.param("fhir_server", marks=pytest.mark.long),  # its jars are 286 MB
    "fhir_ndjson",
    *sorted(
        module.name
        for module in pkgutil.iter_modules(destinations.__path__)
        if module.name != "fhir"
    ),
]


@pytest.fixture(params=MODULES)
def destination(request: pytest.FixtureRequest) -> Destination:
    found: Destination = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def sink(destination: Destination) -> Iterator[Sink]:
    opened = destination.connect()
    yield opened
    opened.close()


def link(sink: Sink) -> None:
    """Both persons read whole, long ago: they have nothing."""
    for person_id in (7, 8):
        sink.retain(a_person(person_id), [], version(1, 0))


def test_it_says_how_it_keeps_order(destination: Destination) -> None:
    assert destination.order in ("newest-wins", "append-only")


def test_the_newest_wins_whatever_the_order(destination: Destination, sink: Sink) -> None:
    link(sink)
    batch = [an_obs(1, 30, 3), an_obs(1, 10, 1), an_obs(2, 20, 2)]
    sink.write(batch)
    sink.write([an_obs(1, 20, 2), an_obs(2, 10, 1)])
    assert destination.rows() == {1: 3.0, 2: 2.0}


def test_a_replay_changes_nothing(destination: Destination, sink: Sink) -> None:
    link(sink)
    batch = [
        an_obs(1, 10, 1),
        an_obs(1, 20, 2),
        an_obs(2, 20, 2),
        an_obs(2, 30, deleted=True),
        an_obs(3, 30, 3),
    ]
    sink.write(batch)
    before = destination.rows()
    assert before == {1: 2.0, 3: 3.0}
    sink.write(batch)
    for one in batch:
        sink.write([one])
    assert destination.rows() == before


def test_a_deleted_row_does_not_come_back_from_the_past(
    destination: Destination, sink: Sink
) -> None:
    link(sink)
    sink.write([an_obs(1, 10, 1)])
    sink.write([an_obs(1, 30, deleted=True)])
    sink.write([an_obs(1, 20, 2)])
    assert destination.rows() == {}
    sink.write([an_obs(1, 40, 4)])
    assert destination.rows() == {1: 4.0}


def test_retain_of_a_range_takes_what_is_old_and_not_there(
    destination: Destination, sink: Sink
) -> None:
    link(sink)
    sink.write([an_obs(obs_id, 10, obs_id) for obs_id in (1, 2, 3, 4)] + [an_obs(5, 50, 5)])
    sink.retain(KeyRange("kigali", 1, 3), [2], version(20, 0))
    assert destination.rows() == {1: 1.0, 2: 2.0, 4: 4.0, 5: 5.0}
    sink.retain(KeyRange("kigali", 3, None), [], version(30, 0))
    assert destination.rows() == {1: 1.0, 2: 2.0, 5: 5.0}
    sink.retain(KeyRange("kigali", None, None), [], version(30, 0))
    assert destination.rows() == {5: 5.0}
    sink.write([an_obs(4, 25, 4)])
    assert 5 in destination.rows()


def test_retain_of_a_person_is_their_whole_truth(destination: Destination, sink: Sink) -> None:
    link(sink)
    sink.write([an_obs(1, 10, 1), an_obs(2, 10, 2), an_obs(3, 10, 3, person=a_person(8))])
    sink.retain(a_person(7, at=20), [2], version(20, 0))
    assert destination.rows() == {2: 2.0, 3: 3.0}


def test_progress_survives(destination: Destination, sink: Sink) -> None:
    assert sink.progress("kigali") is None
    left = [{"keys": {"location.location_id.0": [3]}, "done": 17, "at": ["b.000001", 4, "", "s"]}]
    for offset in (5, 9):
        sink.record(Progress("kigali", offset, version(offset), 1_700_000_000_000 + offset, left))
    sink.close()
    again = destination.connect()
    known = again.progress("kigali")
    assert known == Progress("kigali", 9, version(9), 1_700_000_000_009, left)
    assert (type(known.offset), type(known.at_ms)) == (int, int), "an event can be made of them"
    assert again.progress("butare") is None
    # A start from before is allowed: records come again.
    again.record(Progress("kigali", 3, version(9), 1_700_000_000_003))
    found = again.progress("kigali")
    assert found is not None
    assert (found.offset, found.rereads) == (3, [])
    again.ready()
    again.close()


def test_it_knows_after_a_start_whom_it_keeps_as_ambiguous(
    destination: Destination, sink: Sink
) -> None:
    link(sink)
    sink.write([an_obs(1, 10, 1, person=a_person(8, "ambiguous", 10))])
    sink.close()
    again = destination.connect()
    assert list(again.ambiguous("kigali")) == [8]
    assert list(again.ambiguous("butare")) == []
    again.write([an_obs(1, 20, 1, person=a_person(8, "ok", 20))])
    again.retain(a_person(8, "ok", 20), [1], version(20, 0))
    assert list(again.ambiguous("kigali")) == []
    again.close()
    once_more = destination.connect()
    assert list(once_more.ambiguous("kigali")) == []
    once_more.close()


def test_it_wants_nobody_whom_it_was_given(destination: Destination, sink: Sink) -> None:
    link(sink)
    if isinstance(sink, WantsPersons):
        assert list(sink.wanted("kigali", 10)) == []


STEPS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(2, 9), st.booleans()), min_size=1, max_size=12
)
EXAMPLES = itertools.count(100)


@hypothesis_settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_any_order_any_batches_any_replays(
    destination: Destination, steps: list[tuple[int, int, bool]], seed: int
) -> None:
    """Each (row, version) has one content, as at a hospital; what is left is that of the highest
    version.
    """
    content = {(obs_id, pos): deleted for obs_id, pos, deleted in steps}
    base = next(EXAMPLES) * 10  # rows of their own for each example
    observations = [
        an_obs(base + obs_id, pos, pos, deleted=deleted)
        for (obs_id, pos), deleted in content.items()
    ]
    deliveries = observations + Random(seed).choices(observations, k=5)
    Random(seed + 1).shuffle(deliveries)
    sink = destination.connect()
    try:
        link(sink)
        while deliveries:
            size = Random(seed + len(deliveries)).randint(1, 4)
            sink.write(deliveries[:size])
            deliveries = deliveries[size:]
    finally:
        sink.close()
    newest = {obs_id: max(pos for one, pos in content if one == obs_id) for obs_id, _ in content}
    wanted = {
        base + obs_id: float(pos) for obs_id, pos in newest.items() if not content[obs_id, pos]
    }
    assert {
        obs_id: value for obs_id, value in destination.rows().items() if base < obs_id <= base + 4
    } == wanted
