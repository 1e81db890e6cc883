"""Character sets of text columns: the server's name -> a function from bytes to text.

Here are only those that Python decodes exactly as the servers do. A column with another one is
refused: a guess would be a wrong text in a patient's record.
"""

import codecs
from collections.abc import Callable
from functools import partial

Decode = Callable[[bytes], str]

# The servers' latin1 is cp1252, but its five unused bytes are control characters.
_HOLES = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
_LATIN1 = "".join(chr(b) if b in _HOLES else bytes([b]).decode("cp1252") for b in range(256))


def _latin1(raw: bytes) -> str:
    return codecs.charmap_decode(raw, "strict", _LATIN1)[0]


def _codec(codec: str) -> Decode:
    # A server keeps text valid. If it didn't, its own clients see the replacement character too.
    return partial(str, encoding=codec, errors="replace")


_DECODERS: dict[str, Decode] = {
    **dict.fromkeys(("utf8mb4", "utf8mb3", "utf8"), _codec("utf-8")),
    "ascii": _codec("ascii"),
    "latin1": _latin1,
    **dict.fromkeys(("ucs2", "utf16"), _codec("utf-16-be")),
    "utf16le": _codec("utf-16-le"),
    "utf32": _codec("utf-32-be"),
}


def text_decoder(charset: str) -> Decode | None:
    """Return the decoder of a character set, None if it is not one of these."""
    return _DECODERS.get(charset)
