"""A process of ours: its output in a log, found again by its pid file, never mistaken for another."""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A parent-death signal comes when the THREAD that started the child ends: this one lasts as long as
# we do.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="stack-spawner")


def spawn(command: Sequence[str], folder: Path, *, outlives: bool) -> subprocess.Popen[bytes]:
    """Start `command` in `folder` (output to its file ``log``, identity to ``pid``).

    Unless it `outlives` its starter, the kernel kills it when this process ends, however that
    happens.
    """
    if not outlives:
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    with (folder / "log").open("ab") as log:
        child = _spawner.submit(_popen, command, folder, log.fileno()).result()
    (folder / "pid").write_text(f"{child.pid} {_started(child.pid)}\n")
    return child


def _popen(command: Sequence[str], folder: Path, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Ctrl-C in the terminal is for the starter, who stops its servers in order
        start_new_session=True,
    )


def running(folder: Path) -> int | None:
    """The pid of the process that was started in `folder`, if it is that process and lives."""
    try:
        pid, started = map(int, (folder / "pid").read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _started(pid) == started else None


def send(folder: Path, signals: Sequence[signal.Signals], *, wait: float = 0) -> bool:
    """Send `signals` to the process of `folder`; True if it is gone (within `wait` seconds)."""
    if (pid := running(folder)) is None:
        return True
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if (
            running(folder) != pid
        ):  # the handle can't be reused for another process, the number could have been
            return True
        for each in signals:
            signal.pidfd_send_signal(handle, each)
        return _gone(handle, wait)
    finally:
        os.close(handle)


def _gone(handle: int, wait: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def _started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none or only its
    zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
