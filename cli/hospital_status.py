"""Says what state a hospital is in, and what somebody should do about it. Pure: it reads nothing.

`status_report.py` reads the facts; `status.py` and the operators' page show the result.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing them would load Kafka's client for every command
    from cdc.positions import Saved
    from cdc.signals import Signals
    from passport.kafka import OffsetRange
    from passport.sink import Progress

Row = dict[str, Any]  # one hospital, as `status --json` prints it

SILENT_S = 300  # a hospital that works for longer without any change is unusual
FAR_BEHIND = 10_000  # records: more than a consumer applies in a few seconds
SOON_PURGED_S = 86_400  # a day: time enough for somebody to act
CAPTURING = ("streaming", "streaming, snapshot waits", "snapshot")


@dataclass(frozen=True, slots=True)
class HospitalFacts:
    """The facts that were read about one hospital.

    `saved` is the reader's position, None if it never saved one. `offsets` are those of the
    hospital's partition of the changes' topic. `progress` and `counts` are what the destination
    says. `behind` says whether the server's binlog goes on past the position. `headroom_s` says for
    how many seconds the server surely keeps the position; it is infinite if it keeps it for ever.
    Both are None if that isn't known now. `signals` are what operators have asked for.
    `is_snapshot_waiting` says that a snapshot would wait for the hospital's quiet hours now.
    """

    hospital_id: str
    capture: str
    saved: "Saved | None"
    offsets: "OffsetRange"
    progress: "Progress | None"
    counts: Mapping[str, Any]
    behind: bool | None
    headroom_s: float | None
    signals: "Signals"
    is_snapshot_waiting: bool = False


def status_row(facts: HospitalFacts, now_s: float) -> Row:
    """Return the facts as a row, with its problems. `now_s` is Unix time in seconds."""
    saved = facts.saved
    snapshot = saved.snapshot if saved else None
    progress = facts.progress
    pause = facts.signals.pause
    first, end = facts.offsets
    next_offset = progress.offset if progress else first
    headroom: float | str | None = facts.headroom_s
    if facts.headroom_s is not None and not isfinite(facts.headroom_s):
        headroom = "never purged"
    last_event_s = None
    if progress and progress.at_ms:
        last_event_s = round(now_s - progress.at_ms / 1000, 1)
    hospital_state = state(facts.capture, saved, is_snapshot_waiting=facts.is_snapshot_waiting)
    if pause is not None:
        hospital_state = "paused"
    row = {
        "hospital": facts.hospital_id,
        "state": hospital_state,
        "snapshot": snapshot.state if snapshot else None,
        "snapshot_key": snapshot.next_key if snapshot else None,
        "epoch": saved.epoch if saved else None,
        "position": f"{saved.position.file}:{saved.position.pos}" if saved else None,
        "behind": facts.behind,
        "headroom_s": headroom,
        "captured": end - first,
        "applied_offset": progress.offset if progress else None,
        "lag_records": max(0, end - next_offset),
        "last_event_s": last_event_s,
        "read_again_to": _read_again_to(progress),
        "paused_by": pause.by if pause is not None else None,
        "rows_per_s": facts.signals.rows_per_s,
        "skipped": _skipped(facts.signals, saved),
        **facts.counts,
    }
    return {**row, "problems": list(problems(row))}


def _read_again_to(progress: "Progress | None") -> int | None:
    """Return the person_id up to which everybody is read again; None if nobody has to be."""
    if progress is not None:
        for work in progress.rereads:
            if "everyone" in work:
                return max(0, int(work["done"]))
    return None


def _skipped(signals: "Signals", saved: "Saved | None") -> list[str]:
    """Return the transactions that were left out, and that no snapshot has made good since."""
    if saved is None:
        return []
    if saved.snapshot is None or saved.snapshot.state != "done":
        return signals.skipped_since(0, 0)
    return signals.skipped_since(saved.epoch, saved.snapshot.number)


def state(capture: str, saved: "Saved | None", *, is_snapshot_waiting: bool = False) -> str:
    """Return the state of a hospital in words. `capture` is its setting."""
    if saved is None:
        return "never started"
    if capture == "polling":
        return "polling"
    if saved.capture == "polling":
        return "polled instead of streaming"
    if saved.snapshot is None or saved.snapshot.state != "running":
        return "streaming"
    if is_snapshot_waiting:
        return "streaming, snapshot waits"
    return "snapshot"


def problems(row: Row) -> Iterator[dict[str, str]]:
    """Yield ``{"what", "command"}`` for each thing that somebody should do something about."""
    hospital_id = row["hospital"]
    check = f"passport check --hospital {hospital_id}"

    yield from _asked_for(row)
    if row["state"] == "never started":
        yield _problem("its reader has never run", f"passport cdc run --hospital {hospital_id}")
    if row["behind"] is None and row["state"] in CAPTURING:
        yield _problem("its server does not answer", check)
    if row["last_event_s"] is not None and row["last_event_s"] > SILENT_S:
        yield _problem("nothing has come for five minutes", check)
    if row["state"] == "polled instead of streaming":
        yield _problem("its stream is silent, so it is polled", check)
    if row["lag_records"] > FAR_BEHIND:
        yield _problem("the consumer is far behind: start one more", "passport consume")
    if row.get("dead_letters"):
        yield _problem(
            "records could not be carried", f"passport dead-letters list --hospital {hospital_id}"
        )
    if is_soon_purged(row.get("headroom_s")):
        yield _problem("its binlog may be purged within a day before it is read", check)
    waiting = row.get("unmatched_by", {}).get("contradicting", 0)
    if waiting:
        yield _problem(
            f"{waiting} {'person waits' if waiting == 1 else 'people wait'} for a decision:"
            " another year of birth or sex in the Passport",
            f"passport unmatched contradictions --hospital {hospital_id}",
        )
    if row.get("conflicts"):
        yield _problem(
            "people's edits wait for a decision",
            f"passport conflicts list --hospital {hospital_id}",
        )
    verified = row.get("verified")
    if verified is not None and not verified["equal"]:
        yield _problem(
            "the last verify did not find it equal",
            f"passport reconcile --hospital {hospital_id} --once",
        )


def _asked_for(row: Row) -> Iterator[dict[str, str]]:
    """Yield what operators have asked for by `passport signal`, and how it ends."""
    hospital_id = row["hospital"]
    if row["state"] == "paused":
        yield _problem(
            f"{row['paused_by']} has paused its reader",
            f"passport signal --hospital {hospital_id} resume",
        )
    if row.get("snapshot") == "stopped":
        yield _problem(
            f"its snapshot was stopped behind obs {row['snapshot_key'] or 'none'}",
            f"passport signal --hospital {hospital_id} snapshot",
        )
    for gtid in row.get("skipped", ()):
        yield _problem(
            f"transaction {gtid} is left out: what it did to rows is missing",
            f"passport signal --hospital {hospital_id} snapshot",
        )
    if row.get("rows_per_s"):
        yield _problem(
            f"its budget is {row['rows_per_s']:,} rows/s, and not that of the settings",
            f"passport signal --hospital {hospital_id} budget=default",
        )


def is_soon_purged(headroom: float | str | None) -> bool:
    """Return whether the server may purge the position within a day."""
    return isinstance(headroom, float) and headroom < SOON_PURGED_S


def _problem(text: str, command: str) -> dict[str, str]:
    return {"what": text, "command": command}
