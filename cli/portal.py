"""``passport portal``: the server of the patient's and the operators' pages."""

from contextlib import closing
from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption


def portal(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hash_password: Annotated[
        bool,
        typer.Option(
            "--hash-password",
            help="Ask for a password, print its hash for portal.operators, and end.",
        ),
    ] = False,
) -> None:
    """Serve the patient's page and API, and the operators' page if a password is set for it."""
    from cli.status_report import PassportStatus
    from portal import server, sessions

    if hash_password:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        typer.echo(sessions.hashed(password))
        return
    context: CommandContext = ctx.obj
    name, _ = context.destination(destination, "mongo")
    settings = context.settings.portal
    with closing(
        PassportStatus(context.settings, name, uri=settings.uri, counted_every_s=60)
    ) as passport:
        server.run(
            settings,
            context.settings.hospitals,
            passport.uri,
            passport.database,
            passport.collect,
            context.start_role(),
        )
