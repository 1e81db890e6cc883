"""Free TCP ports of 127.0.0.1, remembered beside the data."""

import random
import socket
from pathlib import Path

# Below Linux's range for outgoing connections, which would take a chosen port before its server
# does.
_RANGE = range(10_000, 32_000)
_choice = (
    random.SystemRandom()
)  # not the shared generator: tests seed that, and would all choose alike


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def kept(file: Path, wanted: int = 0) -> int:
    """`wanted`, else the port that `file` remembers if it's free, else a new one; remembered in
    `file`.
    """
    port = wanted or remembered(file)
    while not port or (not wanted and not is_free(port)):
        port = _choice.choice(_RANGE)
    file.write_text(f"{port}\n")
    return port


def remembered(file: Path) -> int:
    """The port in `file`, 0 if there is none."""
    return int(file.read_text()) if file.exists() else 0
