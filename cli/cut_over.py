"""The verbs of ``cut-over``: records of the legacy sync, taken over once."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption

commands = typer.Typer(
    no_args_is_help=True, help="Take over, or remove, what the legacy sync wrote."
)


@commands.command("list")
def list_findings(
    ctx: typer.Context, destination: DestinationOption = None, as_json: JsonOption = False
) -> None:
    """List what the legacy sync left in the Passport, and what would become of it."""
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
    """Take over the records of live observations, with what people edited in them.

    Records that are wrong, or whose observation is gone, are removed.
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
        list[str] | None,
        typer.Argument(help="Ids of records; without any, all that are removed in any case."),
    ] = None,
    destination: DestinationOption = None,
) -> None:
    """Remove records that belong to no observation, or to those of several hospitals."""
    from legacy_import.cut_over import LegacyImport

    context: CommandContext = ctx.obj
    with (
        context.open_passport(destination) as (database, _),
        LegacyImport(database, context.settings) as legacy,
    ):
        counts = legacy.remove(records)
    context.print_counts(counts)
