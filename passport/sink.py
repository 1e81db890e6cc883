"""The contract of a destination: what it is given, what it answers, and how it is opened.

A destination is a Python module. The settings name it by its `type`: ``jsonl`` is the module
``destinations.jsonl``, and a name with dots is any module on Python's path. The module has three
names, see `DestinationModule`. What its `connect` returns is a `Sink`. A sink may do more than
that: each of the optional abilities at the end of this page is a protocol of its own, and a sink
has the ability if it has the method.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, cast, runtime_checkable

import msgspec
from pydantic import BaseModel, ValidationError

from passport.check import Check
from passport.errors import Fatal, Origin
from passport.facts import Observation, Person
from passport.settings import Destination, Settings


class KeyRange(msgspec.Struct, frozen=True):
    """The rows of one hospital's `table` with ``first < key <= to``. None is an open end."""

    hospital: str
    first: int | None
    to: int | None
    table: str = "obs"


# What `Sink.retain` is told about: a stretch of a table, or all rows of one person.
Scope = KeyRange | Person


@dataclass(slots=True)
class Outcome:
    """The numbers of rows of a call, by the way in which they ended.

    `stored` rows are written. `unchanged` rows were there already, in this version. `stale` rows
    are older than what is there. `unmatched` rows are of people whose rows are not kept. `rejected`
    has a pair (key, reason) for each row that the destination can't take. `overtaken` has the keys
    of those stale rows which the destination has in a newer state. A key is `Observation.key`.
    """

    stored: int = 0
    unchanged: int = 0
    stale: int = 0
    unmatched: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list, compare=False)

    def __iadd__(self, other: "Outcome") -> "Outcome":
        self.stored += other.stored
        self.unchanged += other.unchanged
        self.stale += other.stale
        self.unmatched += other.unmatched
        self.rejected += other.rejected
        self.overtaken += other.overtaken
        return self


@dataclass(frozen=True, slots=True)
class Progress:
    """A destination's progress with one hospital.

    `offset` is the next Kafka offset to read. `version` is the highest version seen, and `at_ms`
    the source's time of the newest event, in milliseconds since 1970. `rereads` is what is left of
    the re-enrichment that key changes before `offset` asked for: JSON, which the destination keeps
    as it is.
    """

    hospital: str
    offset: int
    version: str
    at_ms: int
    rereads: list[dict[str, Any]] = field(default_factory=list)


class Sink(Protocol):
    """A destination, as an object that observations are written to.

    Every call may come again, with the same result. A call that raises has promised nothing: all of
    it comes again. Every method may raise Retry (the destination is away) and Fatal (it needs a
    person).
    """

    def write(self, observations: Sequence[Observation]) -> Outcome:
        """Store a batch. The highest version of a row wins, whatever the order of arrival.

        A row may occur several times in a batch.
        """

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        """Delete the rows of `scope` that are not in `keys`, unless they are newer than `version`.

        `keys` are all the obs_ids that the scope had at the hospital as of `version`.
        """

    def ambiguous(self, hospital: str) -> Sequence[int]:
        """Return the person_ids that this destination keeps in state ``ambiguous``.

        The worker asks when it starts to follow a hospital, and has these people read again: the
        other holder of their national id may have given it up while nobody looked.
        """

    def progress(self, hospital: str) -> Progress | None:
        """Return what `record` last stored, or None if there is nothing of this hospital."""

    def record(self, progress: Progress) -> None:
        """Store how far this destination is. Comes after `write` and before the offset's commit."""

    def counts(self, hospital: str) -> Mapping[str, int]:
        """Return the number of rows ``stored``, and of people ``matched`` and ``unmatched``.

        A destination that doesn't know people answers 0 for both. People read these numbers.
        """

    def ready(self) -> None:
        """Raise NotReady if the destination can't be written now."""

    def close(self) -> None:
        """Let go of connections and files. No call comes after this one."""


# What a sink may do besides. The worker and the commands look once, when they have opened it.


@runtime_checkable
class KnowsAmbiguous(Protocol):
    """A sink that answers `Sink.ambiguous`.

    Every sink must from the next release on. One that was written for an earlier contract lacks the
    method and returns ambiguous people from `WantsPersons.wanted` itself; that works until then.
    """

    def ambiguous(self, hospital: str) -> Sequence[int]:
        """See `Sink.ambiguous`."""


@runtime_checkable
class OneWriter(Protocol):
    """A sink that lets only one writer at a time write a hospital: the last one that took it."""

    def take(self, hospital: str) -> None:
        """Become the hospital's writer.

        Whoever was it before gets Overtaken from `write`, `retain` and `record`, which then have
        written nothing, until they take the hospital again. A caller reads at the hospital, and
        asks for `progress`, after it has taken it. So what is read earlier never replaces what is
        read later, however long a writer was frozen between reading and writing.
        """


@runtime_checkable
class WantsPersons(Protocol):
    """A sink that may ask for whole persons, because it has to know all rows of a person."""

    def wanted(self, hospital: str, limit: int) -> Sequence[int]:
        """Return up to `limit` person_ids that are to be read whole.

        The worker asks about twice a second. It writes the person's rows and then calls `retain`
        with the person; from then on the person must not be returned any more.
        """


@runtime_checkable
class HasRules(Protocol):
    """A sink that makes its records by rules which an operator may change."""

    def rules(self, hospital: str) -> str:
        """Return a text that is another one when the rules of a hospital are others.

        It is stored with the progress. When it has changed, everybody is read again in the
        background, and what the new rules make of unchanged rows is written.
        """


@dataclass(frozen=True, slots=True)
class RetainStep:
    """One step of `RetainsInSteps.retain_steps`, and whether it was the last one."""

    outcome: Outcome
    is_last: bool


@runtime_checkable
class RetainsInSteps(Protocol):
    """A sink that retains a person in steps, so that nobody waits long for one with many rows.

    Such a person is also read in slices. Other calls come between two slices and between two steps,
    and may be about the same person. A sink without this ability is told with `Sink.retain` when
    all slices are written.
    """

    def begin_person(self, person: Person) -> int:
        """Note that a person's rows begin to be written, slice by slice.

        Return a number for `retain_steps`. With it the sink knows whether all of these rows were
        written under the same conditions.
        """

    def retain_steps(
        self, person: Person, keys: Collection[int], version: str, begun: int | None
    ) -> Iterator[RetainStep]:
        """Do what `Sink.retain` does for a person, in steps of a few thousand rows at most.

        `version` is the lowest of the slices, and `begun` is what `begin_person` returned before
        the first one. None: all rows were written at once, just before this. There is one last step
        at least. After an error all steps come again.
        """


@runtime_checkable
class HasChecks(Protocol):
    """A sink whose server has something to be checked, for `passport check`."""

    def checks(self) -> Iterator[Check]:
        """Yield what was looked at, and what repairs it."""


@runtime_checkable
class ListsUnmatched(Protocol):
    """A sink that keeps no rows of people who are not matched, for `passport unmatched list`."""

    def unmatched(self, hospital: str) -> Iterator[tuple[str, int, str]]:
        """Yield (hospital, person_id, state) of each person whose rows are not kept."""


class DestinationModule(Protocol):
    """The three names that the module of a destination has."""

    Options: type[BaseModel]
    """What the settings may say under `options`."""

    ORDER: Literal["newest-wins", "append-only"]
    """``newest-wins`` keeps one state of each row, the one with the highest version.

    ``append-only`` adds every delivery, and its reader takes the highest version.
    """

    def connect(self, options: Any, settings: Settings, destination: Destination) -> Sink:
        """Open the destination. Raises NotReady (it is away) and Fatal (it can't be used)."""


def connect(name: str, settings: Settings) -> Sink:
    """Open the destination that the settings call `name`.

    Raises Fatal if there is none of that name or its options are wrong, and what the destination's
    own `connect` raises: NotReady if it is away.
    """
    destination = settings.destinations.get(name)
    if destination is None:
        names = ", ".join(sorted(settings.destinations)) or "none"
        raise Fatal(
            f"there is no destination {name!r}, only: {names}",
            hint="passport config show",
            origin=Origin.destination(name),
        )
    return module(destination.type).connect(options(name, destination), settings, destination)


def options(name: str, destination: Destination) -> Any:
    """Return the destination's options as an instance of its module's `Options`.

    Raises Fatal with every option that is wrong. It never says a value: options hold passwords.
    """
    try:
        return module(destination.type).Options.model_validate(destination.options)
    except ValidationError as error:
        details = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            place = ".".join(map(str, ("destinations", name, "options", *problem["loc"])))
            details.append(f"{place}: {problem['msg']}")
        raise Fatal(
            f"destination {name}: its options can't be used",
            details=details,
            hint=f"correct destinations.{name}.options, then: passport config show",
            origin=Origin.destination(name),
        ) from None


def module(type_: str) -> DestinationModule:
    """Import the module of a destination's type. Raises Fatal if there is no such module."""
    name = type_ if "." in type_ else f"destinations.{type_}"
    try:
        return cast("DestinationModule", import_module(name))
    except ModuleNotFoundError as error:
        # A module that is there but imports one that isn't: the whole traceback helps, we don't.
        is_the_module_itself = error.name is not None and f"{name}.".startswith(f"{error.name}.")
        if not is_the_module_itself:
            raise
        raise Fatal(
            f"destination type {type_!r} is not known",
            hint="set destinations.<name>.type to jsonl, mongo, "
            "or a module on PYTHONPATH with its dots",
        ) from None
