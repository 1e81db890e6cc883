"""Tells how late a hospital's stream is, and whether Kafka takes what is sent.

The lag is the age of the oldest commit that Kafka has not acknowledged whole. It is worked out when
somebody asks for it, so that it grows also while the reader waits: for Kafka, for the hospital's
server, or for the next attempt.
"""

import time
from collections import deque

from passport import metrics


class Lag:
    """The lag of one hospital, for as long as its reader runs. Sessions come and go meanwhile.

    All times of commits are of the hospital's clock, in Unix milliseconds.
    """

    def __init__(self, hospital_id: str) -> None:
        # The commits that are not acknowledged: the number of the last record, and the time.
        self._waiting: deque[tuple[int, int]] = deque()
        # Everything up to this time is acknowledged; 0 if that isn't known.
        self._through_ms = 0
        # The time of the oldest commit that is not acknowledged; 0 if there is none.
        self._oldest_ms = 0
        self._acked = 0
        self._acked_at = time.monotonic()
        self._is_waiting = False
        metrics.CDC_LAG.labels(hospital_id).set_function(self.seconds)

    def seconds(self) -> float:
        """Return the lag in seconds. It may be called from any thread."""
        oldest_ms = self._oldest_ms
        if not oldest_ms:
            return 0.0
        # The clocks of the hospital and of this machine differ: a lag is never below zero.
        return max(0.0, time.time() - oldest_ms / 1000)

    def silent_s(self) -> float:
        """Return for how many seconds Kafka has acknowledged nothing, though something waits."""
        if not self._is_waiting:
            return 0.0
        return time.monotonic() - self._acked_at

    def begin(self) -> None:
        """A session begins. What Kafka had not acknowledged of the last one, it sends again."""
        self._waiting.clear()
        self._acked = 0
        self._is_waiting = False
        self._oldest_ms = self._oldest_ms or self._through_ms

    def end(self) -> None:
        """The session ended. What the hospital commits from now on is not seen."""
        self._oldest_ms = self._oldest_ms or self._through_ms

    def commit(self, sent: int, ts_ms: int) -> None:
        """A transaction ended, when `sent` records had been sent in all."""
        waiting = self._waiting
        # The binlog's clock has whole seconds: one entry a second is enough.
        if waiting and waiting[-1][1] == ts_ms:
            waiting.pop()
        waiting.append((sent, ts_ms))

    def look(self, sent: int, acked: int, *, open_ms: int, read_all_ms: int) -> None:
        """Note how far Kafka is: of `sent` records it has acknowledged `acked`.

        `open_ms` is when the transaction began that is being read; 0 if there is none.
        `read_all_ms` is the time up to which all is read; 0 if the binlog has more.
        """
        if acked > self._acked or not self._is_waiting:
            self._acked_at = time.monotonic()
        self._acked = acked
        self._is_waiting = acked < sent

        waiting = self._waiting
        while waiting and waiting[0][0] <= acked:
            _, self._through_ms = waiting.popleft()
        if waiting:
            self._oldest_ms = waiting[0][1]
        elif open_ms:
            self._oldest_ms = open_ms
        elif read_all_ms:
            self._oldest_ms = 0
            self._through_ms = read_all_ms
        else:
            # What was read is acknowledged, and what follows isn't known yet.
            self._oldest_ms = self._through_ms or self._oldest_ms
