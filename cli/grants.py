"""``passport grants``: the SQL for a hospital's DBA."""

from typing import Annotated, Literal

import typer

from cli.context import CommandContext
from cli.options import HospitalOption


def grants(
    ctx: typer.Context,
    hospital: HospitalOption,
    flavour: Annotated[
        Literal["auto", "mariadb", "mysql"],
        typer.Option("--flavour", help="The kind of server; auto asks it."),
    ] = "auto",
) -> None:
    """Print the SQL that the hospital's DBA runs: the smallest grants that suffice."""
    from cdc.checks.grants import grants as grants_sql
    from openmrs.connection import flavour_without_login

    context: CommandContext = ctx.obj
    settings = context.hospital(hospital)
    server = flavour_without_login(hospital, settings.mysql) if flavour == "auto" else flavour
    print(grants_sql(hospital, settings, server), end="")  # noqa: T201
