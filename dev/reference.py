"""The reference pages that are made from code: ``python -m dev.reference`` writes them, a unit test
holds them.
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
    """Text by place of each page."""
    folder = ROOT / "docs/reference"
    return {
        folder / "asyncapi.json": asyncapi.page(),
        folder / "command-line.md": MADE.format("cli") + _command_line(),
        folder / "metrics.md": MADE.format("passport/metrics.py") + _metrics(),
        folder / "settings.md": MADE.format("passport/settings.py and config/*.yaml") + _settings(),
    }


def main() -> int:
    for place, text in pages().items():
        place.write_text(text, encoding="utf-8")
    return 0


def _command_line() -> str:
    command = get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command), name="passport")
    return (
        text.rstrip()
        + "\n\nExit codes: 0 ok, 1 failed, 2 usage or settings, 3 a server isn't there.\n"
    )


def _metrics() -> str:
    rows = ["# Metrics", "", "On `/metrics` of each role, when `health.port` is set.", ""]
    rows += ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = family.name + ("_total" if isinstance(metric, Counter) else "")
            labels = ", ".join(metric._labelnames)  # noqa: SLF001
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def _settings() -> str:
    notes = {
        path: note
        for file in ("default.yaml", "local.example.yaml")
        for path, note in _comments(file)
    }
    rows = [
        "# Settings",
        "",
        "`<id>` is a hospital's, `<name>` a destination's. A variable is the path in capitals",
    ]
    rows += [
        "with `__` for each dot behind `PASSPORT_`: `PASSPORT_HOSPITALS__KIGALI__MYSQL__PASSWORD`.",
        "",
    ]
    rows += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for path, field in _fields(Settings):
        note = notes.get(re.sub(r"<\w+>\.", "", path)) or notes.get(path, "")
        rows.append(f"| `{path}` | {_type(field.annotation)} | {_default(field)} | {note} |")
    return "\n".join(rows) + "\n"


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Leaves of the tree of settings."""
    for name, field in model.model_fields.items():
        path, inner = f"{prefix}{name}", _model(field.annotation)
        if inner is None:
            yield path, field
        elif get_origin(field.annotation) is dict:
            yield from _fields(inner, f"{path}.{'<id>' if name == 'hospitals' else '<name>'}.")
        else:
            yield from _fields(inner, f"{path}.")


def _model(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *get_args(annotation)]
    return next(
        (one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None
    )


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(one) for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "mapping"
    return {
        str: "text",
        int: "number",
        float: "number",
        bool: "yes or no",
        SecretStr: "secret",
    }.get(annotation, "path")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr) or value in (None, (), {}, ""):
        return ""
    return f"`{value if isinstance(value, str) else repr(value)}`"


def _comments(name: str) -> Iterator[tuple[str, str]]:
    """(path without ids, comment) of the lines of a settings file that have one."""
    path: list[str] = []
    for line in (ROOT / "config" / name).read_text(encoding="utf-8").splitlines():
        found = re.match(r"( *)([\w.-]+):(.*?)(?: # (.*))?$", line)
        if found:
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            if found[4]:
                yield (
                    ".".join(one for one in path if one not in ("kigali", "passport", "lines")),
                    found[4],
                )


if __name__ == "__main__":
    sys.exit(main())
