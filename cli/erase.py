"""``passport erase``: what is left of a person who has left the Passport."""

import sys
from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption


def erase(
    ctx: typer.Context,
    destination: DestinationOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what is left of a person who has left the Passport.

    The national id is read from stdin, or is asked for on a terminal.
    """
    from consumers import dead_letters
    from destinations.mongo.erasure import Erasure
    from openmrs.national_id import read_national_id
    from passport import sink as sinks

    context: CommandContext = ctx.obj
    name, settings = context.destination(destination, "mongo")
    with context.open_passport(name) as (database, _):
        national_id = read_national_id(_typed_national_id())
        if national_id is None:
            raise typer.BadParameter("10 to 16 digits, on stdin", param_hint="national id")
        link_key = sinks.options(name, settings).key
        erasure = Erasure(database, context.settings, link_key, national_id)
        letters = dead_letters.erase(context.settings, erasure.concerns, dry_run=dry_run)
        counts = {"dead letters": letters, **erasure.run(dry_run=dry_run)}
    if as_json:
        context.print_json(counts)
    else:
        context.print_counts(counts)


def _typed_national_id() -> str:
    """Return what is typed or piped in.

    It is never an argument: a shell's history and the list of processes would show it.
    """
    if sys.stdin.isatty():
        return str(typer.prompt("National id", hide_input=True))
    return sys.stdin.readline()
