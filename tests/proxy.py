"""A TCP proxy in front of one server, to break connections at a chosen place: cut, half-open, slow,
late.

It reads the packets that the server sends to who dumps its binlog (without TLS), so that a fault
can be put between two events, or inside one.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple, Self

DUMP = (0x12, 0x1E)  # COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID
TABLE_MAP = 19
ROWS = frozenset({23, 24, 25, 30, 31, 32})
GREETING = -1  # the first packet of a connection: no event
HEAD = 4 + 1 + 19  # packet header, OK byte, event header

How = Literal["cut", "reset", "half-open"]


class Fault(NamedTuple):
    """What to do, once. `where` (event type, size of its packet) gives after how many bytes of it,
    None: not there.
    """

    how: How
    where: Callable[[int, int], int | None]


class Proxy:
    """It listens on 127.0.0.1:`port` from the start until `close`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self.refuses = False  # accepts, and hangs up
        self.delay_s = 0.0  # of each piece on its way from the server
        self.bytes_per_s = 0.0  # from the server, 0: as many as come
        self.accepted: list[float] = []
        self.fired = 0
        self.forwarded = 0  # bytes from the server
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def arm(self, fault: Fault) -> None:
        """Let the fault happen once, at the next place where it fits, on any connection."""
        self._fault = fault

    def lead_to(self, target: int) -> None:
        """Let new connections reach another server. Those that are there stay where they are."""
        self._target = target

    def cut(self) -> None:
        """End all connections now."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            _end(link, "cut")

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            if self.refuses:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._links.append((client, server))
            _Link(self, client, server).start()

    def fault_in(self, event: int, size: int) -> tuple[How, int] | None:
        """Return the armed fault if it is to happen in this packet, and disarm it."""
        with self._lock:
            fault = self._fault
            after = fault.where(event, size) if fault else None
            if fault is None or after is None:
                return None
            self._fault = None
        return fault.how, after


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._pair = client, server
        self._client, self._server = client, server
        self._dumps = False
        self._silent = threading.Event()

    def start(self) -> None:
        for pump in (self._up, self._down):
            threading.Thread(target=self._guarded, args=(pump,), daemon=True).start()

    def _guarded(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        if not self._silent.is_set():
            _end(self._pair, "cut")

    def _up(self) -> None:
        while data := self._client.recv(65_536):
            if len(data) > 4 and data[3] == 0 and data[4] in DUMP:
                self._dumps = True
            if not self._silent.is_set():
                self._server.sendall(data)

    def _down(self) -> None:
        """Look at packets by their first bytes, without holding them back."""
        first, buffer, left = True, b"", 0
        while data := self._server.recv(65_536):
            time.sleep(self._proxy.delay_s)
            if not (first or self._dumps):
                self._pass(data)
                continue
            buffer += data
            while buffer:
                if not left:
                    size = 4 + int.from_bytes(buffer[:3], "little")
                    if len(buffer) < min(size, HEAD):
                        break
                    event = GREETING if first else buffer[9] if size >= HEAD else 0
                    first, left = False, size
                    if fault := self._proxy.fault_in(event, size):
                        self._broken(buffer, *fault)
                        return
                piece, buffer = buffer[:left], buffer[left:]
                left -= len(piece)
                self._pass(piece)

    def _broken(self, buffer: bytes, how: How, after: int) -> None:
        """Pass on `after` bytes, then let the fault happen."""
        while len(buffer) < after:
            buffer += self._server.recv(65_536)
        self._pass(buffer[:after])
        self._silent.set()
        self._proxy.fired += 1
        if how == "half-open":
            while self._server.recv(65_536):
                pass
        else:
            _end(self._pair, how)

    def _pass(self, data: bytes) -> None:
        if self._silent.is_set():
            return
        rate = self._proxy.bytes_per_s
        step = max(1, int(rate / 20)) if rate else len(data)
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            self._client.sendall(piece)
            self._proxy.forwarded += len(piece)
            time.sleep(len(piece) / rate if rate else 0)


def _end(pair: tuple[socket.socket, socket.socket], how: How) -> None:
    if how == "reset":  # RST in place of FIN, once nobody waits on the socket
        with suppress(OSError):
            pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            pair[0].shutdown(socket.SHUT_RD)
            time.sleep(0.05)
            pair[0].close()
    for one in pair:
        _close(one)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        one.close()
