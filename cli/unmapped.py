"""``passport unmapped list``: the former name of ``passport mapping unmapped``, for one release."""

import sys

import typer

from cli import mapping
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption

commands = typer.Typer(no_args_is_help=True, help="The former name of `passport mapping unmapped`.")


@commands.command("list", deprecated=True)
def list_concepts(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List concepts that no rule knows, with a rule that would say what they are."""
    warning = "passport unmapped list is passport mapping unmapped now; this name goes with the"
    print(f"passport: {warning} next release", file=sys.stderr)  # noqa: T201
    mapping.unmapped(ctx, destination, hospital, as_json=as_json)
