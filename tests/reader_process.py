"""A reader in a process of its own, which a test can kill.

It is started as ``python -m tests.reader_process SETTINGS [caught-up]``. With ``skew=-600`` its
clock is 10 minutes slow. With ``unlocked`` it does not see that another reader has the lease.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cdc import lease, reader
from passport.errors import PassportError
from passport.settings import Settings


def spawn(settings: Settings, folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a reader. Its log goes to `folder`/reader.log."""
    file = folder / "settings.pickle"
    file.write_bytes(pickle.dumps(settings))
    log = (folder / "reader.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reader_process", file, *words], stdout=log, stderr=log
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[threading.Event]:
    """Run a reader in a thread until the block ends. What it raised is raised again then."""
    stop = threading.Event()
    raised: list[PassportError] = []

    def run() -> None:
        try:
            reader.run("kigali", settings, until_caught_up=False, stop=stop)
        except PassportError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def catch_up(settings: Settings, *, new_epoch: bool = False) -> None:
    """Publish everything that the binlog holds, as `passport cdc run` would."""
    stop = threading.Event()
    reader.run("kigali", settings, until_caught_up=True, stop=stop, new_epoch=new_epoch)


def _misled(word: str) -> None:
    """Break this process as `word` says."""
    name, _, value = word.partition("=")
    if name == "skew":
        right = time.time
        time.time = lambda: right() + float(value)
        time.time_ns = lambda: int(time.time() * 1e9)
    elif name == "unlocked":
        lease.lock_name = lambda name: f"{name.hospital} {os.getpid()}"


def main() -> int:
    for word in sys.argv[2:]:
        _misled(word)
    pickled = Path(sys.argv[1]).read_bytes()
    settings: Settings = pickle.loads(pickled)  # noqa: S301  # written by the test itself
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        reader.run("kigali", settings, until_caught_up="caught-up" in sys.argv, stop=stop)
    except PassportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
