"""An event of many megabytes, which comes in parts and is held as a whole only if it must be."""

import struct
from zlib import crc32

from cdc.binlog.changes import Commit
from cdc.binlog.compression import Payload
from passport.errors import PassportError
from passport.version import Position

_HEADER = struct.Struct("<IB4xIIH").unpack_from
_CHECKSUM_SIZE = 4
_INTACT = 0x2144DF1C  # the CRC-32 of anything that has its own CRC-32 behind it


class LargeEvent:
    """What is known of a large event before its last part has come.

    - `before`: where the event before it ended.
    - `payload`: decompresses its body, if it is a compressed transaction.
    - `gathered`: its bytes, if they are needed as a whole; else None.
    - `commit`: the end of the compressed transaction. It is given when the checksum was right.
    - `is_passed_over`: nobody wants more of the compressed transaction than its checksum.
    - `error`: what stopped the decoding of the compressed transaction. Damaged bytes can look like
      any error, so that it is raised when the checksum was right.
    """

    def __init__(self, first_part: bytes, before: Position, *, has_checksum: bool) -> None:
        self.ts, self.kind, self.size, self.log_pos, self.flags = _HEADER(first_part)
        self.before = before
        self.payload: Payload | None = None
        self.gathered: bytearray | None = None
        self.commit: Commit | None = None
        self.error: PassportError | None = None
        self.is_passed_over = False
        self._has_checksum = has_checksum
        self._crc = 0
        self._taken = 0

    def take(self, part: bytes) -> bytes:
        """Add a part to the checksum. Return the part without the checksum at the event's end."""
        content = self.size - _CHECKSUM_SIZE if self._has_checksum else self.size
        content_of_part = part[: max(0, content - self._taken)]
        self._crc = crc32(part, self._crc)
        self._taken += len(part)
        return content_of_part

    @property
    def is_intact(self) -> bool:
        """Return whether the event, which has come to its end, is what the server wrote."""
        if self._taken != self.size:
            return False
        return not self._has_checksum or self._crc == _INTACT
