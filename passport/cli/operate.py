"""Commands that act once: dead letters, the demo."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from passport.cli.inspect import JsonOption, SomeHospital
from passport.cli.roles import DestinationOption, HospitalOption
from passport.cli.session import Session
from passport.errors import Fatal

COLUMNS = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())


def register(app: typer.Typer) -> None:
    app.command()(backfill)
    app.command()(demo)
    letters = typer.Typer(no_args_is_help=True, help="Records that could not be carried.")
    app.add_typer(letters, name="dead-letters")
    letters.command("list")(letters_list)
    letters.command("show")(letters_show)
    letters.command("retry")(letters_retry)


def backfill(
    context: typer.Context,
    hospital: HospitalOption,
    from_key: Annotated[int | None, typer.Option("--from-key", help="First obs_id.")] = None,
    to_key: Annotated[int | None, typer.Option("--to-key", help="Last obs_id.")] = None,
) -> None:
    """Read a hospital's obs once more into the topic, while its reader goes on."""
    from cdc import backfill as filling

    session: Session = context.obj
    session.hospital(hospital)
    with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"obs of {hospital}", total=None)
        rows = filling.run(
            hospital,
            session.settings,
            first=from_key,
            to=to_key,
            stop=session.role(),
            progress=lambda done: bar.update(task, completed=done),
        )
    session.console.print(f"{rows:,} rows read", highlight=False)


def letters_list(
    context: typer.Context,
    destination: DestinationOption = None,
    hospital: SomeHospital = None,
    as_json: JsonOption = False,
) -> None:
    """What is parked and not settled: where it came from and why, never what it says."""
    from consumers import dead_letters

    session: Session = context.obj
    found = dead_letters.listed(session.settings, destination=destination, hospital=hospital)
    rows = [
        {
            "id": one.id,
            "destination": one.destination,
            "hospital": one.hospital,
            "reason": one.reason,
            "kind": one.kind,
            "partition": one.partition,
            "offset": one.offset,
        }
        for one in found
    ]
    if as_json:
        session.print_json(rows)
        return
    table = Table("id", "destination", "hospital", "reason", "kind", "partition", "offset")
    for row in rows:
        table.add_row(*map(str, row.values()))
    session.console.print(table)


def letters_show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(help="Its id, from `dead-letters list`.")],
    reveal: Annotated[bool, typer.Option("--reveal", help="Its content too, which may be a patient's.")] = False,
) -> None:
    """One parked record."""
    from consumers import dead_letters

    session: Session = context.obj
    shown = dead_letters.show(session.settings, letter, reveal=reveal)
    fields: dict[str, Any] = asdict(shown)
    fields["letter"].pop("value", None)
    session.print_json(fields)


def letters_retry(
    context: typer.Context,
    letters: Annotated[list[str] | None, typer.Argument(help="Their ids.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> int:
    """Try again: the row is read anew at its hospital, so that an old letter can do no harm."""
    from consumers import dead_letters
    from consumers.worker import connected

    session: Session = context.obj
    if not letters and not everything:
        raise Fatal("which letters?", hint="passport dead-letters retry ID..., or --all")
    done = dead_letters.retry(
        session.settings, None if everything else letters, lambda name: connected(name, session.settings)
    )
    for one in done:
        session.console.print(f"{one.id}: {'settled' if one.settled else one.reason}", highlight=False)
    return 0 if all(one.settled for one in done) else 1


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after verify, with its exit code.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="A folder with load.py: a third, real hospital.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other patients, other work.")] = 1,
) -> int:
    """Two hospitals at work and the Passport that follows them, on real servers on this machine."""
    try:
        from dev.demo import run
    except ModuleNotFoundError as error:
        if error.name not in ("dev", "dev.demo"):
            raise
        raise Fatal("the demo is part of a checkout, not of the package", hint="in a clone: make demo") from None
    return run(once=once, data=data, seed=seed)
