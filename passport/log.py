"""Logs: JSON lines on stderr unless a person watches, and no patient's value in them.

Values are kept out by a list of keys that a line may carry, and by withholding what the clients of
Kafka, MySQL and MongoDB say, because their messages quote what they send.
"""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from passport.settings import Logs

# A key that is not here is dropped.
# fmt: off
KEYS = frozenset({
    "event", "level", "timestamp", "logger", "hospital", "partition", "topic", "offset",
    "destination", "role", "table", "kind", "op", "reason", "file", "pos", "gtid", "epoch",
    "version", "run", "rows", "records", "persons", "chunk", "first", "to", "keys", "count",
    "state", "position", "duration_s", "after_s", "lag_s", "server", "number", "missing", "extra",
    "different", "repaired", "command", "hint", "port", "signal", "attempt", "hidden", "error",
    "path", "status",
})
# fmt: on

# Clients that would log what they send. Theirs is level ERROR, or WARNING while ours is DEBUG.
LOUD = ("kafka", "pymongo", "pymysqlreplication", "asyncio", "urllib3")
# While a server is away a client says the same every moment. Once in so many seconds is enough.
QUIET_S = 10.0


def configure(settings: Logs) -> None:
    """Write one line an event to stderr from now on, in this whole process."""
    as_json = settings.format == "json"
    if settings.format == "auto":
        as_json = not sys.stderr.isatty()
    renderer: Processor = structlog.dev.ConsoleRenderer()
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_other_keys,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level)),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    _configure_clients(settings.level, shared, renderer)
    sys.unraisablehook = _log_unraisable


def _configure_clients(level: str, shared: list[Processor], renderer: Processor) -> None:
    """Log the clients' own records: logger, level and place, never their message."""
    handler = logging.StreamHandler(_Stderr())
    handler.addFilter(_OnceInAWhile())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_withhold_message, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR if level != "DEBUG" else logging.WARNING)


class _Stderr:
    """Whatever `sys.stderr` is when a line is written.

    While a progress bar is shown it is another object, which puts lines above the bar.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _OnceInAWhile(logging.Filter):
    """Lets the messages from one place of a client's code through once in QUIET_S."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        if record.created - self._last.get(place, -QUIET_S) < QUIET_S:
            return False
        self._last[place] = record.created
        return True


def _log_unraisable(args: Any) -> None:
    """Log an error in a destructor, where nobody can catch it: its type, never its text."""
    error_type = args.exc_type.__name__ if args.exc_type else ""
    structlog.get_logger().warning("error while tidying up", error=error_type)


def _withhold_message(_: Any, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    return {
        "_record": record,
        "_from_structlog": False,
        "event": "client message (text withheld)",
        "logger": record.name,
        "file": record.filename,
        "pos": record.lineno,
    }


def _drop_other_keys(_: Any, __: str, event: EventDict) -> EventDict:
    """Drop what is not in KEYS, and say how many keys were hidden."""
    allowed = {key: value for key, value in event.items() if key in KEYS or key.startswith("_")}
    hidden = len(event) - len(allowed)
    if hidden:
        allowed["hidden"] = hidden
    return allowed
