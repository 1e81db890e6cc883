"""The demo's live table: what `passport status` says, and how late the records are."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.status_report import collect
from dev.demo.background import background
from dev.demo.latency import Latency
from passport.configuration import load
from passport.sink import connect

TEXTS = ("hospital", "state")
NUMBERS = ("captured", "stored", "matched", "unmatched", "lag", "p50", "p99")


class Status:
    """Asks for the state of all hospitals once a second while `followed`."""

    def __init__(self, config: Path) -> None:
        self.rows: list[dict[str, Any]] = []  # one a hospital, as `passport status --json` has it
        self.looks = 0  # how often the rows were read
        self._config = config

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Keep `rows` fresh until the block ends."""
        with background(self._follow):
            yield

    def _follow(self, ended: threading.Event) -> None:
        settings, _ = load(self._config)
        with closing(connect("passport", settings)) as sink:
            while not ended.wait(1 if self.looks else 0):
                # The settings are read each time, since a hospital may have been added to them.
                settings, _ = load(self._config)
                self.rows = collect(settings, sink)
                self.looks += 1

    def all_caught_up(self) -> bool:
        """Tell whether every hospital was read and applied at the last look."""
        for row in self.rows:
            caught_up = row["lag_records"] == 0 and row["behind"] is False
            if row["snapshot"] != "done" or not caught_up:
                return False
        return True


@contextmanager
def live_table(console: Console, status: Status, latency: Latency) -> Iterator[None]:
    """Show the table until the block ends, drawn again twice a second."""

    def redraw(ended: threading.Event) -> None:
        while not ended.wait(0.5):
            live.update(_drawn(status, latency))

    with Live(_drawn(status, latency), console=console, refresh_per_second=4) as live:
        try:
            with background(redraw):
                yield
        finally:
            live.update(_drawn(status, latency))


def _drawn(status: Status, latency: Latency) -> Table:
    table = Table(title="openmrs-passport")
    for heading in TEXTS:
        table.add_column(heading, justify="left")
    for heading in NUMBERS:
        table.add_column(heading, justify="right")
    for row in status.rows:
        counts = ("captured", "stored", "matched", "unmatched", "lag_records")
        numbers = [f"{row[name]:,}" for name in counts]
        percentiles = latency.percentiles(row["hospital"])
        delays = ["-", "-"]
        if percentiles is not None:
            delays = [f"{seconds * 1000:.0f} ms" for seconds in percentiles]
        table.add_row(row["hospital"], row["state"], *numbers, *delays)
    return table
