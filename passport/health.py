"""Serves what a role says about itself over HTTP: /livez, /readyz and /metrics.

/livez answers as long as the process does. /readyz answers 503 with names and reasons while
something that the role needs doesn't get on.

What fails is kept once a process, in this module, as Prometheus' client keeps its metrics. A
process is one role, and failures are reported by threads that share nothing else: an object passed
to each of them would only be a longer way to the same place.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from passport.settings import Health


class _Failure(NamedTuple):
    reason: str
    hint: str
    since_s: float  # on the monotonic clock


_failing: dict[str, _Failure] = {}
_lock = threading.Lock()


def failing(part: str, reason: str, hint: str = "") -> None:
    """Report that `part` (a hospital, a partition, a destination) doesn't get on.

    The newest reason is the one that holds: the first may be over, while another one remains. The
    time counts from the first one until `working` takes it back.
    """
    with _lock:
        before = _failing.get(part)
        since_s = before.since_s if before else time.monotonic()
        _failing[part] = _Failure(reason, hint, since_s)


def working(part: str) -> None:
    """Report that `part` gets on (again)."""
    with _lock:
        _failing.pop(part, None)


def failures() -> dict[str, str]:
    """Return the parts that don't get on now, and why.

    Each reason is followed by how long the part has failed, and by what to do:
    ``MySQL doesn't answer, for 12 s -> passport check --hospital kigali``.
    """
    now_s = time.monotonic()
    texts = {}
    with _lock:
        for part, failure in _failing.items():
            texts[part] = f"{failure.reason}, for {now_s - failure.since_s:.0f} s"
            if failure.hint:
                texts[part] += f" -> {failure.hint}"
    return texts


def serve(settings: Health) -> None:
    """Answer requests in a thread of their own, if a port is set."""
    if settings.port:
        server = ThreadingHTTPServer((settings.host, settings.port), _Handler)
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._answer(200, "text/plain", b"ok\n")
        elif path == "/readyz":
            failed = failures()
            body = json.dumps({"ready": not failed, "failing": failed}).encode() + b"\n"
            self._answer(503 if failed else 200, "application/json", body)
        elif path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
        else:
            self._answer(404, "text/plain", b"/livez /readyz /metrics\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: a probe asks every few seconds."""
