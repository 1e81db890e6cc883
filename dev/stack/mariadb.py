"""MariaDB 10.11 from Debian's packages."""

import getpass
import subprocess
from pathlib import Path

from dev.stack import install
from dev.stack.sql import SqlServer

_LOG_SIZE = "--innodb-log-file-size=32M"


class MariaDB(SqlServer):
    """A MariaDB with a row binlog and GTIDs.

    Root has no password, on the socket and on 127.0.0.1.
    """

    defaults = ("--gtid-strict-mode=1", _LOG_SIZE)

    def template(self) -> Path:
        program = install.mariadbd()
        return install.once(f"mariadb-data-{install.version(program)}", _initialise)

    def command(self) -> list[str]:
        return [str(install.mariadbd()), *self.options()]


def _initialise(data: Path) -> None:
    """Make the tables of accounts and privileges, without test databases and anonymous users."""
    command = [
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={data}",
        f"--user={getpass.getuser()}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        _LOG_SIZE,
    ]
    subprocess.run(command, check=True, capture_output=True)
