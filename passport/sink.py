"""Destinations: one module or package each, named by a destination's `type` in the settings.

A destination is a module with ``Options`` (a pydantic model), ``connect(options, settings,
destination) -> Sink`` and ``ORDER``: "newest-wins" keeps one state a row, guarded by version;
"append-only" adds every delivery, and its reader takes the highest version.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import msgspec
from pydantic import ValidationError

from passport.errors import Fatal
from passport.facts import Observation, Person
from passport.settings import Destination


class KeyRange(msgspec.Struct, frozen=True):
    """``first < obs_id <= to`` of one hospital; None is open-ended."""

    hospital: str
    first: int | None
    to: int | None


Scope = KeyRange | Person


@dataclass(slots=True)
class Outcome:
    """Rows by what became of them. `rejected`: (obs key, reason) of those that the destination
    can't take; `overtaken`: the obs keys among the stale that it has in a newer state.
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
    """Applied up to: `offset` = the next offset to read; `version` = the highest seen; `at_ms` =
    source time; `rereads` = what is still to be read again for notices before `offset`, as JSON, to
    be kept as it is.
    """

    hospital: str
    offset: int
    version: str
    at_ms: int
    rereads: list[dict[str, Any]] = field(default_factory=list)


class Sink(Protocol):
    """Where observations go. Every call is idempotent; a raise means: nothing may be taken as
    written.

    Raises Retry (the destination is away: the whole batch comes again) and Fatal.
    """

    def write(self, observations: Sequence[Observation]) -> Outcome:
        """Stores a batch, newest version of each row winning, whatever the order. A row may occur
        several times.
        """

    def retain(self, scope: Scope, keys: Iterable[int], version: str) -> Outcome:
        """What else the scope holds at or below `version` than obs_ids `keys` is gone: the scope is
        complete then.
        """

    def wanted(self, hospital: str, limit: int) -> Sequence[int]:
        """person_ids that the destination wants read whole (registered since, link changed, repair
        pending).

        Also, once after `connect`, who is kept as ``ambiguous``: the other holder may have given
        the id up unseen. A person isn't wanted any more once `retain` has had it.
        """

    def progress(self, hospital: str) -> Progress | None:
        """What `record` last stored, None when this destination has nothing of the hospital."""

    def record(self, progress: Progress) -> None:
        """Remembers how far this destination is; called after `write`, before the offset is
        committed.
        """

    def counts(self, hospital: str) -> Mapping[str, int]:
        """For people: rows `stored`, people `matched` and `unmatched` (0 where a destination
        doesn't know people).
        """

    def ready(self) -> None:
        """Raises NotReady when the destination can't be written now."""

    def close(self) -> None: ...


def options(name: str, destination: Destination) -> Any:
    """What its module takes of the settings. Fatal names all that is wrong, and no value."""
    try:
        return module(destination.type).Options.model_validate(destination.options)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        wrong = (
            f"{'.'.join(map(str, ('destinations', name, 'options', *one['loc'])))}: {one['msg']}"
            for one in found
        )
        hint = f"correct destinations.{name}.options, then: passport config show"
        raise Fatal(
            f"destination {name}: its options can't be used", details=wrong, hint=hint
        ) from None


def module(type_: str) -> ModuleType:
    """The destination's module: ``destinations.<type>``, or the module of that name if it has dots."""
    name = type_ if "." in type_ else f"destinations.{type_}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise Fatal(
            f"destination type {type_!r} is not known",
            hint="set destinations.<name>.type to jsonl, mongo, or a module on PYTHONPATH with its dots",
        ) from None
