"""The right to watch registrations, which one process at a time has.

It is the one document of `leases`: ``{_id: "registrations", holder, until, resume, patients,
people}``. Whoever holds it renews it before `until`, by MongoDB's clock, and leaves there how far
they are: `resume` is the change stream's token, `patients` and `people` are the ``_id``s up to
which the sweep has looked. So another process goes on where the last one ended.

Nothing wrong comes of two that watch at once, as when one was stopped for longer than its lease.
"""

import uuid
from datetime import UTC, datetime

from destinations.mongo.client import Mongo
from destinations.mongo.document import Document

LEASE_S = 10.0
RENEW_S = 2.0  # from one renewal to the next, and from one try to take it to the next
_KEY = "registrations"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class WatchLease:
    """One process's part in it. The client's errors are not translated."""

    def __init__(self, database: Mongo) -> None:
        self._leases = database.leases
        self._holder = uuid.uuid4().hex

    def take(self) -> Document | None:
        """Return the lease's document if it is held from now on, None while another holds it."""
        is_over = {"$expr": {"$lte": ["$until", "$$NOW"]}}
        free = {"$or": [{"holder": self._holder}, is_over]}
        if not self._hold(free, {}):
            # An upsert can't ask for the time. So the document is made first, and nobody has it.
            nobodys = {"$setOnInsert": {"holder": "", "until": _LONG_AGO}}
            made = self._leases.update_one({"_id": _KEY}, nobodys, upsert=True)
            if made.upserted_id is None or not self._hold(free, {}):
                return None
        return self._leases.find_one({"_id": _KEY})

    def renew(self, progress: Document) -> bool:
        """Leave `progress` there. Return False, and leave nothing, if another holds it by now."""
        return self._hold({"holder": self._holder}, progress)

    def release(self) -> None:
        """Let another take it at once."""
        self._leases.update_one(
            {"_id": _KEY, "holder": self._holder}, {"$set": {"until": _LONG_AGO}}
        )

    def _hold(self, condition: Document, progress: Document) -> bool:
        until = {"$add": ["$$NOW", int(LEASE_S * 1000)]}
        fields = {name: {"$literal": value} for name, value in progress.items()}
        update = [{"$set": {"holder": self._holder, "until": until, **fields}}]
        return bool(self._leases.update_one({"_id": _KEY, **condition}, update).matched_count)
