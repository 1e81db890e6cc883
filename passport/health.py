"""/livez (the process), /readyz (what it needs and whether it gets on, 503 with names) and
/metrics.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from passport.settings import Health

_failing: dict[str, tuple[str, float]] = {}
_lock = threading.Lock()


def failing(what: str, cause: str) -> None:
    """Says that `what` (a hospital, a partition, a destination) doesn't get on; `working` takes it
    back.
    """
    with _lock:
        _failing.setdefault(what, (cause, time.time()))


def working(what: str) -> None:
    with _lock:
        _failing.pop(what, None)


def failures() -> dict[str, str]:
    """What doesn't get on now, and why."""
    with _lock:
        return {
            what: f"{cause}, for {time.time() - since:.0f} s"
            for what, (cause, since) in _failing.items()
        }


def serve(settings: Health) -> None:
    """Starts the endpoint in a daemon thread when a port is set."""
    if settings.port:
        server = ThreadingHTTPServer((settings.host, settings.port), _Handler)
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/livez": lambda: (200, "text/plain", b"ok\n"),
            "/readyz": _ready,
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest()),
        }
        answer = answers.get(self.path.partition("?")[0])
        status, kind, body = (
            answer() if answer else (404, "text/plain", b"/livez /readyz /metrics\n")
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


def _ready() -> tuple[int, str, bytes]:
    failed = failures()
    body = json.dumps({"ready": not failed, "failing": failed}).encode() + b"\n"
    return (503 if failed else 200), "application/json", body
