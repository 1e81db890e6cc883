"""The reference pages say what the code says."""

import re
from pathlib import Path

import pytest

from dev.reference import pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("place", "text"), pages().items(), ids=lambda one: one.name if isinstance(one, Path) else "")
def test_a_page_made_from_code_is_current(place: Path, text: str) -> None:
    assert place.read_text(encoding="utf-8") == text, "make docs"


def test_every_test_that_the_docs_name_is_there() -> None:
    """``file.py::test_name``; without a folder it is tests/integration, without a file the one named before."""
    missing = []
    for page in (ROOT / "docs").rglob("*.md"):
        file = ROOT
        for where, name in re.findall(r"`((?:tests/\w+/)?test_\w+\.py)?(?:::)?(test_\w+)?`", page.read_text()):
            if where:
                file = ROOT / where if "/" in where else ROOT / "tests/integration" / where
            if not file.exists() or (name and f"def {name}(" not in file.read_text()):
                missing.append(f"{page.name}: {where}::{name}")
    assert not missing
