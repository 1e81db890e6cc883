"""UTF-8 in which invalid bytes are replaced, as an encoding that PyMySQL can use.

MariaDB keeps lone surrogates, which are not UTF-8. A strict client fails on a row with one, and a
hospital must not stop for a single text. The binlog's rows are decoded in the same way.
"""

import codecs

LENIENT = "utf8_replace"
"""The name of the encoding, for `encoding` of a PyMySQL connection."""


def _search(name: str) -> codecs.CodecInfo | None:
    if name != LENIENT:
        return None
    return codecs.CodecInfo(
        codecs.utf_8_encode, lambda raw, _="": codecs.utf_8_decode(raw, "replace", True), name=name
    )


codecs.register(_search)
