"""Compressed events and columns: MariaDB's with zlib, MySQL's TRANSACTION_PAYLOAD with zstd.

Whoever compresses can make a few bytes stand for gigabytes. So nothing here takes more memory than
the largest event whose rows can be carried.
"""

import zlib
from collections.abc import Callable, Iterator

import zstandard

from cdc.binlog.byte_reader import ByteReader
from cdc.binlog.event_types import HEADER_SIZE

LARGEST = 64 << 20
"""Bytes of the largest event that is gathered. No record takes a row of a larger one."""

# The fields in front of a TRANSACTION_PAYLOAD's data.
_END = 0
_COMPRESSION = 2
# Its algorithms.
_ZSTD = 0
_NONE = 255

# Bytes that are decompressed at once. zstd makes at most a block of 128 KiB of four bytes.
_PIECE = 512
_LARGE = 1 << 20  # bytes of an event from which on it is asked whether it is wanted
_ZSTANDARD = zstandard.ZstdDecompressor()


class TooLargeError(Exception):
    """An event is larger than LARGEST."""


def inflate(data: bytes) -> bytes:
    """Decompress what MariaDB compressed.

    The data is a byte of flags with the width of the length, the length (high bytes first), and
    zlib or bare deflate. Raises ValueError or zlib.error if it isn't, and TooLargeError.
    """
    flags = data[0]
    if flags & 0xF0 != 0x80:
        raise ValueError("compression algorithm")
    width = flags & 7
    window_bits = -15 if flags & 8 else 15  # negative: deflate without zlib's header
    size = int.from_bytes(data[1 : 1 + width], "big")
    if size > LARGEST:
        raise TooLargeError
    # One byte more than it should be shows that it is more, without making all of it.
    inflated = zlib.decompressobj(window_bits).decompress(data[1 + width :], size + 1)
    if len(inflated) != size:
        raise ValueError("compressed size")
    return inflated


def column_value(data: bytes) -> bytes:
    """Return the value of one of MariaDB's COMPRESSED columns.

    A value that would not shrink is stored as it is, behind a zero byte.
    """
    return inflate(data) if data[:1] > b"\0" else data[1:]


class Payload:
    """The body of a TRANSACTION_PAYLOAD event of MySQL: compressed events, without checksums.

    The body may come in parts, and is decompressed as it comes. `is_wanted` tells by the header and
    the table's number of a large event whether it is read. Another one is passed over, and never
    gathered.
    """

    def __init__(self, is_wanted: Callable[[bytes], bool]) -> None:
        self._is_wanted = is_wanted
        self._decompress: Callable[[bytes], bytes] | None = None
        self._buffer = bytearray()
        self._passed_over = 0  # bytes that are still to come of an event that is not wanted

    def events(self, part: bytes) -> Iterator[bytes]:
        """Yield the events that the next part of the body completes.

        The first part must have all fields that stand in front of the compressed data. Raises what
        UNREADABLE names, and TooLargeError.
        """
        if self._decompress is None:
            self._decompress, part = _decompressor(part)
        for start in range(0, len(part), _PIECE):
            yield from self._cut(self._decompress(part[start : start + _PIECE]))

    def end(self) -> None:
        """Raise ValueError if the last event is not whole."""
        if self._buffer or self._passed_over:
            raise ValueError("a transaction ends in an event")

    def _cut(self, data: bytes) -> Iterator[bytes]:
        """Yield the events that the next decompressed bytes complete."""
        if self._passed_over:
            data = self._pass_over(data)
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEADER_SIZE:
            size = int.from_bytes(buffer[at + 9 : at + 13], "little")
            if size < HEADER_SIZE:
                raise ValueError("an event is shorter than its header")
            if len(buffer) - at < size:
                break
            yield bytes(buffer[at : at + size])
            at += size
        del buffer[:at]
        self._look_at_large_event()

    def _look_at_large_event(self) -> None:
        """Pass over the event that is being gathered, if it is large and not wanted."""
        if len(self._buffer) < _LARGE:
            return
        size = int.from_bytes(self._buffer[9:13], "little")
        if not self._is_wanted(bytes(self._buffer[: HEADER_SIZE + 6])):
            self._passed_over = size - len(self._buffer)
            self._buffer.clear()
        elif size > LARGEST:
            raise TooLargeError

    def _pass_over(self, data: bytes) -> bytes:
        """Return what `data` has behind the event that is not wanted."""
        rest = data[self._passed_over :]
        self._passed_over -= len(data) - len(rest)
        return rest


def _decompressor(body: bytes) -> tuple[Callable[[bytes], bytes], bytes]:
    """Return what decompresses the data of a TRANSACTION_PAYLOAD, and the data's first bytes."""
    reader = ByteReader(body)
    compression = _ZSTD
    while (field := reader.packed()) != _END:
        value = ByteReader(reader.take(reader.packed()))
        if field == _COMPRESSION:
            compression = value.packed()
    if compression == _NONE:
        return bytes, reader.rest()
    if compression != _ZSTD:
        raise ValueError("compression algorithm")
    return _ZSTANDARD.decompressobj(read_across_frames=True).decompress, reader.rest()
