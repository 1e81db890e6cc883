"""The roles as processes: started, watched, killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.eventually import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_S = 20


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process' environment, without a developer's settings of the project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PASSPORT_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "400", **(extra or {})}


def command(config: Path, *words: str) -> list[str]:
    # By the name that earlier commits have, too: the upgrade test runs theirs.
    return [sys.executable, "-m", "passport", "--config", str(config), *words]


def run(
    config: Path, *words: str, timeout: float = 60, extra: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        command(config, *words),
        cwd=REPOSITORY,
        env=environment(extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Role:
    """A role as a process. What it says, in all its lives, goes to `log`."""

    def __init__(
        self, config: Path, words: Sequence[str], log: Path, extra: Mapping[str, str] | None = None
    ) -> None:
        self.config, self.words, self.log, self.extra = config, list(words), log, extra
        self.process: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []

    def __str__(self) -> str:
        return " ".join(self.words)

    def start(self) -> "Role":
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # It dies with the tests, however they end.
                ["setpriv", "--pdeathsig", "KILL", "--", *command(self.config, *self.words)],
                cwd=REPOSITORY,
                env=environment(self.extra),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pids.append(self.process.pid)
        return self

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def require_running(self) -> None:
        assert self.running, f"{self} ended: {self.said()[-2000:]}"

    def kill(self) -> None:
        """Kill the role, and prove that it ran until then, died of it, and that its pid is gone."""
        self.require_running()
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(STOP_S) == -signal.SIGKILL
        assert not Path(f"/proc/{self.process.pid}").exists()
        self.process = None

    def stop(self) -> int | None:
        """End the role with SIGTERM, and return its exit code. It is killed if it doesn't end."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.terminate()
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def wait(self, timeout: float) -> int:
        """Return its exit code when it has ended by itself."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self} goes on after {timeout} s: {self.said()[-2000:]}"
            ) from None
        self.process = None
        return code

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def says(self, words: str, deadline_s: float = 90) -> None:
        """Wait until it does."""
        eventually(
            lambda: words in self.said(),
            lambda: f"{self} says {words!r}: {self.said()[-2000:]}",
            deadline_s,
        )
