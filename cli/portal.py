"""The command that serves the pages."""

from contextlib import closing
from typing import Annotated

import typer

from cli.context import Session
from cli.roles import DestinationOption


def register(app: typer.Typer) -> None:
    app.command()(portal)


def portal(
    context: typer.Context,
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
    from cli.status import Reading
    from portal import server, sessions

    if hash_password:
        typer.echo(
            sessions.hashed(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
        )
        return
    session: Session = context.obj
    name, _ = session.destination(destination, "mongo")
    wanted = session.settings.portal
    with closing(Reading(session.settings, name, uri=wanted.uri, kept_s=60)) as look:
        server.run(
            wanted,
            session.settings.hospitals,
            look.uri,
            look.database,
            look.collect,
            session.role(),
        )
