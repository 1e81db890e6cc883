"""What MariaDB and MySQL have in common here.

Root has no password, the binlog has rows, and the data folder is a copy of a template.
"""

import getpass
import random
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql

from dev.stack.server import Server

_choice = random.SystemRandom()

# Commits reach the operating system, not the disk: they survive SIGKILL, not a power cut.
FAST = ("--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-flush-method=nosync")
DURABLE = ("--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1")

COMMON = (
    "--no-defaults",  # first, or else the system's own settings apply
    f"--user={getpass.getuser()}",  # root must say that it means it
    "--socket=s.sock",  # seen from the data folder, so that no path is too long for a socket
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--binlog-row-image=FULL",
    "--loose-binlog-row-metadata=FULL",  # MySQL has it from 8.0 on
    "--innodb-buffer-pool-size=128M",
)


class SqlServer(Server):
    """A MariaDB or a MySQL.

    `flags` come last and win. A `fast` server does no fsync; its data still survive `kill()`.
    """

    defaults: tuple[str, ...] = ()

    def __init__(
        self,
        folder: Path | str,
        port: int = 0,
        *,
        flags: Sequence[str] = (),
        fast: bool = True,
        server_id: int = 0,
        outlives: bool = False,
    ) -> None:
        super().__init__(folder, port, outlives=outlives)
        self.flags = tuple(flags)
        self.fast = fast
        self._server_id = server_id

    @abstractmethod
    def program(self) -> Path:
        """Return the server program."""

    @abstractmethod
    def template(self) -> Path:
        """Return a data folder as the server makes it, to be copied."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def server_id(self) -> int:
        """The server_id, which is kept with the data."""
        file = self.folder / "server_id"
        if self._server_id or not file.exists():
            self._server_id = self._server_id or _choice.randrange(1_000, 2**31)
            file.write_text(str(self._server_id))
        return int(file.read_text())

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        template = self.template()
        if not self.data.exists():
            copy(template, self.data)
        self._temporary.mkdir(exist_ok=True)

    @property
    def _temporary(self) -> Path:
        # A folder of its own: a server that starts deletes what it takes for leftovers.
        return self.folder / "tmp"

    def options(self) -> list[str]:
        """Return the server's options, those that win last."""
        return [
            *COMMON,
            f"--datadir={self.data}",
            f"--tmpdir={self._temporary}",
            f"--port={self.port}",
            f"--server-id={self.server_id}",
            *self.defaults,
            *(FAST if self.fast else DURABLE),
            *self.flags,
        ]

    def connect(self, database: str | None = None, **options: Any) -> "pymysql.Connection[Any]":
        """Return a connection of root, with autocommit unless `options` say otherwise."""
        return connect("127.0.0.1", self.port, database=database, **options)

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        """Run the statements on a connection of their own; return the rows of the last one."""
        rows: tuple[tuple[Any, ...], ...] = ()
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall()
        return rows

    def answers(self) -> bool:
        try:
            self.connect(connect_timeout=2, read_timeout=2).close()
        except (pymysql.MySQLError, OSError):
            return False
        return True


def connect(host: str, port: int, **options: Any) -> "pymysql.Connection[Any]":
    """Return a connection of root, without TLS: the tests of TLS make their own."""
    defaults: dict[str, Any] = {
        "user": "root",
        "autocommit": True,
        "charset": "utf8mb4",
        "ssl_disabled": True,
    }
    connection: pymysql.Connection[Any] = pymysql.connect(
        host=host, port=port, **{**defaults, **options}
    )
    return connection


def copy(template: Path, data: Path) -> None:
    """Copy a data folder, holes as holes. The copy is there whole or not at all."""
    new = data.with_name(f"{data.name}.new")
    subprocess.run(["rm", "-rf", new], check=True)
    subprocess.run(["cp", "-a", "--sparse=always", template, new], check=True)
    new.rename(data)
