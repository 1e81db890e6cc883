"""A reader in a process of its own, to be killed: ``python -m tests.reader_process SETTINGS [caught-up]``."""

import contextlib
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from cdc import reader
from passport.errors import PassportError
from passport.settings import Settings


def spawn(settings: Settings, folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Its log goes to `folder`/reader.log."""
    file = folder / "settings.pickle"
    file.write_bytes(pickle.dumps(settings))
    log = (folder / "reader.log").open("ab")
    return subprocess.Popen([sys.executable, "-m", "tests.reader_process", file, *words], stdout=log, stderr=log)


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


def main() -> int:
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
