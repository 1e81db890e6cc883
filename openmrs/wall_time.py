"""A hospital's wall time, which has no zone of its own, as a moment in UTC. Pure."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=100_000)
def instant(written: str, zone: str) -> datetime | None:
    """Return a wall time of `zone` in UTC, None if `written` is no time.

    An hour that a change of the clock repeats is taken as the first one. A time that it skips is
    taken with the offset from before.
    """
    try:
        return datetime.fromisoformat(written).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
