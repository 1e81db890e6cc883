"""MySQL 9 from Debian sid, and older ones: each runs with libraries of its own."""

import getpass
import subprocess
import tempfile
from pathlib import Path

from dev.stack import install
from dev.stack.sql import SqlServer

_ROOT = (
    "CREATE USER root@'127.0.0.1' IDENTIFIED BY '';\n"
    "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
    "GRANT PROXY ON ''@'' TO root@'127.0.0.1' WITH GRANT OPTION;\n"
)


class MySQL(SqlServer):
    """A MySQL 9 with a row binlog and GTIDs.

    Root has no password, on the socket and on 127.0.0.1.
    """

    defaults = (
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--loose-mysqlx=OFF",  # 5.7 has it as a plugin only
        "--secure-file-priv=",
    )
    reset_binlog = "RESET BINARY LOGS AND GTIDS"

    def program(self) -> Path:
        return install.mysqld()

    def template(self) -> Path:
        return install.once(f"mysql-data-{install.version(self.program())}", self._initialise)

    def command(self) -> list[str]:
        program = self.program()
        return [str(program), *self.options(), f"--basedir={install.base(program)}"]

    def _initialise(self, data: Path) -> None:
        program = self.program()
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as root:
            root.write(_ROOT)
            root.flush()
            options = [
                "--no-defaults",
                f"--user={getpass.getuser()}",
                f"--basedir={install.base(program)}",
                f"--datadir={data}",
                f"--init-file={root.name}",
                "--initialize-insecure",
            ]
            subprocess.run([program, *options], check=True, capture_output=True)
        # It has the server_uuid, and every copy must make its own.
        (data / "auto.cnf").unlink(missing_ok=True)


class MySQL80(MySQL):
    """A MySQL 8.0.15."""

    reset_binlog = "RESET MASTER"

    def program(self) -> Path:
        return install.older_mysqld("8.0.15")


class MySQL57(MySQL):
    """A MySQL 5.7.22."""

    reset_binlog = "RESET MASTER"

    def program(self) -> Path:
        return install.older_mysqld("5.7.22")
