"""Around every request: security headers, no forms of other sites, small bodies, a log line.

The log line has no query and no path as it was asked for: both may say something of a patient.
"""

import time
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

MAX_BODY = 10_000  # bytes; the largest form is the one to sign in
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS = "max-age=31536000"


class Guard:
    """ASGI middleware around the whole application. `https`: browsers must come by https only."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add(MutableHeaders(scope=message))
            await send(message)

        try:
            refused = _refused(scope["method"], Headers(scope=scope))
            await (refused or self._app)(scope, receive, answer)
        finally:
            # The route's own path, as "/api/patients/me". A path that no route has may be anything.
            route = scope.get("route")
            path = route.path if isinstance(route, Route) else "other"
            duration_s = round(time.monotonic() - began, 4)
            log.info("request", op=scope["method"], path=path, status=status, duration_s=duration_s)

    def _add(self, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-store")
        if self._https:
            headers["Strict-Transport-Security"] = _HSTS


def _refused(method: str, headers: Headers) -> PlainTextResponse | None:
    """Return the answer to a request that no route gets to see, or None for all others."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return None
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return PlainTextResponse("from another site", 403)
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return PlainTextResponse("from another site", 403)
    if method != "POST":
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("say how long it is", 411)
    return PlainTextResponse("too long", 413) if int(length[:12]) > MAX_BODY else None
