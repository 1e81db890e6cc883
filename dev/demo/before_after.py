"""What a stretch of work changed for one patient, as a table for the terminal; pure."""

from typing import Any

from rich.table import Table

Records = dict[str, dict[str, Any]]  # the documents of one patient by record id
Change = tuple[str, str, str]  # record id, before, after

ABSENT = "-"
ROWS = 12  # more would fill the screen


def changes(before: Records, after: Records) -> list[Change]:
    """Return the records of one patient that look otherwise than before, by record id."""
    changed = []
    for record_id in sorted({*before, *after}):
        old = _summary(before.get(record_id))
        new = _summary(after.get(record_id))
        if old != new:
            changed.append((record_id, old, new))
    return changed


def most_telling(changes_of_patients: dict[str, list[Change]]) -> str:
    """Return the patient whose changes show the most.

    A correction shows more than a record that was only added or taken away, and few changes show
    more than many.
    """

    def rank(patient: str) -> tuple[int, int, str]:
        changed = changes_of_patients[patient]
        corrections = 0
        for _, old, new in changed:
            if ABSENT not in (old, new):
                corrections += 1
        return corrections, -len(changed), patient

    return max(changes_of_patients, key=rank)


def table(changed: list[Change]) -> Table:
    """Return the changes of one patient as a table."""
    drawn = Table(title="One patient before and after")
    for heading in ("record", "before", "after"):
        drawn.add_column(heading)
    for record_id, old, new in changed[:ROWS]:
        drawn.add_row(f"…{record_id[-6:]}", old, new)
    return drawn


def _summary(record: dict[str, Any] | None) -> str:
    if record is None:
        return ABSENT
    data = record["data"]
    value = data.get("result") or data.get("details", "")
    return f"{record['type']}: {data.get('name', '')} = {value}"
