"""MySQL 8.3+: GTIDs with tags, in the self-describing format of GTID_TAGGED_LOG events."""

from uuid import UUID

from cdc.binlog.byte_reader import ByteReader

_FLAGS, _UUID, _NUMBER, _TAG = range(4)


def tagged_gtid(body: bytes) -> str:
    """Return ``uuid:tag:7``, or ``uuid:7`` when the tag is empty.

    Raises ValueError if the fields are not as expected.
    """
    reader = ByteReader(body)
    for _ in range(3):  # the format's version, the size, the last field that must be understood
        _varlen(reader)
    fields: dict[int, str] = {}
    while _TAG not in fields:
        field = _varlen(reader)
        if field == _FLAGS:
            reader.take(1)
        elif field == _UUID:
            fields[field] = str(UUID(bytes=bytes(_varlen(reader) for _ in range(16))))
        elif field == _NUMBER:
            fields[field] = str(_signed(_varlen(reader)))
        elif field == _TAG:
            fields[field] = reader.take(_varlen(reader)).decode()
        else:
            raise ValueError("field of a tagged GTID")
    tag = f":{fields[_TAG]}" if fields[_TAG] else ""
    return f"{fields[_UUID]}{tag}:{fields[_NUMBER]}"


def _varlen(reader: ByteReader) -> int:
    """Return a number. The first byte has as many 1 bits at its low end as bytes follow it."""
    first = reader.number(1)
    more = 0
    while more < 8 and first >> more & 1:
        more += 1
    value = int.from_bytes(bytes([first]) + reader.take(more), "little")
    return value >> more + 1 if more < 8 else value >> 8


def _signed(value: int) -> int:
    return -(value + 1 >> 1) if value & 1 else value >> 1
