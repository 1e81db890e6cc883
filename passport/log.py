"""Logs: JSON lines on stderr unless a person watches, with an allow-list of keys so that no
patient's value gets in.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from passport.settings import Logs

# Everything that a log line may carry. A key that is not here is dropped: values of patients have
# no way in.
# fmt: off
KEYS = frozenset({
    "event", "level", "timestamp", "logger", "hospital", "partition", "topic", "offset", "destination", "role",
    "table", "kind", "op", "reason", "cause", "file", "pos", "gtid", "epoch", "version", "run", "rows", "records",
    "persons", "chunk", "first", "to", "keys", "count", "state", "position", "duration_s", "after_s", "lag_s",
    "server", "number", "missing", "extra", "different", "repaired", "command", "hint", "port", "signal", "attempt",
    "hidden", "error", "path", "status",
})
# fmt: on
# Clients that would write what they send: their own words stay below WARNING whatever our level is.
QUIET_S = 10.0
LOUD = ("kafka", "pymongo", "pymysqlreplication", "asyncio", "urllib3")


def configure(settings: Logs) -> None:
    """One line an event on stderr."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _allowed,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level)),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    _clients(settings.level, shared, renderer)
    sys.unraisablehook = _tidying


def _clients(level: str, shared: list[Processor], renderer: Processor) -> None:
    """The clients' own records: their logger, level and place, never their message, which may quote
    values.
    """
    handler = logging.StreamHandler(_Stderr())
    handler.addFilter(_Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_place, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR if level != "DEBUG" else logging.WARNING)


class _Stderr:
    """Whatever is stderr when a line is written: while a progress bar is shown, rich puts lines
    above it.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Seldom(logging.Filter):
    """Lets a client's message from one place through once in QUIET_S: they repeat themselves while
    a server is away.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        if record.created - self._last.get(place, -QUIET_S) < QUIET_S:
            return False
        self._last[place] = record.created
        return True


def _tidying(args: Any) -> None:
    """An error where nobody can catch it, in a destructor: its type, never its text."""
    structlog.get_logger().warning(
        "error while tidying up", error=getattr(args.exc_type, "__name__", "")
    )


def _place(_: Any, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    return {
        "_record": record,
        "_from_structlog": False,
        "event": "client message (text withheld)",
        "logger": record.name,
        "file": record.filename,
        "pos": record.lineno,
    }


def _allowed(_: Any, __: str, event: EventDict) -> EventDict:
    """Drops what is not in KEYS, and says how many were hidden."""
    kept = {key: value for key, value in event.items() if key in KEYS or key.startswith("_")}
    if hidden := len(event) - len(kept):
        kept["hidden"] = hidden
    return kept
