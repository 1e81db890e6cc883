"""A hospital's wall time, which has no zone of its own, as a moment in UTC. Pure."""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=100_000)
def instant(written: str, zone: str) -> datetime | None:
    """A wall time in UTC: of an ambiguous hour the first, in a skipped one by the offset before.
    None: no such time.
    """
    try:
        return datetime.fromisoformat(written).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
