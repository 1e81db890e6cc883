"""A TCP proxy that can cut, hold, refuse and delay; it counts what it did, so that a test can prove
it.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

CHUNK = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


@dataclass(eq=False)
class Pair:
    """One client and its server."""

    client: socket.socket
    server: socket.socket
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self, *, reset: bool = False) -> None:
        self.closed.set()
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.close()


class Proxy:
    """Listens on 127.0.0.1:`port` for the server at 127.0.0.1:`target`.

    `cuts`: connections ended by `cut`; `withheld`: bytes that arrived while it held them;
    `turned_away`: connections while it refused.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._closed = False
        self.delay_s = 0.0
        self.cuts = self.withheld = self.turned_away = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> int:
        """Reset every connection, and return how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.close(reset=True)
        self.cuts += len(pairs)
        return len(pairs)

    def hold(self) -> None:
        """Half-open: connections stay, nothing passes in either direction; new ones are accepted
        and hang.
        """
        self._flowing.clear()

    def refuse(self) -> None:
        """Close new connections at once, and cut those that are open."""
        self._refusing = True
        self.cut()

    def heal(self) -> None:
        """What was held is dropped with its connections: a broken network doesn't deliver later."""
        self._refusing = False
        if not self._flowing.is_set():
            self.cut()
            self._flowing.set()

    def close(self) -> None:
        self._closed = True
        self._flowing.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                self.turned_away += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=2)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._serve, args=(pair,), daemon=True).start()

    def _serve(self, pair: Pair) -> None:
        with (
            selectors.DefaultSelector() as selector,
            contextlib.suppress(OSError, ValueError, KeyError),
        ):
            selector.register(pair.client, selectors.EVENT_READ, pair.server)
            selector.register(pair.server, selectors.EVENT_READ, pair.client)
            while not pair.closed.is_set():
                for key, _ in selector.select(0.5):
                    if not self._pass(pair, key.fileobj, key.data):  # type: ignore[arg-type]
                        return
        pair.close()
        with self._lock:
            self._pairs.discard(pair)

    def _pass(self, pair: Pair, one: socket.socket, other: socket.socket) -> bool:
        data = one.recv(CHUNK)
        if not data:
            pair.close()
            with self._lock:
                self._pairs.discard(pair)
            return False
        if not self._flowing.is_set():
            self.withheld += len(data)
            while not self._flowing.wait(0.2):
                if pair.closed.is_set():
                    return False
            return False
        if self.delay_s:
            time.sleep(self.delay_s)
        other.sendall(data)
        return True
