"""The verbs of ``cut-over``: records of the documented sync, taken over once."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption

commands = typer.Typer(
    no_args_is_help=True, help="What the former sync wrote: shown once, or gone."
)


@commands.command("list")
def list_findings(
    ctx: typer.Context, destination: DestinationOption = None, as_json: JsonOption = False
) -> None:
    """What the former sync left in the Passport, and what would become of it."""
    from legacy_import.cut_over import LegacyImport

    context: CommandContext = ctx.obj
    with (
        context.open_passport(destination) as (database, _),
        LegacyImport(database, context.settings) as legacy,
    ):
        rows = [
            {
                "kind": finding.kind,
                "id": finding.id,
                "hospital": finding.hospital,
                "obs_id": finding.obs_id,
                "becomes": finding.becomes,
            }
            for finding in legacy.findings()
        ]
    columns = ("kind", "id", "hospital", "obs_id", "becomes")
    context.print_rows(rows, columns, as_json=as_json)


@commands.command()
def adopt(ctx: typer.Context, destination: DestinationOption = None) -> None:
    """Records of live observations become ours, with what people edited in them; what is wrong or
    gone goes.
    """
    from legacy_import.cut_over import LegacyImport

    context: CommandContext = ctx.obj
    with (
        context.open_passport(destination) as (database, _),
        LegacyImport(database, context.settings) as legacy,
    ):
        counts = legacy.adopt()
    context.print_counts(counts)


@commands.command()
def remove(
    ctx: typer.Context,
    records: Annotated[
        list[str] | None, typer.Argument(help="Their ids; without: all that nothing else decides.")
    ] = None,
    destination: DestinationOption = None,
) -> None:
    """What belongs to no observation, or to one of several hospitals, goes."""
    from legacy_import.cut_over import LegacyImport

    context: CommandContext = ctx.obj
    with (
        context.open_passport(destination) as (database, _),
        LegacyImport(database, context.settings) as legacy,
    ):
        counts = legacy.remove(records)
    context.print_counts(counts)
