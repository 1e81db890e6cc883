"""``passport status``: how far each hospital is, what is wrong, and what repairs it.

`status_report.py` reads the facts and `hospital_status.py` judges them; this file shows the result.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.context import CommandContext
from cli.hospital_status import Row, is_soon_purged
from cli.options import DestinationOption, JsonOption
from passport.sink import Sink, connect

WATCH_EVERY_S = 2


def status(
    ctx: typer.Context,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every two seconds.")
    ] = False,
) -> None:
    """Show how far each hospital is: read, published, applied, matched."""
    from cli.status_report import PassportStatus, collect

    context: CommandContext = ctx.obj
    name, destination_settings = context.destination(destination, "mongo")
    reports: PassportStatus | Sink
    if destination_settings.type == "mongo":
        # Its numbers are read without becoming a writer: `connect` would make indexes.
        reports = PassportStatus(context.settings, name)
    else:
        reports = connect(name, context.settings)
    with closing(reports):
        while True:
            rows = collect(context.settings, reports)
            if as_json:
                context.print_json(rows)
            else:
                _print_status(context.console, rows)
            if not watch:
                return
            time.sleep(WATCH_EVERY_S)


def _print_status(console: Console, rows: Sequence[Row]) -> None:
    console.print(_table(rows))
    for row in rows:
        if row["read_again_to"] is not None:
            text = f"{row['hospital']}: everybody is read again: done up to person_id "
            console.print(f"{text}{row['read_again_to']:,}", highlight=False)
        for problem in row["problems"]:
            text = f"{row['hospital']}: {problem['what']} -> {problem['command']}"
            console.print(text, highlight=False)


def _table(rows: Sequence[Row]) -> Table:
    table = Table()
    for heading in ("hospital", "state", "position", "kept"):
        table.add_column(heading)
    for heading in ("captured", "lag", "stored", "matched", "unmatched", "last event"):
        table.add_column(heading, justify="right")
    for row in rows:
        last_event = "-"
        if row["last_event_s"] is not None:
            last_event = f"{row['last_event_s']:,.0f} s ago"
        table.add_row(
            row["hospital"],
            row["state"] + (" (behind)" if row["behind"] else ""),
            row["position"] or "-",
            _kept(row["headroom_s"]),
            f"{row['captured']:,}",
            f"{row['lag_records']:,}",
            f"{row['stored']:,}",
            f"{row['matched']:,}",
            f"{row['unmatched']:,}",
            last_event,
        )
    return table


def _kept(headroom: float | str | None) -> str:
    """Return for how long the saved position is surely on the server, red when that is short."""
    if isinstance(headroom, float):
        colour = "red" if is_soon_purged(headroom) else "default"
        return f"[{colour}]{headroom / 3600:,.0f} h[/]"
    return headroom or "-"
