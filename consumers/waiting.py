"""The queues of what waits to be enriched again: few obs, many obs, whole persons, and everyone.

Most key changes concern few obs, such as those of one encounter. A name can concern a hundred
thousand. The two are kept apart, because they are carried over a crash in different ways:

- Few obs wait a moment for more of their kind. They hold the offset of their key change: the worker
  commits no later one until they are read, so after a crash the key change comes again.
- Many obs hold no offset, since the group's offset would stand still for hours. They are stored
  with the destination's progress instead, and go on where they were.

This module only keeps books. `consumers.reenrich` reads.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openmrs.affected import QUERY_BY_NAME, AffectedQuery
from openmrs.read import SourcePosition
from passport.facts import Person
from passport.sink import RetainStep
from passport.version import Position

# What enrichment makes of a row. With another number, all that is stored is enriched anew.
ENRICHMENT = 2
SLICE = 500  # obs that are read and written at once, between live batches
LOWEST_ID = -(2**63)


@dataclass(slots=True)
class Request:
    """The obs that key changes concern, not looked for yet.

    `keys` says how to find them: the changed keys by query. `offset` is that of the first key
    change, and `position` that of the newest one; None stands for all that is committed when it is
    read. All obs up to `done` are read already. The stored enrichment of the obs in `written`
    surely contains these key changes.

    A request holds its offset until it is `stored` with the progress.
    """

    keys: dict[AffectedQuery, set[int]] = field(default_factory=dict)
    offset: int | None = None
    position: SourcePosition | None = None
    done: int = LOWEST_ID
    written: frozenset[int] = frozenset()
    stored: bool = False

    def add(
        self,
        queries: Iterable[AffectedQuery],
        key: int,
        offset: int,
        position: SourcePosition | None,
    ) -> None:
        """Take one key of a key change."""
        if self.keys:
            position = later(self.position, position)
        self.position = position
        self.offset = lowest((self.offset, offset))
        for query in queries:
            self.keys.setdefault(query, set()).add(key)

    @property
    def held_offset(self) -> int | None:
        return None if self.stored else self.offset

    @property
    def key_count(self) -> int:
        return sum(len(keys) for keys in self.keys.values())

    def as_json(self) -> dict[str, Any]:
        """Return what is stored with the progress; `from_json` is the inverse.

        What is stored outlives a release, so a query is stored by its name.
        """
        keys = {query.name: sorted(ids) for query, ids in self.keys.items()}
        position: list[Any] | None = None
        if self.position is not None:
            position = [*self.position.position, self.position.gtid, self.position.server]
        return {"keys": keys, "done": self.done, "at": position}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Request":
        keys = {QUERY_BY_NAME[name]: set(ids) for name, ids in stored["keys"].items()}
        position: SourcePosition | None = None
        if stored["at"]:
            file, pos, gtid, server = stored["at"]
            position = SourcePosition(Position(file, pos), gtid, server)
        return cls(keys, position=position, done=stored["done"], stored=True)


class FewObs:
    """The obs of small requests.

    They wait a moment for more, since a round trip costs more than the rows that it brings.
    """

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.position: SourcePosition | None = None
        self.offset: int | None = None  # the lowest that these obs hold; None if there are none
        self._wait_until = 0.0

    def add(self, ids: Collection[int], request: Request, wait_until: float) -> None:
        """Take the obs of a request. They are read by the time `wait_until`, or earlier."""
        if self.ids:
            self.position = later(self.position, request.position)
            self.offset = lowest((self.offset, request.offset))
            self._wait_until = min(self._wait_until, wait_until)
        else:
            self.position = request.position
            self.offset = request.offset
            self._wait_until = wait_until
        self.ids.update(ids)

    def due(self, now: float, *, busy: bool) -> bool:
        """Return whether to read now. While records wait (`busy`), a few obs wait for more."""
        if not self.ids:
            return False
        return not busy or now >= self._wait_until or len(self.ids) >= SLICE

    def next_ids(self) -> list[int]:
        return sorted(self.ids)[:SLICE]

    def read_no_earlier_than(self, position: SourcePosition | None) -> None:
        self.position = later(self.position, position)

    def finish(self, ids: Iterable[int]) -> None:
        """Forget obs that are read and written. The last ones release the offset."""
        self.ids.difference_update(ids)
        if not self.ids:
            self.offset = None


class ManyObs:
    """The obs of one large request: read a slice at a time, from the lowest id on."""

    def __init__(self, request: Request, ids: Iterable[int]) -> None:
        self.request = request
        request.written = frozenset()  # is not needed any more, and may be large
        # An array takes 8 bytes for an id. Ids leave at its end, so the lowest stands there.
        self.ids = array("q", sorted(ids, reverse=True))

    def next_ids(self) -> Sequence[int]:
        return self.ids[-SLICE:]

    def read_no_earlier_than(self, position: SourcePosition | None) -> None:
        self.request.position = later(self.request.position, position)

    def finish(self, ids: Sequence[int]) -> None:
        """Forget the obs that `next_ids` gave: they are read and written."""
        self.request.done = max(ids)
        del self.ids[-len(ids) :]


@dataclass(frozen=True, slots=True)
class WholePerson:
    """The reason why a person waits.

    `offset` is that of the key change which asks for it; None if the destination asks, which will
    ask again should this be lost. `with_holders`: whoever shares a national id with this person is
    read too. A key change says so, because what it changed may have been loaded with the index of
    ids already, so that no difference is seen there.
    """

    offset: int | None
    position: SourcePosition | None
    with_holders: bool

    def merged(self, newer: "WholePerson") -> "WholePerson":
        """Return what serves both reasons."""
        return WholePerson(
            lowest((self.offset, newer.offset)),
            later(self.position, newer.position),
            self.with_holders or newer.with_holders,
        )


class BigPerson:
    """A person who has more obs than a slice: read a slice at a time, from the lowest obs_id on.

    Others are served in between. So each slice has a position of its own, and `version` is that of
    the first one, the lowest. `keys` are the obs_ids of the slices that are written, in their
    order. Once all are written (`is_read`), the destination retains them. It may do so in `steps`,
    and has `begun` to be told of this person with the first slice.

    It holds its offset until the end. After a crash it begins anew.
    """

    def __init__(self, person_id: int, reason: WholePerson) -> None:
        self.person_id = person_id
        self.reason = reason
        # What asks for the person when slices of them are written, which may be too old for it.
        self.again: WholePerson | None = None
        self.is_retained = False
        self.restart()

    def restart(self) -> None:
        """Begin anew with the first slice."""
        self.person: Person | None = None  # as of the newest slice
        self.version = ""
        self.keys = array("q")  # takes 8 bytes for an id
        self.is_read = False
        self.begun: int | None = None
        self.steps: Iterator[RetainStep] | None = None

    @property
    def after(self) -> int:
        """The obs_id behind which the next slice begins."""
        return self.keys[-1] if self.keys else LOWEST_ID

    @property
    def offset(self) -> int | None:
        again = self.again.offset if self.again is not None else None
        return lowest((self.reason.offset, again))

    def ask(self, reason: WholePerson) -> None:
        """Take another reason why the person is to be read."""
        if not self.version:
            self.reason = self.reason.merged(reason)
        elif self.again is None:
            self.again = reason
        else:
            self.again = self.again.merged(reason)

    def take(self, person: Person, version: str) -> None:
        """Note what the next slice was read with. Later slices are as new or newer."""
        self.person = person
        self.version = self.version or version
        self.reason = replace(self.reason, with_holders=False)  # they wait by now

    def finish(self, ids: Sequence[int]) -> None:
        """Note that the slice with these obs is written, or that all are retained."""
        if self.is_read:
            self.is_retained = True
        else:
            self.keys.extend(ids)
            self.is_read = len(ids) < SLICE


class WholePersons:
    """The persons that are to be read whole, each once, in the order in which they came.

    Most are read together with others, as many as make a slice. Big ones are read one by one.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, WholePerson] = {}
        self._big: dict[int, BigPerson] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._big)

    def __contains__(self, person_id: int) -> bool:
        return person_id in self._waiting or person_id in self._big

    def add(self, person_id: int, reason: WholePerson) -> None:
        if person_id in self._big:
            self._big[person_id].ask(reason)
        elif person_id in self._waiting:
            self._waiting[person_id] = self._waiting[person_id].merged(reason)
        else:
            self._waiting[person_id] = reason

    def read_in_slices(self, person_id: int) -> None:
        """Let a person who waits be a big one."""
        self._big[person_id] = BigPerson(person_id, self._waiting.pop(person_id))

    def begin_new_epoch(self) -> None:
        """Have all be read with all that is committed, the big ones from their first obs on."""
        for person_id, person in self._waiting.items():
            self._waiting[person_id] = replace(person, position=None)
        for big in self._big.values():
            big.restart()

    def first(self, count: int) -> dict[int, WholePerson]:
        return {person_id: self._waiting[person_id] for person_id in list(self._waiting)[:count]}

    def next_big(self) -> BigPerson | None:
        """Return one of the big ones, each in its turn."""
        for person_id in self._big:
            big = self._big.pop(person_id)
            self._big[person_id] = big
            return big
        return None

    def big(self) -> set[int]:
        return {*self._big}

    def offset(self) -> int | None:
        """Return the lowest offset that a person holds; None if none does."""
        offsets = [person.offset for person in self._waiting.values()]
        offsets += [big.offset for big in self._big.values()]
        return lowest(offsets)

    def finish(self, person_ids: Iterable[int]) -> None:
        for person_id in person_ids:
            self._waiting.pop(person_id, None)

    def finish_big(self) -> None:
        """Forget the big ones that are retained. Who was asked for meanwhile waits again."""
        for big in list(self._big.values()):
            if big.is_retained:
                del self._big[big.person_id]
                if big.again is not None:
                    self._waiting[big.person_id] = big.again


class EveryPerson:
    """All who have obs, read whole one after the other: a table that is looked up became another.

    A portion of them waits in `WholePersons` at a time. Whoever is not above `done` is read. It
    holds no offset, and is stored with the progress.
    """

    def __init__(self, position: SourcePosition | None, done: int = LOWEST_ID) -> None:
        self.position = position
        self.done = done
        self._portion: list[int] = []

    def is_due(self, waiting: WholePersons) -> bool:
        """Return whether all of the last portion are read."""
        return not any(person_id in waiting for person_id in self._portion)

    @property
    def after(self) -> int:
        """The person_id behind which the next portion begins."""
        return self._portion[-1] if self._portion else self.done

    def take(self, portion: list[int]) -> None:
        """Note that these persons, the next ones by their ids, wait now."""
        self.done = self.after
        self._portion = portion

    def as_json(self) -> dict[str, Any]:
        """Return what is stored with the progress; `from_json` is the inverse.

        An earlier release reads it as a request that is done.
        """
        request = Request(position=self.position, done=self.done)
        return {**request.as_json(), "everyone": True}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "EveryPerson":
        request = Request.from_json(stored)
        return cls(request.position, request.done)


def enriched_as(
    locales: Sequence[str], kept_locales: Sequence[str], rules: str = ""
) -> dict[str, Any]:
    """Return how rows are enriched, as it is stored with the progress beside what waits.

    It is another one after an upgrade that adds to the enrichment, and after a change of the
    locales in the settings or of the destination's `rules` (see `passport.sink.HasRules`). An
    earlier release reads it as a request that is done.
    """
    made_by: dict[str, Any] = {"enriched": [ENRICHMENT, [*locales], [*kept_locales]]}
    if rules:
        made_by["rules"] = rules
    return {**Request().as_json(), **made_by}


def lowest(offsets: Iterable[int | None]) -> int | None:
    return min((offset for offset in offsets if offset is not None), default=None)


def later(first: SourcePosition | None, second: SourcePosition | None) -> SourcePosition | None:
    """Return the later of two positions. None is all that is committed when it is read.

    Positions of two servers can't be compared. Then it is the second, which came later.
    """
    if first is None or second is None:
        return None
    if first.server == second.server and first.position.order > second.position.order:
        return first
    return second
