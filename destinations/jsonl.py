"""JSON lines in a file: one line for each observation delivered, and one for each `retain`.

To look at, and to feed other programs. The file is append-only. A row that changes, or is delivered
again, has several lines, and the line with the highest version holds. A retain line says that every
other row of its scope with a version at or below its own is gone.
"""

import fcntl
import json
import os
import re
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
BLOCK_BYTES = 64 * 1024  # read at once, from the end, to find where the last whole line ends

AMBIGUOUS = b'"state": "ambiguous"'
# In a text of a row these quotes would be escaped, so it is a field's name wherever it stands.
PERSON_ID = re.compile(rb'"person_id": (\d+)')


class Options(BaseModel):
    """`path` is the file. ``<path>.progress.json`` beside it says how far the file is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path


def connect(options: Options, _settings: Settings, _destination: Destination) -> "JsonLines":
    """Open the file, and cut off a last line that a crash left torn. Raises NotReady."""
    return JsonLines(options.path)


class JsonLines:
    """A file of JSON lines, see `passport.sink.Sink`.

    Whole batches are appended under a lock, so that a second process, such as one that retries dead
    letters, may write the same file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress_path = path.with_name(path.name + ".progress.json")
        self._ambiguous: dict[str, set[int]] = {}  # person_ids, by hospital
        self._ambiguous_until = 0  # the byte up to which lines are reckoned in
        with translate_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with self._locked():
                _cut_torn_line(self._file)

    def write(self, observations: Sequence[Observation]) -> Outcome:
        self._append(_json({"observation": observation}) for observation in observations)
        return Outcome(stored=len(observations))

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        kind = "range" if isinstance(scope, KeyRange) else "person"
        self._append([_json({"retain": {kind: scope, "keys": list(keys), "version": version}})])
        return Outcome(stored=1)

    def ambiguous(self, hospital: str) -> Sequence[int]:
        """Return the people whose newest line says that they are ambiguous.

        The file is read once. Later questions read only the lines that came after it.
        """
        with translate_errors(self._path), self._locked(), self._path.open("rb") as lines:
            lines.seek(self._ambiguous_until)
            for line in lines:
                self._note_whether_ambiguous(line)
            self._ambiguous_until = lines.tell()
        return sorted(self._ambiguous.get(hospital, ()))

    def progress(self, hospital: str) -> Progress | None:
        stored = self._stored_progress().get(hospital)
        return None if stored is None else Progress(**stored)

    def record(self, progress: Progress) -> None:
        """Store how far the file is, once the lines before are on disk."""
        with translate_errors(self._path), self._locked():
            os.fsync(self._file)
            stored = self._stored_progress()
            stored[progress.hospital] = asdict(progress)
            # A crash must leave the old file or the new one, never a half of one.
            new_path = self._progress_path.with_suffix(".new")
            with new_path.open("w", encoding="utf-8") as file:
                json.dump(stored, file)
                file.flush()
                os.fsync(file.fileno())
            new_path.replace(self._progress_path)

    def counts(self, hospital: str) -> Mapping[str, int]:
        """Return the number of observation lines: a row that changed is counted several times."""
        name = json.dumps(hospital, ensure_ascii=False)
        start_of_line = f'{{"observation": {{"hospital": {name}, '.encode()
        with translate_errors(self._path), self._path.open("rb") as lines:
            stored = sum(line.startswith(start_of_line) for line in lines)
        return {"stored": stored, "matched": 0, "unmatched": 0}

    def ready(self) -> None:
        with translate_errors(self._path):
            os.fstat(self._file)
            os.statvfs(self._path)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _append(self, lines: Iterable[str]) -> None:
        data = memoryview("".join(line + "\n" for line in lines).encode())
        with translate_errors(self._path), self._locked():
            while data:
                written = os.write(self._file, data)
                data = data[written:]

    def _note_whether_ambiguous(self, line: bytes) -> None:
        # Only lines that can change the answer are parsed: most lines of a large file can't.
        if AMBIGUOUS not in line:
            person_id = PERSON_ID.search(line)
            if person_id is None or not self._is_ambiguous_somewhere(int(person_id[1])):
                return
        content = json.loads(line)
        person = content["observation"] if "observation" in content else content["retain"]
        person = person.get("person")
        if person is None:  # a retain of a range
            return
        people = self._ambiguous.setdefault(person["hospital"], set())
        if person["state"] == "ambiguous":
            people.add(person["person_id"])
        else:
            people.discard(person["person_id"])

    def _is_ambiguous_somewhere(self, person_id: int) -> bool:
        return any(person_id in people for people in self._ambiguous.values())

    def _stored_progress(self) -> dict[str, dict[str, Any]]:
        with translate_errors(self._path):
            try:
                stored: dict[str, dict[str, Any]] = json.loads(self._progress_path.read_bytes())
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


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise NotReady in place of an error of the file system."""
    try:
        yield
    except OSError as error:
        raise NotReady(
            f"{path} can't be written ({without_text(error)})",
            hint="check its folder and the disk's space",
        ) from None


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a struct as an object, and an instant in ISO form with Z."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(type(value).__name__)


def _cut_torn_line(file: int) -> None:
    """Cut the file after its last line end: a crash may have left the beginning of a line."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
