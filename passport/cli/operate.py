"""Commands that act once: the demo, dead letters."""

from pathlib import Path
from typing import Annotated

import typer

from passport.errors import Fatal


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after verify, with its exit code.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="A folder with load.py: a third, real hospital.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other patients, other work.")] = 1,
) -> int:
    """Two hospitals at work and the Passport that follows them, on real servers on this machine."""
    try:
        from dev.demo import run
    except ModuleNotFoundError as error:
        if error.name not in ("dev", "dev.demo"):
            raise
        raise Fatal(
            "the demo is part of a checkout, not of the package", hint="clone the repository, then: make demo"
        ) from None
    return run(once=once, data=data, seed=seed)
