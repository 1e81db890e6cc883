"""``passport replay``: a stretch of the topic once more, to one destination."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption
from passport.settings import Settings
from passport.sink import connect

if TYPE_CHECKING:
    from consumers.replay import Replayed

COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


def replay(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    start: Annotated[
        str, typer.Option("--from", help="First offset, or ISO time of publishing.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Offset or time to stop before.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look at the topic; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Apply a stretch of the topic to a destination once more, beside its running consumers."""
    from consumers import replay as replaying

    context: CommandContext = ctx.obj
    settings = context.settings
    name, _ = context.destination(destination)
    hospitals = context.hospital_ids(hospital)
    stop = context.start_role()
    results: dict[str, replaying.Replayed] = {}
    with (
        closing(connect(name, settings)) as sink,
        Progress(*COLUMNS, console=Console(stderr=True), transient=True) as bar,
    ):
        for hospital_id in hospitals:
            task = bar.add_task(f"records of {hospital_id}", total=None)

            def show(applied: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=applied, total=total)

            results[hospital_id] = replaying.run(
                name,
                settings,
                sink,
                hospital_id,
                start=_offset(settings, hospital_id, start),
                end=_offset(settings, hospital_id, end),
                dry_run=dry_run,
                stop=stop,
                progress=show,
            )
    if as_json:
        context.print_json({name: asdict(result) for name, result in results.items()})
    else:
        for hospital_id, result in results.items():
            text = _as_text(hospital_id, result, dry_run=dry_run)
            context.console.print(text, highlight=False, soft_wrap=True)
    is_whole = all(result.complete for result in results.values())
    # Who names a start knows that what is older is left out. Without one, all is expected.
    return 0 if start or is_whole else 1


def _offset(settings: Settings, hospital_id: str, text: str) -> int | None:
    """Return the offset that ``--from`` or ``--to`` means; None for an empty text.

    The text is an offset, or a time, which is UTC unless it says its zone.
    """
    from consumers.replay import offset

    if not text:
        return None
    if text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("an offset, or a time such as 2026-01-31T08:00Z") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return offset(settings, hospital_id, int(at.timestamp() * 1000))


def _as_text(hospital_id: str, result: "Replayed", *, dry_run: bool) -> str:
    text = (
        f"{hospital_id}: offsets {result.first} to {result.end},"
        f" {result.records:,} records, {result.rows:,} of rows"
    )
    if not dry_run:
        text += (
            f"; {result.applied:,} applied, {result.unchanged:,} unchanged, {result.stale:,} stale,"
            f" {result.unmatched:,} unmatched, {result.rejected:,} rejected,"
            f" {result.reread:,} reread"
        )
    if result.complete:
        return (
            f"{text}. The topic reaches back far enough: replaying it makes an empty destination"
            " whole"
        )
    return (
        f"{text}. No whole snapshot is among them: what is older comes with passport backfill"
        f" --hospital {hospital_id}"
    )
