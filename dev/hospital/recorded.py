"""A recorded OpenMRS: its database after installing, and the binlog of what its staff then did.

They are a folder's ``base.sql.gz`` and ``recorded.binlog.gz``. The binlog is played into a MariaDB
transaction by transaction, with the GTIDs that it had but for their domain.
"""

import gzip
import subprocess
from pathlib import Path
from types import TracebackType

from dev.stack import MariaDB, install

DATABASE = "openmrs"
END = b"COMMIT/*!*/;\n"


def is_recorded(folder: Path) -> bool:
    """Return whether the folder holds a recorded OpenMRS."""
    return (folder / "base.sql.gz").exists() and (folder / "recorded.binlog.gz").exists()


def load(folder: Path, server: MariaDB) -> None:
    """Fill the empty database `openmrs`."""
    with gzip.open(folder / "base.sql.gz") as base:
        subprocess.run([*_client(server), DATABASE], input=base.read(), check=True)


class Playback:
    """Plays the recorded transactions into a server, as many as `play` is asked for.

    At the end of its block it waits until the server has them.
    """

    def __init__(self, folder: Path, server: MariaDB) -> None:
        with gzip.open(folder / "recorded.binlog.gz") as binlog:
            decoded = subprocess.run(
                [install.mariadb_binlog(), "-"],
                input=binlog.read(),
                stdout=subprocess.PIPE,
                check=True,
            )
        # What is before the first transaction says how the rows of all of them are encoded.
        head, begin, rest = decoded.stdout.partition(b"START TRANSACTION")
        # A domain of their own: the server's own GTIDs may have those numbers already.
        self._head = head.replace(b"gtid_domain_id=0", b"gtid_domain_id=1")
        *self._transactions, _ = (begin + rest).split(END)
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.played = 0

    @property
    def left(self) -> int:
        """The number of transactions that are not played yet."""
        return len(self._transactions) - self.played

    def skip(self, count: int) -> None:
        """Pass over transactions that the server has already."""
        self.played += count

    def play(self, count: int) -> None:
        """Send the next `count` transactions, or those that are left, to the server."""
        assert self._process is not None
        assert self._process.stdin is not None
        for transaction in self._transactions[self.played : self.played + count]:
            self._process.stdin.write(transaction + END)
            self._process.stdin.flush()
            self.played += 1

    def __enter__(self) -> "Playback":
        command = [*_client(self._server), "--binary-mode"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(self._head)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait()
        if error is None and code:
            raise subprocess.CalledProcessError(code, "mariadb")


def _client(server: MariaDB) -> list[str]:
    program = str(install.mariadb_client())
    return [program, "--host=127.0.0.1", f"--port={server.port}", "--user=root", "--skip-ssl"]
