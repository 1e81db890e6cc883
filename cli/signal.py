"""``passport signal``: what an operator asks of a hospital's running reader."""

import getpass
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from cli.context import CommandContext
from cli.options import HospitalOption, JsonOption
from passport.errors import Fatal, NotReady

if TYPE_CHECKING:  # importing them would load Kafka's client for every command
    from cdc.positions import Saved
    from cdc.signals import Signal

_ACTIONS = (
    "pause, resume, snapshot, stop-snapshot, budget=N, budget=default, skip-transaction or list"
)
# A snapshot that the reader began by itself just now may have the next number already.
_BEHIND_NEXT = 2


def signal(
    ctx: typer.Context,
    hospital: HospitalOption,
    action: Annotated[str, typer.Argument(help=_ACTIONS)],
    gtid: Annotated[
        str, typer.Argument(help="Of skip-transaction: the transaction to leave out.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Pause a running reader, begin or stop a snapshot, set its budget, skip a transaction.

    The reader obeys within seconds, and after a restart too. `list` shows who asked for what.
    """
    from cdc.positions import Positions

    context: CommandContext = ctx.obj
    settings = context.hospital(hospital)
    with closing(Positions(context.settings.kafka)) as positions:
        if action != "list":
            Positions.ensure(context.settings)
        saved = positions.load(hospital, partition=settings.partition)
        if action == "list":
            rows = [
                {"at": _utc(past.at_ms), "by": past.by, "signal": past.describe()}
                for past in positions.signals(hospital)
            ]
            context.print_rows(rows, ("at", "by", "signal"), as_json=as_json)
            return
        new = signal_for(hospital, action, saved, gtid, capture=settings.capture)
        positions.signal(hospital, settings.partition, new)
    text = f"{hospital}: asked for {new.describe()}; passport status shows what holds"
    context.console.print(text, highlight=False, soft_wrap=True)
    if new.gtid:
        text = (
            "what this transaction did to rows is missing, in every destination, until they are"
            f" read again. When the reader is past it: passport signal --hospital {hospital}"
            f" snapshot, or passport backfill --hospital {hospital} for some of the rows"
        )
        context.console.print(text, highlight=False, soft_wrap=True)


def signal_for(
    hospital: str,
    action: str,
    saved: "Saved | None",
    gtid: str = "",
    *,
    capture: str = "binlog",
) -> "Signal":
    """Return the signal for what was typed. `capture` is the hospital's setting.

    Raises BadParameter, and NotReady or Fatal where the hospital has nothing that it could mean.
    """
    from cdc.envelopes import now_ms
    from cdc.signals import Signal

    if gtid and action != "skip-transaction":
        raise typer.BadParameter(f"{action} takes no transaction", param_hint="GTID")
    at_ms = now_ms()
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    if action in ("pause", "resume"):
        return Signal(action, at_ms, by)
    if action.startswith("budget="):
        return Signal("budget", at_ms, by, rows_per_s=_rows_per_s(action.partition("=")[2]))
    if action not in ("snapshot", "stop-snapshot", "skip-transaction"):
        raise typer.BadParameter(f"{action!r} is none of {_ACTIONS}", param_hint="ACTION")

    is_polled = capture == "polling" or (saved is not None and saved.capture == "polling")
    if is_polled and action == "skip-transaction":
        raise _no_transactions(hospital, capture)
    if saved is None or (saved.snapshot is None and not is_polled):
        command = "reconcile" if is_polled else "cdc run"
        raise NotReady(
            f"hospital {hospital}: its reader has never run",
            hint=f"passport {command} --hospital {hospital}",
        )
    # Polling has no snapshot before one was asked for.
    number = saved.snapshot.number if saved.snapshot is not None else 0
    if action == "skip-transaction":
        gtid = _transaction_to_skip(hospital, gtid, saved)
        return Signal(action, at_ms, by, epoch=saved.epoch, number=number, gtid=gtid)
    if action == "snapshot":
        return Signal(action, at_ms, by, epoch=saved.epoch, number=number + _BEHIND_NEXT)
    if saved.snapshot is None or saved.snapshot.state != "running":
        raise Fatal(f"hospital {hospital}: no snapshot is running", hint="passport status")
    return Signal(action, at_ms, by, epoch=saved.epoch, number=number)


def _no_transactions(hospital: str, capture: str) -> Fatal:
    """Return the error for a hospital that is polled just now; `capture` is its setting."""
    hint = f"passport check --hospital {hospital}"
    if capture == "binlog":
        hint = f"passport cdc run --hospital {hospital} begins behind it, with a snapshot"
    return Fatal(f"hospital {hospital}: it is polled, which meets no transactions", hint=hint)


def _transaction_to_skip(hospital: str, text: str, saved: "Saved") -> str:
    """Return the GTID as the reader meets it.

    Raises BadParameter if it is none, and Fatal if the reader can't meet it.
    """
    from cdc.binlog.gtids import MysqlGtidSet, contains, one_transaction

    if not saved.gtid_set:
        raise Fatal(
            f"hospital {hospital}: its server writes no GTIDs, so that no transaction has a name",
            hint="to go on behind whatever stopped the reader, with a snapshot:"
            f" passport cdc run --hospital {hospital} --new-epoch",
        )
    is_mariadb = saved.server.startswith("mariadb-")
    try:
        gtid = one_transaction(text, "mariadb" if is_mariadb else "mysql")
    except ValueError:
        forms = "0-1-42" if is_mariadb else "UUID:42, or UUID:TAG:42"
        raise typer.BadParameter(
            f"{text!r} is not the GTID of one transaction of this server, such as {forms}",
            param_hint="GTID",
        ) from None
    if is_mariadb:
        was_read = contains(saved.gtid_set, gtid)
    else:
        was_read = gtid in MysqlGtidSet(saved.gtid_set)
    if was_read:
        raise Fatal(
            f"hospital {hospital}: its reader is past transaction {gtid}",
            hint="nothing to do: it stops no reader",
        )
    return gtid


def _rows_per_s(text: str) -> int:
    """Return the rows a second of ``budget=N``; 0 for ``budget=default``. Raises BadParameter."""
    if text == "default":
        return 0
    if not text.isdecimal() or not 0 < int(text) <= 10**9:
        raise typer.BadParameter(
            f"budget={text}: give the rows per second, 1 or more, or budget=default",
            param_hint="ACTION",
        )
    return int(text)


def _utc(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))
