"""``passport consume``: one more consumer of a destination."""

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, UntilCaughtUpOption


def consume(
    ctx: typer.Context,
    destination: DestinationOption = None,
    until_caught_up: UntilCaughtUpOption = False,
) -> None:
    """Look up what changes mean and write them to a destination."""
    from consumers import worker

    context: CommandContext = ctx.obj
    name, _ = context.destination(destination)
    stop = context.start_role()
    worker.run(name, context.settings, until_caught_up=until_caught_up, stop=stop)
