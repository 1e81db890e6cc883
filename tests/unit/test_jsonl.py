"""Lines that a crash tore, and progress that is whole or absent."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from destinations.jsonl import JsonLines
from passport.errors import NotReady
from passport.facts import Author, Observation, Person, PersonState, Value
from passport.sink import KeyRange, Progress


def one(obs_id: int, state: PersonState = "ok", person_id: int = 7) -> Observation:
    at = datetime(2025, 11, 6, 8, 30, tzinfo=UTC)
    person = Person("kigali", person_id, "p", state, None, "v1")
    row = {"obs_id": obs_id, "person_id": person_id, "uuid": f"o-{obs_id}", "voided": 0}
    value, nobody = Value("none", ""), Author("OpenMRS", "none", None)
    return Observation(
        "kigali", "v1", row, False, person, None, value, nobody, None, None, at, None
    )


def ids(path: Path) -> list[int]:
    return [
        line["observation"]["row"]["obs_id"]
        for line in map(json.loads, path.read_text().splitlines())
    ]


def test_instants_are_utc_with_z(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out")
    sink.write([one(1)])
    sink.close()
    assert json.loads((tmp_path / "out").read_text())["observation"]["at"] == "2025-11-06T08:30:00Z"


@pytest.mark.parametrize("torn", ["{", '{"observation": {"hospital": "kig', "x" * 200_000])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "out"
    sink = JsonLines(path)
    sink.write([one(1), one(2)])
    sink.close()
    with path.open("a") as file:
        file.write(torn)
    sink = JsonLines(path)
    sink.write([one(3)])
    sink.close()
    assert ids(path) == [1, 2, 3]


def test_a_file_that_is_one_torn_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("torn")
    JsonLines(tmp_path / "out").close()
    assert (tmp_path / "out").read_text() == ""


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    first, second = JsonLines(tmp_path / "out"), JsonLines(tmp_path / "out")
    for obs_id in range(10):
        (first if obs_id % 2 else second).write([one(obs_id)])
    first.close()
    second.close()
    assert ids(tmp_path / "out") == list(range(10))


def test_progress_of_hospitals_side_by_side(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out")
    assert sink.progress("kigali") is None
    kigali, butare = Progress("kigali", 5, "v5", 50), Progress("butare", 7, "v7", 70)
    sink.record(kigali)
    sink.record(butare)
    sink.close()
    sink = JsonLines(tmp_path / "out")
    assert (sink.progress("kigali"), sink.progress("butare")) == (kigali, butare)
    sink.close()


def test_whoever_is_ambiguous_by_their_newest_line(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out")
    assert sink.ambiguous("kigali") == []
    sink.write([one(1, "ambiguous", 7), one(2, "ok", 8), one(3, "ambiguous", 9)])
    assert sink.ambiguous("kigali") == [7, 9]
    sink.close()
    sink = JsonLines(tmp_path / "out")
    assert sink.ambiguous("kigali") == [7, 9]
    assert sink.ambiguous("butare") == []
    sink.retain(KeyRange("kigali", None, None), [1], "v2")
    assert sink.ambiguous("kigali") == [7, 9]
    sink.retain(one(1, "ok", 7).person, [1], "v2")
    assert sink.ambiguous("kigali") == [9]
    sink.write([one(1, "ambiguous", 7), one(3, "ok", 9)])
    assert sink.ambiguous("kigali") == [7]
    sink.close()
    sink = JsonLines(tmp_path / "out")
    assert sink.ambiguous("kigali") == [7]
    sink.close()


def test_a_text_that_looks_like_a_person_is_none(tmp_path: Path) -> None:
    row = one(1, "ambiguous", 7).row | {"value_text": '"person_id": 7, "state": "ambiguous"'}
    sink = JsonLines(tmp_path / "out")
    sink.write([msgspec.structs.replace(one(1, "ok", 7), row=row)])
    assert sink.ambiguous("kigali") == []
    sink.close()


def test_what_another_process_wrote_meanwhile_counts(tmp_path: Path) -> None:
    first, second = JsonLines(tmp_path / "out"), JsonLines(tmp_path / "out")
    first.write([one(1, "ambiguous", 7), one(2, "ambiguous", 8)])
    assert first.ambiguous("kigali") == [7, 8]
    second.write([one(1, "ok", 7), one(3, "ambiguous", 9)])
    assert first.ambiguous("kigali") == [8, 9]
    first.close()
    second.close()


def test_a_place_that_cannot_be_written_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match="can't be written"):
        JsonLines(tmp_path / "file" / "out")
