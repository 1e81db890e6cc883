"""A server that speaks MySQL's protocol and answers without an end.

It stands in for a hospital whose server was taken over. No real server answers so, and this is the
only reason why it is played.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from passport.settings import MySQL

_OK = b"\0\0\0\2\0\0\0"
_END_OF_COLUMNS = b"\xfe\0\0\2\0"
_CAPABILITIES = 0x1 | 0x8 | 0x200 | 0x8000 | 0x80000 | 0x200000
_PACKET_MAX = 0xFFFFFF


class HostileServer:
    """Answers each SELECT for ever: with rows of a million bytes, or with one that never ends.

    `sent` is how many bytes of its answers it could send before its client had enough.
    """

    def __init__(self, *, one_row: bool) -> None:
        self._one_row = one_row
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0

    def settings(self) -> MySQL:
        return MySQL(host="127.0.0.1", port=self.port, user="cdc", database="openmrs")

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _talk(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            greeting = (
                b"\x0a10.11.6-MariaDB\0" + struct.pack("<I", 1) + b"12345678\0"
                + struct.pack("<H", _CAPABILITIES & 0xFFFF) + b"\x2d\2\0"
                + struct.pack("<H", _CAPABILITIES >> 16) + bytes([21]) + bytes(10)
                + b"123456789012\0mysql_native_password\0"
            )  # fmt: skip
            client.sendall(_packet(0, greeting))
            client.recv(65_536)
            client.sendall(_packet(2, _OK))
            while command := client.recv(65_536):
                if command[5:].lstrip().upper().startswith((b"SELECT", b"SHOW")):
                    self._answer_without_end(client)
                client.sendall(_packet(1, _OK))

    def _answer_without_end(self, client: socket.socket) -> None:
        column = b"\3def\0\0\0\1c\1c\x0c\x2d\0\xff\xff\xff\xff\xfd\0\0\0\0\0"
        head = _packet(1, b"\1") + _packet(2, column) + _packet(3, _END_OF_COLUMNS)
        client.sendall(head)
        number = 4
        body = b"\xfd" + struct.pack("<I", 999_000)[:3] + bytes(999_000)
        if self._one_row:
            body = (b"\xfe" + struct.pack("<Q", 1 << 40)).ljust(_PACKET_MAX, b"x")
        while True:
            client.sendall(_packet(number % 256, body))
            self.sent += len(body)
            number += 1


def _packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


@contextmanager
def hostile_server(*, one_row: bool = False) -> Iterator[HostileServer]:
    """Run such a server until the block ends."""
    server = HostileServer(one_row=one_row)
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()
