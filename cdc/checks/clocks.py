"""Checks of the server's clock, and of the time zone in which OpenMRS writes its dates."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cdc.checks.server import Server
from openmrs.connection import clock_ms
from passport.check import Check

SKEW_S = 2.0


def checks(server: Server) -> Iterator[Check]:
    yield _time_zone(server)
    yield _skew(server)


def _time_zone(server: Server) -> Check:
    """Compare the hospital's time zone with that of the server.

    OpenMRS mostly writes DATETIMEs in its server's zone, which can't be seen in the database.
    """
    # Our session is in UTC. NOW() has the server's zone only while the session has it, too.
    server.rows("SET time_zone = @@global.time_zone")
    (minutes,) = server.rows("SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), NOW())")[0]
    server.rows("SET time_zone = '+00:00'")

    zone = server.hospital.timezone
    # The offset depends on the date, because of summer time.
    now = datetime.fromtimestamp(clock_ms(server.connection) / 1000, ZoneInfo(zone))
    clock = f"the server's clock is UTC{minutes / 60:+g} h"
    if now.utcoffset() == timedelta(minutes=minutes):
        return Check("time_zone", True, f"{clock}, as in {zone}")
    return Check(
        "time_zone",
        None,
        f"{clock}, not as in {zone}: observations may be hours off",
        f"if OpenMRS writes that time, set hospitals.{server.hospital_id}.timezone to its zone;"
        " else leave it",
    )


def _skew(server: Server) -> Check:
    skew_s = clock_ms(server.connection) / 1000 - time.time()
    detail = f"the server's clock is {skew_s:+.1f} s off ours"
    if abs(skew_s) < SKEW_S:
        return Check("clock", True, detail)
    return Check("clock", None, detail, "run NTP (chrony) on both machines")
