"""How long from a COMMIT at the hospital until the last of its rows is in MongoDB, for each
transaction.
"""

import threading
import time
from collections import defaultdict
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError


class Latency:
    """Watches the mirror; `committed` says which rows were just written, `percentiles` what was
    seen.
    """

    def __init__(self, passport: Database[dict[str, Any]]) -> None:
        self._rows: dict[
            str, list[float]
        ] = {}  # row -> [committed, last seen] of its newest transaction
        self._transactions: dict[str, list[list[float]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stream = passport["observations"].watch(
            [{"$project": {"documentKey": 1, "operationType": 1}}], max_await_time_ms=200
        )
        threading.Thread(target=self._watch, name="latency", daemon=True).start()

    def committed(self, hospital: str, obs_ids: tuple[int, ...]) -> None:
        """To be called right after COMMIT returned."""
        now = time.monotonic()
        transaction = [now, now]
        with self._lock:
            self._transactions[hospital].append(transaction)
            self._rows |= {f"{hospital}/{obs_id}": transaction for obs_id in obs_ids}

    def percentiles(self, hospital: str) -> tuple[float, float] | None:
        """(p50, p99) in seconds of the transactions that arrived; those of people who aren't
        matched never do.
        """
        with self._lock:
            seen = sorted(
                last - began for began, last in self._transactions[hospital] if last > began
            )
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
                    if (transaction := self._rows.pop(key, None)) is not None:
                        transaction[1] = now
        except PyMongoError:
            return  # closed at the end of the demo
