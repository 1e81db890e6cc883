"""UTF-8 whose faults are replaced: MariaDB keeps lone surrogates, and a strict client would fail on
a row with one.
"""

import codecs

LENIENT = (
    "utf8_replace"  # for `encoding` of a PyMySQL connection; the binlog's rows are decoded alike
)


def _codec(name: str) -> codecs.CodecInfo | None:
    if name != LENIENT:
        return None
    return codecs.CodecInfo(
        codecs.utf_8_encode, lambda raw, _="": codecs.utf_8_decode(raw, "replace", True), name=name
    )


codecs.register(_codec)
