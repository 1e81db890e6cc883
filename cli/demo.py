"""``passport demo``: the former name of ``make demo``, kept for one release.

The demo is part of a checkout, in dev/demo. The product imports nothing of dev, so that this verb
starts it as a program of its own.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from passport.errors import Fatal

CHECKOUT = Path(__file__).parents[1]


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after verify, with its exit code.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder with load.py: a third, real hospital.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Another number makes other patients and other work.")
    ] = 1,
) -> None:
    """Run two hospitals at work and the Passport that follows them, on this machine."""
    if not (CHECKOUT / "dev" / "demo" / "__main__.py").exists():
        raise Fatal(
            "the demo is part of a checkout, not of the package", hint="in a clone: make demo"
        )
    warning = "passport demo is make demo now; this name goes with the next release"
    print(f"passport: {warning}", file=sys.stderr)  # noqa: T201
    command = [sys.executable, "-m", "dev.demo", "--seed", str(seed)]
    if once:
        command.append("--once")
    if data is not None:
        command += ["--data", str(data)]
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    # The demo takes the place of this process: signals and its exit code need no passing on.
    os.execve(command[0], command, os.environ | {"PYTHONPATH": path})  # noqa: S606
