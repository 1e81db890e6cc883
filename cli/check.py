"""``passport check``: whether hospitals, Kafka and destinations are as they must be."""

from contextlib import closing
from dataclasses import replace

import typer
from rich.console import Console
from rich.table import Table

from cli.context import CommandContext
from cli.options import JsonOption, OnlyHospitalOption
from passport.check import Check
from passport.errors import Fatal, NotReady, PassportError
from passport.settings import Settings
from passport.sink import HasChecks, connect

LINK_KEY_LENGTH = 16  # characters; a shorter key can be guessed from a few hashed ids


def check(
    ctx: typer.Context, hospital: OnlyHospitalOption = None, as_json: JsonOption = False
) -> int:
    """Check hospitals, Kafka and destinations. Each failed check says what repairs it."""
    context: CommandContext = ctx.obj
    hospitals = context.hospital_ids(hospital)
    destinations = context.settings.destinations
    checks: list[Check] = []
    for name in hospitals:
        checks += _check_hospital(context.settings, name)
    for name in destinations:
        checks += _check_destination(context.settings, name)
    if as_json:
        context.print_json([check.as_json() for check in checks])
    else:
        _print_checks(context.console, checks)
    if not hospitals and not destinations:
        raise Fatal(
            "no hospital and no destination is set",
            hint="cp config/local.example.yaml config/local.yaml",
        )
    return 1 if any(check.ok is False for check in checks) else 0


def _check_hospital(settings: Settings, hospital_id: str) -> list[Check]:
    from cdc.checks import preflight

    checks = preflight.checks(hospital_id, settings.hospital(hospital_id), settings.kafka)
    return [replace(check, name=f"{hospital_id}: {check.name}") for check in checks]


def _check_destination(settings: Settings, name: str) -> list[Check]:
    destination = settings.destinations[name]
    check_name = f"destination {name}"
    own_checks: list[Check] = []
    try:
        with closing(connect(name, settings)) as sink:
            sink.ready()
            if isinstance(sink, HasChecks):
                own_checks = list(sink.checks())
    except (Fatal, NotReady) as error:
        return [Check(check_name, False, error.reason, error.hint)]
    except PassportError as error:
        return [Check(check_name, False, error.reason)]
    checks = [Check(check_name, True, f"type {destination.type}, can be written")]
    checks += [replace(check, name=f"{check_name}: {check.name}") for check in own_checks]
    if destination.type == "mongo":
        if len(str(destination.options.get("link_key", ""))) < LINK_KEY_LENGTH:
            checks.append(
                Check(
                    check_name,
                    None,
                    "link_key is short: ids hashed with it can be guessed",
                    f"set destinations.{name}.options.link_key to {LINK_KEY_LENGTH} or more random"
                    " characters before people are stored",
                )
            )
        checks.append(_check_legacy_records(settings, name))
    return checks


def _check_legacy_records(settings: Settings, name: str) -> Check:
    """Return whether something that the legacy sync wrote would be shown beside our records."""
    from destinations import mongo
    from destinations.mongo import legacy_records

    check_name = f"destination {name}: former sync"  # other programs may know it by this name
    with mongo.opened(settings, name) as (database, _):
        records, doctors = legacy_records.count(database)
    if not records and not doctors:
        return Check(check_name, True, "nothing of it is left")
    return Check(
        check_name,
        False,
        f"{records:,} records and {doctors:,} doctors of it",
        "passport cut-over list, then adopt",
    )


def _print_checks(console: Console, checks: list[Check]) -> None:
    marks = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[yellow]look[/]"}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        text = check.detail
        if not check.ok and check.hint:
            text += f"\n-> {check.hint}"
        table.add_row(marks[check.ok], check.name, text)
    console.print(table, soft_wrap=False)
