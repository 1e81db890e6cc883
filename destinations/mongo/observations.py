"""Writes `observations`, the mirror of the hospitals' rows, and knows which rows are connected.

The guard has two steps that any MongoDB takes: read the state of a row that is there, then write
only where that state is still there. Nobody but the holder of the hospital's fence writes rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import DeleteMany, InsertOne, ReplaceOne
from pymongo.errors import OperationFailure

from destinations.mongo.client import ALL, Mongo, translate_errors
from destinations.mongo.document import Document
from destinations.mongo.fence import Fence, Written
from destinations.mongo.mirror import SealedDocument
from destinations.mongo.projection.obs import first_id

# Most groups and edits are known after so many steps. From then on the server takes LEAP of them at
# a time: it has 100 MB for that, which so many rows with the longest texts don't need.
STEPS = 4
LEAP = 500
SLICE = 2_000  # rows of a person or of a range that are looked at together
# The fields of a document that make its Head.
HEAD = {"version": 1, "digest": 1, "related": 1, "formerRecords": 1}


class Head(NamedTuple):
    """A state of a row, told from others by version and digest.

    `related` has the ``_id`` of each row that it names, `former_records` of each record that was
    named after it under an earlier uuid.
    """

    version: str
    digest: str
    related: tuple[str, ...]
    former_records: tuple[ObjectId, ...]

    @classmethod
    def of(cls, document: Document) -> "Head":
        return cls(
            document["version"],
            document["digest"],
            tuple(document.get("related", ())),
            tuple(document.get("formerRecords", ())),
        )


class RowWrite(NamedTuple):
    """One row that is to be stored.

    `replaced` is the state that must still be there. None: no state of the row may be there.
    """

    key: str
    document: SealedDocument
    head: Head
    replaced: Head | None

    def operation(self) -> InsertOne[Any] | ReplaceOne[Any]:
        if self.replaced is None:
            return InsertOne(self.document.written)
        still_there = {
            "_id": self.key,
            "version": self.replaced.version,
            "digest": self.replaced.digest,
        }
        return ReplaceOne(still_there, self.document.written)


@dataclass(frozen=True, slots=True)
class MirrorView:
    """Rows as the mirror has them, or will have them when a write is through, by ``_id``.

    `seeds` are the rows in question. `heads` has them and all rows that are connected with them;
    `documents` some of those.
    """

    seeds: frozenset[str]
    heads: dict[str, Head]
    documents: dict[str, Document]


@dataclass(slots=True)
class RowBatch:
    """Rows on their way into the mirror, by ``_id``, and what has become of each.

    `rows` are to be written. `kept` are now in the mirror as the batch has them, either
    `stored` by it or `unchanged`. The mirror has a newer state of the `stale`. `refused` has
    MongoDB's reason. `heads` and `earlier` (documents) are what was read before the write, of these
    rows and of those that are connected with them.
    """

    rows: dict[str, SealedDocument]
    heads: dict[str, Head] = field(default_factory=dict)
    earlier: dict[str, Document] = field(default_factory=dict)
    kept: dict[str, SealedDocument] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def named(self) -> set[str]:
        """Return the ``_id`` of each row and of each row it names, in the mirror or not."""
        keys = set(self.rows)
        for document in self.rows.values():
            keys.update(document.get("related", ()))
        return keys

    def changes_records(self, heads: Mapping[str, Head]) -> bool:
        """Return whether writing changes a row that is there, or gives one a new neighbour."""
        if not heads:
            return False
        for key, document in self.rows.items():
            head = heads.get(key)
            if head is None:
                return True
            if head.digest != document["digest"] and head.version <= document["version"]:
                return True
        return False

    def next_writes(self, heads: Mapping[str, Head]) -> list[RowWrite]:
        """Return what to write now that the mirror has the states `heads`; the newest version wins.

        A row that needs no write is taken for stale or for unchanged.
        """
        writes: list[RowWrite] = []
        # By obs_id, so that a header comes before its members: whoever reads in between sees no
        # member without its header.
        in_order = sorted(self.rows.items(), key=lambda item: int(item[1]["obsId"]))
        for key, document in in_order:
            head = heads.get(key)
            if head is None:
                writes.append(RowWrite(key, document, Head.of(document), None))
            elif head.version > document["version"]:
                self.stale.add(key)
            elif (head.version, head.digest) == (document["version"], document["digest"]):
                self.unchanged.add(key)
                self.kept[key] = document
            else:
                newer = _with_what_was_named(document, head, self.earlier.get(key))
                writes.append(RowWrite(key, newer, Head.of(newer), head))
        return writes

    def view_after(self, writes: Sequence[RowWrite]) -> MirrorView:
        """Return the kept rows as they will be when all `writes` are through."""
        kept: dict[str, Document] = {**self.kept}
        heads = dict(self.heads)
        for write in writes:
            kept[write.key] = write.document
            heads[write.key] = write.head
        return MirrorView(frozenset(kept), connected_with(heads, kept), self.earlier | kept)

    def settle(self, writes: Sequence[RowWrite], written: Written) -> None:
        """Note what became of `writes`, each of which found its row as it was read."""
        for index, write in enumerate(writes):
            if index in written.failed:
                self.refused[write.key] = written.failed[index]
            else:
                self.stored.add(write.key)
                self.kept[write.key] = write.document
                self.heads[write.key] = write.head


class Observations:
    """The mirror's rows of all hospitals. Its methods raise Retry, NotReady or Fatal."""

    def __init__(self, database: Mongo, fence: Fence) -> None:
        self._rows = database.observations
        self._fence = fence

    def write(self, operations: Sequence[InsertOne[Any] | ReplaceOne[Any]]) -> Written:
        return self._fence.write(
            [{"observations": [operation]} for operation in operations], guarded="observations"
        )

    def connected_heads(self, seeds: Iterable[str]) -> dict[str, Head]:
        """Return the heads of rows and of all rows that are connected with them, by ``_id``.

        Groups and versions connect rows, those of now and those of before. Takes one round trip for
        each step away from the seeds, but few for a chain of any length.
        """
        heads: dict[str, Head] = {}
        visited: set[str] = set()
        frontier = set(seeds)
        steps = 0
        while frontier:
            steps += 1
            visited |= frontier
            keys = list(frontier)
            heads |= self._heads({"$or": [{"_id": {"$in": keys}}, {"related": {"$in": keys}}]})
            if steps >= STEPS and steps % 2 == 0:
                # An obs that was edited hundreds of times would be as many steps.
                heads |= self._distant_heads(keys)
            frontier = set(heads)
            for head in heads.values():
                frontier.update(head.related)
            frontier -= visited
        return heads

    def documents(self, keys: Iterable[str]) -> dict[str, Document]:
        """Return the rows with these ``_id``s that are there."""
        with translate_errors():
            rows = self._rows.find({"_id": {"$in": list(keys)}}, batch_size=ALL)
            return {row["_id"]: row for row in rows}

    def records_named(self, person_id: int, keys: Iterable[str]) -> dict[str, ObjectId]:
        """Return the record that each of these rows names, of the person's that are not voided.

        Rows and records are given by ``_id``.
        """
        query = {
            "_id": {"$in": list(keys)},
            "personId": person_id,
            "deleted": False,
            "row.voided": 0,
        }
        with translate_errors():
            named = {"hospital": 1, "row.uuid": 1, "first.record": 1}
            rows = self._rows.find(query, named, batch_size=ALL)
            return {row["_id"]: first_id(row) for row in rows}

    def present(self, query: Document) -> dict[int, str]:
        """Return the ``_id`` by obs_id of the rows that `query` finds."""
        with translate_errors():
            rows = self._rows.find(query, {"obsId": 1}, batch_size=ALL)
            return {row["obsId"]: row["_id"] for row in rows}

    def of_person(self, hospital: str, person_id: int) -> Iterator[list[Document]]:
        """Yield a person's rows, SLICE at a time, with ``obsId`` and ``version``.

        They may be written between two slices. MongoDB may have read some rows of a slice before.
        """
        query = {"hospital": hospital, "personId": person_id}
        with translate_errors():
            rows = self._rows.find(query, {"obsId": 1, "version": 1}, batch_size=SLICE)
            while page := list(islice(rows, SLICE)):
                yield page

    def remove(self, rows: Sequence[Document]) -> None:
        """Delete rows that `of_person` gave, but for what is newer than any of them."""
        keys = [row["_id"] for row in rows]
        newest = max(row["version"] for row in rows)
        deletion = DeleteMany({"_id": {"$in": keys}, "version": {"$lte": newest}})
        self._fence.write([{"observations": [deletion]}])

    def _heads(self, query: Document) -> dict[str, Head]:
        with translate_errors():
            rows = self._rows.find(query, HEAD, batch_size=ALL)
            return {row["_id"]: Head.of(row) for row in rows}

    def _distant_heads(self, keys: Sequence[str]) -> dict[str, Head]:
        """Return the heads of the rows that these name, that those name and so on; and backwards.

        At most LEAP steps are taken. What goes forth and back is left out, as another row that
        names what one of these names. The keys need not be in the mirror.
        """
        heads: dict[str, Head] = {}
        for from_field, to_field in (("related", "_id"), ("_id", "related")):
            lookup = {
                "from": self._rows.name,
                "startWith": keys,
                "connectFromField": from_field,
                "connectToField": to_field,
                "maxDepth": LEAP,
                "as": "row",
            }
            # The server looks up for a document, so it gets one: any will do.
            stages: list[Document] = [
                {"$limit": 1},
                {"$project": {"_id": 1}},
                {"$graphLookup": lookup},
                {"$unwind": "$row"},
                {"$replaceRoot": {"newRoot": "$row"}},
                {"$project": HEAD},
            ]
            with translate_errors():
                try:
                    rows = self._rows.aggregate(stages, batchSize=ALL)
                    heads |= {row["_id"]: Head.of(row) for row in rows}
                except OperationFailure:
                    # Too many rows for its memory: they are found step by step.
                    return heads
        return heads


def connected_with(heads: Mapping[str, Head], seeds: Iterable[str]) -> dict[str, Head]:
    """Return what `Observations.connected_heads` would return, out of `heads` that have it all."""
    neighbours: dict[str, list[str]] = defaultdict(list)
    for key, head in heads.items():
        for other in head.related:
            neighbours[key].append(other)
            neighbours[other].append(key)
    reached: set[str] = set()
    frontier = set(seeds)
    while frontier:
        reached |= frontier
        next_ones = {other for key in frontier for other in neighbours.get(key, ())}
        frontier = next_ones - reached
    return {key: heads[key] for key in reached if key in heads}


def _with_what_was_named(
    document: SealedDocument, head: Head, earlier: Document | None
) -> SealedDocument:
    """Return the document with what the row named before it: groups and versions, and records.

    All of these have to be looked at, too, since the row has left them. `earlier` is the document
    of the state `head`; None when only its version differs, or the state is not there any more.
    """
    fields: Document = {}
    if head.related:
        fields["related"] = list(dict.fromkeys([*document.get("related", ()), *head.related]))
    former = {*document.get("formerRecords", ()), *head.former_records}
    if earlier is not None:
        former.add(first_id(earlier))
    former.discard(first_id(document))
    if former:
        fields["formerRecords"] = sorted(former)
    return document.with_head(fields) if fields else document
