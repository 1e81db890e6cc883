"""NDJSON files as of FHIR Bulk Data, one a type: appended to only, and the last line about an id is
what holds.

An index (SQLite) in the same folder knows what each row's last line says, how long the files are,
and the progress. Its commit makes lines count: what a process that was killed had written beyond,
the next writer cuts off, and the same records come again. The index's lock lets a second process (a
retried dead letter) write too.
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
    Kept,
    by_hospital,
    changes,
    gone,
    require_ids,
    told,
)
from destinations.fhir.resources import TYPES, Held, Resource, held
from passport.errors import Fatal, NotReady, without_text
from passport.facts import Observation
from passport.settings import Destination, Settings
from passport.sink import KeyRange, Outcome, Progress, Scope

ORDER = "newest-wins"
_TABLES = """
CREATE TABLE IF NOT EXISTS files (type TEXT PRIMARY KEY, bytes INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
  hospital TEXT, obs_id INTEGER, type TEXT, uuid TEXT, person_id INTEGER, version TEXT, live INTEGER,
  PRIMARY KEY (hospital, obs_id, type)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_person ON rows (hospital, person_id);
CREATE TABLE IF NOT EXISTS unsure (hospital TEXT, person_id INTEGER, PRIMARY KEY (hospital, person_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (hospital TEXT PRIMARY KEY, told TEXT) WITHOUT ROWID;
"""
_ROWS = "SELECT type, obs_id, uuid, person_id, version, live FROM rows WHERE hospital = ? AND live >= ? AND "


class Options(Kept):
    """`folder`: where the files and their index are."""

    folder: Path


def connect(options: Options, settings: Settings, _: Destination) -> "Files":
    """Opens the folder. NotReady (it can't be written), Fatal (files without their index, unusable
    hospital id).
    """
    require_ids(settings)
    return Files(options)


class Files:
    """See passport.sink.Sink."""

    def __init__(self, options: Options) -> None:
        self._options, self._folder = options, options.folder
        with self._remedied():
            self._folder.mkdir(parents=True, exist_ok=True)
            _require_index(self._folder)
            path = self._folder / "index.sqlite"
            self._index = sqlite3.connect(
                path, isolation_level=None, timeout=30, check_same_thread=False
            )
            self._index.executescript(_TABLES)
            path.chmod(0o600)

    def write(self, observations: Sequence[Observation]) -> Outcome:
        outcome = Outcome()
        with self._transaction():
            for hospital, batch in by_hospital(observations).items():
                rows = {one.obs_id: self._held(hospital, "obs_id = ?", one.obs_id) for one in batch}
                outcome += self._apply(hospital, changes(batch, rows, self._options))
        return outcome

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        with self._transaction():
            rows = self._of_scope(scope)
            return self._apply(
                scope.hospital, gone(scope, frozenset(keys), version, rows, self._options)
            )

    def ambiguous(self, hospital: str) -> Sequence[int]:
        sql = "SELECT person_id FROM unsure WHERE hospital = ? ORDER BY person_id"
        return [person_id for (person_id,) in self._all(sql, hospital)]

    def progress(self, hospital: str) -> Progress | None:
        found = self._all("SELECT told FROM progress WHERE hospital = ?", hospital)
        return Progress(hospital, **json.loads(found[0][0])) if found else None

    def record(self, progress: Progress) -> None:
        self._all(
            "REPLACE INTO progress VALUES (?, ?)", progress.hospital, json.dumps(told(progress))
        )

    def counts(self, hospital: str) -> Mapping[str, int]:
        [(stored,)] = self._all("SELECT count(*) FROM rows WHERE hospital = ? AND live", hospital)
        return {"stored": stored, "matched": 0, "unmatched": 0}

    def ready(self) -> None:
        with self._transaction():
            pass

    def close(self) -> None:
        self._index.close()

    def _apply(self, hospital: str, made: Changes) -> Outcome:
        for type_ in TYPES:
            self._append(type_, [one for _, one in made.resources if one["resourceType"] == type_])
        for row in (held(one) for _, one in made.resources):
            values = (
                hospital,
                row.obs_id,
                row.type,
                row.uuid,
                row.person_id,
                row.version,
                row.live,
            )
            self._index.execute("REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        unsure, sure = (
            [(hospital, person_id) for person_id in one] for one in (made.ambiguous, made.settled)
        )
        self._index.executemany("REPLACE INTO unsure VALUES (?, ?)", unsure)
        self._index.executemany("DELETE FROM unsure WHERE hospital = ? AND person_id = ?", sure)
        return made.outcome

    def _append(self, type_: str, resources: Sequence[Resource]) -> None:
        """Lines on disk after those that count, and how long the file is now."""
        if not resources:
            return
        data = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in resources).encode()
        found = self._index.execute("SELECT bytes FROM files WHERE type = ?", [type_]).fetchone()
        size = found[0] if found else 0
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

    def _held(self, hospital: str, condition: str, *values: Any, live: bool = False) -> list[Held]:
        found = self._index.execute(_ROWS + condition, (hospital, live, *values)).fetchall()
        return [
            Held(type_, obs_id, uuid, who, version, bool(is_live))
            for type_, obs_id, uuid, who, version, is_live in found
        ]

    def _of_scope(self, scope: Scope) -> list[Held]:
        if not isinstance(scope, KeyRange):
            return self._held(scope.hospital, "person_id = ?", scope.person_id, live=True)
        first = -1 if scope.first is None else scope.first
        to = 2**62 if scope.to is None else scope.to
        return self._held(scope.hospital, "obs_id > ? AND obs_id <= ?", first, to, live=True)

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with self._remedied():
            return self._index.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """The only writer from here on; the lines that are appended meanwhile count when it ends
        well.
        """
        with self._remedied():
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")

    @contextmanager
    def _remedied(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            hint = "check the folder, its owner, and the disk's space"
            raise NotReady(
                f"{self._folder} can't be written ({without_text(error)})", hint=hint
            ) from None


def _require_index(folder: Path) -> None:
    if not (folder / "index.sqlite").exists() and any(
        (folder / f"{type_}.ndjson").exists() for type_ in TYPES
    ):
        hint = "move the .ndjson files away: they are filled anew from the topic"
        raise Fatal(f"{folder} has files but no index.sqlite that knows what is in them", hint=hint)


def _require_length(path: Path, there: int, counted: int) -> None:
    if there < counted:
        hint = (
            f"put {path.name} back, or move the whole folder away: it is filled anew from the topic"
        )
        raise Fatal(f"{path} has {there} bytes, its index counts {counted}", hint=hint)


def _write_all(file: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
