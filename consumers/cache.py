"""A bounded, least-recently-used cache of one kind of row.

An entry expires after a time. It also knows the binlog position at which it was read, so that a key
change evicts only what was read before it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from passport import metrics

V = TypeVar("V")
Order = tuple[int, int]  # Position.order


class Cache(Generic[V]):
    """Values by id. That a row isn't there is not remembered: if it is added later, it is found."""

    def __init__(
        self, kind: str, entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # The least recently used stands first: value, position it was read at, end of its time.
        self._entries: OrderedDict[int, tuple[V, Order | None, float]] = OrderedDict()
        self._size = entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._hits = metrics.LOOKUPS.labels(kind, "hit")
        self._misses = metrics.LOOKUPS.labels(kind, "miss")

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, ids: Iterable[int]) -> tuple[dict[int, V], list[int]]:
        """Return the values that are here by id, and the sorted ids that must be read."""
        now = self._clock()
        values: dict[int, V] = {}
        missing: list[int] = []
        for key in ids:
            entry = self._entries.get(key)
            if entry is None or entry[2] < now:
                missing.append(key)
            else:
                self._entries.move_to_end(key)
                values[key] = entry[0]
        self._hits.inc(len(values))
        self._misses.inc(len(missing))
        return values, sorted(missing)

    def put(self, values: Mapping[int, V], at: Order | None) -> None:
        """Keep values that were read at the binlog position `at`; None if that isn't known."""
        expires = self._clock() + self._ttl_s
        for key, value in values.items():
            self._entries[key] = (value, at, expires)
            self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def evict(self, key: int | None, before: Order | None) -> None:
        """Forget an entry that was read before the position `before` (None: whenever it was read).

        `key` None: a key change whose row has no such key concerns nothing here.
        """
        if key is None:
            return
        entry = self._entries.get(key)
        if entry is not None and (before is None or entry[1] is None or entry[1] < before):
            del self._entries[key]

    def evict_if(self, stale: Callable[[V], bool]) -> None:
        """Forget every entry for whose value `stale` returns True."""
        for key in [key for key, entry in self._entries.items() if stale(entry[0])]:
            del self._entries[key]

    def clear(self) -> None:
        self._entries.clear()
