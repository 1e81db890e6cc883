"""The reference pages say what the code says."""

from pathlib import Path

import pytest

from dev.reference import pages


@pytest.mark.parametrize(("place", "text"), pages().items(), ids=lambda one: one.name if isinstance(one, Path) else "")
def test_a_page_made_from_code_is_current(place: Path, text: str) -> None:
    assert place.read_text(encoding="utf-8") == text, "make docs"
