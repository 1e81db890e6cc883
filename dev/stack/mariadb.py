"""MariaDB 10.11 from Debian's packages, and 11.8 from those of a newer Debian."""

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
    reset_binlog = "RESET MASTER"

    def program(self) -> Path:
        return install.mariadbd()

    def template(self) -> Path:
        return install.once(f"mariadb-data-{install.version(self.program())}", self._initialise)

    def command(self) -> list[str]:
        return [str(self.program()), *self.options()]

    def _initialise(self, data: Path) -> None:
        """Make the tables of accounts, without test databases and anonymous users."""
        command = [
            *self._installer(),
            f"--datadir={data}",
            f"--user={getpass.getuser()}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            _LOG_SIZE,
        ]
        subprocess.run(command, check=True, capture_output=True)

    def _installer(self) -> list[str]:
        """Return the command that makes a data folder, up to the options of all versions."""
        self.program()  # the package of the server brings the installer
        return ["mariadb-install-db", "--no-defaults"]


class MariaDB118(MariaDB):
    """A MariaDB 11.8, which runs beside the system with libraries of its own."""

    def program(self) -> Path:
        return install.mariadbd_11_8()

    def command(self) -> list[str]:
        return [*super().command(), f"--basedir={install.base(self.program())}"]

    def _installer(self) -> list[str]:
        base = install.base(self.program())
        return [f"{base}/bin/mariadb-install-db", "--no-defaults", f"--basedir={base}"]
