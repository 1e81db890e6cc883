"""Settings from their four places: default.yaml, --config FILE over it, /run/secrets over that,
PASSPORT_* over all.
"""

import json
import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from passport.errors import BadSettings, without_text
from passport.settings import Settings

PREFIX = "PASSPORT_"
# Names of this prefix that are not settings: the file itself, and the development stack's.
OTHER_NAMES = frozenset({"PASSPORT_CONFIG", "PASSPORT_STACK_CACHE", "PASSPORT_REAL_DATA"})
SECRETS = Path("/run/secrets")

Tree = dict[str, Any]


def packaged(name: str) -> Path:
    """default.yaml or mapping.yaml: carried by the wheel, or config/ of a checkout."""
    inside = Path(str(files("passport"))) / "config" / name
    return inside if inside.exists() else Path(__file__).parents[1] / "config" / name


def load(
    file: Path | None, environ: Mapping[str, str] = os.environ, secrets: Path = SECRETS
) -> tuple[Settings, list[str]]:
    """Settings, and the names of PASSPORT_* variables that are none. BadSettings names every
    problem, no value.
    """
    tree = _read(packaged("default.yaml"))
    if file is not None:
        tree = _laid_over(tree, _read(file))
    unknown: list[str] = []
    for name, text in [*_secrets(secrets), *_variables(environ)]:
        path = name[len(PREFIX) :].lower().split("__")
        if path[0] not in Settings.model_fields and len(path) == 1:
            unknown.append(name)
        else:
            _set(tree, path, _value(text))
    try:
        return Settings.model_validate(tree), unknown
    except ValidationError as error:
        raise BadSettings(
            "these settings can't be used",
            details=_problems(error),
            hint=f"correct them in {file or 'the file of --config or PASSPORT_CONFIG'};"
            " config/local.example.yaml shows each",
        ) from None


def shown(settings: Settings) -> Tree:
    """All settings as a tree, secrets as stars."""
    tree: Tree = settings.model_dump(mode="json")
    for destination in tree["destinations"].values():
        destination["options"] = {
            name: _masked(name, value) for name, value in destination["options"].items()
        }
    return tree


def _read(file: Path) -> Tree:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadSettings(
            f"settings file {file} does not exist",
            hint="cp config/local.example.yaml config/local.yaml and edit it",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadSettings(
            f"settings file {file} is not YAML{where}", hint=f"correct {file}{where}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"settings file {file} can't be read ({without_text(error)})", hint=f"ls -l {file}"
        ) from None
    if not isinstance(tree, dict | None):
        raise BadSettings(
            f"settings file {file} is not a mapping", hint=f"correct the first line of {file}"
        )
    return tree or {}


def _laid_over(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[str(key)] = (
            _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _secrets(folder: Path) -> Iterator[tuple[str, str]]:
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.name.upper().startswith(PREFIX) and file.is_file():
                yield file.name, file.read_text(encoding="utf-8").rstrip("\r\n")


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in OTHER_NAMES:
            yield name, environ[name]


def _set(tree: Tree, path: list[str], value: Any) -> None:
    """Sets one leaf; ids with dashes or capitals are found by their variable's spelling."""
    for position, part in enumerate(path):
        spelled = {str(key).lower().replace("-", "_"): key for key in tree}
        key = spelled.get(part, part)
        if position == len(path) - 1:
            tree[key] = value
        else:
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            tree = tree[key]


def _value(text: str) -> Any:
    """Text stays text (pydantic reads numbers); lists and mappings may be JSON."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(
            str(part) for part in problem["loc"] if part not in ("str", "PlaceholderHospital")
        )
        text = problem["msg"].removeprefix("Value error, ")
        yield f"{where}: {text}" if where else text


def _masked(name: str, value: Any) -> Any:
    """Options are the destination's own: what may hold a secret is starred, credentials in
    addresses too.
    """
    if any(word in name for word in ("key", "secret", "password", "token")):
        return "**********"
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://**********@{rest.rpartition('@')[2]}"
    return value
