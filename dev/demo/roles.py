"""The product's processes in the demo: a reader for each hospital, one consumer, the portal."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.demo.site import FOLDER, Site
from dev.stack.ports import is_free

# deploy/prometheus looks for the consumer's metrics at this port.
CONSUMER_METRICS_PORT = 9402


class Role:
    """One process of the product, which is run as an operator runs it.

    Its output goes to `<name>.log` in `folder`. It serves /metrics at `metrics_port` if that port
    is free when it starts; with port 0 it serves none.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path = FOLDER,
        metrics_port: int = 0,
    ) -> None:
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self._command = command
        self._metrics_port = metrics_port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a process that has ended, None while it runs or was not started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process. It does not get the terminal's Ctrl-C, which is for the demo."""
        environment = dict(os.environ)
        if self._metrics_port and is_free(self._metrics_port):
            environment["PASSPORT_HEALTH__PORT"] = str(self._metrics_port)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stderr=log, stdout=log, env=environment, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it was started and runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, seconds: float = 15) -> None:
        """Wait until the process has ended; kill it when it takes longer than `seconds`."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal and wait until the process has ended."""
        self.send(number)
        self.wait()

    def restart(self) -> None:
        """End the process and start it once more: a role reads its settings only at the start."""
        self.end()
        self.start()


def reader(site: Site, hospital: str, *, folder: Path = FOLDER, metrics_port: int = 0) -> Role:
    """Return the reader of one hospital, not started yet."""
    command = site.command("cdc", "run", "--hospital", hospital)
    return Role(f"cdc {hospital}", command, folder=folder, metrics_port=metrics_port)


def consumer(
    site: Site, *, folder: Path = FOLDER, metrics_port: int = CONSUMER_METRICS_PORT
) -> Role:
    """Return the consumer that writes the Passport, not started yet."""
    command = site.command("consume", "--destination", "passport")
    return Role("consume", command, folder=folder, metrics_port=metrics_port)


def portal(site: Site) -> Role:
    """Return the portal, which serves the pages, not started yet."""
    return Role("portal", site.command("portal"))


@contextmanager
def running(*roles: Role) -> Iterator[None]:
    """Start the roles, and end all of them with the block."""
    try:
        for role in roles:
            role.start()
        yield
    finally:
        # All get their signal before the first is waited for, so that they end side by side.
        for role in roles:
            role.send(signal.SIGTERM)
        for role in roles:
            role.wait()
