"""The long-running roles: ``cdc run``, ``consume`` and ``reconcile``."""

from typing import Annotated

import typer

from cli.context import Session
from cli.progress_bars import snapshot_bar

HospitalOption = Annotated[str, typer.Option("--hospital", "-H", help="Its id in the settings.")]
UntilCaughtUp = Annotated[
    bool, typer.Option("--until-caught-up", help="End with 0 when nothing is left.")
]
DestinationOption = Annotated[
    str | None, typer.Option("--destination", "-d", help="Its name in the settings.")
]


def register(app: typer.Typer) -> None:
    cdc = typer.Typer(no_args_is_help=True, help="Capture: one hospital's binlog into Kafka.")
    app.add_typer(cdc, name="cdc")
    cdc.command("run")(cdc_run)
    app.command()(consume)
    app.command()(reconcile)


def cdc_run(
    context: typer.Context,
    hospital: HospitalOption,
    until_caught_up: UntilCaughtUp = False,
    new_epoch: Annotated[
        bool,
        typer.Option(
            "--new-epoch",
            help="Begin at the binlog's end, with a snapshot, past what stopped a reader.",
        ),
    ] = False,
) -> None:
    """Read one hospital's binlog and publish every committed change (the first start takes a
    snapshot beside it).
    """
    from cdc import reader  # each command imports its own stage

    session: Session = context.obj
    session.hospital(hospital)
    stop = session.role()
    with snapshot_bar(hospital):
        reader.run(
            hospital,
            session.settings,
            until_caught_up=until_caught_up,
            stop=stop,
            new_epoch=new_epoch,
        )


def consume(
    context: typer.Context,
    destination: DestinationOption = None,
    until_caught_up: UntilCaughtUp = False,
) -> None:
    """Look up what changes mean and write them to a destination."""
    from consumers import worker

    session: Session = context.obj
    name, _ = session.destination(destination)
    worker.run(name, session.settings, until_caught_up=until_caught_up, stop=session.role())


def reconcile(
    context: typer.Context,
    hospital: HospitalOption,
    destination: DestinationOption = None,
    once: Annotated[bool, typer.Option("--once", help="One whole pass, then end with 0.")] = False,
) -> None:
    """Poll a hospital without a binlog, or compare a streaming one with the destination and repair
    differences.
    """
    from cdc.polling import polling
    from reconcile import compare

    session: Session = context.obj
    if session.hospital(hospital).capture == "polling":
        polling.run(hospital, session.settings, once=once, stop=session.role())
    else:
        name, _ = session.destination(destination, "mongo")
        compare.run(hospital, session.settings, name, once=once, stop=session.role())
