"""How long from a COMMIT at the hospital until the row is in MongoDB, for each row that arrives there."""

import threading
import time
from collections import defaultdict
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError


class Latency:
    """Watches the mirror; `committed` says which rows were just written, `percentiles` what was seen."""

    def __init__(self, passport: Database[dict[str, Any]]) -> None:
        self._open: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stream = passport["observations"].watch(
            [{"$project": {"documentKey": 1, "operationType": 1}}], max_await_time_ms=200
        )
        threading.Thread(target=self._watch, name="latency", daemon=True).start()

    def committed(self, hospital: str, obs_ids: tuple[int, ...]) -> None:
        """To be called right after COMMIT returned."""
        now = time.monotonic()
        with self._lock:
            self._open |= {f"{hospital}/{obs_id}": now for obs_id in obs_ids}

    def percentiles(self, hospital: str) -> tuple[float, float] | None:
        """(p50, p99) in seconds, None before the first row."""
        with self._lock:
            seen = sorted(self._seconds[hospital])
        if not seen:
            return None
        return seen[len(seen) // 2], seen[min(len(seen) - 1, int(len(seen) * 0.99))]

    def close(self) -> None:
        self._stream.close()

    def _watch(self) -> None:
        try:
            for change in self._stream:
                now, key = time.monotonic(), str(change["documentKey"]["_id"])
                with self._lock:
                    if (since := self._open.pop(key, None)) is not None:
                        self._seconds[key.partition("/")[0]].append(now - since)
        except PyMongoError:
            return  # closed at the end of the demo
