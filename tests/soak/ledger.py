"""One line a fault: what was broken, the proof, positions before and after, and how long until all
was fresh again.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.stage import Stage
from tests.eventually import seconds_until


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
    """The entries, written to `file` as they come, one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        print(
            f"{entry.at_s:7.0f} s  {entry.kind:22}"
            f" {'proven' if entry.proven else 'NOT PROVEN'}, fresh after"
            f" {entry.recovery_s:.1f} s  ({entry.proof})",
            flush=True,
        )


def positions(stage: Stage) -> dict[str, Any]:
    """Return how far the destination is, by hospital: version and offset."""
    found = stage.db["progress"].find({}, {"version": 1, "offset": 1})
    return {one["_id"]: [one["version"], one["offset"]] for one in found}


def fresh(stage: Stage, since_s: float, deadline_s: float) -> float:
    """Return the seconds until every hospital's changes up to the Unix time `since_s` are applied.

    Raise an AssertionError if it takes longer than `deadline_s`.
    """
    applied_ms: dict[str, int] = {}

    def is_fresh() -> bool:
        nonlocal applied_ms
        try:
            progress = list(stage.db["progress"].find({}, {"at_ms": 1}))
        except Exception:  # noqa: BLE001  # MongoDB may be what was broken
            return False
        applied_ms = {document["_id"]: document["at_ms"] for document in progress}
        if not applied_ms.keys() >= stage.hospitals.keys():
            return False
        return min(applied_ms.values()) >= since_s * 1000

    def late() -> str:
        behind = {key: round(since_s - at / 1000, 1) for key, at in applied_ms.items()}
        return f"everything is applied; seconds behind: {behind}"

    return seconds_until(is_fresh, late, deadline_s)
