"""Re-enrichment: the obs and persons that a key change concerns are read again.

They are read in slices, at a position that contains the change.

A key change goes through these states, and each is a class of its own:

    Request    the keys that it names; the changes of some batches together make one request
    Search     its obs_ids are being found, 50,000 at a time
    FewObs     a slice of them at most: they wait a moment for more, and hold the offset
    ManyObs    more than that: stored with the progress, holding no offset
    Slice      what was read of them, to be written and then finished

A person who must be read whole (another national id, or the destination asks) waits in
WholePersons. One with many obs is read in slices, as a BigPerson, and then retained. When a whole
table that is looked up became another one, all persons wait, a portion at a time: EveryPerson says
how far that is. An obs or a person that waits twice is read once.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

from consumers.halving import in_halves
from consumers.lookups import PATIENCE_S, Lookups, RowToEnrich
from consumers.waiting import (
    SLICE,
    BigPerson,
    EveryPerson,
    FewObs,
    ManyObs,
    Request,
    WholePerson,
    WholePersons,
    later,
    lowest,
)
from openmrs.affected import PERSON_KEYS, QUERIES, AffectedQuery
from openmrs.key_ranges import next_keys_of_person, rows_of_persons, rows_with_keys
from openmrs.load_budget import Pace
from openmrs.load_share import LoadShare
from openmrs.read import ConsistentRead, Elsewhere, SourcePosition
from openmrs.tables import OBS
from passport import metrics
from passport.errors import Origin, Reject, Retry
from passport.event import KeyChangeEvent, Row, check_row
from passport.facts import Observation, ObservationOrigin, Person
from passport.settings import LoadBudget

LITTLE_S = 2.0  # how long few obs wait for more while records wait too
KEYS_OF_A_LIST = 1_000  # keys in one IN (...)
PERSONS = 50  # persons that are looked at for one slice
FOUND_AT_ONCE = 50_000  # obs_ids
STORED_KEYS = 1_000  # the most that a hospital's progress may carry

FEW, PERSON, BIG, MANY = range(4)  # the queues that take turns


class Part(NamedTuple):
    """One query of a search: the obs of these keys with an id above `after`."""

    query: AffectedQuery
    keys: list[int]
    after: int


class Search:
    """Finds the obs_ids of a request, some with each step."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.found: set[int] = set()
        self.finished = False
        self._parts: list[Part] = []
        for query, key_set in request.keys.items():
            keys = sorted(key_set)
            for start in range(0, len(keys), KEYS_OF_A_LIST):
                part_keys = keys[start : start + KEYS_OF_A_LIST]
                self._parts.append(Part(query, part_keys, request.done))

    def step(self, reading: ConsistentRead) -> bool:
        """Find some more. Return True when all are found."""
        count = 0
        while self._parts and count < FOUND_AT_ONCE:
            query, keys, after = self._parts[-1]
            if query.needs and not reading.has_column(query.table, query.needs):
                self._parts.pop()
                continue
            rows = reading.rows(
                f"{query.sql} AND o.obs_id > %s ORDER BY o.obs_id LIMIT {FOUND_AT_ONCE}",
                (keys, after),
            )
            self._parts.pop()
            self.found.update(row["obs_id"] for row in rows)
            count += len(rows)
            if len(rows) == FOUND_AT_ONCE:  # there may be more
                self._parts.append(Part(query, keys, rows[-1]["obs_id"]))
        return not self._parts

    def finish(self, ids: Sequence[int]) -> None:
        """Forget the request: `ids`, all that was found, are read and written."""
        self.finished = True


@dataclass(slots=True)
class Slice:
    """Observations that were read and are to be written. `ReenrichmentQueue.finish` comes then.

    `ids` are the obs or persons of `queue` that it is made of. Each of `persons` is whole: it comes
    with all its obs_ids at `version`. `rejected` are the rows that can't be carried, and why. Of a
    BigPerson there are some slices with observations, and then one with `persons`.
    """

    queue: Search | FewObs | ManyObs | WholePersons | BigPerson
    ids: Sequence[int]
    version: str
    observations: list[Observation] = field(default_factory=list)
    persons: list[tuple[Person, Sequence[int]]] = field(default_factory=list)
    rejected: list[tuple[Row, Reject]] = field(default_factory=list)


class ReenrichmentQueue:
    """One hospital's work that key changes and the destination ask for.

    `read` gives the next slice. What was asked for is kept until `finish`, so that a failure
    between the two loses nothing.
    """

    def __init__(
        self, lookups: Lookups, budget: LoadBudget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lookups = lookups
        self._pace = Pace(budget, LoadShare(lookups.source), clock)
        self._clock = clock
        self._collected = Request()  # of the key changes since the last `read`
        self._requests: deque[Request] = deque()
        self._searches: list[Search] = []
        self._few = FewObs()
        self._many: list[ManyObs] = []
        self._persons = WholePersons()
        self._everyone: EveryPerson | None = None
        self._last_turn = MANY
        self._epoch = lookups.newest[:10]  # of the positions at which all this is to be read
        self._rows = metrics.REENRICHED.labels(lookups.hospital_id)

    def add_key_change(
        self, event: KeyChangeEvent, offset: int, written: frozenset[int] = frozenset()
    ) -> None:
        """Take what the key change at `offset` concerns.

        The stored enrichment of the obs in `written` surely contains it, so these aren't read.
        """
        table = event.source.table
        position = SourcePosition.of(event.source) if event.source.file else None
        if not event.keys and event.op == "r":
            self._everyone = EveryPerson(position)
        for key in event.keys:
            person_id = key.get(PERSON_KEYS.get(table, ""))
            if person_id is not None:
                self._persons.add(person_id, WholePerson(offset, position, with_holders=True))
            for column, queries in QUERIES.get(table, ()):
                changed_key = key.get(column)
                if changed_key is not None:
                    self._collected.add(queries, changed_key, offset, position)
        self._collected.written = written

    def add_persons(
        self, person_ids: Iterable[int], offset: int | None, position: SourcePosition | None
    ) -> None:
        """Take persons to be read whole, at `position` or later; None: with all that is committed.

        `offset` None: the destination asks, and will ask again should this be lost.
        """
        for person_id in person_ids:
            self._persons.add(person_id, WholePerson(offset, position, with_holders=False))

    def read_in_slices(self, person_id: int) -> None:
        """Let a person who waits be read in slices: the destination has much to do for them."""
        self._persons.read_in_slices(person_id)

    def big_persons(self) -> set[int]:
        """Return the person_ids of those who are read in slices now.

        The destination need not ask for them. If what it wants has changed since their first slice,
        it asks again when they are retained.
        """
        return self._persons.big()

    def held_offset(self) -> int | None:
        """Return the lowest offset whose work isn't finished, None if no work holds one."""
        offsets = [
            self._collected.offset,
            self._few.offset,
            self._persons.offset(),
            *(request.held_offset for request in self._unread()),
        ]
        return lowest(offsets)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the work that holds no offset. It must be stored together with the offset."""
        stored = [request.as_json() for request in self._stored()]
        if self._everyone is not None:
            stored.append(self._everyone.as_json())
        return stored

    def restore(self, stored: Iterable[Mapping[str, Any]]) -> None:
        """Go on with what `as_json` returned in an earlier process."""
        for work in stored:
            if "everyone" in work:
                self._everyone = EveryPerson.from_json(work)
            elif "enriched" not in work:
                self._requests.append(Request.from_json(work))

    def add_everyone(self) -> None:
        """Have every person with obs read whole, from the first one on, in the background."""
        self._everyone = EveryPerson(None)

    def pending(self) -> int:
        """Return how much waits: queries, obs and persons."""
        queries = len(self._collected.keys)
        queries += sum(len(request.keys) for request in self._requests)
        queries += sum(len(search.request.keys) for search in self._searches)
        obs = len(self._few.ids) + sum(len(many.ids) for many in self._many)
        return queries + obs + len(self._persons) + (self._everyone is not None)

    def pending_persons(self) -> int:
        """Return how many persons wait to be read whole, but for those who are read in slices."""
        return len(self._persons) - len(self._persons.big())

    def due(self) -> bool:
        """Return whether `read` has something to do, and the load budget allows it."""
        return self.pending() > 0 and self._pace.wait_s() == 0

    def read(self, *, busy: bool = False) -> Slice | None:
        """Read the next slice; None if there is nothing to read now.

        `busy`: records wait too. Then few obs wait a moment for more. Raises Retry and Fatal of the
        hospital.
        """
        if not self.due():
            return None
        self._forget_older_epochs()
        if self._collected.keys:
            self._requests.append(self._collected)
            self._collected = Request()
        if self._everyone is not None and self._everyone.is_due(self._persons):
            self._add_portion(self._everyone)
        # The newest request and the oldest search go on with each call. If one of them waited for
        # the other, it would hold its offset until the end of a backlog.
        oldest = self._searches[:1]
        if self._requests:
            self._searches.append(Search(self._requests.popleft()))
            newest = self._searches[-1:]
        else:
            newest = []
        for search in newest + oldest:
            piece = self._search(search, busy=busy)
            if piece is not None:
                return piece
        for _ in range(4):
            self._last_turn = (self._last_turn + 1) % 4
            if self._last_turn == FEW:
                piece = self._read_few(busy=busy)
            elif self._last_turn == PERSON:
                piece = self._read_persons()
            elif self._last_turn == BIG:
                piece = self._read_big_person()
            else:
                piece = self._read_many()
            if piece is not None:
                return piece
        return None

    def finish(self, piece: Slice) -> None:
        """Forget what `piece` was made of: it is written."""
        piece.queue.finish(piece.ids)
        self._searches = [search for search in self._searches if not search.finished]
        self._many = [many for many in self._many if many.ids]
        self._persons.finish_big()
        if not self.pending():
            self._pace.rest()

    def _unread(self) -> list[Request]:
        """Return the requests whose obs are not all in `_few`."""
        searched = [search.request for search in self._searches]
        return [*self._requests, *searched, *(many.request for many in self._many)]

    def _stored(self) -> list[Request]:
        return [request for request in self._unread() if request.stored]

    def _search(self, search: Search, *, busy: bool) -> Slice | None:
        """Find some more of its obs. When all are found, put them into a queue.

        Few obs are read at once when no record waits: the read is open anyhow.
        """
        request = search.request
        with self._reading(request.position) as reading:
            if not search.step(reading):
                return None
            ids = search.found - request.written
            if len(ids) > SLICE:
                self._leave_to_others(ids, request.position)
            if 0 < len(ids) <= SLICE and not busy:
                return self._slice(search, sorted(ids), reading)
        self._searches.remove(search)
        if 0 < len(ids) <= SLICE and not request.stored:
            self._few.add(ids, request, self._clock() + LITTLE_S)
        elif ids:
            stored_keys = sum(stored.key_count for stored in self._stored())
            if not request.stored and stored_keys + request.key_count <= STORED_KEYS:
                request.stored = True
            self._many.append(ManyObs(request, ids))
        return None

    def _leave_to_others(self, ids: set[int], position: SourcePosition | None) -> None:
        """Take out of `ids` the obs that wait already, and have them read at `position` or later.

        So never more obs wait than the hospital has, however often a name changes.
        """
        queues: list[FewObs | ManyObs] = [self._few, *self._many]
        for queue in queues:
            waiting = ids.intersection(queue.ids)
            if waiting:
                ids -= waiting
                queue.read_no_earlier_than(position)

    def _read_few(self, *, busy: bool) -> Slice | None:
        few = self._few
        if not few.due(self._clock(), busy=busy):
            return None
        with self._reading(few.position) as reading:
            return self._slice(few, few.next_ids(), reading)

    def _read_many(self) -> Slice | None:
        """Read a slice of the shortest work.

        So a ward's obs don't wait for a concept's hundred thousand.
        """
        if not self._many:
            return None
        many = min(self._many, key=lambda work: len(work.ids))
        with self._reading(many.request.position) as reading:
            return self._slice(many, many.next_ids(), reading)

    def _slice(
        self, queue: Search | FewObs | ManyObs, ids: Sequence[int], reading: ConsistentRead
    ) -> Slice:
        piece = Slice(queue, ids, self._lookups.version(reading))
        self._fill(piece, reading, rows_with_keys(reading, OBS, ids), "reread")
        return piece

    def _add_portion(self, everyone: EveryPerson) -> None:
        """Have the next of all persons read whole."""
        with self._reading(everyone.position) as reading:
            rows = reading.rows(
                "SELECT DISTINCT person_id FROM obs WHERE person_id > %s"
                " ORDER BY person_id LIMIT %s",
                (everyone.after, PERSONS),
            )
            portion = [row["person_id"] for row in rows]
            if not portion:
                self._everyone = None
                return
        everyone.take(portion)
        self.add_persons(portion, None, everyone.position)

    def _read_persons(self) -> Slice | None:
        waiting = self._persons.first(PERSONS)
        if not waiting:
            return None
        positions = [person.position for person in waiting.values()]
        position = reduce(later, positions)
        with self._reading(position) as reading:
            chosen = self._about_a_slice(reading, waiting)
            if not chosen:
                return None
            piece = Slice(self._persons, list(chosen), self._lookups.version(reading))
            persons = self._lookups.persons_in(reading, chosen, fresh=True)
            self._add_affected_patients(chosen)
            keys: dict[int, list[int]] = {person_id: [] for person_id in chosen}
            rows = rows_of_persons(reading, OBS, piece.ids)
            self._fill(piece, reading, rows, "person")
            for row in rows:
                keys[row["person_id"]].append(row["obs_id"])
            piece.persons = [(persons[person_id], keys[person_id]) for person_id in chosen]
            return piece

    def _read_big_person(self) -> Slice | None:
        """Read the next slice of a big person. If there is none, return that the person is whole.

        Each slice has all that is committed when it is read, so that none is older than those
        before it.
        """
        big = self._persons.next_big()
        if big is None:
            return None
        if big.is_read and big.person is not None:
            return Slice(big, (), big.version, persons=[(big.person, big.keys)])
        with self._reading(None) as reading:
            version = self._lookups.version(reading)
            persons = self._lookups.persons_in(reading, [big.person_id], fresh=True)
            self._add_affected_patients({big.person_id: big.reason})
            ids = next_keys_of_person(reading, OBS, big.person_id, big.after, SLICE)
            big.take(persons[big.person_id], version)
            piece = Slice(big, ids, version)
            self._fill(piece, reading, rows_with_keys(reading, OBS, ids), "person")
            return piece

    def _about_a_slice(
        self, reading: ConsistentRead, waiting: dict[int, WholePerson]
    ) -> dict[int, WholePerson]:
        """Return the first persons that together have about a slice of obs.

        Those who have more than that alone are left to be read in slices.
        """
        rows = reading.rows(
            "SELECT person_id, COUNT(*) AS n FROM obs WHERE person_id IN %s GROUP BY person_id",
            (list(waiting),),
        )
        sizes = {row["person_id"]: row["n"] for row in rows}
        chosen: dict[int, WholePerson] = {}
        total = 0
        for person_id, person in waiting.items():
            size = sizes.get(person_id, 0)
            if size > SLICE:
                self._persons.read_in_slices(person_id)
                continue
            chosen[person_id] = person
            total += size
            if total >= SLICE:
                break
        return chosen

    def _add_affected_patients(self, chosen: dict[int, WholePerson]) -> None:
        """Have the others read whose state may have changed with that of the chosen ones."""
        with_holders = [person_id for person_id, person in chosen.items() if person.with_holders]
        affected = self._lookups.affected_patients()
        affected |= self._lookups.holders_of_same_ids(with_holders)
        offset = lowest(person.offset for person in chosen.values())
        self.add_persons(affected - chosen.keys(), offset, None)

    def _fill(
        self,
        piece: Slice,
        reading: ConsistentRead,
        rows: Sequence[Row],
        origin: ObservationOrigin,
    ) -> None:
        """Put rows that were read just now into the slice, enriched within the same read."""
        # The wait begins behind the read, not before it: live records come first, and what comes
        # together meanwhile costs fewer round trips.
        self._pace.begin()
        self._pace.count(len(rows), queries=0)  # the rows are what it costs the server
        self._rows.inc(len(rows))
        to_enrich: list[RowToEnrich] = []
        for row in rows:
            try:
                check_row(row)
            except Reject as reject:
                piece.rejected.append((row, reject))
            else:
                to_enrich.append(RowToEnrich(row, piece.version, False, origin))
        for observations in in_halves(
            self._lookups.hospital_id,
            to_enrich,
            lambda part: self._lookups.observations_in(reading, part),
            lambda row, reject: piece.rejected.append((row.row, reject)),
        ):
            piece.observations += observations

    @contextmanager
    def _reading(self, position: SourcePosition | None) -> Iterator[ConsistentRead]:
        """Open a read that surely contains `position`; None is all that is committed now.

        Raises Retry while the address leads to another server than the one whose events come. What
        waits is kept: after a switchover, the new server's events come in an epoch of their own.
        """
        hospital_id = self._lookups.hospital_id
        at_least = position or self._lookups.end()
        with self._lookups.source.read_at(at_least, patience_s=PATIENCE_S) as reading:
            if isinstance(reading.answer, Elsewhere):
                raise Retry(
                    f"hospital {hospital_id}: its address leads to another server than the one"
                    " whose changes come, or the binlog was numbered anew",
                    hint="nothing to do after a switchover or a restore: the reader follows, and"
                    " what waits is read then; if it comes again and again, several servers answer"
                    f" at this address: name one of them in hospitals.{hospital_id}.mysql",
                    origin=Origin.hospital(hospital_id),
                    after=1,
                )
            yield reading

    def _forget_older_epochs(self) -> None:
        """Have what waits since an older epoch be read with all that is committed.

        A position of an older epoch is that of another server or binlog, and can't be asked for.
        """
        epoch = self._lookups.newest[:10]
        if epoch == self._epoch:
            return
        self._epoch = epoch
        for request in (self._collected, *self._unread()):
            request.position = None
        self._few.position = None
        if self._everyone is not None:
            self._everyone.position = None
        self._persons.begin_new_epoch()
