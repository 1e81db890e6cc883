"""Compressed events and columns: MariaDB's with zlib, MySQL's TRANSACTION_PAYLOAD with zstd."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from cdc.binlog.byte_reader import ByteReader
from cdc.binlog.event_types import HEADER_SIZE

# The fields in front of a TRANSACTION_PAYLOAD's data.
_END = 0
_COMPRESSION = 2
_SIZE = 3
# Its algorithms.
_ZSTD = 0
_NONE = 255

_LARGE = 1 << 20  # bytes; a larger transaction is decompressed as it is read
_ZSTANDARD = zstandard.ZstdDecompressor()


def inflate(data: bytes) -> bytes:
    """Decompress what MariaDB compressed.

    The data is a byte of flags with the width of the length, the length (high bytes first), and
    zlib or bare deflate. Raises ValueError or zlib.error if it isn't.
    """
    flags = data[0]
    if flags & 0xF0 != 0x80:
        raise ValueError("compression algorithm")
    width = flags & 7
    window_bits = -15 if flags & 8 else 15  # negative: deflate without zlib's header
    size = int.from_bytes(data[1 : 1 + width], "big")
    inflated = zlib.decompress(data[1 + width :], window_bits, size)
    if len(inflated) != size:
        raise ValueError("compressed size")
    return inflated


def column_value(data: bytes) -> bytes:
    """Return the value of one of MariaDB's COMPRESSED columns.

    A value that would not shrink is stored as it is, behind a zero byte.
    """
    return inflate(data) if data[:1] > b"\0" else data[1:]


def inner_events(body: bytes) -> Iterator[bytes]:
    """Yield the events of a TRANSACTION_PAYLOAD event of MySQL. They have no checksums."""
    reader = ByteReader(body)
    compression = _ZSTD
    size = _LARGE
    while (field := reader.packed()) != _END:
        value = ByteReader(reader.take(reader.packed()))
        if field == _COMPRESSION:
            compression = value.packed()
        elif field == _SIZE:
            size = value.packed()
    return _split(_open(compression, size, reader.rest()))


def _open(compression: int, size: int, data: bytes) -> BinaryIO:
    """Return a stream of the data, decompressed."""
    if compression == _NONE:
        return io.BytesIO(data)
    if compression != _ZSTD:
        raise ValueError("compression algorithm")
    if size < _LARGE:
        return io.BytesIO(_ZSTANDARD.decompress(data, max_output_size=size))
    # Rows can be far larger than their compressed form: memory must not grow with them.
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    return cast("BinaryIO", reader)


def _split(stream: BinaryIO) -> Iterator[bytes]:
    while header := stream.read(HEADER_SIZE):
        size = int.from_bytes(header[9:13], "little")
        event = header + stream.read(size - HEADER_SIZE)
        if len(event) != size:
            raise ValueError("a transaction ends in an event")
        yield event
