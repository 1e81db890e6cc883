"""The verbs of ``conflicts``: what a person has changed in the Passport, unlike the hospital."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption

RecordArgument = Annotated[str, typer.Argument(help="The record's id, from `conflicts list`.")]
RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Print the values too, which are a patient's.")
]

commands = typer.Typer(
    no_args_is_help=True,
    help="Decide on records edited or deleted in the Passport where the hospital says otherwise.",
)


@commands.command("list")
def list_conflicts(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List records that wait for a decision, and the names of the fields that differ."""
    from destinations.mongo import conflicts

    context: CommandContext = ctx.obj
    rows: list[dict[str, Any]] = []
    with context.open_passport(destination) as (database, _):
        for hospital_id in context.hospital_ids(hospital):
            rows += [asdict(conflict) for conflict in conflicts.listed(database, hospital_id)]
    columns = ("id", "hospital", "type", "edited_at", "fields")
    context.print_rows(rows, columns, as_json=as_json)


@commands.command()
def show(
    ctx: typer.Context,
    record: RecordArgument,
    destination: DestinationOption = None,
    reveal: RevealOption = False,
) -> None:
    """Show one record that waits for a decision."""
    from destinations.mongo import conflicts

    context: CommandContext = ctx.obj
    with context.open_passport(destination) as (database, _):
        fields = asdict(conflicts.one(database, record))
    if not reveal:
        del fields["ours"], fields["theirs"]
    context.print_json(fields)


@commands.command()
def resolve(
    ctx: typer.Context,
    record: RecordArgument,
    keep: Annotated[
        Literal["passport", "hospital"],
        typer.Option(
            "--keep", help="Whose values to keep: `passport` (the person's edit) or `hospital`."
        ),
    ],
    destination: DestinationOption = None,
) -> None:
    """Decide whose values a record keeps.

    The edit is kept until the hospital changes the record again. With `--keep hospital` the record
    follows the hospital from now on. A record of type `deleted` was deleted in the Passport: it
    stays so, or is shown again.
    """
    from destinations.mongo import conflicts

    context: CommandContext = ctx.obj
    with context.open_passport(destination) as (database, _):
        hospital_id = conflicts.one(database, record).hospital
        conflicts.resolve(database, context.hospital(hospital_id), record, keep)
    context.console.print(f"{record}: as the {keep} says", highlight=False)
