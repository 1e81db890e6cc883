"""Notices become work: which obs and persons a change concerns, read again in slices at a position
that contains it.

The worker commits no offset past a notice whose work isn't finished (`held`), so that after a crash
the notices come again, and with them the work. Large work of few keys (a name that many obs have)
holds no offset: it is stored with the progress instead (`left`), and goes on where it was
(`restore`).
"""

import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import structlog

from consumers.enrich.obs import check
from consumers.lookups import PATIENCE_S, Lookups
from openmrs.affected import NAMES, PERSON_KEYS, QUERIES, QUERY
from openmrs.read import ConsistentRead, SourcePosition
from passport import metrics
from passport.errors import Reject
from passport.event import KeyChangeEvent, Row
from passport.facts import Observation, ObservationOrigin, Person
from passport.settings import LoadBudget
from passport.version import Position

SLICE = 500  # obs read and written at once, between live batches
# so long may less than a slice wait for more, while records wait too: what it costs is the round
# trips
LITTLE_S = 2.0
IDS = 1_000  # of one IN list
PERSONS = 50  # looked at for one slice
LISTED = 50_000  # obs_ids that are found at once
LOWEST_ID = -(2**63)
STORED = 1_000  # keys that the progress of a hospital may carry

log = structlog.get_logger()


@dataclass(slots=True)
class Slice:
    """What was read: to be written, then `finish`. `persons` are whole: each with all its obs_ids
    at `version`.

    `rejected`: rows that can't be carried, and why.
    """

    finish: Callable[[], None]
    version: str = ""
    observations: list[Observation] = field(default_factory=list)
    persons: list[tuple[Person, list[int]]] = field(default_factory=list)
    rejected: list[tuple[Row, Reject]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Person:
    """Why a person waits: since which offset (None: the destination asks), and at which place at
    least.

    `others`: who shares an id with them is read too. A notice says so, since what it changed may
    have been loaded with the index, so that no change is seen.
    """

    offset: int | None
    at: SourcePosition | None
    others: bool


@dataclass(slots=True, eq=False)
class _Job:
    """Obs that notices concern. `keys`: of the notices, by query; `offset`: of the first notice,
    None when the progress has the job; `at`: the newest notice's place. `written`: obs enriched
    with all of the notices known.

    First they are listed: `found`, and what is `todo` for that (query, keys, after which obs_id).
    Then those in `ids`, highest first, wait; all up to `done` are read. `until`: so few that until
    then they may wait for others.
    """

    keys: dict[str, set[int]] = field(default_factory=dict)
    offset: int | None = None
    at: SourcePosition | None = None
    written: frozenset[int] = frozenset()
    found: set[int] = field(default_factory=set)
    todo: list[tuple[str, list[int], int]] | None = None
    ids: "array[int] | None" = None
    done: int = LOWEST_ID
    until: float | None = None

    @classmethod
    def restored(cls, left: Mapping[str, Any]) -> "_Job":
        at = left["at"] and SourcePosition(Position(*left["at"][:2]), *left["at"][2:])
        keys = {QUERY[name]: {*ids} for name, ids in left["keys"].items()}
        return cls(keys, at=at, done=left["done"])

    def left(self) -> dict[str, Any]:
        keys = {NAMES[query]: sorted(keys) for query, keys in self.keys.items()}
        return {
            "keys": keys,
            "done": self.done,
            "at": self.at and [*self.at.position, *self.at[1:]],
        }

    @property
    def waiting(self) -> int:
        return len(self.keys) if self.ids is None else len(self.ids)

    def list(self, reading: ConsistentRead) -> bool:
        """Finds some more of the obs that are still to be read; whether these are all."""
        if self.todo is None:
            parts = [(query, _parts(sorted(keys))) for query, keys in self.keys.items()]
            self.todo = [(query, part, self.done) for query, some in parts for part in some]
        listed = 0
        while self.todo and listed < LISTED:
            query, keys, after = self.todo[-1]
            rows = reading.rows(
                f"{query} AND o.obs_id > %s ORDER BY o.obs_id LIMIT {LISTED}", (keys, after)
            )
            self.found.update(row["obs_id"] for row in rows)
            self.todo[-1:] = [(query, keys, rows[-1]["obs_id"])] if len(rows) == LISTED else []
            listed += len(rows)
        return not self.todo


def _parts(keys: Sequence[int]) -> Iterator[list[int]]:
    return ([*keys[start : start + IDS]] for start in range(0, len(keys), IDS))


class ReenrichmentQueue:
    """One hospital's work that notices and the destination ask for. An obs or person that waits
    twice is read once.
    """

    def __init__(
        self, lookups: Lookups, budget: LoadBudget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lookups, self._budget, self._clock = lookups, budget, clock
        self._asked = _Job()
        self._jobs: list[_Job] = []
        self._persons: dict[int, _Person] = {}
        self._turns = deque([self._read_shortest, self._read_persons, self._read_waited])
        self._not_before = 0.0
        self._rows = metrics.REREADS.labels(lookups.hospital_id)

    def notice(self, notice: KeyChangeEvent, offset: int, written: frozenset[int]) -> None:
        """Takes what a notice at `offset` asks for. `written`: obs whose stored enrichment surely
        contains it.
        """
        at = SourcePosition.of(notice.source) if notice.source.file else None
        for key in notice.keys:
            person_id = key.get(PERSON_KEYS.get(notice.source.table, ""))
            if person_id is not None:
                self.whole([person_id], offset, at, others=True)
            for column, queries in QUERIES.get(notice.source.table, ()):
                if key.get(column) is not None:
                    self._ask(queries, key[column], offset, at)
        self._asked.written = written

    def whole(
        self,
        person_ids: Collection[int],
        offset: int | None,
        at: SourcePosition | None,
        *,
        others: bool = False,
    ) -> None:
        """Persons to be read whole. `offset` None: the destination asks, and will ask again should
        this be lost.
        """
        for person_id in person_ids:
            before = self._persons.get(person_id, _Person(None, None, others=False))
            lowest = _lowest((before.offset, offset))
            self._persons[person_id] = _Person(
                lowest, _later(before.at, at), others=others or before.others
            )

    def held(self) -> int | None:
        """The lowest offset whose work isn't finished."""
        jobs = _lowest(job.offset for job in (self._asked, *self._jobs))
        return _lowest([jobs, *(one.offset for one in self._persons.values())])

    def left(self) -> list[dict[str, Any]]:
        """Work that holds no offset, as JSON: whoever stores the offset must store it with it."""
        return [job.left() for job in self._jobs if job.offset is None]

    def restore(self, left: Iterable[Mapping[str, Any]]) -> None:
        """Goes on with what `left` said."""
        self._jobs += map(_Job.restored, left)

    def pending(self) -> int:
        """How much waits: queries, persons and obs."""
        return self._asked.waiting + len(self._persons) + sum(job.waiting for job in self._jobs)

    def pending_persons(self) -> int:
        """How many persons wait to be read whole."""
        return len(self._persons)

    def due(self) -> bool:
        """Whether `read` has something to do now."""
        return self.pending() > 0 and self._clock() >= self._not_before

    def read(self, *, busy: bool = False) -> Slice | None:
        """Reads the next slice. Raises Retry and Fatal of the source; what was asked for is kept
        until `finish`.

        `busy`: records wait, too; then what is little waits a moment for more.
        """
        if not self.due():
            return None
        if self._asked.keys:
            self._jobs.append(self._asked)
            self._asked = _Job()
        # Each call lists, or in a backlog what came first would wait until its end, and hold the
        # offset as long.
        for job in self._unlisted():
            if piece := self._list(job, busy=busy):
                return piece
        for _ in range(len(self._turns)):
            self._turns.rotate()
            if piece := self._turns[0](busy=busy):
                return piece
        return None

    def _unlisted(self) -> list[_Job]:
        """The first that is not begun, and the first that is: neither waits for the others."""
        left = [job for job in self._jobs if job.ids is None]
        return [
            *[job for job in left if job.todo is None][:1],
            *[job for job in left if job.todo is not None][:1],
        ]

    def _read_waited(self, *, busy: bool) -> Slice | None:
        """While records wait too, only what has waited for more long enough, or is enough."""
        now = self._clock()
        little = ((job, job.until) for job in self._jobs if job.until is not None)
        due = (job for job, until in little if not busy or now >= until or job.waiting >= SLICE)
        return next(map(self._read_some, due), None)

    def _read_shortest(self, *, busy: bool) -> Slice | None:  # one of the turns
        """So that an encounter's obs don't wait for a concept's hundred thousand."""
        large = [job for job in self._jobs if job.ids and job.until is None]
        return self._read_some(min(large, key=lambda job: job.waiting)) if large else None

    def _ask(
        self, queries: Iterable[str], key: int, offset: int, at: SourcePosition | None
    ) -> None:
        asked = self._asked
        asked.offset = _lowest((asked.offset, offset))
        asked.at = _later(asked.at, at) if asked.keys else at
        for query in queries:
            asked.keys.setdefault(query, set()).add(key)

    def _list(self, job: _Job, *, busy: bool) -> Slice | None:
        """Finds the obs; reads them at once when they are few and no record waits."""
        with self._reading(job.at) as reading:
            if self._superseded(reading, job.at):
                self._jobs.remove(job)
                return None
            if not job.list(reading):
                return None
            found = job.found - job.written
            if len(found) > SLICE:
                self._leave_asked(job, found)
            if 0 < len(found) <= SLICE and not busy:
                return self._slice(reading, sorted(found), lambda: self._jobs.remove(job))
        self._keep(job, found)
        return None

    def _keep(self, job: _Job, found: set[int]) -> None:
        """Until it is read: with the little that waits already, or by itself."""
        if not found:
            self._jobs.remove(job)
            return
        if len(found) <= SLICE and job.offset is not None:
            self._join(job, found)
        else:
            self._store(job)
        job.ids, job.found, job.written = (
            array("q", sorted(found, reverse=True)),
            set(),
            frozenset(),
        )

    def _join(self, job: _Job, found: set[int]) -> None:
        """Adds to `found` and `job` the little that waits already."""
        job.until = self._clock() + LITTLE_S
        for other in [one for one in self._jobs if one.until is not None and one is not job]:
            found.update(other.ids or ())
            job.until = min(job.until, other.until or 0)
            job.offset, job.at = _lowest((job.offset, other.offset)), _later(other.at, job.at)
            self._jobs.remove(other)

    def _leave_asked(self, job: _Job, found: set[int]) -> None:
        """Takes from `found` what waits already: that is then read at this job's place, or later.
        So never more waits than the hospital has, however often a name changes."""
        for other in self._jobs:
            before = len(found)
            found.difference_update(other.ids or ())
            if len(found) < before:
                other.at = _later(other.at, job.at)

    def _store(self, job: _Job) -> None:
        """With the progress, unless its keys are too many for that."""
        stored = [one for one in self._jobs if one.offset is None or one is job]
        if sum(len(keys) for one in stored for keys in one.keys.values()) <= STORED:
            job.offset = None

    def _read_some(self, job: _Job) -> Slice:
        ids = job.ids if job.ids is not None else array("q")

        def finish() -> None:
            job.done = ids[-SLICE:][0]
            del ids[-SLICE:]
            if not ids:
                self._jobs.remove(job)

        with self._reading(job.at) as reading:
            if self._superseded(reading, job.at):
                return Slice(lambda: self._jobs.remove(job))
            return self._slice(reading, ids[-SLICE:], finish)

    def _slice(
        self, reading: ConsistentRead, ids: Sequence[int], finish: Callable[[], None]
    ) -> Slice:
        piece = Slice(finish, self._lookups.version(reading))
        if ids:
            self._fill(piece, reading, "obs_id", ids, "reread")
        return piece

    def _read_persons(self, *, busy: bool) -> Slice | None:  # one of the turns
        if not self._persons:
            return None
        waiting = list(self._persons.items())[:PERSONS]
        at: SourcePosition | None = None
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

    def _whole(
        self, reading: ConsistentRead, chosen: dict[int, _Person], finish: Callable[[], None]
    ) -> Slice:
        piece = Slice(finish, self._lookups.version(reading))
        persons = self._lookups.persons_in(reading, chosen, fresh=True)
        sharing = self._lookups.holders_of_same_ids(
            [one for one, asked in chosen.items() if asked.others]
        )
        disturbed = (self._lookups.affected_patients() | sharing) - chosen.keys()
        self.whole(disturbed, _lowest(asked.offset for asked in chosen.values()), None)
        keys: dict[int, list[int]] = {person_id: [] for person_id in chosen}
        for row in self._fill(piece, reading, "person_id", list(chosen), "person"):
            keys[row["person_id"]].append(row["obs_id"])
        piece.persons = [(persons[one], keys[one]) for one in chosen]
        return piece

    def _fitting(
        self, reading: ConsistentRead, waiting: Sequence[tuple[int, _Person]]
    ) -> Iterator[tuple[int, _Person]]:
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
        self,
        piece: Slice,
        reading: ConsistentRead,
        column: str,
        ids: Sequence[int],
        origin: ObservationOrigin,
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

    def _reading(self, at: SourcePosition | None) -> AbstractContextManager[ConsistentRead]:
        return self._lookups.source.read_at(at, patience_s=PATIENCE_S)

    def _superseded(self, reading: ConsistentRead, at: SourcePosition | None) -> bool:
        """The server isn't the notice's any more: its new epoch begins with a snapshot that sends
        everything again.
        """
        gone = at is not None and reading.position is None
        if gone:
            log.warning(
                "re-read dropped",
                hospital=self._lookups.hospital_id,
                reason="another server or binlog",
            )
        return gone


def _lowest(offsets: Iterable[int | None]) -> int | None:
    return min((one for one in offsets if one is not None), default=None)


def _later(one: SourcePosition | None, other: SourcePosition | None) -> SourcePosition | None:
    """The later of two; one of another server gives way to the newer, which is the second."""
    if one is None or other is None:
        return other or one
    if one.server == other.server and one.position.order > other.position.order:
        return one
    return other
