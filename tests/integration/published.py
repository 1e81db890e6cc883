"""A hospital's partition of the topic, and the rows that a destination would hold after it.

The newest version of each row wins.
"""

from typing import Any

from passport.event import Event, Row, parse_event
from passport.settings import LoadBudget, Settings
from tests.servers import Address
from tests.settings import build_settings, hospital_settings, kafka_settings
from tests.topic_reader import read_topic

HOSPITAL = "kigali"


def settings_for(address: Address, bootstrap: str, topic: str, **changes: Any) -> Settings:
    """Return the settings of one polling hospital; `changes` are fields of its settings.

    Its budget is large enough to look at everything in each run.
    """
    fields: dict[str, Any] = {
        "capture": "polling",
        "poll_interval_s": 0.2,
        "load_budget": LoadBudget(rows_per_s=1_000_000, queries_per_s=10_000, chunk_rows=2_000),
        **changes,
    }
    hospital = hospital_settings(address.settings(), **fields)
    return build_settings({HOSPITAL: hospital}, kafka_settings(bootstrap, topic))


def read(bootstrap: str, topic: str, start: int = 0) -> list[Event]:
    """Return the events from offset `start` to the end."""
    return [parse_event(record.value) for record in read_topic(bootstrap, topic, first=start)]


def folded(events: list[Event]) -> dict[int, Row]:
    """Return the rows by obs_id that the events leave in a destination where the newest wins."""
    rows: dict[int, tuple[str, Row]] = {}
    for event in events:
        version = event.source.version
        if event.kind == "row":
            key = int(event.row["obs_id"])
            if key not in rows or rows[key][0] <= version:
                rows[key] = version, event.row
        elif event.kind == "chunk":
            first, to, there = event.first, event.to, set(event.keys)
            within = [
                key for key in rows if (first is None or key > first) and (to is None or key <= to)
            ]
            for key in set(within) - there:
                if rows[key][0] <= version:
                    del rows[key]
    return {key: row for key, (_, row) in rows.items()}
