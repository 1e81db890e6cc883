"""The options that several commands share, with one help text each."""

from typing import Annotated

import typer

HospitalOption = Annotated[str, typer.Option("--hospital", "-H", help="Its id in the settings.")]
OnlyHospitalOption = Annotated[str | None, typer.Option("--hospital", "-H", help="Only this one.")]
DestinationOption = Annotated[
    str | None, typer.Option("--destination", "-d", help="Its name in the settings.")
]
UntilCaughtUpOption = Annotated[
    bool, typer.Option("--until-caught-up", help="End with 0 when nothing is left.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
