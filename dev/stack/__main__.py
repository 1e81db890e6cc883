"""``python -m dev.stack up|down|status|env``: hospitals, Kafka and MongoDB that stay.

They run until ``down``. STACK=docker does the same with ``docker compose`` (this way is not run
in CI).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dev.stack import Kafka, MariaDB, Mongo, MySQL
from dev.stack.server import Server
from passport.errors import PassportError

CHECKOUT = Path(__file__).parents[2]
HOSPITALS = ("kigali", "huye", "musanze", "rwamagana", "nyanza", "gicumbi")
_KINDS: dict[str, type[MariaDB | MySQL | Kafka | Mongo]] = {
    "mariadb": MariaDB,
    "mysql": MySQL,
    "kafka": Kafka,
    "mongo": Mongo,
}
_COMPOSE = {
    "up": ("up", "--detach", "--wait", "kigali", "huye", "kafka", "mongo"),
    "down": ("down",),
    "status": ("ps",),
}


def main() -> int:
    """Do what the command line says.

    Return the exit code: 0 ok, 1 failed, 2 usage, 3 (``status``) when something isn't running.
    """
    arguments = _arguments()
    if os.environ.get("STACK", "local") == "docker":
        return _docker(arguments.action)
    folder = arguments.folder
    try:
        match arguments.action:
            case "up":
                return _up(folder, arguments.hospitals, mysql=arguments.mysql)
            case "down":
                return _down(_servers(folder))
            case "status":
                return _status(_servers(folder))
            case _:
                return _env(_servers(folder))
    except PassportError as error:
        print(error, file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status", "env"])
    parser.add_argument("--hospitals", type=int, default=2, choices=range(1, len(HOSPITALS) + 1))
    parser.add_argument(
        "--mysql", action="store_true", help="the last hospital runs MySQL, not MariaDB"
    )
    parser.add_argument(
        "--folder", type=Path, default=CHECKOUT / ".stack", help="where data, logs and pids are"
    )
    return parser.parse_args()


def _up(folder: Path, hospitals: int, *, mysql: bool) -> int:
    kinds = ["mariadb"] * hospitals
    if mysql:
        kinds[-1] = "mysql"
    names = [f"{kind}-{hospital}" for kind, hospital in zip(kinds, HOSPITALS, strict=False)]
    for name in (*names, "kafka", "mongo"):
        print(f"{name:16} {_server(folder, name).start().url}", flush=True)
    return 0


def _down(servers: Mapping[str, Server]) -> int:
    for name, server in servers.items():
        if server.pid is not None:
            server.stop()
            print(f"{name:16} stopped")
    return 0


def _status(servers: Mapping[str, Server]) -> int:
    for name, server in servers.items():
        state = f"pid {server.pid}" if server.pid else "stopped"
        print(f"{name:16} {state:12} {server.url}")
    if not servers:
        print("nothing was started: python -m dev.stack up", file=sys.stderr)
    return 0 if servers and all(server.pid for server in servers.values()) else 3


def _env(servers: Mapping[str, Server]) -> int:
    """Print lines for a shell, with which the tests use these servers and start none."""
    variables = {
        "mariadb": "TEST_MYSQL_URL",
        "mysql": "TEST_MYSQL9_URL",
        "kafka": "TEST_KAFKA_BOOTSTRAP",
        "mongo": "TEST_MONGO_URL",
    }
    for name, server in servers.items():
        # Of several hospitals the first is named: each variable has one server.
        variable = variables.pop(_kind(name), None)
        if server.pid and variable:
            print(f"export {variable}='{server.url}'")
    return 0


def _kind(name: str) -> str:
    """Return the kind of a server: "mariadb" of the server mariadb-kigali."""
    return name.partition("-")[0]


def _server(folder: Path, name: str) -> Server:
    return _KINDS[_kind(name)](folder / name, outlives=True)


def _servers(folder: Path) -> dict[str, Server]:
    """Return what was started in `folder`, by name, the hospitals in their order."""
    if not folder.exists():
        return {}
    names = [entry.name for entry in folder.iterdir() if _kind(entry.name) in _KINDS]
    places = {hospital: number for number, hospital in enumerate(HOSPITALS)}

    def order(name: str) -> tuple[int, str]:
        hospital = name.partition("-")[2]
        return places.get(hospital, len(places)), name

    return {name: _server(folder, name) for name in sorted(names, key=order)}


def _docker(action: str) -> int:
    if action == "env":
        print("export TEST_MYSQL_URL='mysql://root@127.0.0.1:3306'")
        print("export TEST_MYSQL9_URL='mysql://root@127.0.0.1:3307'")
        print("export TEST_KAFKA_BOOTSTRAP='127.0.0.1:9092'")
        print("export TEST_MONGO_URL='mongodb://127.0.0.1:27017/?directConnection=true'")
        return 0
    print("stack: docker compose; this way is not run in CI", file=sys.stderr)
    return subprocess.run(
        ["docker", "compose", *_COMPOSE[action]], cwd=CHECKOUT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
