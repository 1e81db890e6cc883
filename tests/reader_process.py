"""A reader in a process of its own, to be killed: ``python -m tests.reader_process SETTINGS
[caught-up]``.

``skew=-600``: its clock is 10 minutes slow; ``unlocked``: it does not see that another one reads.
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
    """Its log goes to `folder`/reader.log."""
    file = folder / "settings.pickle"
    file.write_bytes(pickle.dumps(settings))
    log = (folder / "reader.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reader_process", file, *words], stdout=log, stderr=log
    )


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[threading.Event]:
    """A reader in a thread; it is asked to stop at the end, and what it raised is raised."""
    stop, raised = threading.Event(), []

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


def catch_up(settings: Settings) -> None:
    reader.run("kigali", settings, until_caught_up=True, stop=threading.Event())


def _misled(word: str) -> None:
    """What is wrong with this process."""
    name, _, value = word.partition("=")
    if name == "skew":
        right = time.time
        time.time = lambda: right() + float(value)
        time.time_ns = lambda: int(time.time() * 1e9)
    elif name == "unlocked":
        lease.lock_name = lambda hospital: f"{hospital} {os.getpid()}"


def main() -> int:
    for word in sys.argv[2:]:
        _misled(word)
    settings: Settings = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301  # written by the test itself
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
