"""``passport unmatched list``: people who are not in the Passport (yet)."""

from contextlib import closing
from typing import Any

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption
from passport.errors import Fatal
from passport.sink import ListsUnmatched, connect

commands = typer.Typer(no_args_is_help=True, help="Find people whose observations wait.")


@commands.command("list")
def list_people(
    ctx: typer.Context, destination: DestinationOption = None, as_json: JsonOption = False
) -> None:
    """List people who are not matched: hospital, person_id and state, never an identifier."""
    context: CommandContext = ctx.obj
    name, settings = context.destination(destination, "mongo")
    people: list[dict[str, Any]] = []
    with closing(connect(name, context.settings)) as sink:
        if not isinstance(sink, ListsUnmatched):
            raise Fatal(
                f"destination {name} of type {settings.type} keeps everybody's observations",
                hint="passport status",
            )
        for hospital_id in context.settings.hospitals:
            for hospital, person_id, state in sink.unmatched(hospital_id):
                people.append({"hospital": hospital, "person_id": person_id, "state": state})
    context.print_rows(people, ("hospital", "person_id", "state"), as_json=as_json)
