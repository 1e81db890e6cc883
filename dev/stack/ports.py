"""Free TCP ports of 127.0.0.1, remembered beside the data."""

import random
import socket
from pathlib import Path

# It ends below Linux's range for outgoing connections, one of which could take a chosen port before
# its server does.
_RANGE = range(10_000, 32_000)
# Tests seed the shared generator: with that one, they would all choose alike.
_choice = random.SystemRandom()


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def kept(file: Path, wanted: int = 0) -> int:
    """Return a port, and remember it in `file`.

    It is `wanted` if that is not 0, else the port that `file` remembers if it is free, else a new
    one.
    """
    port = wanted or remembered(file)
    while not port or (not wanted and not is_free(port)):
        port = _choice.choice(_RANGE)
    file.write_text(f"{port}\n")
    return port


def remembered(file: Path) -> int:
    """Return the port in `file`, 0 if there is none."""
    return int(file.read_text()) if file.exists() else 0
