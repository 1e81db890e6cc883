"""Packets of a dump connection: bytes -> events, or the error that the server sent. Pure."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from passport.errors import Fatal, Gap, PassportError, Retry

LARGE = 1 << 20
"""Bytes. A larger event is not gathered: its parts are given as they come."""

_PACKET_MAX = 0xFFFFFF
_LENGTH = struct.Struct("<I").unpack_from
_FIRST_PART = 128  # at least so many bytes of a large event come in its first part


class EventPart(NamedTuple):
    """Some bytes of a large event. The first part has at least the event's header."""

    data: bytes
    is_first: bool
    is_last: bool


class Framing:
    """Cuts bytes, as they come from the socket, into events.

    A packet has three bytes of length, one of number, and a status byte in front of the event. An
    event of 16 MiB or more comes in several packets, of which only the first has a status byte.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 4

        # Of the packet of a large event that is being read: the bytes that are missing.
        self._is_in_large = False
        self._missing = 0
        self._is_last_packet = False
        self._is_first_part = False

    def feed(self, data: bytes) -> Iterator[list[bytes] | EventPart]:
        """Yield the events that `data` completes, in lists, and the parts of large events.

        Raises the error of an ERR or EOF packet.
        """
        while data:
            if self._is_in_large:
                part, data = self._part(data)
                if part is not None:
                    yield part
            else:
                events, data = self._whole_events(data)
                if events:
                    yield events

    def _whole_events(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the events that `data` completes, and what belongs to a large event."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return [], b""
        buffer = b"".join(self._chunks) if len(self._chunks) > 1 else data
        events: list[bytes] = []
        end = len(buffer)
        at = 0
        self._need = 4
        while end - at >= 4:
            size = _LENGTH(buffer, at)[0] & _PACKET_MAX
            after = at + 4 + size
            if size > LARGE:
                self._need = 4 + _FIRST_PART
                if end - at >= self._need:
                    self._chunks = []
                    self._have = 0
                    self._need = 4
                    return events, self._begin_large(buffer, at, size)
                break
            if after > end:
                self._need = 4 + size
                break
            if size and buffer[at + 4] == 0:
                events.append(buffer[at + 5 : after])
            else:
                raise _error(buffer[at + 4 : after])
            at = after
        self._chunks = [buffer[at:]]
        self._have = end - at
        return events, b""

    def _begin_large(self, buffer: bytes, at: int, size: int) -> bytes:
        """Begin a large event, whose first packet is at `at`. Return the bytes behind its status.

        Raises the error if the packet is none of an event.
        """
        if buffer[at + 4] != 0:
            raise _error(buffer[at + 4 : at + 4 + _FIRST_PART])
        self._is_in_large = True
        self._is_first_part = True
        self._missing = size - 1
        self._is_last_packet = size < _PACKET_MAX
        return buffer[at + 5 :]

    def _part(self, data: bytes) -> tuple[EventPart | None, bytes]:
        """Return the next part of the large event, if there is one, and what is left of `data`."""
        if not self._missing and not self._is_last_packet:
            # The next packet begins here. Its four bytes may come in pieces.
            self._chunks.append(data)
            data = b"".join(self._chunks)
            if len(data) < 4:
                self._chunks = [data]
                return None, b""
            self._chunks = []
            self._missing = _LENGTH(data)[0] & _PACKET_MAX
            self._is_last_packet = self._missing < _PACKET_MAX
            data = data[4:]
        taken = data[: self._missing]
        self._missing -= len(taken)
        is_last = self._is_last_packet and not self._missing
        part = EventPart(taken, self._is_first_part, is_last)
        self._is_first_part = False
        self._is_in_large = not is_last
        return part, data[len(taken) :]


def _error(packet: bytes) -> PassportError:
    """Return what a packet means that has no event."""
    if packet[:1] == b"\xff":
        return error_of(
            int.from_bytes(packet[1:3], "little"), packet[3:].decode("utf-8", "replace")
        )
    return Retry("binlog: the server ended the stream")


# MariaDB's error; MySQL has the same in the text of 1236.
_SAME_ID = 4052
_DENIED = frozenset({1044, 1045, 1142, 1227, 1698, 3118})
_GONE = frozenset({1236, 1373, 1789, 3546})


def error_of(code: int, text: str) -> PassportError:
    """Return what an ERR packet means: Retry, Gap or Fatal.

    The server's text only helps to choose. It isn't part of the error, since it may hold values.
    """
    if code == _SAME_ID or "same server_uuid/server_id" in text or "same server_id" in text:
        return Retry(f"binlog: error {code}: another replica reads with this server_id", after=10.0)
    if code in _DENIED:
        return Fatal(
            f"binlog: error {code}: access denied",
            hint="passport grants --hospital HOSPITAL   # the SQL that the hospital's DBA runs",
        )
    if code in _GONE:
        # "exceeded max_allowed_packet" is one of these: the server took other bytes for an event's
        # size, because no event begins at this position.
        return Gap(
            f"binlog: error {code}: the source no longer has this position or GTID set, "
            "or can't read what is there",
            hint="nothing to do: a new epoch and a snapshot follow by themselves",
        )
    return Retry(f"binlog: error {code}")
