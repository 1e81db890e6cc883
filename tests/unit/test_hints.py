"""What an error says to type next can be typed."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from cli import app
from dev.rules import PRODUCT

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file
    for place in (*PRODUCT, "README.md", "docs", "deploy")
    for file in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    if file.suffix in (".py", ".md", ".yaml") and file.name != "command-line.md"
)
# "passport cdc run", but neither "from passport import" nor "passport.settings" nor "a passport of"
COMMAND = re.compile(r"(?<![\w./-])passport ((?:[a-z-]+ )?[a-z-]+)(?=[ `\"'\n;,):]|$)")
VERBS = {
    verb if not hasattr(command, "commands") else f"{verb} {sub}"
    for verb, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    for sub in getattr(command, "commands", [""])
} | {option for parameter in get_command(app).params for option in parameter.opts}


def commands(text: str) -> set[str]:
    """The commands that quoted or coded text names."""
    found = set()
    for line in text.splitlines():
        if "import" not in line and (
            "hint" in line or "`" in line or '"' in line or line.startswith("    ")
        ):
            found |= {match.group(1) for match in COMMAND.finditer(line)}
    return found


def test_there_are_verbs_to_compare_with() -> None:
    assert {"check", "cdc run", "verify", "backfill", "dead-letters list"} <= VERBS


@pytest.mark.parametrize(
    "hint", sorted({c for file in SOURCES for c in commands(file.read_text(encoding="utf-8"))})
)
def test_a_named_command_exists(hint: str) -> None:
    first, _, second = hint.partition(" ")
    assert first in VERBS or f"{first} {second}" in VERBS, hint
