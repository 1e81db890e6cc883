"""Runs the portal: one uvicorn worker a process. More processes behind a proxy serve more pages."""

import contextlib
import gc
import socket
import threading
from collections.abc import Mapping
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from passport.errors import Fatal, without_text
from passport.settings import Hospital, Portal
from portal.app import create
from portal.status_history import Collect

log = structlog.get_logger()


def run(
    settings: Portal,
    hospitals: Mapping[str, Hospital],
    uri: str,
    database: str,
    collect: Collect,
    stop: threading.Event,
) -> None:
    """Serve until `stop`. Raises Fatal if a setting can't be used or the port is taken."""
    with connected(uri) as client, listening(settings.host, settings.port) as listener:
        app = create(settings, hospitals, client[database], collect)
        # What was loaded stays for good. To look through it for garbage would take 60 ms each time.
        gc.freeze()
        log.info("portal listens", server=settings.host, port=listener.getsockname()[1])
        serve(app, settings, listener, stop)


def connected(uri: str) -> MongoClient[dict[str, Any]]:
    """Return a client that waits only shortly: a page would rather say that MongoDB is away.

    Raises Fatal if `uri` is no address.
    """
    try:
        return MongoClient(
            uri,
            appname="openmrs-passport portal",
            serverSelectionTimeoutMS=3_000,
            connectTimeoutMS=3_000,
            socketTimeoutMS=30_000,
            tz_aware=True,
        )
    except (PyMongoError, ValueError) as error:
        raise Fatal(
            f"portal.uri is not usable ({without_text(error)})", hint="passport config show"
        ) from None


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises Fatal if the port is taken."""
    try:
        listener = socket.create_server((host, port), backlog=2_048)
        # asyncio doesn't set it here, and an answer's body would wait 40 ms for its headers' ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise Fatal(
            f"the portal can't listen on {host}:{port} ({without_text(error)})",
            hint="set portal.port to a free one, or end what listens there",
        ) from None


def serve(app: FastAPI, settings: Portal, listener: socket.socket, stop: threading.Event) -> None:
    """Serve until `stop`. Then the events of open pages end first: uvicorn would wait for them."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)

    def end() -> None:
        stop.wait()
        app.state.portal.live.stop()
        server.should_exit = True

    threading.Thread(target=end, name="stop", daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()


class _Server(uvicorn.Server):
    """A uvicorn server without its handlers of signals: the command has its own."""

    def capture_signals(self) -> "contextlib.AbstractContextManager[None]":  # type: ignore[override]
        return contextlib.nullcontext()
