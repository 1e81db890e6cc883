"""Commands that look and change nothing: check, grants, status, verify, unmatched, config."""

import json
import time
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cli.context import Session
from cli.roles import DestinationOption, HospitalOption
from cli.status import Reading, collect
from openmrs.connection import greeted
from passport.check import Check
from passport.configuration import shown
from passport.errors import Fatal, NotReady, PassportError
from passport.settings import Settings
from passport.sink import HasChecks, ListsUnmatched, connect

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
SomeHospital = Annotated[str | None, typer.Option("--hospital", "-H", help="Only this one.")]


def register(app: typer.Typer) -> None:
    for command in (check, grants, status, verify, health):
        app.command()(command)
    config = typer.Typer(no_args_is_help=True, help="The settings.")
    app.add_typer(config, name="config")
    config.command("show")(config_show)
    config.command("schema")(config_schema)
    unmatched = typer.Typer(no_args_is_help=True, help="People whose observations wait.")
    app.add_typer(unmatched, name="unmatched")
    unmatched.command("list")(unmatched_list)


def check(
    context: typer.Context, hospital: SomeHospital = None, as_json: JsonOption = False
) -> int:
    """Look at hospitals, Kafka and destinations; every failed check comes with what repairs it."""
    session: Session = context.obj
    hospitals = [hospital] if hospital else list(session.settings.hospitals)
    for name in hospitals:
        session.hospital(name)
    found = [check for name in hospitals for check in _hospital_checks(session.settings, name)]
    found += [
        check
        for name in session.settings.destinations
        for check in _destination_checks(session.settings, name)
    ]
    if as_json:
        session.print_json([asdict(check) for check in found])
    else:
        _print_checks(session.console, found)
    if not hospitals and not session.settings.destinations:
        raise Fatal(
            "no hospital and no destination is set",
            hint="cp config/local.example.yaml config/local.yaml",
        )
    return 1 if any(check.ok is False for check in found) else 0


def _hospital_checks(settings: Settings, name: str) -> list[Check]:
    from cdc.checks import preflight

    found = preflight.checks(name, settings.hospitals[name], settings.kafka)
    return [replace(check, name=f"{name}: {check.name}") for check in found]


def _destination_checks(settings: Settings, name: str) -> list[Check]:
    what = f"destination {name}"
    try:
        with closing(connect(name, settings)) as sink:
            sink.ready()
            more = list(sink.checks()) if isinstance(sink, HasChecks) else []
    except (Fatal, NotReady) as error:
        return [Check(what, False, error.reason, error.hint)]
    except PassportError as error:
        return [Check(what, False, str(error))]
    found = settings.destinations[name]
    checks = [Check(what, True, f"type {found.type}, can be written")]
    checks += [replace(one, name=f"{what}: {one.name}") for one in more]
    if found.type == "mongo" and len(str(found.options.get("link_key", ""))) < 16:
        remedy = f"set destinations.{name}.options.link_key to 16 or more random characters before people are stored"
        checks.append(
            Check(what, None, "link_key is short: ids hashed with it can be guessed", remedy)
        )
    return checks + ([_former_sync(settings, name)] if found.type == "mongo" else [])


def _former_sync(settings: Settings, name: str) -> Check:
    """Whether something of the documented sync would be shown beside ours."""
    from destinations import mongo
    from destinations.mongo import legacy_records

    with mongo.opened(settings, name) as (database, _):
        records, doctors = legacy_records.count(database)
    what, left = f"destination {name}: former sync", records or doctors
    detail = (
        f"{records:,} records and {doctors:,} doctors of it" if left else "nothing of it is left"
    )
    return Check(what, not left, detail, "passport cut-over list, then adopt" if left else "")


def _print_checks(console: Console, checks: list[Check]) -> None:
    marks = {True: "[green]ok[/]", False: "[red]failed[/]", None: "[yellow]look[/]"}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    for one in checks:
        detail = one.detail if one.ok or not one.remedy else f"{one.detail}\n-> {one.remedy}"
        table.add_row(marks[one.ok], one.name, detail)
    console.print(table, soft_wrap=False)


def grants(
    context: typer.Context,
    hospital: HospitalOption,
    flavour: Annotated[
        Literal["auto", "mariadb", "mysql"], typer.Option("--flavour", help="auto asks the server.")
    ] = "auto",
) -> None:
    """The SQL that the hospital's DBA runs: the smallest grants that suffice."""
    from cdc.checks.grants import grants as write

    session: Session = context.obj
    found = session.hospital(hospital)
    server = greeted(hospital, found.mysql) if flavour == "auto" else flavour
    print(write(hospital, found, server), end="")  # noqa: T201


def status(
    context: typer.Context,
    destination: DestinationOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds.")] = False,
) -> None:
    """How far each hospital is: read, published, applied, matched."""
    session: Session = context.obj
    name, found = session.destination(destination, "mongo")
    reads = Reading if found.type == "mongo" else lambda settings, name: connect(name, settings)
    with closing(reads(session.settings, name)) as sink:
        while True:
            rows = collect(session.settings, sink)
            if as_json:
                session.print_json(rows)
            else:
                session.console.print(_status_table(rows))
                for row in rows:
                    for one in row["problems"]:
                        session.console.print(
                            f"{row['hospital']}: {one['what']} -> {one['command']}", highlight=False
                        )
            if not watch:
                return
            time.sleep(2)


def _status_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    left, right = (
        ("hospital", "state", "position", "kept"),
        ("captured", "lag", "stored", "matched", "unmatched", "last event"),
    )
    for heading in (*left, *right):
        table.add_column(heading, justify="left" if heading in left else "right")
    for row in rows:
        last = "-" if row["last_event_s"] is None else f"{row['last_event_s']:,.0f} s ago"
        numbers = (
            row["captured"],
            row["lag_records"],
            row["stored"],
            row["matched"],
            row["unmatched"],
        )
        behind = " (behind)" if row["behind"] else ""
        table.add_row(
            row["hospital"],
            f"{row['state']}{behind}",
            row["position"] or "-",
            _kept(row["headroom_s"]),
            *(f"{n:,}" for n in numbers),
            last,
        )
    return table


def _kept(headroom_s: float | str | None) -> str:
    """For how long the saved position is surely on the server."""
    if isinstance(headroom_s, float):
        return f"[{'red' if headroom_s < 86_400 else 'default'}]{headroom_s / 3600:,.0f} h[/]"
    return headroom_s or "-"


def verify(
    context: typer.Context,
    destination: DestinationOption = None,
    hospital: SomeHospital = None,
    from_person: Annotated[
        int | None, typer.Option(help="First person_id; with --hospital.")
    ] = None,
    to_person: Annotated[int | None, typer.Option(help="Last person_id; with --hospital.")] = None,
    level: Annotated[
        Literal["record", "mirror"],
        typer.Option("--level", help="mirror: links and rows, by hash; several times faster."),
    ] = "record",
    repair: Annotated[
        bool, typer.Option("--repair", help="Who differs is read whole again.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Compare the two ends, mirror and records. 0 only if something was compared and all of it is
    equal.
    """
    from reconcile import verify as verifying

    session: Session = context.obj
    name, _ = session.destination(destination, "mongo")
    everybody = verifying.EVERYBODY
    persons = (from_person or everybody[0], everybody[1] if to_person is None else to_person)
    if hospital:
        session.hospital(hospital)
    elif persons != everybody:
        raise typer.BadParameter(
            "numbers of persons are a hospital's own: --hospital too", param_hint="--from-person"
        )
    hospitals = [hospital] if hospital else None
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("people", total=None)
        report = verifying.verify(
            session.settings,
            name,
            hospitals=hospitals,
            persons=persons,
            level=level,
            repair=repair,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )
    if persons == everybody and level == "record":
        _note(session.settings, name, report)
    if as_json:
        session.print_json(report.as_json())
    else:
        session.console.print(report.as_text(), highlight=False, soft_wrap=True)
    return 0 if report.equal else 1


def _note(settings: Settings, destination: str, report: Any) -> None:
    """For `status` and the operators' page: when it was, and whether the ends were equal."""
    from destinations import mongo
    from destinations.mongo import progress

    with mongo.opened(settings, destination) as (database, _):
        for hospital, compared in report.hospitals.items():
            progress.store_verified(
                database, hospital, {"at": datetime.now(UTC), "equal": compared.equal}
            )


def health(context: typer.Context) -> int:
    """Ask the role's own /readyz on this machine (for a container's health check). 0 ready, 3 not."""
    from urllib.error import URLError
    from urllib.request import urlopen

    settings = context.obj.settings.health
    if not settings.port:
        raise Fatal(
            "health.port is 0: there is no endpoint to ask",
            hint="set PASSPORT_HEALTH__PORT, say to 9400",
        )
    try:
        with urlopen(
            f"http://127.0.0.1:{settings.port}/readyz", timeout=5
        ) as answer:  # fixed scheme and host
            print(answer.read().decode().strip())  # noqa: T201
    except URLError as error:
        raise NotReady("not ready", hint=f"curl http://127.0.0.1:{settings.port}/readyz") from error
    return 0


def config_show(context: typer.Context, as_json: JsonOption = False) -> None:
    """All settings as they hold, secrets as stars."""
    session: Session = context.obj
    tree = shown(session.settings)
    if as_json:
        session.print_json(tree)
    else:
        print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), end="")  # noqa: T201


def config_schema() -> None:
    """JSON Schema of the settings file, for editors."""
    print(json.dumps(Settings.model_json_schema(), indent=2))  # noqa: T201


def unmatched_list(
    context: typer.Context, destination: DestinationOption = None, as_json: JsonOption = False
) -> None:
    """People who are not matched, by state: hospital and person_id, never an identifier."""
    session: Session = context.obj
    name, found = session.destination(destination, "mongo")
    with closing(connect(name, session.settings)) as sink:
        if not isinstance(sink, ListsUnmatched):
            raise Fatal(
                f"destination {name} of type {found.type} keeps everybody's observations",
                hint="passport status",
            )
        people = [
            {"hospital": hospital, "person_id": person, "state": state}
            for one in session.settings.hospitals
            for hospital, person, state in sink.unmatched(one)
        ]
    session.print_rows(people, ("hospital", "person_id", "state"), as_json=as_json)
