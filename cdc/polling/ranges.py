"""The digests of what was published of a table, one for each range of its key.

That is small enough to be saved with the position.
"""

import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openmrs.row_hash import Digest

# Number, rows, xor. Of obs there are some thousand ranges: as JSON they would be too large.
_RANGE = struct.Struct("<IIQ")
# The digest of a range that is being published. No rows have it, so that the range differs from
# whatever it is next, also from an empty one: if the run breaks off, nobody knows what has arrived.
IN_DOUBT = Digest(0, 1)


@dataclass(slots=True)
class Ranges:
    """Range number r holds the keys from r * `width` up to, not with, (r + 1) * `width`.

    Empty ranges have no digest. `top` is the highest key seen, -1 for none.
    """

    width: int
    top: int = -1
    digests: dict[int, Digest] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(digest.rows for digest in self.digests.values())

    def number(self, key: int) -> int:
        return key // self.width

    def before(self, number: int) -> int:
        """Return the key just before range `number`."""
        return number * self.width - 1

    def between(self, after: int, to: int) -> Iterator[int]:
        """Yield the numbers of the known ranges that begin within (after, to]."""
        return (number for number in self.digests if after < number * self.width <= to)

    def doubt(self, number: int) -> None:
        """Remember that a range is being published."""
        self.digests[number] = IN_DOUBT

    def put(self, number: int, digest: Digest) -> None:
        """Remember a range's digest; forget the range if it is empty now."""
        if digest.rows:
            self.digests[number] = digest
        else:
            self.digests.pop(number, None)

    def limit(self, most: int) -> None:
        """Double the width until there are at most `most` ranges.

        Digests add up, so nothing is read for it.
        """
        while len(self.digests) > most:
            wider: dict[int, Digest] = {}
            for number, digest in self.digests.items():
                other = wider.get(number // 2, Digest())
                is_in_doubt = IN_DOUBT in (digest, other)
                wider[number // 2] = IN_DOUBT if is_in_doubt else other | digest
            self.digests = wider
            self.width *= 2

    def encode(self) -> dict[str, Any]:
        packed = b"".join(
            _RANGE.pack(number, *digest) for number, digest in sorted(self.digests.items())
        )
        return {"width": self.width, "top": self.top, "digests": b64encode(packed).decode()}

    @classmethod
    def decode(cls, saved: dict[str, Any]) -> "Ranges":
        """Return what `encode` gave."""
        digests = {}
        for number, rows, xor in _RANGE.iter_unpack(b64decode(saved["digests"])):
            digests[number] = Digest(rows, xor)
        return cls(saved["width"], saved["top"], digests)
