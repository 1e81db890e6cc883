"""The command line: verbs that start the roles, look at their work and repair it.

Each verb is one file, named as it is typed. It imports its own stage when it runs, so that
``passport config show`` starts without Kafka's and MongoDB's clients. Verbs that read take
``--json``, and logs go to stderr.

Exit codes: 0 ok, 1 failed, 2 usage or settings, 3 a server isn't there.
"""

import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn, Protocol, runtime_checkable

import typer
from typer.exceptions import TyperException

from cli import (
    backfill,
    cdc,
    check,
    config,
    conflicts,
    consume,
    cut_over,
    dead_letters,
    demo,
    erase,
    grants,
    health,
    mapping,
    portal,
    positions,
    reconcile,
    replay,
    signal,
    status,
    unmapped,
    unmatched,
    verify,
)
from cli.context import CommandContext
from passport import __version__
from passport.errors import BadSettings, Fatal, NotReady, PassportError, without_text

OK = 0
FAILED = 1
USAGE = 2
NOT_READY = 3

app = typer.Typer(
    name="passport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keeps a national Patient Passport equal to its OpenMRS hospitals.",
)
app.add_typer(cdc.commands, name="cdc")
app.command()(consume.consume)
app.command()(reconcile.reconcile)
app.command()(check.check)
app.command()(grants.grants)
app.command()(status.status)
app.command()(verify.verify)
app.command()(health.health)
app.add_typer(config.commands, name="config")
app.add_typer(unmatched.commands, name="unmatched")
app.command()(backfill.backfill)
app.command()(replay.replay)
app.command(deprecated=True)(demo.demo)
app.add_typer(positions.commands, name="positions")
app.command()(signal.signal)
app.add_typer(dead_letters.commands, name="dead-letters")
app.add_typer(conflicts.commands, name="conflicts")
app.add_typer(mapping.commands, name="mapping")
app.add_typer(unmapped.commands, name="unmapped")
app.command()(erase.erase)
app.add_typer(cut_over.commands, name="cut-over")
app.command()(portal.portal)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"openmrs-passport {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options_of_all(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="PASSPORT_CONFIG",
            help="The settings file, laid over config/default.yaml.",
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    ctx.obj = CommandContext(config)


def main() -> NoReturn:
    """Run one command and exit with its code."""
    sys.exit(_run())


def _run() -> int:
    """Run one command; return its exit code. Errors are printed here, and nowhere else."""
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else OK
    except TyperException as failure:
        return _fail_usage(failure)
    except BadSettings as error:
        return _fail(error, USAGE)
    except NotReady as error:
        return _fail(error, NOT_READY)
    except PassportError as error:
        return _fail(error, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return FAILED
    except BrokenPipeError:
        return OK
    except Exception as error:  # noqa: BLE001  # every other error is a mistake of ours
        return _fail_unexpectedly(error)


@runtime_checkable
class _ShowsItself(Protocol):
    """A usage error that prints itself together with the usage of the command: most of them."""

    def show(self) -> None: ...


def _fail_usage(failure: TyperException) -> int:
    if isinstance(failure, _ShowsItself):
        failure.show()
        return USAGE
    return _fail(failure, USAGE)


def _fail_unexpectedly(error: Exception) -> int:
    # Python has no type of its own for a thread that the system refuses.
    is_out_of_memory = isinstance(error, MemoryError) or "start new thread" in str(error)
    if is_out_of_memory:
        hint = "docs/explanation/sizing.md says what it needs; ulimit -a"
        return _fail(Fatal("out of memory", hint=hint), FAILED)
    # The error's text may quote values of patients: its type, its number and its place are shown.
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{without_text(error)} in {Path(place.filename).name}:{place.lineno}"
    return _fail(f"a fault of this program: {text}", FAILED)


def _fail(error: object, code: int) -> int:
    print(f"passport: {error}", file=sys.stderr)  # noqa: T201
    return code
