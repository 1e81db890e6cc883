"""What every command starts from: the settings, read when first asked, and the stop signal."""

import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from passport import log, metrics, tracing
from passport.configuration import load
from passport.errors import BadSettings, Fatal
from passport.health import serve
from passport.settings import Destination, Hospital, Settings

GARBAGE = 50_000


def _check_options(settings: Settings, file: Path | None) -> None:
    """BadSettings when a destination's options are not what its module takes; no value is shown."""
    from passport import sink as sinks

    problems: list[str] = []
    for name, destination in settings.destinations.items():
        try:
            sinks.options(name, destination)
        except Fatal as error:
            problems += [error.reason, *error.details]
    if problems:
        raise BadSettings(
            problems[0],
            details=problems[1:],
            hint=f"correct them in {file}; config/local.example.yaml shows each",
        )


class Session:
    """One command's settings, console and stop event. `console` writes to stdout, messages go to
    stderr.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.console = Console()
        self.stop = threading.Event()

    @cached_property
    def settings(self) -> Settings:
        settings, unknown = load(self.file)
        _check_options(settings, self.file)
        for name in unknown:
            reason = f"{name} is not a setting and was left out; passport config schema"
            print(f"passport: {reason}", file=sys.stderr)  # noqa: T201
        log.configure(settings.logs)
        return settings

    def hospital(self, name: str) -> Hospital:
        """Return the settings of a hospital. Raises BadSettings, which names those that are set."""
        return self.settings.hospital(name)

    def destination(self, name: str | None, type_: str = "") -> tuple[str, Destination]:
        """The destination of that name; without a name the only one, or the only one of `type_`."""
        known = self.settings.destinations
        fitting = [one for one, found in known.items() if found.type == type_] or list(known)
        if name is None and len(fitting) == 1:
            name = fitting[0]
        if name is None or name not in known:
            names = ", ".join(sorted(known)) or "none"
            said = f"destination {name!r} is not in the settings" if name else "which destination?"
            raise BadSettings(f"{said} (set: {names})", hint="give one of these with --destination")
        return name, known[name]

    def role(self) -> threading.Event:
        """Prepares a long-running role: signals end it in good order, /livez, /readyz and /metrics
        are served.

        Fatal when it is to be traced, and can't be.
        """
        from passport import __version__

        metrics.BUILD.labels(__version__).set(1)
        gc.freeze()
        gc.set_threshold(
            GARBAGE
        )  # by default it looks for cycles every 700 objects: a fifth of a consumer's CPU
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        threading.excepthook = self._thread_ended
        tracing.start(self.settings.tracing)
        serve(self.settings.health)
        return self.stop

    def _thread_ended(self, args: threading.ExceptHookArgs) -> None:
        """Without it a role might stand still and say nothing: it ends at once, which is safe, and
        is started again.
        """
        structlog.get_logger().error("a thread ended by an error", error=args.exc_type.__name__)
        if not self.stop.is_set():
            os._exit(1)

    def _stop(self, number: int, _frame: object) -> None:
        if self.stop.is_set():
            sys.exit(128 + number)
        self.stop.set()

    def print_json(self, value: Any) -> None:
        """One JSON object on stdout, nothing else."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")

    def print_rows(self, rows: Iterable[Any], names: Sequence[str], *, as_json: bool) -> None:
        """These items or attributes of each row: a table, or JSON."""
        told = [
            {name: row[name] if isinstance(row, dict) else getattr(row, name) for name in names}
            for row in rows
        ]
        if as_json:
            self.print_json(told)
            return
        table = Table(*names)
        for row in told:
            texts = (", ".join(one) if isinstance(one, tuple) else one for one in row.values())
            table.add_row(*("" if text is None else str(text) for text in texts))
        self.console.print(table)
