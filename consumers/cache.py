"""A bounded, least-recently-used cache of one kind of row; entries expire, and know the position
they were read at.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from passport import metrics

V = TypeVar("V")
Order = tuple[int, int]  # Position.order


class Cache(Generic[V]):
    """Values by id. What isn't there is not remembered: a row that appears later is found."""

    def __init__(
        self, kind: str, entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: OrderedDict[int, tuple[V, Order | None, float]] = OrderedDict()
        self._size, self._ttl_s, self._clock = entries, ttl_s, clock
        self._hits = metrics.LOOKUPS.labels(kind, "hit")
        self._misses = metrics.LOOKUPS.labels(kind, "miss")

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, ids: Iterable[int]) -> tuple[dict[int, V], list[int]]:
        """What is known of `ids`, and the ids that must be read, sorted."""
        now = self._clock()
        found: dict[int, V] = {}
        missing: list[int] = []
        for key in ids:
            entry = self._entries.get(key)
            if entry is None or entry[2] < now:
                missing.append(key)
            else:
                self._entries.move_to_end(key)
                found[key] = entry[0]
        self._hits.inc(len(found))
        self._misses.inc(len(missing))
        return found, sorted(missing)

    def put(self, values: Mapping[int, V], at: Order | None) -> None:
        """Keeps `values` as read at the binlog position `at`, None if that isn't known."""
        expires = self._clock() + self._ttl_s
        for key, value in values.items():
            self._entries[key] = (value, at, expires)
            self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def evict(self, key: int, before: Order | None) -> None:
        """Forgets an entry that was read before the position `before` (None: whenever it was read)."""
        entry = self._entries.get(key)
        if entry is not None and (before is None or entry[1] is None or entry[1] < before):
            del self._entries[key]

    def evict_if(self, stale: Callable[[V], bool]) -> None:
        """Forgets every entry for whose value `stale` holds."""
        for key in [key for key, entry in self._entries.items() if stale(entry[0])]:
            del self._entries[key]

    def clear(self) -> None:
        self._entries.clear()
