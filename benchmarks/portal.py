"""``make bench-portal``: how many open pages one portal carries, and how fast a history is read.

1. 500 open event streams of one patient with 5,000 records: from a COMMIT at the hospital until the
last has been told (20 records, one after another). 2. ``GET /api/patients/me`` of that patient, 50
requests a second in an open loop for 30 seconds: each is timed from when it was due.

MariaDB, Kafka, MongoDB, a reader, a consumer, one portal and this program share the machine. Last
line: one JSON.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import jwt

from benchmarks.pipeline.measure import cpu, peak_rss_mb
from dev import hospital as generator
from dev.hospital.registration import documents
from tests.e2e.roles import Role
from tests.e2e.stage import Hospital, Stage, opened
from tests.eventually import eventually

STREAMS = 500  # open pages
NEWS = 20  # new records
RECORDS = 5_000  # of the patient
RATE = 50  # requests a second
SECONDS = 30
SECRET = "the Passport's JWT_SECRET, of the benchmark alone"  # noqa: S105
DEADLINE_S = 120
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_PULSE = """
INSERT INTO openmrs.obs
  (person_id, concept_id, obs_datetime, value_numeric, creator, date_created, voided, uuid)
SELECT
  {person}, MIN(concept_id), '2025-11-06' - INTERVAL {minutes} MINUTE, {value}, 1, NOW(), 0, UUID()
FROM openmrs.concept_name WHERE name = 'Pulse'
"""


class Site(NamedTuple):
    """A stage with a portal. `token` is the session of the patient who is `person` in Kigali."""

    stage: Stage
    portal: Role
    port: int
    person: int
    token: str

    @property
    def pid(self) -> int:
        return self.portal.pids[-1]


def main() -> None:
    """Print what it does, then the numbers."""
    with tempfile.TemporaryDirectory(prefix="bench-portal-") as folder, _site(Path(folder)) as site:
        before = cpu({"portal": site.pid})["portal"]
        news = asyncio.run(_news(site))
        between = cpu({"portal": site.pid})["portal"]
        times = asyncio.run(_requests(site))
        used = cpu({"portal": site.pid})["portal"] - between
        result = {
            "streams": STREAMS,
            "last_reader_ms": _percentiles(news),
            "records": RECORDS,
            "me_per_s": RATE,
            "me_ms": _percentiles(times),
            "portal_cpu_s": {"streams": round(between - before, 1), "me": round(used, 1)},
            "portal_rss_mb": peak_rss_mb(site.pid),
        }
    print(json.dumps(result))


@contextmanager
def _site(folder: Path) -> Iterator[Site]:
    """Yield a site with all records in MongoDB and nothing else going on."""
    hospital = Hospital("kigali", 0, generator.NATIONAL_ID_TYPE, locales=("en",))
    portal = {"port": 0, "https": False, "jwt_secret": SECRET}
    with opened(folder, hospital, portal=portal) as stage:
        with hospital.connect() as connection:
            generator.create(connection, seed=7, patients=60, visits=2)
            able = dict(generator.registrable(connection))
        generator.passport_patients(stage.db, able.values())
        person, national_id = next(iter(able.items()))
        user, patient = documents(national_id)
        hospital.sql.execute(*(_pulse(person, number) for number in range(RECORDS)))
        for name, field in (("users", "email"), ("patients", "user"), ("patients", "nationalId")):
            stage.db[name].create_index(field, unique=True)  # the Passport's own
        stage.grant()
        stage.readers()
        stage.role("consume", "--destination", "passport")
        role = stage.role("portal")
        role.says("portal listens")
        mine = {"patientId": str(patient["_id"])}
        eventually(
            lambda: stage.db.medicalrecords.count_documents(mine) >= RECORDS,
            "all records",
            DEADLINE_S,
        )
        stage.wait_equal(DEADLINE_S)
        (listens,) = [line for line in role.said().splitlines() if "portal listens" in line]
        claims = {"userId": str(user["_id"]), "exp": datetime.now(UTC) + timedelta(hours=1)}
        token = jwt.encode(claims, SECRET, algorithm="HS256")
        print(f"{RECORDS} records of one patient are in MongoDB", flush=True)
        yield Site(stage, role, json.loads(listens)["port"], person, token)


def _pulse(person: int, number: int) -> str:
    return _PULSE.format(person=person, minutes=number * 600, value=60 + number % 40)


async def _news(site: Site) -> list[float]:
    """Return, for each new record, the seconds from its COMMIT until the last stream had it."""
    arrivals: asyncio.Queue[float] = asyncio.Queue()
    streams = [asyncio.create_task(_listen(site, arrivals)) for _ in range(STREAMS)]
    for _ in range(STREAMS):
        # Each stream has one event when it opens, since its page is older.
        await asyncio.wait_for(arrivals.get(), DEADLINE_S)
    print(f"{STREAMS} streams are open", flush=True)
    seconds = [await _new_record(site, number, arrivals) for number in range(NEWS)]
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    return seconds


async def _listen(site: Site, arrivals: "asyncio.Queue[float]") -> None:
    """Do a browser's part, as little of it as possible: note when each event arrives."""
    reader, writer = await _connected(site)
    writer.write(_get(site, "/events"))
    assert b" 200 " in await reader.readline()
    while line := await reader.readline():
        if line.startswith(b"id: "):
            arrivals.put_nowait(time.monotonic())


async def _connected(site: Site) -> Connection:
    return await asyncio.open_connection("127.0.0.1", site.port)


def _get(site: Site, path: str) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nHost: portal\r\nAuthorization: Bearer {site.token}\r\n"
    return f"{head}\r\n".encode()


async def _new_record(site: Site, number: int, arrivals: "asyncio.Queue[float]") -> float:
    """Commit a record; return the seconds until the last stream had it."""
    insert = _pulse(site.person, -number - 1)
    with site.stage.hospitals["kigali"].connect() as connection, connection.cursor() as cursor:
        await asyncio.to_thread(cursor.execute, insert)  # commits
        began = time.monotonic()
    times = [await asyncio.wait_for(arrivals.get(), DEADLINE_S) for _ in range(STREAMS)]
    await asyncio.sleep(0.3)
    assert arrivals.empty(), "one record is told once"
    return max(times) - began


async def _requests(site: Site) -> list[float]:
    """Return the seconds of each request, from when it was due."""
    idle: list[Connection] = []
    for _ in range(RATE):
        await _request(site, idle, time.monotonic())  # code that is loaded once
    began = time.monotonic()
    due = [began + number / RATE for number in range(RATE * SECONDS)]
    return list(await asyncio.gather(*(_request(site, idle, at) for at in due)))


async def _request(site: Site, idle: list[Connection], due: float) -> float:
    """Send a request when it is due, on a connection that is idle if there is one."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    reader, writer = idle.pop(0) if idle else await _connected(site)
    writer.write(_get(site, "/api/patients/me"))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, behind = head.partition(b"content-length: ")
    length, _, _ = behind.partition(b"\r")
    body = await reader.readexactly(int(length))
    took = time.monotonic() - due
    assert b" 200 " in head
    assert body.count(b'"createdBy"') == 50
    idle.append((reader, writer))
    return took


def _percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50, p99 and the maximum, in milliseconds."""
    ordered = sorted(seconds)
    percentiles = {}
    for name, share in {"p50": 0.5, "p99": 0.99, "max": 1.0}.items():
        index = min(len(ordered) - 1, int(len(ordered) * share))
        percentiles[name] = round(ordered[index] * 1000, 1)
    return percentiles


if __name__ == "__main__":
    main()
