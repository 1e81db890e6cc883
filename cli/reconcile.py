"""``passport reconcile``: polling, or comparing both ends, as the hospital's `capture` says."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, HospitalOption


def reconcile(
    ctx: typer.Context,
    hospital: HospitalOption,
    destination: DestinationOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Make one whole pass, then end with 0.")
    ] = False,
) -> None:
    """Poll a hospital, or compare it with the destination and repair differences.

    A hospital whose `capture` is polling is polled; a streaming one is compared.
    """
    from cdc.polling import poll
    from reconcile import compare

    context: CommandContext = ctx.obj
    if context.hospital(hospital).capture == "polling":
        poll.run(hospital, context.settings, once=once, stop=context.start_role())
    else:
        name, _ = context.destination(destination, "mongo")
        compare.run(hospital, context.settings, name, once=once, stop=context.start_role())
