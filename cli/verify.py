"""``passport verify``: a whole comparison of both ends, once."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption
from passport.settings import Settings


def verify(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    from_person: Annotated[
        int | None, typer.Option(help="First person_id; needs --hospital.")
    ] = None,
    to_person: Annotated[int | None, typer.Option(help="Last person_id; needs --hospital.")] = None,
    level: Annotated[
        Literal["record", "mirror"],
        typer.Option(
            "--level",
            help="`mirror` compares links and rows by hash, which is several times faster.",
        ),
    ] = "record",
    repair: Annotated[
        bool, typer.Option("--repair", help="Read everybody who differs whole again.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Compare the hospitals with the destination: links, rows and records.

    The exit code is 0 only if something of each hospital was compared, and all of it is equal.
    """
    from reconcile.persons import EVERYBODY
    from reconcile.verify import verify as compare_both_ends

    context: CommandContext = ctx.obj
    name, _ = context.destination(destination, "mongo")
    first, last = EVERYBODY
    persons = (from_person or first, last if to_person is None else to_person)
    if hospital:
        context.hospital(hospital)
    elif persons != EVERYBODY:
        raise typer.BadParameter(
            "numbers of persons are a hospital's own: --hospital too", param_hint="--from-person"
        )
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("people", total=None)
        report = compare_both_ends(
            context.settings,
            name,
            hospitals=[hospital] if hospital else None,
            persons=persons,
            level=level,
            repair=repair,
            progress=lambda compared, total: bar.update(task, completed=compared, total=total),
        )
    if persons == EVERYBODY and level == "record":
        _remember(context.settings, name, report)
    if as_json:
        context.print_json(report.as_json())
    else:
        context.console.print(report.as_text(), highlight=False, soft_wrap=True)
    return 0 if report.equal else 1


def _remember(settings: Settings, destination: str, report: Any) -> None:
    """Store the time and whether the ends were equal, for `status` and the operators' page."""
    from destinations import mongo
    from destinations.mongo import progress

    with mongo.opened(settings, destination) as (database, _):
        for hospital, comparison in report.hospitals.items():
            verified = {"at": datetime.now(UTC), "equal": comparison.equal}
            progress.store_verified(database, hospital, verified)
