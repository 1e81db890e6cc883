"""NDJSON files as in FHIR Bulk Data, one for each type. The last line about an id is what holds.

Files are only appended to. An index (SQLite) in the same folder knows what each row's last line
says, how long the files are, and the progress. Lines count once the index has committed them. What
a process that was killed had written beyond, the next writer cuts off, and the same records come
again. The index's lock lets a second process, such as one that retries dead letters, write too.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from destinations.fhir.newest import (
    Changes,
    FhirOptions,
    by_hospital,
    changes,
    gone,
    progress_content,
    require_ids,
)
from destinations.fhir.resources import TYPES, Held, Resource, held_row
from passport.errors import Fatal, NotReady, without_text
from passport.facts import Observation
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

ORDER = "newest-wins"
# obs_ids for the open ends of a range
BELOW_ALL = -1
ABOVE_ALL = 2**62

# `unsure` are the people who are ambiguous; `told` is the content of a progress, as JSON.
TABLES = """
CREATE TABLE IF NOT EXISTS files (type TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
  hospital TEXT, obs_id INTEGER, type TEXT, uuid TEXT, person_id INTEGER, version TEXT,
  live INTEGER, PRIMARY KEY (hospital, obs_id, type)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_person ON rows (hospital, person_id);
CREATE TABLE IF NOT EXISTS unsure (
  hospital TEXT, person_id INTEGER, PRIMARY KEY (hospital, person_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (hospital TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID;
"""
SELECT_ROWS = "SELECT type, obs_id, uuid, person_id, version, live FROM rows WHERE hospital = ?"


class Options(FhirOptions):
    """`folder` is where the files and their index are."""

    folder: Path


def connect(options: Options, settings: Settings, _destination: Destination) -> "Files":
    """Open the folder.

    Raises NotReady if it can't be written. Raises Fatal if there are files without their index, or
    if a hospital's id can't be part of a FHIR id.
    """
    require_ids(settings, options.prefix)
    return Files(options)


class Files:
    """The newest state of every row in NDJSON files, see `passport.sink.Sink`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = options.folder
        with self._translate_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            _require_index(self._folder)
            path = self._folder / "index.sqlite"
            # A destination may be opened in one thread and used in another one.
            self._index = sqlite3.connect(
                path, isolation_level=None, timeout=30, check_same_thread=False
            )
            self._index.executescript(TABLES)
            path.chmod(0o600)

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = Outcome()
        with self._transaction():
            for hospital, batch in by_hospital(observations).items():
                rows = {}
                for observation in batch:
                    obs_id = observation.obs_id
                    rows[obs_id] = self._held(hospital, "obs_id = ?", obs_id)
                outcome += self._apply(hospital, changes(batch, rows, self._options))
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        with self._transaction():
            rows = self._live_rows(scope)
            result = gone(scope, frozenset(keys), version, rows, self._options)
            return self._apply(scope.hospital, result)

    def ambiguous(self, hospital: str) -> Sequence[int]:
        sql = "SELECT person_id FROM unsure WHERE hospital = ? ORDER BY person_id"
        return [person_id for (person_id,) in self._all(sql, hospital)]

    def progress(self, hospital: str) -> Progress | None:
        stored = self._all("SELECT told FROM progress WHERE hospital = ?", hospital)
        if not stored:
            return None
        [(content,)] = stored
        return Progress(hospital, **json.loads(content))

    def record(self, progress: Progress) -> None:
        content = json.dumps(progress_content(progress))
        self._all("REPLACE INTO progress VALUES (?, ?)", progress.hospital, content)

    def counts(self, hospital: str) -> Mapping[str, int]:
        """Return the number of live rows. It knows no people."""
        [(stored,)] = self._all("SELECT count(*) FROM rows WHERE hospital = ? AND live", hospital)
        return {"stored": stored, "matched": 0, "unmatched": 0}

    def ready(self) -> None:
        with self._transaction():
            pass

    def close(self) -> None:
        self._index.close()

    def _apply(self, hospital: str, result: Changes) -> Outcome:
        resources = [resource for _, resource in result.resources]
        for type_ in TYPES:
            of_type = [resource for resource in resources if resource["resourceType"] == type_]
            self._append(type_, of_type)
        for resource in resources:
            row = held_row(resource)
            self._index.execute(
                "REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    hospital,
                    row.obs_id,
                    row.type,
                    row.uuid,
                    row.person_id,
                    row.version,
                    row.live,
                ),
            )
        self._index.executemany(
            "REPLACE INTO unsure VALUES (?, ?)",
            [(hospital, person_id) for person_id in result.ambiguous],
        )
        self._index.executemany(
            "DELETE FROM unsure WHERE hospital = ? AND person_id = ?",
            [(hospital, person_id) for person_id in result.settled],
        )
        return result.outcome

    def _append(self, type_: str, resources: Sequence[Resource]) -> None:
        """Write lines to disk after those that count, and note how long the file is now."""
        if not resources:
            return
        lines = [json.dumps(resource, ensure_ascii=False) + "\n" for resource in resources]
        data = "".join(lines).encode()
        counted = self._index.execute("SELECT bytes FROM files WHERE type = ?", [type_]).fetchone()
        size = counted[0] if counted else 0
        path = self._folder / f"{type_}.ndjson"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _require_length(path, os.fstat(file).st_size, size)
            os.ftruncate(file, size)
            _write_all(file, data, size)
            os.fsync(file)
        finally:
            os.close(file)
        self._index.execute("REPLACE INTO files VALUES (?, ?)", [type_, size + len(data)])

    def _live_rows(self, scope: Scope) -> list[Held]:
        if not isinstance(scope, KeyRange):
            return self._held(scope.hospital, "person_id = ? AND live", scope.person_id)
        first = BELOW_ALL if scope.first is None else scope.first
        to = ABOVE_ALL if scope.to is None else scope.to
        return self._held(scope.hospital, "obs_id > ? AND obs_id <= ? AND live", first, to)

    def _held(self, hospital: str, condition: str, *values: int) -> list[Held]:
        """Return what the files have of one hospital's rows, under each of their types."""
        sql = f"{SELECT_ROWS} AND {condition}"
        return [
            Held(type_, obs_id, uuid, person_id, version, bool(live))
            for type_, obs_id, uuid, person_id, version, live in self._index.execute(
                sql, (hospital, *values)
            )
        ]

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with self._translate_errors():
            return self._index.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Be the only writer. The lines that are appended meanwhile count if it ends well."""
        with self._translate_errors():
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise NotReady in place of an error of the file system or of SQLite."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise NotReady(
                f"{self._folder} can't be written ({without_text(error)})",
                hint="check the folder, its owner, and the disk's space",
            ) from None


def _require_index(folder: Path) -> None:
    if (folder / "index.sqlite").exists():
        return
    if any((folder / f"{type_}.ndjson").exists() for type_ in TYPES):
        raise Fatal(
            f"{folder} has files but no index.sqlite that knows what is in them",
            hint="move the .ndjson files away: they are filled anew from the topic",
        )


def _require_length(path: Path, length: int, counted: int) -> None:
    if length < counted:
        raise Fatal(
            f"{path} has {length} bytes, its index counts {counted}",
            hint=f"put {path.name} back, or move the whole folder away: "
            "it is filled anew from the topic",
        )


def _write_all(file: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest = rest[written:]
        offset += written
