"""``python -m dev.reference`` writes the reference pages that are made from code.

A unit test fails when a page no longer says what the code says.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click
from typer.main import get_command

from cli import app
from dev import asyncapi
from passport import metrics
from passport.settings import Settings

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by `make docs` from {}: edit there. -->\n"


def pages() -> dict[Path, str]:
    """Return the text of each page by its place."""
    folder = ROOT / "docs/reference"
    return {
        folder / "asyncapi.json": asyncapi.page(),
        folder / "command-line.md": MADE.format("cli") + _command_line(),
        folder / "metrics.md": MADE.format("passport/metrics.py") + _metrics(),
        folder / "settings.md": MADE.format("passport/settings.py and config/*.yaml") + _settings(),
    }


def main() -> int:
    """Write the pages; return the exit code."""
    for place, text in pages().items():
        place.write_text(text, encoding="utf-8")
    return 0


def _command_line() -> str:
    command = get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command), name="passport")
    exit_codes = "Exit codes: 0 ok, 1 failed, 2 usage or settings, 3 a server isn't there."
    return f"{text.rstrip()}\n\n{exit_codes}\n"


def _metrics() -> str:
    rows = ["# Metrics", "", "On `/metrics` of each role, when `health.port` is set.", ""]
    rows += ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = family.name
            if isinstance(metric, Counter):
                name += "_total"  # as the client library exposes it
            labels = ", ".join(metric._labelnames)  # noqa: SLF001
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def _settings() -> str:
    notes: dict[str, str] = {}
    for file in ("default.yaml", "local.example.yaml"):
        notes |= _comments(file)
    rows = [
        "# Settings",
        "",
        "`<id>` is a hospital's, `<name>` a destination's. A variable is the path in capitals",
        "with `__` for each dot behind `PASSPORT_`: `PASSPORT_HOSPITALS__KIGALI__MYSQL__PASSWORD`.",
        "",
        "| setting | type | default | meaning |",
        "|---|---|---|---|",
    ]
    for path, field in _fields(Settings):
        note = notes.get(re.sub(r"<\w+>\.", "", path)) or notes.get(path, "")
        rows.append(f"| `{path}` | {_type(field.annotation)} | {_default(field)} | {note} |")
    return "\n".join(rows) + "\n"


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the leaves of the tree of settings, each with its path."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = _model(field.annotation)
        if inner is None:
            yield path, field
        elif get_origin(field.annotation) is dict:
            yield from _fields(inner, f"{path}.{'<id>' if name == 'hospitals' else '<name>'}.")
        else:
            yield from _fields(inner, f"{path}.")


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that the annotation is, or that it is a mapping to or an option of."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        return " or ".join(_type(option) for option in options)
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "mapping"
    words = {
        str: "text",
        int: "number",
        float: "number",
        bool: "yes or no",
        SecretStr: "secret",
    }
    return words.get(annotation, "path")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr) or value in (None, (), {}, ""):
        return ""
    return f"`{value}`" if isinstance(value, str) else f"`{value!r}`"


def _comments(file: str) -> dict[str, str]:
    """Return the comments behind the lines of a settings file, by path without ids."""
    comments = {}
    path: list[str] = []
    for line in (ROOT / "config" / file).read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)([\w.-]+):(.*?)(?: # (.*))?$", line)
        if not match:
            continue
        indent, key, _, comment = match.groups()
        path = [*path[: len(indent) // 2], key]
        if comment:
            names = [name for name in path if name not in ("kigali", "passport", "lines")]
            comments[".".join(names)] = comment
    return comments


if __name__ == "__main__":
    sys.exit(main())
