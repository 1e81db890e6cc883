"""The verbs of ``dead-letters``: records that could not be carried."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption
from passport.errors import Fatal
from passport.sink import connect

commands = typer.Typer(
    no_args_is_help=True, help="Look at records that could not be carried, and try them again."
)


@commands.command("list")
def list_letters(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the dead letters that are not settled: their origin and reason, never a value."""
    from consumers import dead_letters

    context: CommandContext = ctx.obj
    letters = dead_letters.listed(context.settings, destination=destination, hospital=hospital)
    rows = [
        {
            "id": letter.id,
            "destination": letter.destination,
            "hospital": letter.hospital,
            "reason": letter.reason,
            "kind": letter.kind,
            "partition": letter.partition,
            "offset": letter.offset,
        }
        for letter in letters
    ]
    columns = ("id", "destination", "hospital", "reason", "kind", "partition", "offset")
    context.print_rows(rows, columns, as_json=as_json)


@commands.command()
def show(
    ctx: typer.Context,
    letter: Annotated[str, typer.Argument(help="The dead letter's id, from `dead-letters list`.")],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print the content too, which may be a patient's.")
    ] = False,
) -> None:
    """Show one dead letter."""
    from consumers import dead_letters

    context: CommandContext = ctx.obj
    fields: dict[str, Any] = asdict(dead_letters.show(context.settings, letter, reveal=reveal))
    # The raw value stays out: `value`, beside it, has the content only if it was asked for.
    fields["letter"].pop("value", None)
    context.print_json(fields)


@commands.command()
def retry(
    ctx: typer.Context,
    letters: Annotated[list[str] | None, typer.Argument(help="Ids of dead letters.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry all dead letters.")] = False,
) -> int:
    """Try again. The row is read anew at its hospital, so an old dead letter does no harm."""
    from consumers import dead_letters

    context: CommandContext = ctx.obj
    if not letters and not everything:
        raise Fatal("which dead letters?", hint="passport dead-letters retry ID..., or --all")
    results = dead_letters.retry(
        context.settings,
        None if everything else letters,
        lambda name: connect(name, context.settings),
    )
    for result in results:
        text = "settled" if result.settled else result.reason
        context.console.print(f"{result.id}: {text}", highlight=False)
    return 0 if all(result.settled for result in results) else 1
