"""Reads the numbers and texts that events are made of, front to back."""

import struct
from collections.abc import Iterator
from zlib import error as zlib_error

from zstandard import ZstdError

UNREADABLE = (ValueError, IndexError, KeyError, struct.error, zlib_error, ZstdError)
"""What reading raises when bytes are not what this code takes them for."""


class ByteReader:
    """Reads from `pos` on, and moves `pos` behind what it read.

    Raises ValueError if the bytes end too soon.
    """

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self.pos += size
        if self.pos > len(self.data):
            raise ValueError("the event is too short")
        return self.data[self.pos - size : self.pos]

    def number(self, size: int) -> int:
        """Return a number of `size` bytes, low byte first."""
        return int.from_bytes(self.take(size), "little")

    def packed(self) -> int:
        """Return a length-encoded integer: one byte, or a mark and 2, 3 or 8 bytes behind it."""
        first = self.number(1)
        if first < 251:
            return first
        return self.number({252: 2, 253: 3, 254: 8}[first])

    def packed_numbers(self) -> Iterator[int]:
        """Return the length-encoded integers up to the end."""
        while not self.at_end:
            yield self.packed()

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self.data) - self.pos)

    @property
    def at_end(self) -> bool:
        """Return whether all is read."""
        return self.pos >= len(self.data)
