"""``python -m dev.hospital musanze``: one more hospital beside the running demo.

It lasts until ``make stack-down``. The command starts its server, fills it, registers its patients
in the demo's Passport, and adds its entry to the demo's settings. Its account is still to be made,
as in any hospital: `passport grants` prints the SQL.
"""

import argparse
import sys
from contextlib import closing
from typing import Any

import yaml
from pymongo import MongoClient

from dev.demo import pages
from dev.demo.site import FOLDER, hospital_settings
from dev.hospital import create, passport_patients, registrable
from dev.stack import MariaDB
from passport.errors import Fatal, PassportError

PATIENTS = 50
SETTINGS = FOLDER / "local.yaml"
PASSWORD = "of-the-reader"  # noqa: S105  # of a server that listens on 127.0.0.1 alone


def main() -> int:
    """Add the hospital that the command line names; return the exit code, 0 or 1."""
    parser = argparse.ArgumentParser(prog="python -m dev.hospital", description=__doc__)
    parser.add_argument("name", help="its id: lower-case letters")
    try:
        _add(parser.parse_args().name)
    except PassportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _add(name: str) -> None:
    if not SETTINGS.exists():
        raise Fatal("the demo is not running: it has no settings file", hint="make demo")
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    if name in settings["hospitals"]:
        raise Fatal(f"hospital {name} is there already", hint=f"passport check --hospital {name}")
    server = MariaDB(FOLDER.parent / f"mariadb-{name}", outlives=True).start()
    if not server.execute("SHOW DATABASES LIKE 'openmrs'"):
        server.execute("CREATE DATABASE openmrs CHARACTER SET utf8mb4")
        with server.connect(database="openmrs", autocommit=False) as connection:
            create(connection, seed=len(name), patients=PATIENTS)
    national_id = _register(server, settings["destinations"]["passport"]["options"])
    partitions = [hospital["partition"] for hospital in settings["hospitals"].values()]
    entry = hospital_settings(
        f"{name.capitalize()} District Hospital",
        1 + max(partitions),
        server.port,
        user="passport",
        password=PASSWORD,
    )
    settings["hospitals"][name] = entry
    SETTINGS.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    print(yaml.safe_dump({name: entry}, sort_keys=False), end="")
    patient = f"national id {national_id}, password {pages.PASSWORD}"
    print(f"# in {SETTINGS}; one of its patients: {patient}")


def _register(server: MariaDB, options: dict[str, Any]) -> str:
    """Register everybody who can be matched, and let the first of them sign in.

    `options` are those of the destination `passport`. Return the national id of who can sign in.
    """
    with server.connect(database="openmrs") as connection:
        people = registrable(connection)
    person, national_id = people[0]
    with closing(MongoClient[dict[str, Any]](options["uri"])) as client:
        passport = client[options["database"]]
        passport_patients(passport, [digits for _, digits in people])
        pages.let_in(passport, pages.Account(national_id, "", person))
    return national_id


if __name__ == "__main__":
    sys.exit(main())
