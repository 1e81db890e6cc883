"""What a FHIR server of one's own does to us, and what a process that was killed leaves in NDJSON
files.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.stack import ports
from passport import sink as sinks
from passport.errors import Fatal, NotReady
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Progress, Sink
from tests import observations
from tests.observations import DIAGNOSIS, MALARIA, coded, number, obs, person, version
from tests.servers import fresh_name


def settings(kind: str, options: dict[str, Any]) -> Settings:
    return observations.settings({}).model_copy(
        update={"destinations": {"it": Destination(type=kind, options=options)}}
    )


class Place:
    """A part of the server that is this test's own."""

    def __init__(self, url: str) -> None:
        self.url, self.prefix = url, fresh_name().replace("_", "-") + "."

    def sink(self, **options: Any) -> Sink:
        return sinks.connect(
            "it",
            settings(
                "destinations.fhir.server", {"url": self.url, "prefix": self.prefix, **options}
            ),
        )

    def get(self, type_: str, obs_id: int) -> dict[str, Any]:
        """The resource of a row, {} if there is none."""
        answer = httpx.get(f"{self.url}/{type_}/{self.prefix}kigali-{obs_id}", timeout=60)
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return found


@pytest.fixture
def place(fhir_url: str) -> Place:
    return Place(fhir_url)


@pytest.fixture
def sink(place: Place) -> Iterator[Sink]:
    opened = place.sink()
    yield opened
    opened.close()


def test_a_row_that_the_server_refuses_is_rejected_alone(place: Place, sink: Sink) -> None:
    batch = [obs(n, 10) for n in range(1, 12)]
    batch[8] = obs(9, 10, who=person(2**40))  # no FHIR integer
    outcome = sink.write(batch)
    assert outcome.rejected == [("kigali/9", "refused")]
    assert outcome.stored == 10
    assert place.get("Observation", 8)["status"] == "final"
    assert place.get("Observation", 9) == {}


def test_a_frozen_writer_overwrites_nothing_and_makes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read, then another wrote: its transaction is refused, it reads again and finds itself
    late.
    """
    frozen, other = place.sink(), place.sink()
    frozen.write([obs(1, 10, value=number(10))])
    read: Callable[..., Any] = frozen.resources_of_rows  # type: ignore[attr-defined]
    wakes: list[bool] = []

    def read_then_freeze(*asked: Any) -> Any:
        found = read(*asked)
        if not wakes:
            wakes.append(True)
            other.write([obs(1, 30, value=number(30)), obs(2, 30, value=number(30))])
        return found

    monkeypatch.setattr(frozen, "resources_of_rows", read_then_freeze)
    outcome = frozen.write([obs(1, 20, value=number(20)), obs(2, 20, value=number(20))])
    assert (wakes, outcome.stale) == ([True], 2)
    for obs_id in (1, 2):
        assert place.get("Observation", obs_id)["valueQuantity"]["value"] == 30


def test_a_row_is_live_under_one_type(place: Place, sink: Sink) -> None:
    sink.write([obs(1, 10, DIAGNOSIS, coded(MALARIA))])
    assert place.get("Condition", 1)["code"]["text"] == "Malaria"
    sink.write([obs(1, 20)])
    assert place.get("Observation", 1)["status"] == "final"
    gone = place.get("Condition", 1)
    assert gone["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
    assert "code" not in gone
    sink.write([obs(1, 30, DIAGNOSIS, coded(MALARIA))])
    assert "verificationStatus" not in place.get("Condition", 1)
    assert place.get("Observation", 1)["status"] == "entered-in-error"
    assert sink.counts("kigali")["stored"] == 1


def test_what_moved_to_another_person_is_not_taken_with_the_first(place: Place, sink: Sink) -> None:
    sink.write([obs(1, 10, who=person(1))])
    sink.write([obs(1, 20, who=person(2, "1199080087654321"))])
    sink.retain(person(1), [], version(30, 0))
    assert place.get("Observation", 1)["subject"]["identifier"]["value"] == "1199080087654321"
    sink.retain(person(2, "1199080087654321"), [], version(30, 0))
    assert place.get("Observation", 1)["status"] == "entered-in-error"


def test_a_range_of_many_pages_is_found_whole(place: Place, sink: Sink) -> None:
    sink.write([obs(n, 10) for n in range(900, 1_130)])
    assert sink.counts("kigali")["stored"] == 230
    assert (
        sink.retain(KeyRange("kigali", 950, None), [1_000], version(20, 0)).stored
        == 1_129 - 950 - 1
    )
    assert sink.counts("kigali")["stored"] == 52


def test_errors_are_named_by_their_remedy(place: Place) -> None:
    sink = place.sink()
    away = Place(f"http://127.0.0.1:{_free_port()}/fhir")
    with pytest.raises(NotReady, match="doesn't answer"):
        away.sink()
    with pytest.raises(Fatal, match=r"no FHIR R4 server at options.url \(HTTP 404"):
        Place(place.url + "/nowhere").sink()
    with pytest.raises(Fatal, match=r"options.url: Value error, not the base"):
        Place("http://user:secret@localhost/fhir").sink()
    sink.ready()
    sink.close()


def _free_port() -> int:
    return next(port for port in range(20_000, 30_000) if ports.is_free(port))


# -- NDJSON

WRITE_FOR_EVER = """
import sys
from tests.integration.test_fhir import settings
from tests.observations import obs
from passport import sink as sinks
sink = sinks.connect("it", settings("destinations.fhir.ndjson", {"folder": sys.argv[1]}))
for n in range(1, 10**9):
    sink.write([obs(n * 50 + m, n, comments="x" * 5000) for m in range(50)])
    print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_no_torn_line_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "bulk"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(folder)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    last = [int(writer.stdout.readline()) for _ in range(5)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(20) == -signal.SIGKILL
    with (folder / "Observation.ndjson").open("a") as file:
        file.write(
            '{"resourceType": "Observation", "id": "kig'
        )  # as a kill in the midst of a write leaves it
    sink = sinks.connect("it", settings("destinations.fhir.ndjson", {"folder": str(folder)}))
    sink.write([obs(1, 10)])
    sink.record(Progress("kigali", 5, version(5), 0))
    sink.close()
    lines = [json.loads(line) for line in (folder / "Observation.ndjson").read_text().splitlines()]
    assert len({one["id"] for one in lines}) == len(lines) > last * 50
    assert lines[-1]["id"] == "kigali-1"


def test_files_and_index_belong_together(tmp_path: Path) -> None:
    where = settings("destinations.fhir.ndjson", {"folder": str(tmp_path)})
    sink = sinks.connect("it", where)
    sink.write([obs(1, 10)])
    (tmp_path / "Observation.ndjson").write_text("")
    with pytest.raises(Fatal, match="has 0 bytes, its index counts"):
        sink.write([obs(2, 10)])
    sink.close()
    (tmp_path / "index.sqlite").unlink()
    with pytest.raises(Fatal, match="no index"):
        sinks.connect("it", where)
