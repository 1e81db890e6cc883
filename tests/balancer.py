"""A TCP proxy in front of several servers: each connection goes to the next one, in turn.

It may greet with a version of its own, as ProxySQL does, and passes everything else as it is.
"""

import itertools
import socket
import threading
from contextlib import suppress
from typing import Self


class Balancer:
    """It listens on 127.0.0.1:`port` from the start until `close`."""

    def __init__(self, *targets: int, greets_as: str = "") -> None:
        self._targets = itertools.cycle(targets)
        self._greets_as = greets_as
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", next(self._targets)), 5)
                server.settimeout(None)
                self._sockets += [client, server]
                threading.Thread(target=self._greet, args=(client, server), daemon=True).start()

    def _greet(self, client: socket.socket, server: socket.socket) -> None:
        """Pass the greeting, and then everything both ways."""
        with suppress(OSError):
            head = _exactly(server, 4)
            greeting = _exactly(server, int.from_bytes(head[:3], "little"))
            if self._greets_as:
                # One byte of protocol, the version, a NUL, and what else there is.
                rest = greeting[greeting.index(b"\0") :]
                greeting = greeting[:1] + self._greets_as.encode() + rest
            client.sendall(len(greeting).to_bytes(3, "little") + head[3:] + greeting)
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            _pump(server, client)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise OSError
        data += piece
    return data


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
