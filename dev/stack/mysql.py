"""MySQL 9 from Debian sid, which runs beside the system with libraries of its own."""

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
    """A MySQL with a row binlog and GTIDs.

    Root has no password, on the socket and on 127.0.0.1.
    """

    defaults = (
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--mysqlx=OFF",
        "--secure-file-priv=",
    )

    def template(self) -> Path:
        program = install.mysqld()
        return install.once(f"mysql-data-{install.version(program)}", _initialise)

    def command(self) -> list[str]:
        program = install.mysqld()
        return [str(program), *self.options(), f"--basedir={install.mysql_base(program)}"]


def _initialise(data: Path) -> None:
    program = install.mysqld()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as root:
        root.write(_ROOT)
        root.flush()
        options = [
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--basedir={install.mysql_base(program)}",
            f"--datadir={data}",
            f"--init-file={root.name}",
            "--initialize-insecure",
        ]
        subprocess.run([program, *options], check=True, capture_output=True)
    # It has the server_uuid, and every copy must make its own.
    (data / "auto.cnf").unlink(missing_ok=True)
