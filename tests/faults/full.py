"""Disks that are full: no file of a server grows any more, until it is started again."""

import random
import subprocess
from collections.abc import Callable

from dev.stack.server import Server
from tests.eventually import eventually
from tests.faults.kinds import Scene


def full_kafka(scene: Scene, rng: random.Random) -> str:
    """K2: the broker can't append."""
    return _full(scene.stage.kafka)


def full_mongo(scene: Scene, rng: random.Random) -> str:
    """D1"""
    return _full(scene.stage.mongo)


def _full(server: Server) -> str:
    """Let no file grow. The server ends by itself, since it can't do a write."""
    pid = server.pid
    assert pid is not None
    subprocess.run(["prlimit", "--pid", str(pid), "--fsize=1"], check=True)
    try:
        eventually(lambda: server.pid is None, "it gives up")
    finally:
        server.kill()
        server.start()
    assert server.pid not in (None, pid)
    return f"pid {pid} could write no file and ended"


KINDS: dict[str, Callable[[Scene, random.Random], str]] = {
    one.__name__: one for one in (full_kafka, full_mongo)
}
