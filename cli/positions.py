"""The verbs of ``positions``: a copy of where the readers are, outside of Kafka."""

from pathlib import Path
from typing import Annotated

import typer

from cli.context import CommandContext

commands = typer.Typer(
    no_args_is_help=True, help="Keep a copy of the readers' positions outside of Kafka."
)


@commands.command()
def backup(ctx: typer.Context, file: Annotated[Path, typer.Argument()]) -> None:
    """Write the positions to a file."""
    from cdc import positions_file

    context: CommandContext = ctx.obj
    names = positions_file.save(context.settings, file)
    text = f"{file}: {', '.join(names) or 'no position'}"
    context.console.print(text, highlight=False, soft_wrap=True)


@commands.command()
def restore(ctx: typer.Context, file: Annotated[Path, typer.Argument()]) -> None:
    """Bring back positions from a file, where they are further than those in Kafka.

    Readers go on from there. Where something newer than the file's epoch was published already, the
    reader begins a new epoch with a snapshot instead: nothing else would be taken.
    """
    from cdc import positions_file

    context: CommandContext = ctx.obj
    texts = {
        "restored": "restored",
        "older than what was published": "restored, but a newer epoch was published since:"
        " its reader begins another one, with a snapshot",
        "left alone": "left alone: Kafka has a further one",
    }
    for name, outcome in positions_file.restore(context.settings, file).items():
        text = texts[outcome]
        context.console.print(f"{name}: {text}", highlight=False, soft_wrap=True)
