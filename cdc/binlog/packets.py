"""Packets of a dump connection: bytes -> events, or the error that the server sent. Pure."""

import struct

from passport.errors import Fatal, Gap, PassportError, Retry

_PACKET_MAX = 0xFFFFFF
_LENGTH = struct.Struct("<I").unpack_from


class Framing:
    """Cuts bytes, as they come from the socket, into events.

    A packet has three bytes of length, one of number, and a status byte in front of the event. An
    event of 16 MiB or more comes in several packets.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 4
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that `data` completes. Raises the error of an ERR or EOF packet."""
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = b"".join(self._chunks) if len(self._chunks) > 1 else data
        events, end = [], len(buffer)
        at = 0
        self._need = 4
        while end - at >= 4:
            size = _LENGTH(buffer, at)[0] & _PACKET_MAX
            after = at + 4 + size
            if after > end:
                self._need = 4 + size
                break
            if size == _PACKET_MAX or self._parts:
                self._parts.append(buffer[at + 4 : after])
                if size < _PACKET_MAX:
                    events.append(_payload(b"".join(self._parts)))
                    self._parts = []
            elif size and buffer[at + 4] == 0:
                events.append(buffer[at + 5 : after])
            else:
                events.append(_payload(buffer[at + 4 : after]))
            at = after
        self._chunks = [buffer[at:]]
        self._have = end - at
        return events


def _payload(packet: bytes) -> bytes:
    """Return the event of a packet, which stands behind its OK byte."""
    if packet[:1] == b"\0":
        return packet[1:]
    if packet[:1] == b"\xff":
        raise error_of(int.from_bytes(packet[1:3], "little"), packet[3:].decode("utf-8", "replace"))
    raise Retry("binlog: the server ended the stream")


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
