"""``passport erase``: what is left of a person who has left the Passport."""

import sys
from collections import Counter
from threading import Event
from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption
from passport.errors import Overtaken


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
    from consumers.taking import Taking
    from destinations.mongo.erasure import Erasure
    from destinations.mongo.fence import Fence
    from openmrs.national_id import read_national_id
    from passport import sink as sinks

    context: CommandContext = ctx.obj
    name, settings = context.destination(destination, "mongo")
    with context.open_passport(name) as (database, _):
        national_id = read_national_id(_typed_national_id())
        if national_id is None:
            raise typer.BadParameter("10 to 16 digits, on stdin", param_hint="national id")
        link_key = sinks.options(name, settings).key
        fence = Fence(database, *context.settings.hospitals)
        taking = Taking(fence.take, Event())
        if not dry_run:
            taking.take()
        counts: Counter[str] = Counter()
        is_done = False
        while not is_done:
            erasure = Erasure(database, context.settings, link_key, national_id)
            counts["dead letters"] += dead_letters.erase(
                context.settings, erasure.concerns, dry_run=dry_run
            )
            try:
                counts.update(erasure.count() if dry_run else erasure.run(fence))
                is_done = True
            except Overtaken as error:
                taking.take_again(error)
        fence.close()
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
