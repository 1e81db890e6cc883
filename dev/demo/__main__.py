"""``python -m dev.demo``, which ``make demo`` runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dev.demo.show import run
from passport.errors import BadSettings, NotReady, PassportError


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after verify, with its exit code.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="A folder with load.py, or with a recorded OpenMRS: a third hospital."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other patients, other work.")] = 1,
) -> None:
    """Two hospitals at work and the Passport that follows them, on real servers on this machine."""
    try:
        code = run(once=once, data=data, seed=seed)
    except PassportError as error:
        print(f"demo: {error}", file=sys.stderr)
        code = 1
        if isinstance(error, BadSettings):
            code = 2
        if isinstance(error, NotReady):
            code = 3
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(demo)
