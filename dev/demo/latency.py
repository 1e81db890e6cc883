"""How long a transaction takes from its COMMIT at the hospital until MongoDB has all its rows."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError


@dataclass(slots=True)
class _Transaction:
    """Monotonic seconds of the COMMIT, and of the newest arrival of one of its rows."""

    committed: float
    arrived: float | None = None


class Latency:
    """Watches the mirror in a thread, and times the transactions that it is told of."""

    def __init__(self, passport: Database[dict[str, Any]]) -> None:
        self._newest_of_row: dict[str, _Transaction] = {}  # by the row's _id in the mirror
        self._transactions: dict[str, list[_Transaction]] = defaultdict(list)  # by hospital
        self._lock = threading.Lock()
        self._stream = passport["observations"].watch(
            [{"$project": {"documentKey": 1, "operationType": 1}}], max_await_time_ms=200
        )
        threading.Thread(target=self._watch, name="latency", daemon=True).start()

    def committed(self, hospital: str, obs_ids: tuple[int, ...]) -> None:
        """Note a transaction that changed these rows. Call it right after COMMIT returned."""
        transaction = _Transaction(time.monotonic())
        with self._lock:
            self._transactions[hospital].append(transaction)
            for obs_id in obs_ids:
                self._newest_of_row[f"{hospital}/{obs_id}"] = transaction

    def percentiles(self, hospital: str) -> tuple[float, float] | None:
        """Return p50 and p99, in seconds, of the hospital's transactions that have arrived.

        Rows of people who are not matched never arrive. None: no transaction has arrived yet.
        """
        with self._lock:
            seconds = sorted(
                transaction.arrived - transaction.committed
                for transaction in self._transactions[hospital]
                if transaction.arrived is not None
            )
        if not seconds:
            return None
        p99 = min(len(seconds) - 1, int(len(seconds) * 0.99))
        return seconds[len(seconds) // 2], seconds[p99]

    def close(self) -> None:
        """Stop watching."""
        self._stream.close()

    def _watch(self) -> None:
        try:
            for change in self._stream:
                now = time.monotonic()
                row = str(change["documentKey"]["_id"])
                with self._lock:
                    transaction = self._newest_of_row.pop(row, None)
                    if transaction is not None:
                        transaction.arrived = now
        except PyMongoError:
            return  # The stream was closed at the end of the demo.
