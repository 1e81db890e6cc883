"""Compressed events and columns: MariaDB's *_COMPRESSED (zlib), MySQL's TRANSACTION_PAYLOAD (zstd)."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from cdc.binlog.byte_reader import ByteReader

_END, _COMPRESSION, _SIZE = 0, 2, 3
_ZSTD, _NONE = 0, 255
_LARGE = 1 << 20
_ZSTANDARD = zstandard.ZstdDecompressor()


def inflated(data: bytes) -> bytes:
    """MariaDB: a byte of flags and the width of the length, the length (high bytes first), zlib or
    bare deflate.
    """
    flags = data[0]
    if flags & 0xF0 != 0x80:
        raise ValueError("compression algorithm")
    width, window = flags & 7, -15 if flags & 8 else 15
    size = int.from_bytes(data[1 : 1 + width], "big")
    out = zlib.decompress(data[1 + width :], window, size)
    if len(out) != size:
        raise ValueError("compressed size")
    return out


def column_value(data: bytes) -> bytes:
    """MariaDB: the value of a COMPRESSED column; one that does not shrink is kept as it is, behind
    a zero byte.
    """
    return inflated(data) if data[:1] > b"\0" else data[1:]


def inner_events(body: bytes) -> Iterator[bytes]:
    """MySQL: the events of one transaction, without checksums; a large one is decompressed as it is
    read.
    """
    reader, compression, size = ByteReader(body), _ZSTD, _LARGE
    while (field := reader.packed()) != _END:
        value = ByteReader(reader.take(reader.packed()))
        if field == _COMPRESSION:
            compression = value.packed()
        elif field == _SIZE:
            size = value.packed()
    data = reader.rest()
    if compression == _ZSTD and size < _LARGE:
        compression, data = _NONE, _ZSTANDARD.decompress(data, max_output_size=size)
    return _split(_opened(compression, data))


def _opened(compression: int, data: bytes) -> BinaryIO:
    if compression == _NONE:
        return io.BytesIO(data)
    if compression != _ZSTD:
        raise ValueError("compression algorithm")
    return cast(
        "BinaryIO", zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    )


def _split(stream: BinaryIO) -> Iterator[bytes]:
    while header := stream.read(19):
        size = int.from_bytes(header[9:13], "little")
        event = header + stream.read(size - 19)
        if len(event) != size:
            raise ValueError("a transaction ends in an event")
        yield event
