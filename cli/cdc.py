"""``passport cdc run``: the reader of one hospital."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import HospitalOption, UntilCaughtUpOption
from cli.progress_bars import snapshot_bar

commands = typer.Typer(no_args_is_help=True, help="Capture one hospital's binlog into Kafka.")


@commands.command()
def run(
    ctx: typer.Context,
    hospital: HospitalOption,
    until_caught_up: UntilCaughtUpOption = False,
    new_epoch: Annotated[
        bool,
        typer.Option(
            "--new-epoch",
            help="Skip what stopped a reader: begin at the binlog's end, with a snapshot.",
        ),
    ] = False,
) -> None:
    """Read one hospital's binlog and publish every committed change.

    The first start takes a snapshot beside it.
    """
    from cdc import reader

    context: CommandContext = ctx.obj
    context.hospital(hospital)
    stop = context.start_role()
    with snapshot_bar(hospital):
        reader.run(
            hospital,
            context.settings,
            until_caught_up=until_caught_up,
            stop=stop,
            new_epoch=new_epoch,
        )
