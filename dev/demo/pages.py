"""Who signs in at the demo's pages, and what becomes new there."""

import socket
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from secrets import token_hex
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pymongo.database import Database

from dev.demo.site import TIMEZONE, Site
from dev.hospital.registration import documents
from portal.sessions import hashed

PASSWORD = "demo-patient"  # noqa: S105  # of a page that only this machine sees
OPERATORS_PASSWORD = "demo-operator"  # noqa: S105


class Account(NamedTuple):
    """A patient of the Passport, who is the person with this id at `hospital`."""

    national_id: str
    hospital: str
    person: int


def settings() -> dict[str, Any]:
    """Return the section `portal` of the settings, for this machine alone."""
    operators = {"password_hash": hashed(OPERATORS_PASSWORD), "sample_s": 2}
    return {"port": _port(), "https": False, "jwt_secret": token_hex(32), "operators": operators}


def _port() -> int:
    """Return 8080, or any other port if that is taken."""
    for wanted in (8080, 0):
        try:
            with socket.create_server(("127.0.0.1", wanted)) as free:
                return int(free.getsockname()[1])
        except OSError:
            continue
    raise OSError("no port is free")


def with_most_to_see(site: Site, patients: Iterable[Account]) -> Account:
    """Return the patient with the most kinds of records and, among those, the most records."""
    counts = {hospital: _counts(site, hospital) for hospital in site.hospitals}

    def rank(account: Account) -> tuple[tuple[int, int], str]:
        return counts[account.hospital].get(account.person, (0, 0)), account.national_id

    return max(patients, key=rank)


def _counts(site: Site, hospital: str) -> dict[int, tuple[int, int]]:
    """Return the kinds of encounters and the number of live obs of every person."""
    sql = """
    SELECT o.person_id, COUNT(DISTINCT e.encounter_type), COUNT(*)
    FROM obs o LEFT JOIN encounter e ON e.encounter_id = o.encounter_id
    WHERE o.voided = 0 GROUP BY 1
    """
    with closing(site.connect(hospital)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return {int(person): (int(kinds), int(rows)) for person, kinds, rows in cursor.fetchall()}


def let_in(passport: Database[dict[str, Any]], account: Account) -> None:
    """Let PASSWORD open the patient's page from now on."""
    user = documents(account.national_id)[0]["_id"]
    passport["users"].update_one({"_id": user}, {"$set": {"password": hashed(PASSWORD)}})


def measure_pulse(site: Site, account: Account, value: int) -> None:
    """Commit one more result of this patient, as the hospital's own application does."""
    sql = """
    INSERT INTO obs
      (person_id, concept_id, obs_datetime, value_numeric, creator, date_created, voided, uuid)
    SELECT %s, MIN(concept_id), %s, %s, 1, %s, 0, UUID() FROM concept_name WHERE name = 'Pulse'
    """
    now = datetime.now(ZoneInfo(TIMEZONE)).replace(tzinfo=None, microsecond=0)
    with closing(site.connect(account.hospital)) as connection, connection.cursor() as cursor:
        cursor.execute(sql, [account.person, now, value, now])
        connection.commit()
