"""``python -m dev.hospital musanze``: one more hospital beside the running demo, until ``make
stack-down``.

Starts its server, fills it, registers its patients in the demo's Passport, and adds its entry to
the demo's settings. Its account is still to be made, as in any hospital: `passport grants` prints
the SQL.
"""

import argparse
import sys
from contextlib import closing
from typing import Any

import yaml
from pymongo import MongoClient

from dev.demo import pages
from dev.demo.site import FOLDER, TIMEZONE
from dev.hospital import NATIONAL_ID_TYPE, create, passport_patients, registrable
from dev.stack import MariaDB
from passport.errors import Fatal, PassportError

PATIENTS = 50
SETTINGS = FOLDER / "local.yaml"
PASSWORD = "of-the-reader"  # noqa: S105  # of a server that listens on 127.0.0.1 alone


def main() -> int:
    """Exit code 0 or 1."""
    parser = argparse.ArgumentParser(prog="python -m dev.hospital", description=__doc__)
    parser.add_argument("name", help="its id: lower-case letters")
    try:
        _added(parser.parse_args().name)
    except PassportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _added(name: str) -> None:
    if not SETTINGS.exists():
        raise Fatal("the demo is not running: it has no settings file", hint="make demo")
    tree = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    if name in tree["hospitals"]:
        raise Fatal(f"hospital {name} is there already", hint=f"passport check --hospital {name}")
    server = MariaDB(FOLDER.parent / f"mariadb-{name}", outlives=True).start()
    if not server.execute("SHOW DATABASES LIKE 'openmrs'"):
        server.execute("CREATE DATABASE openmrs CHARACTER SET utf8mb4")
        with server.connect(database="openmrs", autocommit=False) as connection:
            create(connection, seed=len(name), patients=PATIENTS)
    national_id = _registered(server, tree)
    entry = _entry(
        name, server.port, 1 + max(one["partition"] for one in tree["hospitals"].values())
    )
    tree["hospitals"][name] = entry
    SETTINGS.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    print(yaml.safe_dump({name: entry}, sort_keys=False), end="")
    print(
        f"# in {SETTINGS}; one of its patients: national id {national_id}, password {pages.PASSWORD}"
    )


def _registered(server: MariaDB, tree: dict[str, Any]) -> str:
    """Everybody who can be matched; the national id of the one who can sign in."""
    options = tree["destinations"]["passport"]["options"]
    with server.connect(database="openmrs") as connection:
        people = registrable(connection)
    person, national_id = people[0]
    with closing(MongoClient[dict[str, Any]](options["uri"])) as client:
        passport = client[options["database"]]
        passport_patients(passport, [digits for _, digits in people])
        pages.let_in(passport, pages.Account(national_id, "", person))
    return national_id


def _entry(name: str, port: int, partition: int) -> dict[str, Any]:
    mysql = {"host": "127.0.0.1", "port": port, "user": "passport", "password": PASSWORD}
    return {
        "name": f"{name.capitalize()} District Hospital",
        "partition": partition,
        "timezone": TIMEZONE,
        "national_id_type": NATIONAL_ID_TYPE,
        "locales": ["en", "fr"],
        "mysql": mysql,
    }


if __name__ == "__main__":
    sys.exit(main())
