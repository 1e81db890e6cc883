"""The options that several commands share, with one help text each."""

from typing import Annotated

import typer

HospitalOption = Annotated[
    str, typer.Option("--hospital", "-H", help="The hospital's id in the settings.")
]
OnlyHospitalOption = Annotated[
    str | None, typer.Option("--hospital", "-H", help="Only this hospital.")
]
DestinationOption = Annotated[
    str | None, typer.Option("--destination", "-d", help="The destination's name in the settings.")
]
UntilCaughtUpOption = Annotated[
    bool, typer.Option("--until-caught-up", help="End with 0 when nothing is left.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value to stdout.")]
