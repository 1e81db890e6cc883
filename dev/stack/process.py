"""A process of ours, whose output goes to a log.

It is found again by its pid file, and never mistaken for another process.
"""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A parent-death signal comes when the THREAD that started the child ends. This thread lasts as long
# as we do.
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
        # Ctrl-C in the terminal is for the starter, who stops its servers in order.
        start_new_session=True,
    )


def running(folder: Path) -> int | None:
    """Return the pid of the process that was started in `folder`, None if it has ended."""
    try:
        pid, started = map(int, (folder / "pid").read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _started(pid) == started else None


def send(folder: Path, signals: Sequence[signal.Signals], *, wait: float = 0) -> bool:
    """Send `signals` to the process of `folder`; True if it is gone (within `wait` seconds)."""
    pid = running(folder)
    if pid is None:
        return True
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Before it was opened, the number could have been reused; the handle cannot be.
        if running(folder) != pid:
            return True
        for number in signals:
            signal.pidfd_send_signal(handle, number)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(wait * 1000))
    finally:
        os.close(handle)


def _started(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot.

    None: there is no such process, or only its zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
