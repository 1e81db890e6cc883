"""Notices become work: which obs and persons a change concerns, read again in slices at a position that contains it.

What is waiting here is not stored: the worker commits no offset past a notice whose work isn't finished (`held`), so
that after a crash the notices come again, and with them the work.
"""

import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import structlog

from consumers.affected import PERSON_KEYS, QUERIES
from consumers.enrich import check
from consumers.lookups import PATIENCE_S, Lookups
from passport import metrics
from passport.errors import Reject
from passport.event import ChangeEvent, Row
from passport.observation import Observation, ObservationOrigin, Person
from passport.settings import LoadBudget
from passport.source import Reading, Waypoint

SLICE = 500  # obs read and written at once, between live batches
IDS = 1_000  # of one IN list
PERSONS = 50  # looked at for one slice

log = structlog.get_logger()


@dataclass(slots=True)
class Slice:
    """What was read: to be written, then `finish`. `persons` are whole: each with all its obs_ids at `version`.

    `rejected`: rows that can't be carried, and why.
    """

    finish: Callable[[], None]
    version: str = ""
    observations: list[Observation] = field(default_factory=list)
    persons: list[tuple[Person, list[int]]] = field(default_factory=list)
    rejected: list[tuple[Row, Reject]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Person:
    """Why a person waits: since which offset (None: the destination asks), and at which place at least.

    `others`: who shares an id with them is read too. A notice says so, since what it changed may have been loaded
    with the index, so that no change is seen.
    """

    offset: int | None
    at: Waypoint | None
    others: bool


@dataclass(slots=True)
class _Found:
    """obs_ids that wait, highest last taken first; since which notice; the newest notice's place."""

    ids: "array[int]"
    offset: int
    at: Waypoint | None


@dataclass(slots=True)
class _Asked:
    """Notices not resolved yet: ids by query. `written`: obs enriched with all of them known."""

    ids: dict[str, set[int]] = field(default_factory=dict)
    offset: int = 0
    at: Waypoint | None = None
    written: frozenset[int] = frozenset()


class Rereads:
    """One hospital's work that notices and the destination ask for. An obs or person that waits twice is read once."""

    def __init__(self, lookups: Lookups, budget: LoadBudget, clock: Callable[[], float] = time.monotonic) -> None:
        self._lookups, self._budget, self._clock = lookups, budget, clock
        self._asked = _Asked()
        self._found: list[_Found] = []
        self._persons: dict[int, _Person] = {}
        self._not_before = 0.0
        self._rows = metrics.REREADS.labels(lookups.hospital_id)

    def notice(self, notice: ChangeEvent, offset: int, written: frozenset[int]) -> None:
        """Takes what a notice at `offset` asks for. `written`: obs whose stored enrichment surely contains it."""
        at = Waypoint.of(notice.source) if notice.source.file else None
        for key in notice.keys:
            person_id = key.get(PERSON_KEYS.get(notice.source.table, ""))
            if person_id is not None:
                self.whole([person_id], offset, at, others=True)
            for column, queries in QUERIES.get(notice.source.table, ()):
                if key.get(column) is not None:
                    self._ask(queries, key[column], offset, at)
        self._asked.written = written

    def whole(
        self, person_ids: Collection[int], offset: int | None, at: Waypoint | None, *, others: bool = False
    ) -> None:
        """Persons to be read whole. `offset` None: the destination asks, and will ask again should this be lost."""
        for person_id in person_ids:
            before = self._persons.get(person_id, _Person(None, None, others=False))
            lowest = _lowest((before.offset, offset))
            self._persons[person_id] = _Person(lowest, _later(before.at, at), others=others or before.others)

    def held(self) -> int | None:
        """The lowest offset whose work isn't finished."""
        waiting = [found.offset for found in self._found] + [one.offset for one in self._persons.values()]
        return _lowest([*waiting, self._asked.offset if self._asked.ids else None])

    def pending(self) -> int:
        """How much waits: queries, persons and obs."""
        return len(self._asked.ids) + len(self._persons) + sum(len(found.ids) for found in self._found)

    def due(self) -> bool:
        """Whether `read` has something to do now."""
        return self.pending() > 0 and self._clock() >= self._not_before

    def read(self) -> Slice | None:
        """Reads the next slice. Raises Retry and Fatal of the source; what was asked for is kept until `finish`."""
        if not self.due():
            return None
        if self._asked.ids:
            return self._resolve(self._asked)
        return self._read_persons() if self._persons else self._read_found()

    def _ask(self, queries: Iterable[str], key: int, offset: int, at: Waypoint | None) -> None:
        asked = self._asked
        asked.offset = min(asked.offset, offset) if asked.ids else offset
        asked.at = _later(asked.at, at) if asked.ids else at
        for query in queries:
            asked.ids.setdefault(query, set()).add(key)

    def _resolve(self, asked: _Asked) -> Slice:
        """Finds the obs; reads them at once when they are few."""

        def finish() -> None:
            if self._asked is asked:
                self._asked = _Asked()

        with self._reading(asked.at) as reading:
            if self._superseded(reading, asked.at):
                return Slice(finish)
            ids = array("q", sorted(set(_found_ids(reading, asked.ids)) - asked.written, reverse=True))
            if len(ids) <= SLICE:
                return self._slice(reading, ids, finish)
        self._found.append(_Found(ids, asked.offset, asked.at))
        self._found.sort(key=lambda found: -len(found.ids))
        self._asked = _Asked()
        return Slice(lambda: None)

    def _read_found(self) -> Slice:
        """Of the shortest list, so that a new encounter doesn't wait for a concept's hundred thousand obs."""
        found = self._found[-1]

        def finish() -> None:
            del found.ids[-SLICE:]
            if not found.ids:
                self._found.remove(found)

        with self._reading(found.at) as reading:
            if self._superseded(reading, found.at):
                return Slice(lambda: self._found.remove(found))
            return self._slice(reading, found.ids[-SLICE:], finish)

    def _slice(self, reading: Reading, ids: Sequence[int], finish: Callable[[], None]) -> Slice:
        piece = Slice(finish, self._lookups.version(reading))
        if ids:
            self._fill(piece, reading, "obs_id", ids, "reread")
        return piece

    def _read_persons(self) -> Slice:
        waiting = list(self._persons.items())[:PERSONS]
        at: Waypoint | None = None
        for _, asked in waiting:
            at = _later(at, asked.at)
        with self._reading(at) as reading:
            chosen = dict(self._fitting(reading, waiting))

            def finish() -> None:
                for person_id, asked in chosen.items():
                    if self._persons.get(person_id) == asked:
                        del self._persons[person_id]

            if self._superseded(reading, at):
                return Slice(finish)
            return self._whole(reading, chosen, finish)

    def _whole(self, reading: Reading, chosen: dict[int, _Person], finish: Callable[[], None]) -> Slice:
        piece = Slice(finish, self._lookups.version(reading))
        persons = self._lookups.persons_in(reading, chosen, fresh=True)
        sharing = self._lookups.sharing([one for one, asked in chosen.items() if asked.others])
        disturbed = (self._lookups.disturbed() | sharing) - chosen.keys()
        self.whole(disturbed, _lowest(asked.offset for asked in chosen.values()), None)
        keys: dict[int, list[int]] = {person_id: [] for person_id in chosen}
        for row in self._fill(piece, reading, "person_id", list(chosen), "person"):
            keys[row["person_id"]].append(row["obs_id"])
        piece.persons = [(persons[one], keys[one]) for one in chosen]
        return piece

    def _fitting(self, reading: Reading, waiting: Sequence[tuple[int, _Person]]) -> Iterator[tuple[int, _Person]]:
        """The first persons, as many as make about a slice, one at least."""
        rows = reading.rows(
            "SELECT person_id, COUNT(*) AS n FROM obs WHERE person_id IN %s GROUP BY person_id",
            ([person_id for person_id, _ in waiting],),
        )
        sizes, total = {row["person_id"]: row["n"] for row in rows}, 0
        for person_id, asked in waiting:
            total += sizes.get(person_id, 0)
            yield person_id, asked
            if total >= SLICE:
                return

    def _fill(
        self, piece: Slice, reading: Reading, column: str, ids: Sequence[int], origin: ObservationOrigin
    ) -> list[Row]:
        """Reads the obs of `ids`; returns their rows."""
        marks = ",".join(["%s"] * len(ids))
        rows = reading.obs(f"{column} IN ({marks}) ORDER BY obs_id", list(ids))
        good = []
        for row in rows:
            try:
                check(row)
                good.append((row, piece.version, False, origin))
            except Reject as reject:
                piece.rejected.append((row, reject))
        self._not_before = self._clock() + len(rows) / self._budget.rows_per_s
        self._rows.inc(len(rows))
        piece.observations = self._lookups.observations_in(reading, good)
        return rows

    def _reading(self, at: Waypoint | None) -> AbstractContextManager[Reading]:
        return self._lookups.source.read(at, patience_s=PATIENCE_S)

    def _superseded(self, reading: Reading, at: Waypoint | None) -> bool:
        """The server isn't the notice's any more: its new epoch begins with a snapshot that sends everything again."""
        gone = at is not None and reading.position is None
        if gone:
            log.warning("re-read dropped", hospital=self._lookups.hospital_id, reason="another server or binlog")
        return gone


def _found_ids(reading: Reading, asked: dict[str, set[int]]) -> Iterator[int]:
    for query, keys in asked.items():
        wanted = sorted(keys)
        for start in range(0, len(wanted), IDS):
            yield from (row["obs_id"] for row in reading.rows(query, (wanted[start : start + IDS],)))


def _lowest(offsets: Iterable[int | None]) -> int | None:
    return min((one for one in offsets if one is not None), default=None)


def _later(one: Waypoint | None, other: Waypoint | None) -> Waypoint | None:
    """The later of two; one of another server gives way to the newer, which is the second."""
    if one is None or other is None:
        return other or one
    if one.server == other.server and one.position.order > other.position.order:
        return one
    return other
