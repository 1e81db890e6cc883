"""``passport grants``: the SQL for a hospital's DBA."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import HospitalOption


def grants(
    ctx: typer.Context,
    hospital: HospitalOption,
    flavour: Annotated[
        str | None, typer.Option("--flavour", help="Has no effect any more.", hidden=True)
    ] = None,
) -> None:
    """Print the SQL that the hospital's DBA runs: the smallest grants that suffice."""
    from cdc.checks.grants import grants as grants_sql

    context: CommandContext = ctx.obj
    print(grants_sql(hospital, context.hospital(hospital)), end="")  # noqa: T201
