"""``passport health``: what a container's health check runs."""

from urllib.error import URLError
from urllib.request import urlopen

import typer

from cli.context import CommandContext
from passport.errors import Fatal, NotReady


def health(ctx: typer.Context) -> int:
    """Ask the /readyz of the role on this machine: exit code 0 if it is ready, 3 if not.

    A container's health check runs this.
    """
    context: CommandContext = ctx.obj
    port = context.settings.health.port
    if not port:
        raise Fatal(
            "health.port is 0: there is no endpoint to ask",
            hint="set PASSPORT_HEALTH__PORT, say to 9400",
        )
    url = f"http://127.0.0.1:{port}/readyz"
    try:
        with urlopen(url, timeout=5) as answer:
            print(answer.read().decode().strip())  # noqa: T201
    except URLError as error:
        raise NotReady("not ready", hint=f"curl {url}") from error
    return 0
