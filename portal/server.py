"""The portal's process: one uvicorn worker."""

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
from portal.board import Collect

log = structlog.get_logger()


def run(
    settings: Portal,
    hospitals: Mapping[str, Hospital],
    uri: str,
    database: str,
    collect: Collect,
    stop: threading.Event,
) -> None:
    """Serves until `stop`. Fatal when a setting can't be used or the port is taken."""
    with connected(uri) as client, listening(settings.host, settings.port) as at:
        app = create(settings, hospitals, client[database], collect)
        gc.freeze()  # what was loaded stays: looking through it would hold up requests for 60 ms
        log.info("portal listens", server=settings.host, port=at.getsockname()[1])
        serve(app, settings, at, stop)


def connected(uri: str) -> MongoClient[dict[str, Any]]:
    """A client that waits shortly: a page would rather say that it is away. Fatal when the address
    is none.
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
    try:
        at = socket.create_server((host, port), backlog=2_048)
        at.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # asyncio leaves it: an answer's body waits 40 ms
        return at
    except OSError as error:
        hint = "set portal.port to a free one, or end what listens there"
        raise Fatal(
            f"the portal can't listen on {host}:{port} ({without_text(error)})", hint=hint
        ) from None


def serve(app: FastAPI, settings: Portal, at: socket.socket, stop: threading.Event) -> None:
    """Until `stop`; open streams are ended first."""
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
        server.run(sockets=[at])
    finally:
        stop.set()


class _Server(uvicorn.Server):
    """Signals are the command's business."""

    def capture_signals(self) -> "contextlib.AbstractContextManager[None]":  # type: ignore[override]
        return contextlib.nullcontext()
