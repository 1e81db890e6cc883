"""``passport backfill``: a hospital's obs once more, while its reader goes on."""

from typing import Annotated

import typer

from cli.context import CommandContext
from cli.options import HospitalOption
from cli.progress_bars import rows_bar


def backfill(
    ctx: typer.Context,
    hospital: HospitalOption,
    from_key: Annotated[int | None, typer.Option("--from-key", help="The first obs_id.")] = None,
    to_key: Annotated[int | None, typer.Option("--to-key", help="The last obs_id.")] = None,
    person: Annotated[
        int | None, typer.Option("--person", help="Bring all obs of this person_id instead.")
    ] = None,
) -> None:
    """Bring a hospital's obs once more to every destination, while its reader goes on."""
    from cdc import backfill as filling

    context: CommandContext = ctx.obj
    context.hospital(hospital)
    if person is not None:
        if from_key is not None or to_key is not None:
            raise typer.BadParameter("a person's obs have no range of keys", param_hint="--person")
        filling.persons(hospital, context.settings, [person])
        context.console.print("asked: every destination reads this person whole", highlight=False)
        return
    with rows_bar(f"obs of {hospital}") as progress:
        rows = filling.run(
            hospital,
            context.settings,
            first=from_key,
            to=to_key,
            stop=context.start_role(),
            progress=progress,
        )
    context.console.print(f"{rows:,} rows read", highlight=False)
