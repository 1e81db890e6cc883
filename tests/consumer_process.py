"""A consumer in a process of its own, which a test can kill.

It is started as ``python -m tests.consumer_process SETTINGS DESTINATION``.
"""

import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

from consumers import worker
from passport.errors import PassportError
from passport.settings import Settings


def spawn(settings: Settings, destination: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a consumer. Its log goes to `folder`/consumer.log."""
    file = folder / "consumer.pickle"
    file.write_bytes(pickle.dumps(settings))
    log = (folder / "consumer.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.consumer_process", file, destination], stdout=log, stderr=log
    )


def main() -> int:
    pickled = Path(sys.argv[1]).read_bytes()
    settings: Settings = pickle.loads(pickled)  # noqa: S301  # written by the test itself
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        worker.run(sys.argv[2], settings, until_caught_up=False, stop=stop)
    except PassportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
