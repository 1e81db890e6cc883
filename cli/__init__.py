"""The command line: verbs that start the roles, look at their work and repair it.

Reads take ``--json``; logs go to stderr. Exit codes: 0 ok, 1 failed, 2 usage or settings, 3 a
server isn't there.
"""

import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from cli import inspect, operate, people, portal, roles
from cli.context import Session
from passport import __version__
from passport.errors import BadSettings, Fatal, NotReady, PassportError, Retry, without_text

OK, FAILED, USAGE, NOT_READY = 0, 1, 2, 3

app = typer.Typer(
    name="passport",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keeps a national Patient Passport equal to its OpenMRS hospitals.",
)
roles.register(app)
inspect.register(app)
operate.register(app)
people.register(app)
portal.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"openmrs-passport {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _settings(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar="PASSPORT_CONFIG", help="Settings, laid over config/default.yaml."
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and end.")
    ] = False,
) -> None:
    context.obj = Session(config)


def main() -> NoReturn:
    """Runs one command and exits."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        return code if isinstance(code, int) else OK
    except TyperException as failure:
        return _usage(failure)
    except BadSettings as error:
        return _say(error, USAGE)
    except NotReady as error:
        return _say(error, NOT_READY)
    except (Fatal, Retry, PassportError) as error:
        return _say(error, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return FAILED
    except BrokenPipeError:
        return OK
    except Exception as error:  # noqa: BLE001  # its text may quote values: only type, code and place are shown
        if isinstance(error, MemoryError) or "start new thread" in str(error):
            return _say(
                Fatal(
                    "out of memory", hint="docs/explanation/sizing.md says what it needs; ulimit -a"
                ),
                FAILED,
            )
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _say(
            f"a fault of this program: {without_text(error)} in {Path(place.filename).name}:{place.lineno}",
            FAILED,
        )


def _usage(failure: TyperException) -> int:
    """Typer's usage errors show themselves, with the command's usage."""
    show = getattr(failure, "show", None)
    if show is None:
        return _say(failure, USAGE)
    show()
    return USAGE


def _say(error: object, code: int) -> int:
    print(f"passport: {error}", file=sys.stderr)  # noqa: T201
    return code
