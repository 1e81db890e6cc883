"""The settings, the console and the stop signal, from which every command starts."""

import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from passport import __version__, log, metrics, tracing
from passport import sink as sinks
from passport.configuration import load
from passport.errors import BadSettings, Fatal
from passport.health import serve
from passport.settings import Destination, Hospital, Settings

# Python looks for cycles every 700 new objects. In a consumer, whose batches are many small objects
# without cycles, that is a fifth of its CPU time.
GARBAGE_THRESHOLD = 50_000


class CommandContext:
    """The settings, the console and the stop event of one command.

    `console` writes to stdout; messages and logs go to stderr. The settings are read when a command
    first asks for them, so that ``--help`` and ``config schema`` need no settings file.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.console = Console()
        self.stop = threading.Event()

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Reading them configures the log, too. Raises BadSettings."""
        settings, unknown_names = load(self.file)
        _check_destination_options(settings, self.file)
        for name in unknown_names:
            warning = f"{name} is not a setting and was left out; passport config schema"
            print(f"passport: {warning}", file=sys.stderr)  # noqa: T201
        log.configure(settings.logs)
        return settings

    def hospital(self, hospital_id: str) -> Hospital:
        """Return the settings of a hospital. Raises BadSettings, which names those that are set."""
        return self.settings.hospital(hospital_id)

    def hospital_ids(self, only: str | None) -> list[str]:
        """Return the ids of all hospitals, or only this one's. Raises BadSettings as `hospital`."""
        if only is None:
            return list(self.settings.hospitals)
        self.hospital(only)
        return [only]

    def destination(self, name: str | None, type_: str = "") -> tuple[str, Destination]:
        """Return the destination of this name.

        Without a name it is the only one, or the only one of type `type_`. Raises BadSettings when
        there is none of the name, or when it isn't clear which one is meant.
        """
        destinations = self.settings.destinations
        candidates = [key for key, value in destinations.items() if value.type == type_]
        candidates = candidates or list(destinations)
        if name is None and len(candidates) == 1:
            name = candidates[0]
        if name is None or name not in destinations:
            names = ", ".join(sorted(destinations)) or "none"
            reason = "which destination?"
            if name:
                reason = f"destination {name!r} is not in the settings"
            raise BadSettings(
                f"{reason} (set: {names})", hint="give one of these with --destination"
            )
        return name, destinations[name]

    def open_passport(self, destination: str | None) -> AbstractContextManager[tuple[Any, Any]]:
        """Open the database and the mapping of a destination of type mongo, by its name.

        Raises BadSettings as `destination`, Fatal when it is of another type, and NotReady.
        """
        from destinations import mongo

        name, _ = self.destination(destination, "mongo")
        return mongo.opened(self.settings, name)

    def start_role(self) -> threading.Event:
        """Make this process a long-running role; return the event that tells it to stop.

        SIGTERM and SIGINT set the event, /livez, /readyz and /metrics are served, and traces are
        sent. Raises Fatal when traces are asked for and can't be sent.
        """
        metrics.BUILD.labels(__version__).set(1)
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.excepthook = self._on_thread_error
        tracing.start(self.settings.tracing)
        serve(self.settings.health)
        return self.stop

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        """End the process when a thread ends by an error.

        Without the thread a role might stand still and say nothing. Ending at once is safe, and
        whatever supervises the process starts it again.
        """
        structlog.get_logger().error("a thread ended by an error", error=args.exc_type.__name__)
        if not self.stop.is_set():
            os._exit(1)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.stop.is_set():  # the second signal: somebody doesn't want to wait
            sys.exit(128 + number)
        self.stop.set()

    def print_json(self, value: Any) -> None:
        """Write one JSON value to stdout, and nothing else."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")

    def print_rows(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
    ) -> None:
        """Print rows as a table with these columns, or as JSON."""
        if as_json:
            self.print_json([{column: row[column] for column in columns} for row in rows])
            return
        table = Table(*columns)
        for row in rows:
            table.add_row(*(_as_text(row[column]) for column in columns))
        self.console.print(table)

    def print_counts(self, counts: Mapping[str, int]) -> None:
        """Print what was done, as in "3 records, 1 doctors"; zeros are left out."""
        texts = [f"{count:,} {name}" for name, count in counts.items() if count]
        self.console.print(", ".join(texts) or "nothing to do", highlight=False)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)


def _check_destination_options(settings: Settings, file: Path | None) -> None:
    """Raise BadSettings when a destination's options are not what its module takes.

    All destinations are looked at, and no value is shown.
    """
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
