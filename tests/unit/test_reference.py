"""The reference pages say what the code says."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from dev.reference import pages
from passport.event import KINDS, parse_event

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


@pytest.mark.parametrize(
    ("place", "text"), pages().items(), ids=lambda one: one.name if isinstance(one, Path) else ""
)
def test_a_page_made_from_code_is_current(place: Path, text: str) -> None:
    assert place.read_text(encoding="utf-8") == text, "make docs"


def examples() -> list[dict[str, Any]]:
    """The events that events.md shows."""
    return [
        json.loads(one)
        for one in re.findall(
            r"```json\n(.*?)```", (REFERENCE / "events.md").read_text(), re.DOTALL
        )
    ]


def schema(kind: str) -> Any:
    """Of that kind's payload, in asyncapi.json."""
    document = json.loads((REFERENCE / "asyncapi.json").read_text())
    payload = document["components"]["messages"][kind]["payload"]
    return jsonschema_rs.validator_for({**payload, "components": document["components"]})


@pytest.mark.parametrize("example", examples(), ids=lambda one: one["kind"])
def test_the_events_shown_are_those_of_asyncapi_and_of_the_parser(example: dict[str, Any]) -> None:
    schema(example["kind"]).validate(example)
    assert parse_event(json.dumps(example).encode()).kind == example["kind"]
    for name in example:
        fewer = {key: value for key, value in example.items() if key != name}
        assert not schema(example["kind"]).is_valid(fewer), name


def test_events_of_all_kinds_are_shown() -> None:
    assert {one["kind"] for one in examples()} == KINDS


def test_every_test_that_the_docs_name_is_there() -> None:
    """``file.py::test_name``; without a folder it is tests/integration, without a file the one
    named before.
    """
    missing = []
    for page in (ROOT / "docs").rglob("*.md"):
        file = ROOT
        for where, name in re.findall(
            r"`((?:tests/\w+/)?test_\w+\.py)?(?:::)?(test_\w+)?`", page.read_text()
        ):
            if where:
                file = ROOT / where if "/" in where else ROOT / "tests/integration" / where
            if not file.exists() or (name and f"def {name}(" not in file.read_text()):
                missing.append(f"{page.name}: {where}::{name}")
    assert not missing
