"""Reads the settings from their four places.

`config/default.yaml` comes first, the file of --config is laid over it, files in /run/secrets over
that, and PASSPORT_* variables over all.
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
# Variables with this prefix that are not settings: the file itself, and the development stack's.
OTHER_NAMES = frozenset({"PASSPORT_CONFIG", "PASSPORT_STACK_CACHE", "PASSPORT_REAL_DATA"})
SECRETS = Path("/run/secrets")
STARS = "**********"

Tree = dict[str, Any]


def packaged(name: str) -> Path:
    """Return the place of a file that comes with the project, such as default.yaml.

    It is in the wheel, or in config/ of a checkout.
    """
    in_wheel = Path(str(files("passport"))) / "config" / name
    if in_wheel.exists():
        return in_wheel
    return Path(__file__).parents[1] / "config" / name


def load(
    file: Path | None, environ: Mapping[str, str] = os.environ, secrets: Path = SECRETS
) -> tuple[Settings, list[str]]:
    """Return the settings, and the names of PASSPORT_* variables that are no settings.

    Raises BadSettings, which names every problem at once and shows no value.
    """
    tree = _read_file(packaged("default.yaml"))
    if file is not None:
        tree = _lay_over(tree, _read_file(file))
    unknown_names: list[str] = []
    for name, text in [*_read_secrets(secrets), *_read_variables(environ)]:
        path = name[len(PREFIX) :].lower().split("__")
        if path[0] not in Settings.model_fields and len(path) == 1:
            unknown_names.append(name)
        else:
            _set(tree, path, _parse(text))
    try:
        return Settings.model_validate(tree), unknown_names
    except ValidationError as error:
        raise BadSettings(
            "these settings can't be used",
            details=_problems(error),
            hint=f"correct them in {file or 'the file of --config or PASSPORT_CONFIG'};"
            " config/local.example.yaml shows each",
        ) from None


def without_secrets(settings: Settings) -> Tree:
    """Return all settings as a tree, with stars in place of secrets."""
    tree: Tree = settings.model_dump(mode="json")
    for destination in tree["destinations"].values():
        destination["options"] = {
            name: _mask(name, value) for name, value in destination["options"].items()
        }
    return tree


def _read_file(file: Path) -> Tree:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadSettings(
            f"settings file {file} does not exist",
            hint="cp config/local.example.yaml config/local.yaml and edit it",
        ) from None
    except yaml.MarkedYAMLError as error:
        # The message of the error quotes the line, which may hold a secret: only the place is told.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _not_yaml(file, where) from None
    except yaml.YAMLError:
        raise _not_yaml(file, "") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"settings file {file} can't be read ({without_text(error)})", hint=f"ls -l {file}"
        ) from None
    if not isinstance(tree, dict | None):
        raise BadSettings(
            f"settings file {file} is not a mapping", hint=f"correct the first line of {file}"
        )
    return tree or {}


def _not_yaml(file: Path, where: str) -> BadSettings:
    return BadSettings(f"settings file {file} is not YAML{where}", hint=f"correct {file}{where}")


def _lay_over(below: Tree, above: Tree) -> Tree:
    """Return both trees as one: a value of `above` holds, mappings are merged."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[str(key)] = _lay_over(old, value)
        else:
            merged[str(key)] = value
    return merged


def _read_secrets(folder: Path) -> Iterator[tuple[str, str]]:
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.name.upper().startswith(PREFIX) and file.is_file():
                yield file.name, file.read_text(encoding="utf-8").rstrip("\r\n")


def _read_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in OTHER_NAMES:
            yield name, environ[name]


def _set(tree: Tree, path: list[str], value: Any) -> None:
    """Set one leaf of the tree.

    A variable's name has neither dashes nor capitals. An id that has them is found by the spelling
    that its variable would have.
    """
    *folders, leaf = path
    for part in folders:
        key = _spelled_key(tree, part)
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[_spelled_key(tree, leaf)] = value


def _spelled_key(tree: Tree, part: str) -> Any:
    by_spelling = {str(key).lower().replace("-", "_"): key for key in tree}
    return by_spelling.get(part, part)


def _parse(text: str) -> Any:
    """Return lists and mappings that are written as JSON; anything else stays text.

    pydantic makes numbers of text where a setting is one.
    """
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        # Where a setting may have one of two types, pydantic puts the type's name into the path.
        parts = [part for part in problem["loc"] if part not in ("str", "PlaceholderHospital")]
        where = ".".join(str(part) for part in parts)
        text = problem["msg"].removeprefix("Value error, ")
        yield f"{where}: {text}" if where else text


def _mask(name: str, value: Any) -> Any:
    """Return an option of a destination with stars in place of what may be secret.

    Options are the destination's own: only their names and forms say what may be secret, such as
    credentials in an address.
    """
    if any(word in name for word in ("key", "secret", "password", "token")):
        return STARS
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{STARS}@{rest.rpartition('@')[2]}"
    return value
