"""A recorded OpenMRS: its database after installing, and the binlog of what its staff then did.

They are a folder's ``base.sql.gz`` and ``recorded.binlog.gz``. The binlog is played into a MariaDB
transaction by transaction, with the GTIDs that it had but for their domain.
"""

import gzip
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    """Plays recorded transactions to a server's client, as many as `play` is asked for."""

    def __init__(self, transactions: Sequence[bytes], client: IO[bytes]) -> None:
        self._transactions = transactions
        self._client = client
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
        for transaction in self._transactions[self.played : self.played + count]:
            self._client.write(transaction + END)
            self._client.flush()
            self.played += 1


@contextmanager
def playback(folder: Path, server: MariaDB) -> Iterator[Playback]:
    """Open a recording, to play it into a server.

    The end of the block waits until the server has what was played. Raises CalledProcessError if
    its client failed.
    """
    with gzip.open(folder / "recorded.binlog.gz") as binlog:
        decoded = subprocess.run(
            [install.mariadb_binlog(), "-"],
            input=binlog.read(),
            stdout=subprocess.PIPE,
            check=True,
        )
    # What is before the first transaction says how the rows of all of them are encoded.
    head, begin, rest = decoded.stdout.partition(b"START TRANSACTION")
    *transactions, _ = (begin + rest).split(END)
    command = [*_client(server), "--binary-mode"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
        assert client.stdin is not None
        # A domain of their own: the server's own GTIDs may have those numbers already.
        client.stdin.write(head.replace(b"gtid_domain_id=0", b"gtid_domain_id=1"))
        yield Playback(transactions, client.stdin)
    if client.returncode:
        raise subprocess.CalledProcessError(client.returncode, command)


def _client(server: MariaDB) -> list[str]:
    program = str(install.mariadb_client())
    return [program, "--host=127.0.0.1", f"--port={server.port}", "--user=root", "--skip-ssl"]
