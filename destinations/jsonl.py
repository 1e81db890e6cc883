"""JSON lines in a file: a line for each observation delivered and for each `retain`. To look at, to
feed others.

Append-only: a row that changes, or is delivered again, has several lines, of which the one with the
highest version holds. A retain line says that every other row of its scope with a version at or
below its own is gone.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from passport.errors import NotReady, without_text
from passport.facts import Observation
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

ORDER = "append-only"
_CUT = 64 * 1024


class Options(BaseModel):
    """`path`: the file; how far it is stands beside it in ``<path>.progress.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path


def connect(options: Options, _: Settings, __: Destination) -> "JsonLines":
    """Opens the file, after cutting off a last line that a crash left torn. NotReady."""
    return JsonLines(options.path)


class JsonLines:
    """Appends whole batches under a lock, so that a second process (a retried dead letter) may
    write too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = path.with_name(path.name + ".progress.json")
        with _remedied(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with self._locked():
                _cut_torn_line(self._file)
            self._unsure = _ambiguous(path)

    def write(self, observations: Sequence[Observation]) -> Outcome:
        self._append(
            json.dumps({"observation": one}, default=_plain, ensure_ascii=False)
            for one in observations
        )
        return Outcome(stored=len(observations))

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        kind = "range" if isinstance(scope, KeyRange) else "person"
        line = {"retain": {kind: scope, "keys": list(keys), "version": version}}
        self._append([json.dumps(line, default=_plain, ensure_ascii=False)])
        if not isinstance(scope, KeyRange):
            self._unsure.get(scope.hospital, {}).pop(scope.person_id, None)
        return Outcome(stored=1)

    def wanted(self, hospital: str, limit: int) -> Sequence[int]:
        """Who was ambiguous when the file was opened: who shared their id may have given it up
        unseen.
        """
        return list(self._unsure.get(hospital, {}))[:limit]

    def progress(self, hospital: str) -> Progress | None:
        found = self._stored().get(hospital)
        return None if found is None else Progress(**found)

    def record(self, progress: Progress) -> None:
        """The lines before are on disk when this is."""
        with _remedied(self._path), self._locked():
            os.fsync(self._file)
            stored = self._stored() | {progress.hospital: asdict(progress)}
            fresh = self._progress.with_suffix(".new")
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(stored, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._progress)

    def counts(self, hospital: str) -> Mapping[str, int]:
        ours = (
            f'{{"observation": {{"hospital": {json.dumps(hospital, ensure_ascii=False)}, '.encode()
        )
        with _remedied(self._path), self._path.open("rb") as lines:
            return {
                "stored": sum(line.startswith(ours) for line in lines),
                "matched": 0,
                "unmatched": 0,
            }

    def ready(self) -> None:
        with _remedied(self._path):
            os.fstat(self._file)
            os.statvfs(self._path)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _append(self, lines: Iterable[str]) -> None:
        data = memoryview("".join(line + "\n" for line in lines).encode())
        with _remedied(self._path), self._locked():
            while data:
                data = data[os.write(self._file, data) :]

    def _stored(self) -> dict[str, dict[str, Any]]:
        with _remedied(self._path):
            try:
                stored: dict[str, dict[str, Any]] = json.loads(self._progress.read_bytes())
            except FileNotFoundError:
                return {}
            return stored

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _plain(value: Any) -> Any:
    """Structs as objects, instants as ISO with Z."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(type(value).__name__)


def _ambiguous(path: Path) -> dict[str, dict[int, None]]:
    found: dict[str, dict[int, None]] = {}
    with path.open("rb") as lines:
        for line in lines:
            if b'"state": "ambiguous"' in line and (one := json.loads(line).get("observation")):
                found.setdefault(one["hospital"], {})[one["person"]["person_id"]] = None
    return found


def _cut_torn_line(file: int) -> None:
    end = size = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _CUT)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


@contextmanager
def _remedied(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"{path} can't be written ({without_text(error)})",
            hint="check its folder and the disk's space",
        ) from None
