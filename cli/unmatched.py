"""The verbs of ``unmatched``: people who are not in the Passport (yet), and who may be another."""

import getpass
import re
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption
from passport.errors import Fatal
from passport.sink import ListsUnmatched, connect

PersonArgument = Annotated[str, typer.Argument(help="The person, as kigali/4711.")]
RevealOption = Annotated[
    bool, typer.Option("--reveal", help="Print both sides' values too, which are a patient's.")
]

COUNTED = ("compared", "birth_year", "sex")

commands = typer.Typer(
    no_args_is_help=True, help="Find people whose observations wait, and decide on their links."
)


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


@commands.command()
def contradictions(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List people whose year of birth or sex is another one in the Passport, linked or not.

    Those of whom somebody has decided are listed too. Values are never printed here.
    """
    from destinations.mongo import decisions

    context: CommandContext = ctx.obj
    rows: list[dict[str, Any]] = []
    with context.open_passport(destination) as (database, _):
        for hospital_id in context.hospital_ids(hospital):
            rows += [
                asdict(contradiction) | {"linked": contradiction.is_linked}
                for contradiction in decisions.listed(database, hospital_id)
            ]
    columns = ("hospital", "person_id", "state", "linked", "contradicts", "verdict", "decided_by")
    context.print_rows(rows, columns, as_json=as_json)


@commands.command()
def compare(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare year of birth and sex of everybody who is linked, and count what contradicts.

    Nobody is linked or hidden by this, unless the destination's `contradictions` says so.
    """
    from reconcile import contradictions as comparison
    from reconcile import mongo_reader

    context: CommandContext = ctx.obj
    name, _ = context.destination(destination, "mongo")
    rows: list[dict[str, Any]] = []
    with mongo_reader.opened(context.settings, name) as mongo:
        for hospital_id in context.hospital_ids(hospital):
            counts = comparison.compare_everybody(context.settings, hospital_id, mongo)
            rows.append({"hospital": hospital_id, **{column: counts[column] for column in COUNTED}})
    context.print_rows(rows, ("hospital", *COUNTED), as_json=as_json)


@commands.command()
def show(
    ctx: typer.Context,
    person: PersonArgument,
    destination: DestinationOption = None,
    reveal: RevealOption = False,
) -> None:
    """Show one person's link, and what hospital and Passport say differently."""
    from destinations.mongo import decisions

    context: CommandContext = ctx.obj
    hospital_id, person_id = _parse(context, person)
    with context.open_passport(destination) as (database, _):
        contradiction = decisions.one(database, hospital_id, person_id)
        shown = asdict(contradiction)
        if reveal:
            shown["passport"] = decisions.passport_says(database, contradiction)
            shown["hospital_says"] = _hospital_says(context, hospital_id, person_id)
    context.print_json(shown)


@commands.command()
def link(ctx: typer.Context, person: PersonArgument, destination: DestinationOption = None) -> None:
    """Link a person with the patient who has their national id, though they are contradicting."""
    _decide(ctx, person, destination, "link")


@commands.command()
def refuse(
    ctx: typer.Context, person: PersonArgument, destination: DestinationOption = None
) -> None:
    """Refuse the link: what the hospital says of this person is not shown to that patient."""
    _decide(ctx, person, destination, "refuse")


@commands.command()
def undo(ctx: typer.Context, person: PersonArgument, destination: DestinationOption = None) -> None:
    """Take back what was decided by `link` or `refuse`."""
    _decide(ctx, person, destination, None)


def _decide(
    ctx: typer.Context,
    person: str,
    destination: str | None,
    verdict: Literal["link", "refuse"] | None,
) -> None:
    from destinations.mongo import decisions

    context: CommandContext = ctx.obj
    hospital_id, person_id = _parse(context, person)
    hospital = context.hospital(hospital_id)
    with context.open_passport(destination) as (database, _):
        decisions.decide(database, hospital_id, hospital, person_id, verdict, getpass.getuser())
    done = {"link": "linked", "refuse": "refused", None: "undecided again"}[verdict]
    context.console.print(
        f"{person}: {done}, as soon as `passport consume` has read the person", highlight=False
    )


def _parse(context: CommandContext, person: str) -> tuple[str, int]:
    """Return hospital and person_id of a person as typed: ``kigali/4711``."""
    if not re.fullmatch(r".+/[0-9]{1,10}", person):
        raise typer.BadParameter("as kigali/4711", param_hint="person")
    hospital_id, _, number = person.rpartition("/")
    context.hospital(hospital_id)
    return hospital_id, int(number)


def _hospital_says(context: CommandContext, hospital_id: str, person_id: int) -> dict[str, Any]:
    """Read a person's year of birth and sex at the hospital."""
    from openmrs.identity import Identities
    from openmrs.read import ANY_POSITION, Source

    hospital = context.hospital(hospital_id)
    with (
        closing(Source(hospital_id, hospital.mysql)) as source,
        source.read_at(ANY_POSITION) as reading,
    ):
        person = Identities(hospital_id, hospital).read(reading, [person_id], "")[person_id]
    return {
        "birth_year": person.birth_year,
        "is_birth_estimated": person.is_birth_estimated,
        "sex": person.sex,
    }
