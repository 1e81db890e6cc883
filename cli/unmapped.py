"""``passport unmapped list``: observations that no rule of the mapping knows."""

from typing import Any

import typer

from cli.context import CommandContext
from cli.options import DestinationOption, JsonOption, OnlyHospitalOption

commands = typer.Typer(
    no_args_is_help=True, help="Find observations that no rule of mapping.yaml knows."
)


@commands.command("list")
def list_concepts(
    ctx: typer.Context,
    destination: DestinationOption = None,
    hospital: OnlyHospitalOption = None,
    as_json: JsonOption = False,
) -> None:
    """List concepts that no rule knows, with a rule that would say what they are.

    Copy the rule into the hospital's mapping, after a look at its kind.
    """
    from destinations.mongo import unmapped

    context: CommandContext = ctx.obj
    rows: list[dict[str, Any]] = []
    with context.open_passport(destination) as (database, rules):
        for hospital_id in context.hospital_ids(hospital):
            rows += [
                {
                    "hospital": hospital_id,
                    "obs": concept.obs,
                    "concept": concept.concept.get("name"),
                    "class": concept.concept.get("class"),
                    "datatype": concept.concept.get("datatype"),
                    "rule": concept.rule,
                }
                for concept in unmapped.concepts(database, hospital_id, rules[hospital_id])
            ]
    columns = ("hospital", "obs", "concept", "class", "datatype", "rule")
    context.print_rows(rows, columns, as_json=as_json)
