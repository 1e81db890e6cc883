"""How far each hospital is: read, published, applied, matched."""

import time
from contextlib import closing
from typing import Any

from passport.errors import PassportError
from passport.settings import Settings
from passport.source import connect, end_of_binlog


def collect(settings: Settings, sink: Any) -> list[dict[str, Any]]:
    """One dict a hospital: what ``status --json`` prints. NotReady when Kafka or `sink` is away."""
    from cdc import broker
    from cdc.position import Positions

    ends = broker.offsets(settings.kafka, settings.kafka.topic)
    positions = Positions(settings.kafka).all()
    return [_hospital(settings, name, positions.get(name), ends, sink) for name in settings.hospitals]


def _hospital(settings: Settings, name: str, saved: Any, ends: dict[int, tuple[int, int]], sink: Any) -> dict[str, Any]:
    hospital = settings.hospitals[name]
    first, end = ends.get(hospital.partition, (0, 0))
    progress = sink.progress(name)
    counts = sink.counts(name)
    return {
        "hospital": name,
        "state": _state(hospital.capture, saved),
        "snapshot": saved.snapshot.state if saved and saved.snapshot else None,
        "epoch": saved.epoch if saved else None,
        "position": f"{saved.position.file}:{saved.position.pos}" if saved else None,
        "behind": _behind(settings, name, saved),
        "captured": end - first,
        "applied_offset": progress.offset if progress else None,
        "lag_records": max(0, end - (progress.offset if progress else first)),
        "last_event_s": round(time.time() - progress.at_ms / 1000, 1) if progress and progress.at_ms else None,
        **counts,
    }


def _state(capture: str, saved: Any) -> str:
    if saved is None:
        return "never started"
    if capture == "polling":
        return "polling"
    return "streaming" if saved.snapshot is None or saved.snapshot.state == "done" else "snapshot"


def _behind(settings: Settings, name: str, saved: Any) -> bool | None:
    """Whether the hospital's binlog goes on past the saved position; None when that can't be said now."""
    if saved is None or settings.hospitals[name].capture == "polling":
        return None
    try:
        with closing(connect(name, settings.hospitals[name].mysql)) as connection:
            end = end_of_binlog(connection)
    except PassportError:
        return None
    return end is not None and end.order > saved.position.order
