"""Commands for what a person has to decide: conflicts, concepts without a rule, records of the
former sync.
"""

import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.context import Session
from cli.inspect import JsonOption, SomeHospital
from cli.roles import DestinationOption

RecordArgument = Annotated[str, typer.Argument(help="Its id, from `conflicts list`.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="The values too, which are a patient's.")]


def register(app: typer.Typer) -> None:
    conflicts = typer.Typer(
        no_args_is_help=True,
        help="Records edited in the Passport that the hospital has changed since.",
    )
    app.add_typer(conflicts, name="conflicts")
    conflicts.command("list")(conflicts_list)
    conflicts.command("show")(conflicts_show)
    conflicts.command("resolve")(conflicts_resolve)
    unmapped = typer.Typer(
        no_args_is_help=True, help="Observations that no rule of mapping.yaml shows."
    )
    app.add_typer(unmapped, name="unmapped")
    unmapped.command("list")(unmapped_list)
    app.command()(erase)
    cut_over = typer.Typer(
        no_args_is_help=True, help="What the former sync wrote: shown once, or gone."
    )
    app.add_typer(cut_over, name="cut-over")
    cut_over.command("list")(cut_over_list)
    cut_over.command("adopt")(cut_over_adopt)
    cut_over.command("remove")(cut_over_remove)


def conflicts_list(
    context: typer.Context,
    destination: DestinationOption = None,
    hospital: SomeHospital = None,
    as_json: JsonOption = False,
) -> None:
    """Records that wait for a decision: which, and which fields differ, never what they say."""
    from destinations.mongo import conflicts

    session: Session = context.obj
    with _passport(session, destination) as (database, _):
        found = [
            one
            for name in _hospitals(session, hospital)
            for one in conflicts.listed(database, name)
        ]
    session.print_rows(found, ("id", "hospital", "type", "edited_at", "fields"), as_json=as_json)


def conflicts_show(
    context: typer.Context,
    record: RecordArgument,
    destination: DestinationOption = None,
    reveal: Reveal = False,
) -> None:
    """One of them."""
    from destinations.mongo import conflicts

    session: Session = context.obj
    with _passport(session, destination) as (database, _):
        shown = asdict(conflicts.one(database, record))
    if not reveal:
        shown = {name: value for name, value in shown.items() if name not in ("ours", "theirs")}
    session.print_json(shown)


def conflicts_resolve(
    context: typer.Context,
    record: RecordArgument,
    keep: Annotated[
        str, typer.Option("--keep", help="`passport` (the person's edit) or `hospital`.")
    ],
    destination: DestinationOption = None,
) -> None:
    """Keep the edit, until the hospital says something else again; or follow the hospital from now
    on.
    """
    from destinations.mongo import conflicts

    session: Session = context.obj
    if keep not in ("passport", "hospital"):
        raise typer.BadParameter("hospital, or passport", param_hint="--keep")
    with _passport(session, destination) as (database, _):
        name = conflicts.one(database, record).hospital
        conflicts.resolve(
            database,
            session.hospital(name),
            record,
            "passport" if keep == "passport" else "hospital",
        )
    session.console.print(f"{record}: as the {keep} says", highlight=False)


def unmapped_list(
    context: typer.Context,
    destination: DestinationOption = None,
    hospital: SomeHospital = None,
    as_json: JsonOption = False,
) -> None:
    """Concepts whose observations are in no record, with a rule that would show them: copy it, look
    at its type.
    """
    from destinations.mongo import unmapped

    session: Session = context.obj
    rows: list[dict[str, Any]] = []
    with _passport(session, destination) as (database, rules):
        for name in _hospitals(session, hospital):
            for one in unmapped.concepts(database, name, rules):
                known = one.concept
                told = {
                    "concept": known.get("name"),
                    "class": known.get("class"),
                    "datatype": known.get("datatype"),
                }
                rows.append({"hospital": name, "obs": one.obs, **told, "rule": one.rule})
    session.print_rows(
        rows, ("hospital", "obs", "concept", "class", "datatype", "rule"), as_json=as_json
    )


def erase(
    context: typer.Context,
    destination: DestinationOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what is left of a person who has left the Passport; their national id comes on stdin
    or is asked for.
    """
    from consumers import dead_letters
    from destinations.mongo.erasure import Erasure
    from openmrs.identity import digits
    from passport import sink as sinks

    session: Session = context.obj
    name, known = session.destination(destination, "mongo")
    with _passport(session, name) as (database, _):
        written = (
            typer.prompt("National id", hide_input=True)
            if sys.stdin.isatty()
            else sys.stdin.readline()
        )
        if not 10 <= len(national_id := digits(written)) <= 16:
            raise typer.BadParameter("10 to 16 digits, on stdin", param_hint="national id")
        erasure = Erasure(database, session.settings, sinks.options(name, known).key, national_id)
        letters = dead_letters.erase(session.settings, erasure.concerns, dry_run=dry_run)
        done = {"dead letters": letters, **erasure.run(dry_run=dry_run)}
    if as_json:
        session.print_json(done)
    else:
        _tell(session, done)


def cut_over_list(
    context: typer.Context, destination: DestinationOption = None, as_json: JsonOption = False
) -> None:
    """What the former sync left in the Passport, and what would become of it."""
    from legacy_import import cut_over as cutover

    session: Session = context.obj
    with (
        _passport(session, destination) as (database, _),
        cutover.Former(database, session.settings) as former,
    ):
        found = list(former.found())
    session.print_rows(found, ("kind", "id", "hospital", "obs_id", "becomes"), as_json=as_json)


def cut_over_adopt(context: typer.Context, destination: DestinationOption = None) -> None:
    """Records of live observations become ours, with what people edited in them; what is wrong or
    gone goes.
    """
    from legacy_import import cut_over as cutover

    session: Session = context.obj
    with (
        _passport(session, destination) as (database, _),
        cutover.Former(database, session.settings) as former,
    ):
        done = former.adopt()
    _tell(session, done)


def cut_over_remove(
    context: typer.Context,
    records: Annotated[
        list[str] | None, typer.Argument(help="Their ids; without: all that nothing else decides.")
    ] = None,
    destination: DestinationOption = None,
) -> None:
    """What belongs to no observation, or to one of several hospitals, goes."""
    from legacy_import import cut_over as cutover

    session: Session = context.obj
    with (
        _passport(session, destination) as (database, _),
        cutover.Former(database, session.settings) as former,
    ):
        done = former.remove(records)
    _tell(session, done)


def _tell(session: Session, done: dict[str, int]) -> None:
    said = (
        ", ".join(f"{count:,} {what}" for what, count in done.items() if count) or "nothing to do"
    )
    session.console.print(said, highlight=False)


def _passport(session: Session, destination: str | None) -> AbstractContextManager[tuple[Any, Any]]:
    """Database and mapping."""
    from destinations import mongo

    name, _ = session.destination(destination, "mongo")
    return mongo.opened(session.settings, name)


def _hospitals(session: Session, only: str | None) -> list[str]:
    if only is not None:
        session.hospital(only)
    return [only] if only is not None else list(session.settings.hospitals)
