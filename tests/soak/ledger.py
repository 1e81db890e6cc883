"""One line a fault: what was broken, the proof, positions before and after, and how long until all
was fresh again.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.stage import Stage


@dataclass
class Entry:
    number: int
    kind: str
    at_s: float
    proof: str = ""
    proven: bool = False
    took_s: float = 0.0
    recovery_s: float = 0.0
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Written to `file` as it grows, a JSON object a line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        print(
            f"{entry.at_s:7.0f} s  {entry.kind:22} {'proven' if entry.proven else 'NOT PROVEN'}, fresh after"
            f" {entry.recovery_s:.1f} s  ({entry.proof})",
            flush=True,
        )


def positions(stage: Stage) -> dict[str, Any]:
    """How far the destination is, by hospital: version and offset."""
    found = stage.db["progress"].find({}, {"version": 1, "offset": 1})
    return {one["_id"]: [one["version"], one["offset"]] for one in found}


def fresh(stage: Stage, since_s: float, deadline_s: float) -> float:
    """Seconds until every hospital's changes up to the Unix time `since_s` are applied.
    AssertionError.
    """
    began, last = time.monotonic(), {}
    while time.monotonic() - began < deadline_s:
        try:
            last = {one["_id"]: one["at_ms"] for one in stage.db["progress"].find({}, {"at_ms": 1})}
        except Exception:  # noqa: BLE001  # MongoDB may be what was broken
            last = {}
        if last.keys() >= stage.hospitals.keys() and min(last.values()) >= since_s * 1000:
            return time.monotonic() - began
        time.sleep(0.1)
    late = {key: round(since_s - at / 1000, 1) for key, at in last.items()}
    raise AssertionError(f"not fresh within {deadline_s} s; seconds behind: {late}")
