"""What no consumer was made for is parked, and what follows it arrives (B14, B18, B21)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.positions import Positions
from consumers import dead_letters, lookups
from destinations.jsonl import JsonLines
from passport import sink as sinks
from passport.errors import Fatal
from passport.event import (
    ENVELOPE,
    ChunkEvent,
    EventSource,
    HeartbeatEvent,
    KeyChangeEvent,
    RowEvent,
    Transaction,
    encode_event,
)
from passport.facts import Observation
from passport.settings import Settings
from passport.version import parse
from tests.eventually import eventually
from tests.integration.consuming import (
    Server,
    assert_equal,
    consume,
    delivered,
    hospital,
    read,
    running,
    settings,
)
from tests.integration.test_worker import produce

SECRET = "1199080099999999"


@pytest.fixture
def kigali(own_mariadb: Callable[..., Server]) -> Server:
    server = own_mariadb()
    hospital(server, patients=6)
    return server


@pytest.fixture
def given(kigali: Server, kafka_bootstrap: str, tmp_path: Path) -> Settings:
    """A hospital of which all is delivered."""
    made = settings({"kigali": kigali}, kafka_bootstrap, tmp_path / "out")
    read(made)
    consume(made)
    return made


@pytest.fixture
def newest(given: Settings, tmp_path: Path) -> str:
    """Return the version that the destination is at."""
    progress = json.loads((tmp_path / "out.progress.json").read_text())
    return str(progress["kigali"]["version"])


def source(version: str, **fields: Any) -> EventSource:
    own: dict[str, Any] = {
        "hospital": "kigali",
        "timezone": "UTC",
        "db": "openmrs",
        "table": "obs",
        "file": "",
        "pos": 0,
        "row": 0,
        "gtid": "",
        "server": "s",
        "ts_ms": 1,
        "version": version,
        "origin": "binlog",
    }
    return EventSource(**own | fields)


def row_event(version: str, row: dict[str, Any], **fields: Any) -> bytes:
    event = RowEvent(
        v=ENVELOPE,
        op="c",
        before=None,
        after=row,
        source=source(version, **fields),
        transaction=Transaction(id="t", last=True),
        ts_ms=1,
    )
    return encode_event(event)


def key_change(version: str, table: str, key: dict[str, Any]) -> bytes:
    event = KeyChangeEvent(
        v=ENVELOPE, op="u", keys=(key,), source=source(version, table=table), ts_ms=1
    )
    return encode_event(event)


def heartbeat(version: str, **fields: Any) -> bytes:
    return encode_event(
        HeartbeatEvent(v=ENVELOPE, source=source(version, table="", **fields), ts_ms=1)
    )


def chunk(version: str, table: str, keys: tuple[Any, ...]) -> bytes:
    event = ChunkEvent(
        v=ENVELOPE,
        first=None,
        to=None,
        keys=keys,
        source=source(version, table=table),
        ts_ms=1,
    )
    return encode_event(event)


def whole_row(tmp_path: Path) -> dict[str, Any]:
    return dict(delivered(tmp_path / "out").rows["kigali", 1]["row"])


def later(version: str) -> str:
    """Return a version in the same place, which is later than all of it."""
    return f"{version[:-8]}{99:08d}"


def test_b14_what_has_other_types_is_parked_and_what_follows_arrives(
    kigali: Server, given: Settings, newest: str, tmp_path: Path
) -> None:
    """Each of these ended the consumer at every start, or made what follows outdated."""
    row = whole_row(tmp_path)
    version = later(newest)
    poison = {
        "a row without a column": row_event(
            version, {name: value for name, value in row.items() if name != "value_numeric"}
        ),
        "a column of another type": row_event(version, row | {"person_id": SECRET}),
        "a number beyond all databases": row_event(version, row | {"encounter_id": 2**63}),
        "a row of nobody's table": row_event(version, row, table="conditions"),
        "a version that is none": heartbeat("z" * 47),
        "a version in other digits": heartbeat("\u0661" * 10 + newest[10:]),
        "a key that is a list": key_change(version, "person", {"person_id": [1]}),
        "a key that is a text": key_change(version, "person", {"person_id": "1"}),
        "a key beyond all databases": key_change(version, "location", {"location_id": 2**70}),
        "keys of rows that are texts": chunk(version, "obs", (SECRET,)),
        "the keys of another table": chunk(version, "person", ()),
        "a clock beyond the calendar": heartbeat(newest, ts_ms=10**18),
        "a version ahead of its position": heartbeat(
            f"{newest[:10]}-9999999999-{4:016d}-{0:08d}", file="b.000001", pos=4
        ),
    }
    produce(given, 0, *poison.values())
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'after the poison' WHERE obs_id = 3")
    read(given)
    consume(given)
    found = assert_equal(given, tmp_path / "out")
    assert found.rows["kigali", 3]["row"]["comments"] == "after the poison"
    letters = dead_letters.listed(given)
    assert len(letters) == len(poison), [letter.reason for letter in letters]
    assert {letter.reason for letter in letters} == {"malformed", "unknown_table"}
    assert SECRET not in "".join(letter.id + letter.reason for letter in letters)
    # A retry reads rows at the hospital, says of the others the same again, and harms nothing.
    tried = dead_letters.retry(given, None, lambda name: sinks.connect(name, given))
    assert [retried.settled for retried in tried] == [True] * 3 + [False] * (len(poison) - 3)
    assert_equal(given, tmp_path / "out")


def test_b14_an_epoch_of_the_future_makes_nothing_outdated(
    kigali: Server, given: Settings, newest: str, tmp_path: Path
) -> None:
    """Neither for the consumer nor for the next reader, whose epoch would be too long to write."""
    future = f"{9_999_999_999:010d}{newest[10:]}"
    row = whole_row(tmp_path) | {"comments": "of the future"}
    produce(given, 0, heartbeat(future), row_event(future, row), chunk(future, "obs", ()))
    positions = Positions(given.kafka)
    assert positions.published_epoch(0) == parse(newest).epoch
    positions.close()

    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'not stale' WHERE obs_id = 3")
    read(given)
    consume(given)
    found = assert_equal(given, tmp_path / "out")
    assert found.rows["kigali", 3]["row"]["comments"] == "not stale"
    assert [letter.reason for letter in dead_letters.listed(given)] == ["future_epoch"] * 3
    tried = dead_letters.retry(given, None, lambda name: sinks.connect(name, given))
    assert not any(retried.settled for retried in tried)
    assert_equal(given, tmp_path / "out")


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The obs_ids for which enriching fails as no code expects it."""
    obs_ids: set[int] = set()
    enrich = lookups.enrich

    def failing(row: dict[str, Any], *args: Any, **kwargs: Any) -> Observation:
        if row["obs_id"] in obs_ids:
            raise KeyError(SECRET)
        return enrich(row, *args, **kwargs)

    monkeypatch.setattr(lookups, "enrich", failing)
    yield obs_ids
    obs_ids.clear()


def test_b14_a_row_that_cannot_be_enriched_is_found_and_parked(
    kigali: Server, given: Settings, fails_at: set[int], tmp_path: Path
) -> None:
    fails_at |= {3, 5}
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'all at once' WHERE obs_id < 40")
    read(given)
    consume(given)
    rows = delivered(tmp_path / "out").rows
    changed = {key for (_, key), row in rows.items() if row["row"]["comments"] == "all at once"}
    assert changed == {*range(1, 40)} - fails_at
    letters = dead_letters.listed(given)
    assert [letter.reason for letter in letters] == ["unexpected KeyError"] * 2
    fails_at.clear()
    tried = dead_letters.retry(given, None, lambda name: sinks.connect(name, given))
    assert [retried.settled for retried in tried] == [True, True]
    assert_equal(given, tmp_path / "out")


def test_b14_a_row_that_cannot_be_enriched_again_is_found_and_parked(
    kigali: Server, given: Settings, fails_at: set[int], tmp_path: Path
) -> None:
    """The same for what is read at the hospital, since a name of it has changed."""
    fails_at.add(3)
    kigali.execute(
        "USE openmrs",
        "UPDATE location SET name = CONCAT(name, ' new')",
        "UPDATE concept_name SET name = CONCAT(name, ' new')",
    )
    read(given)
    consume(given)
    letters = dead_letters.listed(given)
    assert [(letter.id, letter.reason) for letter in letters] == [
        ("file/kigali/3", "unexpected KeyError")
    ]
    fails_at.clear()
    dead_letters.retry(given, None, lambda name: sinks.connect(name, given))
    assert_equal(given, tmp_path / "out")


def test_b14_a_person_whom_the_destination_cannot_hold_is_parked(
    kigali: Server, given: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    retain = JsonLines.retain

    def failing(sink: JsonLines, scope: Any, *args: Any) -> Any:
        if getattr(scope, "person_id", 0) == person_id:
            raise TypeError(SECRET)
        return retain(sink, scope, *args)

    person_id = whole_row(tmp_path)["person_id"]
    monkeypatch.setattr(JsonLines, "retain", failing)
    kigali.execute("USE openmrs", "UPDATE person SET voided = 1")
    read(given)
    consume(given)
    letters = dead_letters.listed(given)
    assert [(letter.id, letter.reason) for letter in letters] == [
        (f"file/kigali/person/{person_id}", "unexpected TypeError")
    ]
    monkeypatch.undo()
    tried = dead_letters.retry(given, None, lambda name: sinks.connect(name, given))
    assert [retried.settled for retried in tried] == [True]
    assert_equal(given, tmp_path / "out")


def test_b14_if_every_row_fails_the_rows_are_not_what_is_wrong(
    kigali: Server, given: Settings, fails_at: set[int], tmp_path: Path
) -> None:
    """A release that can't work must not park a hospital, row by row."""
    fails_at |= {*range(1, 40)}
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'all at once' WHERE obs_id < 40")
    read(given)
    with pytest.raises(Fatal, match="rows are not what is wrong"):
        consume(given)
    assert dead_letters.listed(given) == []
    fails_at.clear()
    consume(given)
    assert_equal(given, tmp_path / "out")


def test_b21_a_reader_of_a_later_release_stops_its_hospital_and_no_other(
    kigali: Server,
    own_mariadb: Callable[..., Server],
    kafka_bootstrap: str,
    tmp_path: Path,
) -> None:
    """Its records wait for the consumer's upgrade. They are not parked."""
    huye = own_mariadb()
    hospital(huye, patients=3)
    given = settings({"kigali": kigali, "huye": huye}, kafka_bootstrap, path := tmp_path / "out")
    read(given)
    consume(given)
    row = whole_row(tmp_path) | {"comments": "of a later release"}
    version = json.loads(path.with_name("out.progress.json").read_text())["kigali"]["version"]
    event = json.loads(row_event(later(version), row))
    produce(given, 0, json.dumps(event | {"v": ENVELOPE + 1}).encode())
    kigali.execute("USE openmrs", "UPDATE obs SET comments = 'behind it' WHERE obs_id = 3")
    huye.execute("USE openmrs", "UPDATE obs SET comments = 'elsewhere' WHERE obs_id = 3")

    with running(given):
        eventually(
            lambda: delivered(path).rows["huye", 3]["row"]["comments"] == "elsewhere",
            "the other hospital goes on",
        )
    with pytest.raises(Fatal, match="later release") as stopped:
        consume(given)
    assert "upgrade the consumers" in stopped.value.hint
    assert delivered(path).rows["kigali", 3]["row"]["comments"] != "behind it"
    assert dead_letters.listed(given) == []
