"""What a server's greeting says of its version, and what follows from that."""

import pytest

from openmrs.server_version import ServerVersion

MARIADB_OLD = "5.5.5-10.1.48-MariaDB-0+deb9u2"
MARIADB = "5.5.5-10.11.19-MariaDB-0+deb12u1-log"
MARIADB_NEW = "11.8.6-MariaDB-0+deb13u1 from Debian-log"
PERCONA = "8.0.36-28"


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (MARIADB_OLD, ("mariadb", 10, 1, 48)),
        (MARIADB, ("mariadb", 10, 11, 19)),
        (MARIADB_NEW, ("mariadb", 11, 8, 6)),
        ("5.7.22-log", ("mysql", 5, 7, 22)),
        ("8.0.15", ("mysql", 8, 0, 15)),
        (PERCONA, ("mysql", 8, 0, 36)),
        ("9.7.4", ("mysql", 9, 7, 4)),
        ("", ("mysql", 0, 0, 0)),
    ],
)
def test_the_version_of_a_greeting(greeting: str, expected: tuple[str, int, int, int]) -> None:
    assert ServerVersion.parse(greeting) == expected


@pytest.mark.parametrize(
    ("greeting", "binlog_end", "replicas"),
    [
        (MARIADB, "SHOW MASTER STATUS", "SHOW SLAVE HOSTS"),
        (MARIADB_NEW, "SHOW MASTER STATUS", "SHOW SLAVE HOSTS"),
        ("5.7.22-log", "SHOW MASTER STATUS", "SHOW SLAVE HOSTS"),
        ("8.0.21", "SHOW MASTER STATUS", "SHOW SLAVE HOSTS"),
        ("8.0.22", "SHOW MASTER STATUS", "SHOW REPLICAS"),
        ("8.1.0", "SHOW MASTER STATUS", "SHOW REPLICAS"),
        ("8.2.0", "SHOW BINARY LOG STATUS", "SHOW REPLICAS"),
        ("8.4.3", "SHOW BINARY LOG STATUS", "SHOW REPLICAS"),
        ("9.7.4", "SHOW BINARY LOG STATUS", "SHOW REPLICAS"),
    ],
)
def test_statements_have_the_names_of_the_version(
    greeting: str, binlog_end: str, replicas: str
) -> None:
    version = ServerVersion.parse(greeting)
    assert version.show_binlog_end == binlog_end
    assert version.show_replicas == replicas
