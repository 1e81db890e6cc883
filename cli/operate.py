"""Commands that act once: dead letters, the demo."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from cli.context import Session
from cli.inspect import JsonOption, SomeHospital
from cli.progress_bars import rows_bar
from cli.roles import DestinationOption, HospitalOption
from passport.errors import Fatal
from passport.settings import Settings
from passport.sink import connect

COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


def register(app: typer.Typer) -> None:
    app.command()(backfill)
    app.command()(replay)
    app.command()(demo)
    positions = typer.Typer(no_args_is_help=True, help="Where the readers are.")
    app.add_typer(positions, name="positions")
    positions.command("backup")(positions_backup)
    positions.command("restore")(positions_restore)
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
    person: Annotated[
        int | None, typer.Option("--person", help="All of this person_id instead.")
    ] = None,
) -> None:
    """Bring a hospital's obs once more to every destination, while its reader goes on."""
    from cdc import backfill as filling

    session: Session = context.obj
    session.hospital(hospital)
    if person is not None:
        if from_key is not None or to_key is not None:
            raise typer.BadParameter("a person's obs have no range of keys", param_hint="--person")
        filling.persons(hospital, session.settings, [person])
        session.console.print("asked: every destination reads this person whole", highlight=False)
        return
    with rows_bar(f"obs of {hospital}") as progress:
        rows = filling.run(
            hospital,
            session.settings,
            first=from_key,
            to=to_key,
            stop=session.role(),
            progress=progress,
        )
    session.console.print(f"{rows:,} rows read", highlight=False)


def replay(
    context: typer.Context,
    destination: DestinationOption = None,
    hospital: SomeHospital = None,
    start: Annotated[str, typer.Option("--from", help="Offset, or ISO time of publishing.")] = "",
    end: Annotated[str, typer.Option("--to", help="The same; not with it.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the topic, write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Apply a stretch of the topic to a destination once more, beside its running consumers."""
    from consumers import replay as replaying

    session: Session = context.obj
    name, _ = session.destination(destination)
    if hospital:
        session.hospital(hospital)
    stop, found = session.role(), {}
    with (
        closing(connect(name, session.settings)) as sink,
        RichProgress(*COLUMNS, console=Console(stderr=True), transient=True) as bar,
    ):
        for one in [hospital] if hospital else session.settings.hospitals:
            first, to = (_offset(session.settings, one, given) for given in (start, end))
            task = bar.add_task(f"records of {one}", total=None)
            found[one] = replaying.run(
                name,
                session.settings,
                sink,
                one,
                start=first,
                end=to,
                dry_run=dry_run,
                stop=stop,
                progress=lambda done, of, task=task: bar.update(task, completed=done, total=of),  # type: ignore[misc]
            )
    if as_json:
        session.print_json({one: asdict(done) for one, done in found.items()})
    else:
        for one, done in found.items():
            session.console.print(
                _replayed(one, done, dry_run=dry_run), highlight=False, soft_wrap=True
            )
    return 1 if not start and any(not done.complete for done in found.values()) else 0


def _offset(settings: Settings, hospital: str, given: str) -> int | None:
    """Of ``--from`` or ``--to``: a number, or a time (UTC unless it says its zone); None for an
    empty text.
    """
    from consumers.replay import offset

    if not given or given.isdigit():
        return int(given) if given else None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter("an offset, or a time such as 2026-01-31T08:00Z") from None
    return offset(
        settings, hospital, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    )


def _replayed(hospital: str, done: Any, *, dry_run: bool) -> str:
    what = f"{hospital}: offsets {done.first} to {done.end}, {done.records:,} records, {done.rows:,} of rows"
    if not dry_run:
        counts = ("applied", "unchanged", "stale", "unmatched", "rejected", "reread")
        what += "; " + ", ".join(f"{getattr(done, name):,} {name}" for name in counts)
    if done.complete:
        return f"{what}. The topic reaches back far enough: replaying it makes an empty destination whole"
    return f"{what}. No whole snapshot is among them: what is older comes with passport backfill --hospital {hospital}"


def positions_backup(context: typer.Context, file: Annotated[Path, typer.Argument()]) -> None:
    """Write them to a file."""
    from cdc import positions_file as backup

    session: Session = context.obj
    names = backup.save(session.settings, file)
    session.console.print(
        f"{file}: {', '.join(names) or 'no position'}", highlight=False, soft_wrap=True
    )


def positions_restore(context: typer.Context, file: Annotated[Path, typer.Argument()]) -> None:
    """Bring them back from a file, where it is further than what Kafka has. Readers go on from
    there.
    """
    from cdc import positions_file as backup

    session: Session = context.obj
    for name, taken in backup.restore(session.settings, file).items():
        said = "restored" if taken else "left alone: Kafka has a further one"
        session.console.print(f"{name}: {said}", highlight=False)


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
    names = ("id", "destination", "hospital", "reason", "kind", "partition", "offset")
    session.print_rows(found, names, as_json=as_json)


def letters_show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(help="Its id, from `dead-letters list`.")],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Its content too, which may be a patient's.")
    ] = False,
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

    session: Session = context.obj
    if not letters and not everything:
        raise Fatal("which letters?", hint="passport dead-letters retry ID..., or --all")
    done = dead_letters.retry(
        session.settings,
        None if everything else letters,
        lambda name: connect(name, session.settings),
    )
    for one in done:
        session.console.print(
            f"{one.id}: {'settled' if one.settled else one.reason}", highlight=False
        )
    return 0 if all(one.settled for one in done) else 1


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after verify, with its exit code.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder with load.py: a third, real hospital.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other patients, other work.")] = 1,
) -> int:
    """Two hospitals at work and the Passport that follows them, on real servers on this machine."""
    try:
        from dev.demo import run
    except ModuleNotFoundError as error:
        if error.name not in ("dev", "dev.demo"):
            raise
        raise Fatal(
            "the demo is part of a checkout, not of the package", hint="in a clone: make demo"
        ) from None
    return run(once=once, data=data, seed=seed)
