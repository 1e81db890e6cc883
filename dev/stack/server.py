"""The life of a server in its folder: prepare, start, wait until it answers, stop, kill, pause."""

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.stack import ports, process
from passport.errors import Fatal

START_S = 120  # Busy machines are slow. What matters is that it answers.
STOP_S = 30


class Server(ABC):
    """A real server that listens on 127.0.0.1.

    Its data, ``log``, ``pid`` and ``port`` are in `folder`. Port 0 means the one that the folder
    remembers, or a free one. A server dies with the process that started it, even by SIGKILL,
    unless it `outlives` it.
    """

    def __init__(self, folder: Path | str, port: int = 0, *, outlives: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self.outlives = outlives
        self._wanted = port
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Install what is missing and make the data folder if there is none."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command to run. `port` is known by then."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether the server did a real request."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where its clients connect to."""

    @property
    def port(self) -> int:
        return self._wanted or ports.remembered(self.folder / "port")

    @property
    def pid(self) -> int | None:
        """The pid of its process, None when it doesn't run."""
        return process.running(self.folder)

    def start(self) -> Self:
        """Start it if it doesn't run, and return when it answers.

        Raises Fatal, with the log's end, when it ends first or doesn't answer within START_S.
        """
        if self.pid is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.prepare()
            # The object keeps its port for good: its clients know it.
            self._wanted = ports.kept(self.folder / "port", self._wanted)
            self._child = process.spawn(self.command(), self.folder, outlives=self.outlives)
        deadline = time.monotonic() + START_S
        while not self.answers():
            if self.pid is None:
                raise Fatal(f"{self.name} ended while it started", hint=self._log_end())
            if time.monotonic() > deadline:
                self.kill()
                raise Fatal(f"{self.name} doesn't answer after {START_S} s", hint=self._log_end())
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ask it to end, and wait; kill it after STOP_S."""
        if not process.send(self.folder, [signal.SIGTERM, signal.SIGCONT], wait=STOP_S):
            self.kill()
        self._reap()

    def kill(self) -> None:
        """Send SIGKILL: it has no time for a last write."""
        if not process.send(self.folder, [signal.SIGKILL], wait=STOP_S):
            raise Fatal(f"{self.name} survives SIGKILL", hint=f"ps -o stat,wchan -p {self.pid}")
        self._reap()

    def pause(self) -> None:
        """Send SIGSTOP: connections stay open and nobody answers."""
        process.send(self.folder, [signal.SIGSTOP])

    def resume(self) -> None:
        """Send SIGCONT after `pause`."""
        process.send(self.folder, [signal.SIGCONT])

    def restart(self) -> Self:
        """Stop it in order and start it again, on the same port."""
        self.stop()
        return self.start()

    @property
    def name(self) -> str:
        return f"{type(self).__name__} in {self.folder}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _log_end(self) -> str:
        log = self.folder / "log"
        lines = log.read_text(errors="replace").splitlines()[-15:]
        return "\n     ".join([f"less {log}", *lines])
