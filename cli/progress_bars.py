"""Bars on the terminal for snapshots and backfills. Where nobody watches there is none."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 0.5

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TaskProgressColumn(),
    TextColumn("{task.fields[rows]:,} rows"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


@contextmanager
def rows_bar(description: str, *, visible: bool = True) -> Iterator[Callable[[int, float], None]]:
    """Show a bar. Yield the function that moves it: rows so far, and their share of all, 0 to 1."""
    console = Console(stderr=True)
    with Progress(
        *COLUMNS, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=1.0, rows=0, visible=visible)
        yield lambda rows, share: bar.update(task, completed=share, rows=rows, visible=share < 1)


@contextmanager
def snapshot_bar(hospital: str) -> Iterator[None]:
    """Show a bar while the reader of this process takes a snapshot.

    The bar reads the process's own metrics, so that the reader knows nothing of terminals.
    """
    if not sys.stderr.isatty():
        yield
        return
    stop = threading.Event()
    with rows_bar(f"snapshot of {hospital}", visible=False) as progress:

        def watch() -> None:
            while not stop.wait(EVERY_S):
                if _metric("passport_cdc_snapshot_running", hospital):
                    share = _metric("passport_cdc_snapshot_done_ratio", hospital)
                    progress(int(_metric("passport_cdc_snapshot_rows_total", hospital)), share)

        watcher = threading.Thread(target=watch, name="snapshot bar", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


def _metric(name: str, hospital: str) -> float:
    return REGISTRY.get_sample_value(name, {"hospital": hospital}) or 0.0
