"""`observations`: the guarded writes of the mirror, and which rows belong together.

Guard in two steps that any MongoDB takes: read what is there, then write only where that is still
so.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pymongo import InsertOne, ReplaceOne

from destinations.mongo.client import ALL, Document, Mongo, bulk, in_parallel, translate_errors
from destinations.mongo.mirror import Sealed
from passport.errors import Retry

TRIES = 20
LEVELS = 200  # of groups in groups and edits of edits; more is a circle grown out of hand
SLICE = 2_000
Reserve = Callable[[Collection[str]], Mapping[str, Document]]


class Head(NamedTuple):
    """What tells one state of a row from another, and where it belongs."""

    version: str
    digest: str
    related: tuple[str, ...]

    @classmethod
    def of(cls, document: Document) -> "Head":
        return cls(document["version"], document["digest"], tuple(document.get("related", ())))


@dataclass(slots=True)
class Applied:
    """_ids by what became of them. `kept`: the stored and the unchanged, as they are now in the
    mirror; `heads`: theirs and their neighbours', to begin with; `before`: documents that were read
    before the write; `begun`: what was made of all this while the rows were on their way."""

    heads: dict[str, Head] = field(default_factory=dict)
    before: dict[str, Document] = field(default_factory=dict)
    kept: dict[str, Document] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    begun: Any = None

    def hoped(self, writes: Mapping[str, Sealed]) -> "Applied":
        """What is known of it once `writes` are stored."""
        heads = {key: Head.of(document) for key, document in writes.items()}
        return Applied(self.heads | heads, self.before, {**self.kept, **writes})


Begin = Callable[[Applied], Any]
Left = dict[str, Sealed]


class Rows:
    """The mirror's rows of all hospitals."""

    def __init__(self, database: Mongo) -> None:
        self._rows = database.observations

    def apply(self, documents: Mapping[str, Sealed], reserve: Reserve, begin: Begin) -> Applied:
        """Stores the newer ones of `documents` (by _id). The same version applies again.

        `reserve` gets the rows that are about to change or to be joined by new ones, and those
        connected with them, before anything is written; `begin` what will be there unless something
        else has changed, while it is written.
        """
        result, left = Applied(), dict(documents)
        for _ in range(TRIES):
            if not left:
                return result
            heads = self.component(_named(left.values()))
            result.heads |= heads
            if heads and any(_changes(document, heads.get(key)) for key, document in left.items()):
                result.before |= reserve(heads)
            left = self._once(left, heads, result, begin)
        raise Retry("observations: rows changed all the time")

    def _once(
        self, documents: Left, heads: Mapping[str, Head], result: Applied, begin: Begin
    ) -> Left:
        """One write; returns those that must be looked at again."""
        writes: list[tuple[str, Sealed, Any]] = []
        # By obs_id, headers before their members: who reads in between sees no member without its
        # header.
        for key, document in sorted(documents.items(), key=lambda item: int(item[1]["obsId"])):
            head = heads.get(key)
            if head is None:
                writes.append((key, document, InsertOne(document.written)))
            elif head.version > document["version"]:
                result.stale.add(key)
            elif (head.version, head.digest) == (document["version"], document["digest"]):
                result.unchanged.add(key)
                result.kept[key] = document
            else:
                newer = _remembering(document, head)
                seen = {"_id": key, "version": head.version, "digest": head.digest}
                writes.append((key, newer, ReplaceOne(seen, newer.written)))
        return self._write(writes, result, begin)

    def _write(
        self, writes: Sequence[tuple[str, Sealed, Any]], result: Applied, begin: Begin
    ) -> Left:
        hoped = result.hoped({key: document for key, document, _ in writes})
        operations = [operation for *_, operation in writes]
        result.begun, (matched, failed) = in_parallel(
            partial(begin, hoped), partial(bulk, self._rows, operations)
        )
        replaced = sum(isinstance(operation, ReplaceOne) for *_, operation in writes)
        lost = matched < replaced - sum(
            isinstance(writes[index][2], ReplaceOne) for index in failed
        )
        again: Left = {}
        for index, (key, document, operation) in enumerate(writes):
            why = failed.get(index)
            if why == "duplicate" or (why is None and lost and isinstance(operation, ReplaceOne)):
                again[key] = document
            elif why is not None:
                result.refused[key] = why
            else:
                result.stored.add(key)
                result.kept[key] = document
                result.heads[key] = hoped.heads[key]
        return again

    def component(self, seeds: Iterable[str]) -> dict[str, Head]:
        """The rows `seeds`, and all that are connected with them by groups or versions, now or
        formerly.
        """
        found: dict[str, Head] = {}
        asked: set[str] = set()
        frontier = set(seeds)
        for _ in range(LEVELS):
            if not frontier:
                return found
            asked |= frontier
            keys = list(frontier)
            found |= self._heads({"$or": [{"_id": {"$in": keys}}, {"related": {"$in": keys}}]})
            frontier = (
                set(found) | {key for head in found.values() for key in head.related}
            ) - asked
        raise Retry("observations: rows are connected without end")

    def documents(self, keys: Iterable[str]) -> dict[str, Document]:
        with translate_errors():
            return {
                found["_id"]: found
                for found in self._rows.find({"_id": {"$in": list(keys)}}, batch_size=ALL)
            }

    def present(self, query: Document) -> dict[int, str]:
        """_id by obs_id of the rows that `query` finds."""
        with translate_errors():
            return {
                found["obsId"]: found["_id"]
                for found in self._rows.find(query, {"obsId": 1}, batch_size=ALL)
            }

    def versions(self, hospital: str, person_id: int) -> dict[str, str]:
        """Version by _id of a person's rows."""
        query = {"hospital": hospital, "personId": person_id}
        with translate_errors():
            return {
                found["_id"]: found["version"]
                for found in self._rows.find(query, {"version": 1}, batch_size=ALL)
            }

    def remove(self, hospital: str, person_id: int, up_to: str) -> None:
        """A person's rows go, but for those newer than the version `up_to`: they have been stored
        since.
        """
        with translate_errors():
            self._rows.delete_many(
                {"hospital": hospital, "personId": person_id, "version": {"$lte": up_to}}
            )

    def _heads(self, query: Document) -> dict[str, Head]:
        fields = {"version": 1, "digest": 1, "related": 1}
        with translate_errors():
            return {
                found["_id"]: Head.of(found)
                for found in self._rows.find(query, fields, batch_size=ALL)
            }


def connected(heads: Mapping[str, Head], seeds: Iterable[str]) -> dict[str, Head]:
    """What `Rows.component` finds of `seeds`, of rows that are all of some components."""
    beside: dict[str, list[str]] = defaultdict(list)
    for key, head in heads.items():
        for other in head.related:
            beside[key].append(other)
            beside[other].append(key)
    found, frontier = set[str](), set(seeds)
    while frontier:
        found |= frontier
        frontier = {other for key in frontier for other in beside.get(key, ())} - found
    return {key: heads[key] for key in found if key in heads}


def _named(documents: Iterable[Document]) -> set[str]:
    """The documents' _ids, and those that they name: they need not be in the mirror yet."""
    return {
        key for document in documents for key in (document["_id"], *document.get("related", ()))
    }


def _changes(document: Document, head: Head | None) -> bool:
    """Whether writing the document changes what the mirror says, be it only a row's neighbours."""
    return head is None or (
        head.digest != document["digest"] and head.version <= document["version"]
    )


def _remembering(document: Sealed, head: Head) -> Sealed:
    """With the groups and versions that the row once named: their records have to be looked at,
    too.
    """
    named = list(dict.fromkeys([*document.get("related", ()), *head.related]))
    return document.naming(named) if head.related else document
